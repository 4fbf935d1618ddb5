"""A peer at a node's port that says what it is told to, byte for byte, and reads answers as HTTP has them."""

from __future__ import annotations

import asyncio
import ssl

import h11

from tests.broker_parts import PATIENCE
from tests.operator_port import Port


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
        async with asyncio.timeout(PATIENCE):
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

    async def gone(self) -> None:
        """Returns when the node lets go."""
        async with asyncio.timeout(PATIENCE):
            try:
                while await self.reader.read(65536):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass


async def seats_left(door: Port, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(door.listener.reception.lobby) != count:
            await asyncio.sleep(0.01)
