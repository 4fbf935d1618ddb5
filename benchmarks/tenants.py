"""Tenants who consent and withdraw by REST, as lean as can be: they share the processors with what is measured."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eva.resource_id import ResourceId
from lab.rest import VM_VERSION


class RequestFailed(Exception):
    """`head` and `body` of an answer that is no 200."""

    def __init__(self, head: str, body: str) -> None:
        super().__init__(head, body)


@dataclass(frozen=True, slots=True)
class Spell:
    """What was done again and again, some at once: the seconds of each, and those of all together."""

    times: Sequence[float]
    seconds: float


class Connection:
    """Kept alive from one request to the next. A time counts from the first byte written to the last one read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self._reader = reader
        self._writer = writer
        self._head = head

    async def post(self, machine: ResourceId, action: str) -> tuple[float, bytes]:
        """The seconds that it took and the answer's body. Raises RequestFailed."""
        request = f"POST {machine}/{action}?api-version={VM_VERSION} HTTP/1.1\r\n{self._head}Content-Length: 0\r\n\r\n"
        began = time.perf_counter()
        self._writer.write(request.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = head.lower().partition("\r\ncontent-length: ")[2].partition("\r\n")[0]
        body = await self._reader.readexactly(int(length))
        took = time.perf_counter() - began
        if not head.startswith("HTTP/1.1 200 "):
            raise RequestFailed(head, body.decode())
        return took, body

    def close(self) -> None:
        self._writer.close()


class Tenant:
    """Whoever has this bearer token, at one provider's endpoint."""

    def __init__(self, port: int, token: str, ca: Path) -> None:
        self._port = port
        self._head = f"Host: localhost:{port}\r\nAuthorization: Bearer {token}\r\n"
        self._tls = ssl.create_default_context(cafile=str(ca))

    async def consent(self, machines: Sequence[ResourceId], at_once: int) -> Spell:
        """One consent for each machine. Raises RequestFailed."""
        spell, bodies = await self._all(machines, "enableVmAccess", at_once)
        for body in bodies:
            if json.loads(body)["outcome"] != "fresh":
                raise RequestFailed("one that stood already", body.decode())
        return spell

    async def withdraw(self, machines: Sequence[ResourceId], at_once: int) -> Spell:
        """Every one withdrawn, and the node's cut confirmed. Raises RequestFailed."""
        spell, bodies = await self._all(machines, "disableVmAccess", at_once)
        for body in bodies:
            if not all("confirmedAt" in cut for cut in json.loads(body)["cuts"]):
                raise RequestFailed("a cut that no node confirmed", body.decode())
        return spell

    async def _all(self, machines: Sequence[ResourceId], action: str, at_once: int) -> tuple[Spell, list[bytes]]:
        times: list[float] = []
        bodies: list[bytes] = []

        async def go_on(connection: Connection, left: Iterator[ResourceId]) -> None:
            for machine in left:
                took, body = await connection.post(machine, action)
                times.append(took)
                bodies.append(body)

        connections = [await self._connect() for _ in range(at_once)]
        left = iter(machines)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(go_on(connection, left))
        spell = Spell(times, time.perf_counter() - began)
        for connection in connections:
            connection.close()
        return spell, bodies

    async def _connect(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls, server_hostname="localhost")
        return Connection(reader, writer, self._head)
