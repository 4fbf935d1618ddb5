"""Browsers' plain requests at a node's port over real TLS: kept connections, slow readers, and peers that mean no good."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import h11
import httpx
import pytest
import uvloop

import broker.reception
import broker.visitor
from broker.attempts import MAX_WAITING_EACH
from broker.visitor import MAX_READ
from eva.control import CONTROL_PATH, SUBPROTOCOL
from lab.certificates import Authority
from tests.operator_port import Port, port
from web.assets import HOME, VENDOR

SCRIPT = "/shared/json_rpc.js"
LARGE = max((path for path in VENDOR.rglob("*") if path.suffix in (".js", ".mjs")), key=lambda path: path.stat().st_size)


# The hook that is to replace this fixture stands in a conftest, for every module.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that the broker runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority) -> AsyncIterator[Port]:
    async with port(tmp_path, certificates) as one:
        yield one


def head(target: str = "/", *fields: str, method: str = "GET", host: str = "127.0.0.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


class Peer:
    """One TLS connection that says what it is told to, and reads answers as HTTP has them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def at(cls, door: Port, **other: object) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls, **other))  # type: ignore[arg-type]

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, fields, body. Raises ConnectionError where there is none."""
        if self._http.states[h11.CLIENT] is h11.DONE:
            self._http.start_next_cycle()
        self._http.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())
        body, status, fields = b"", 0, {}
        async with asyncio.timeout(10):
            while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    data = await self.reader.read(65536)
                    if not data:
                        raise ConnectionResetError
                    self._http.receive_data(data)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    fields = {name.decode(): text.decode() for name, text in event.headers}
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
        return status, fields, body

    async def asks(self, raw: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        self.writer.write(raw)
        return await self.answer(method)

    async def gone(self) -> float:
        """Seconds until the node lets go."""
        began = time.monotonic()
        async with asyncio.timeout(15):
            try:
                while await self.reader.read(65536):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass
        return time.monotonic() - began


async def seats_left(door: Port, count: int) -> None:
    async with asyncio.timeout(5):
        while len(door.listener.reception.lobby) != count:
            await asyncio.sleep(0.01)


# -- a browser -----------------------------------------------------------------------------------------------------------


async def test_files_come_one_after_the_other_on_one_connection(door: Port) -> None:
    peer = await Peer.at(door)
    for target in ("/", SCRIPT, "/shared/endings.js", SCRIPT):
        status, fields, body = await peer.asks(head(target))
        assert (status, int(fields["content-length"])) == (200, len(body))
    assert body == (HOME / SCRIPT[1:]).read_bytes()
    peer.writer.close()


async def test_a_browsers_library_reads_it(door: Port) -> None:
    async with httpx.AsyncClient(verify=door.tls, base_url=f"https://127.0.0.1:{door.number}") as client:
        answer = await client.get(SCRIPT)
        again = await client.get(SCRIPT, headers={"if-none-match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code, again.content) == (200, 304, b"")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (HOME / SCRIPT[1:]).read_bytes()


async def test_head_is_the_same_without_its_body(door: Port) -> None:
    peer = await Peer.at(door)
    _, full, body = await peer.asks(head(SCRIPT))
    status, fields, nothing = await peer.asks(head(SCRIPT, method="HEAD"), "HEAD")
    full.pop("date")
    fields.pop("date")
    assert (status, fields, nothing) == (200, full, b"")
    assert (await peer.asks(head(SCRIPT)))[2] == body
    peer.writer.close()


async def test_who_asks_for_an_end_gets_one(door: Port) -> None:
    peer = await Peer.at(door)
    status, fields, body = await peer.asks(head("/", "Connection: close"))
    assert (status, fields["connection"], len(body) > 100) == (200, "close", True)
    assert await peer.gone() < 1


async def test_requests_in_one_go_are_answered_in_their_order(door: Port) -> None:
    peer = await Peer.at(door)
    targets = ["/", SCRIPT, "/nothing", "/shared/endings.js"] * 25
    peer.writer.write(b"".join(map(head, targets)))
    statuses = [(await peer.answer())[0] for _ in targets]
    assert statuses == [200, 200, 404, 200] * 25
    peer.writer.close()


async def test_a_request_may_come_by_the_byte(door: Port) -> None:
    peer = await Peer.at(door)
    for byte in head(SCRIPT):
        peer.writer.write(bytes([byte]))
        await peer.writer.drain()
    assert (await peer.answer())[0] == 200
    peer.writer.close()


async def test_a_websocket_may_come_by_the_byte(door: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    upgrade = head(
        CONTROL_PATH,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
    )
    for byte in upgrade:
        writer.write(bytes([byte]))
        await writer.drain()
    assert b"101" in await reader.readline()
    writer.transport.abort()


async def test_a_page_that_is_kept_holds_no_seat(door: Port) -> None:
    peers = [await Peer.at(door) for _ in range(6)]
    await seats_left(door, 6)
    for peer in peers:
        assert (await peer.asks(head()))[0] == 200
    await seats_left(door, 0)
    assert (await peers[0].asks(head(SCRIPT)))[0] == 200
    for peer in peers:
        peer.writer.transport.abort()


async def test_a_silent_one_is_let_go(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "IDLE_SECONDS", 0.2)
    peer = await Peer.at(door)
    await peer.asks(head())
    assert await peer.gone() < 2


async def test_few_are_kept(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has been silent for longest gives way."""
    monkeypatch.setattr(broker.reception, "MAX_IDLE", 2)
    peers = []
    for _ in range(4):
        peers.append(await Peer.at(door))
        await peers[-1].asks(head())
    assert max([await peer.gone() for peer in peers[:2]]) < 1
    for peer in peers[2:]:
        assert (await peer.asks(head(SCRIPT)))[0] == 200
        peer.writer.transport.abort()


async def test_no_more_than_so_many_on_one_connection(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "MAX_REQUESTS", 3)
    peer = await Peer.at(door)
    assert [(await peer.asks(head()))[1].get("connection") for _ in range(3)] == [None, None, "close"]
    assert await peer.gone() < 1


@pytest.mark.parametrize("ending", ["keep-alive", "close"])
async def test_a_reader_at_100_kb_a_second_gets_its_file(door: Port, ending: str) -> None:
    size = LARGE.stat().st_size
    peer = await Peer.at(door, limit=8192)
    peer.writer.write(head(f"/{LARGE.relative_to(HOME).as_posix()}", f"Connection: {ending}"))
    began, taken = time.monotonic(), b""
    async with asyncio.timeout(60):
        while b"\r\n\r\n" not in taken or len(taken.partition(b"\r\n\r\n")[2]) < size:
            taken += await peer.reader.read(10_000)
            await asyncio.sleep(max(0.0, began + len(taken) / 100_000 - time.monotonic()))
    assert taken.partition(b"\r\n\r\n")[2] == LARGE.read_bytes()
    assert time.monotonic() - began > size / 100_000 * 0.9
    peer.writer.transport.abort()


# -- peers that mean no good ---------------------------------------------------------------------------------------------


async def test_a_reader_that_takes_nothing_is_let_go_and_costs_little(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    monkeypatch.setattr(broker.visitor, "RATE", 1_000_000)
    peer = await Peer.at(door, limit=1024)
    peer.writer.write(head(f"/{LARGE.relative_to(HOME).as_posix()}") * 50)
    await seats_left(door, 1)
    (visitor,) = door.listener.reception._visitors
    assert visitor.transport.get_write_buffer_size() < 256 * 1024
    await seats_left(door, 0)
    peer.writer.transport.abort()


@pytest.mark.parametrize(
    "raw",
    [
        head("/", "Content-Length: 3") + b"abc",
        head("/", "Content-Length: 3"),
        head("/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        head("/", "Content-Length: 3", "Content-Length: 4") + b"abcd",
        head("/", "Content-Length: -1"),
        b"GET / HTTP/1.1\r\n\r\n",
        head("/", "Host: 127.0.0.1"),
        b"GET / HTTP/1.1\nHost: 127.0.0.1\r\nX : y\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01 not http at all\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head("/", "X: a\x00b"),
        head("/ /", ""),
    ],
)
async def test_what_is_no_plain_request_ends_the_connection(door: Port, raw: bytes) -> None:
    peer = await Peer.at(door)
    peer.writer.write(raw + head())
    line = await asyncio.wait_for(peer.reader.readline(), 3)
    assert line.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert await peer.gone() < 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_another_method(door: Port, method: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", method=method), method))[0] == 405
    assert await peer.gone() < 2


@pytest.mark.parametrize("length", [17, 40])
async def test_a_head_that_is_too_long(door: Port, length: int) -> None:
    peer = await Peer.at(door)
    status, fields, _ = await peer.asks(head("/", *(f"X-{n}: {'y' * 1000}" for n in range(length))))
    assert (status, fields["connection"]) == (431, "close")


async def test_a_head_without_an_end(door: Port) -> None:
    peer = await Peer.at(door)
    peer.writer.write(b"GET / HTTP/1.1\r\nX: " + b"y" * 2 * MAX_READ)
    assert await peer.gone() < 3
    await seats_left(door, 0)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /v1", b"GET / HTTP/1.1\r\nHost:"])
async def test_a_request_that_does_not_come_has_five_seconds(door: Port, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    peer = await Peer.at(door)
    peer.writer.write(begun)
    assert await peer.gone() < 2
    await seats_left(door, 0)


async def test_a_header_a_second_does_not_make_it_longer(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    peer = await Peer.at(door)
    peer.writer.write(b"GET / HTTP/1.1\r\n")
    began = time.monotonic()
    gone = asyncio.ensure_future(peer.gone())
    while not gone.done():
        peer.writer.write(b"X: y\r\n")
        await asyncio.sleep(0.05)
    await gone
    assert time.monotonic() - began < 2


async def test_one_peers_thousand_requests_leave_the_loop_to_others(door: Port) -> None:
    peer = await Peer.at(door)
    peer.writer.write(head("/nothing") * 1000)
    gaps, began = [], time.monotonic()
    for _ in range(200):
        before = time.monotonic()
        await asyncio.sleep(0)
        gaps.append(time.monotonic() - before)
    assert time.monotonic() - began < 5
    assert max(gaps) < 0.1
    peer.writer.transport.abort()


async def test_two_hundred_silent_ones_from_many_addresses_keep_no_operator_out(door: Port) -> None:
    strangers = []
    for number in range(200):
        source = (f"127.0.1.{1 + number // MAX_WAITING_EACH}", 0)
        strangers.append(await Peer.at(door, local_addr=source))
    await seats_left(door, 192)
    door.desk.attempts.remember(broker.reception.parse_address("127.0.0.1"), "alice", door.node.clock.now())
    peer = await Peer.at(door)
    assert (await peer.asks(head()))[0] == 200
    async with door.signed_in():
        pass
    for stranger in strangers:
        stranger.writer.transport.abort()
    peer.writer.transport.abort()


# -- Host and Origin -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "127.0.0.1:x", "evil@127.0.0.1"])
async def test_a_rebound_name_gets_nothing(door: Port, host: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head(host=host)))[0] == 403
    peer.writer.transport.abort()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:1"])
async def test_a_foreign_page_gets_nothing(door: Port, origin: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", f"Origin: {origin}")))[0] == 403
    peer.writer.transport.abort()


async def test_our_own_page_is_not_foreign(door: Port) -> None:
    host = f"127.0.0.1:{door.number}"
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", f"Origin: https://{host}", host=host)))[0] == 200
    async with door.control(origin=f"https://{host}"):
        pass
    peer.writer.transport.abort()


async def test_what_is_not_there_tells_nothing(door: Port) -> None:
    peer = await Peer.at(door)
    status, fields, body = await peer.asks(head("/nothing?secret=1"))
    assert (status, body, "server" in fields) == (404, b"\n", False)
    assert door.refusals() == {"path": 1}
    peer.writer.transport.abort()


async def test_a_page_is_no_websocket(door: Port) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", "Upgrade: websocket", "Connection: Upgrade")))[0] == 404
    peer.writer.transport.abort()
