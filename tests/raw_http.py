"""Requests to the REST as bytes, which no client's library tidies up, and the provider's store before and after."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h11

from lab.transcript import PATIENCE_S
from tests.rest_parts import RestCloud

# what a request that is turned away leaves as it was; nodes ask and are answered all the while
TABLES = ("consents", "revocations", "watermarks", "receipts", "features", "feature_subscriptions", "role_assignments")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def error(self) -> dict[str, Any]:
        """ARM's error, which this must be, told as JSON."""
        assert self.headers["content-type"] == "application/json; charset=utf-8", self
        found = json.loads(self.content)
        assert found.keys() == {"error"}, found
        assert {"code", "message"} <= found["error"].keys() <= {"code", "message", "target"}
        return dict(found["error"])


def request(
    target: str | bytes,
    token: str | None,
    method: str = "POST",
    headers: Sequence[str | bytes] = (),
    body: bytes = b"",
    *,
    host: str | None = "localhost",
    length: bool = True,
    version: str = "2020-06-01",
) -> bytes:
    """`target` with an api-version where it has no query; `length`: the content's, said in the head."""
    raw = target.encode() if isinstance(target, str) else target
    if b"?" not in raw and version:
        raw += f"?api-version={version}".encode()
    lines = [method.encode() + b" " + raw + b" HTTP/1.1"]
    lines += [] if host is None else [f"host: {host}".encode()]
    lines += [] if token is None else [f"authorization: Bearer {token}".encode()]
    lines += [one.encode("latin-1") if isinstance(one, str) else one for one in headers]
    lines += [f"content-length: {len(body)}".encode()] if length and method == "POST" else []
    return b"\r\n".join([*lines, b"", body])


async def said(cloud: RestCloud, raw: bytes, *, admin: bool = False) -> bytes:
    """All that comes back until the server hangs up, or is silent for a second after a whole answer."""
    reader, writer = await asyncio.open_connection(
        "localhost", cloud.admin_port if admin else cloud.tenant_port, ssl=cloud.trust()
    )
    found = bytearray()
    try:
        writer.write(raw)
        while True:
            async with asyncio.timeout(1 if _is_whole(found) else PATIENCE_S):
                more = await reader.read(65_536)
            if not more:
                break
            found += more
    except (TimeoutError, ConnectionError, ssl.SSLError):  # aborted, and not closed
        pass
    finally:
        writer.close()
    return bytes(found)


def _is_whole(raw: bytes | bytearray) -> bool:
    """Whether its first answer is there, which says how long it is: who does not say so hangs up."""
    head, _, content = bytes(raw).partition(b"\r\n\r\n")
    _, said_so, length = head.lower().partition(b"\r\ncontent-length: ")
    return bool(said_so) and len(content) >= int(length.partition(b"\r\n")[0])


def answers(raw: bytes, method: str = "POST") -> list[Answer]:
    """The answers that these bytes are."""
    found: list[Answer] = []
    while raw:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "localhost")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(raw)
        head, content = connection.next_event(), bytearray()
        while isinstance(event := connection.next_event(), h11.Data):
            content += event.data
        if isinstance(head, h11.InformationalResponse):
            head = event
            event = connection.next_event()
        assert isinstance(head, h11.Response), raw
        headers = {name.decode(): value.decode() for name, value in head.headers}
        found.append(Answer(head.status_code, headers, bytes(content)))
        raw = connection.trailing_data[0]
    return found


async def answered(cloud: RestCloud, raw: bytes, *, admin: bool = False) -> Answer:
    """The one answer to a request after which the caller hangs up."""
    head, _, rest = raw.partition(b"\r\n")
    method = head.split(b" ")[0].decode()
    (answer,) = answers(await said(cloud, head + b"\r\nconnection: close\r\n" + rest, admin=admin), method)
    return answer


def held(cloud: RestCloud) -> dict[str, list[Any]]:
    """All that the store holds of consents, features and roles."""
    with sqlite3.connect(f"file:{cloud.place.store}?mode=ro", uri=True) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}  # noqa: S608
