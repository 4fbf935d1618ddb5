"""The hot path alone: broker/websocket.py joined to a console's socket, without gate, filter or record.

It has the shape of the broker's consoles, so what it reaches is the most that they can. Options to try other shapes stand
in the environment: EVA_BENCH_CHUNK, EVA_BENCH_HIGH (bytes).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys

import uvloop

from broker import graphics_console, websocket
from broker.websocket import Departure, OperatorConnection

CHUNK = int(os.environ.get("EVA_BENCH_CHUNK", str(graphics_console.CHUNK)))  # bytes read of the console in one turn of the loop
if "EVA_BENCH_HIGH" in os.environ:
    websocket.HIGH_WATER = int(os.environ["EVA_BENCH_HIGH"])  # type: ignore[misc]  # to try another
    websocket.LOW_WATER = websocket.HIGH_WATER // 4  # type: ignore[misc]  # to try another


class Join:
    """A feed whose console is a socket."""

    def __init__(self, connection: OperatorConnection, console: socket.socket) -> None:
        self._connection = connection
        self._console = console
        self._fd = console.fileno()
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._loop.add_reader(self._fd, self._readable)

    def operator_bytes(self, data: bytes) -> None:
        if not self._waiting:
            try:
                sent = self._console.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self._connection.pause_operator()
            self._loop.add_writer(self._fd, self._writable)
        self._waiting += data

    def _writable(self) -> None:
        sent = self._console.send(self._waiting)
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._fd)
            self._connection.resume_operator()

    def _readable(self) -> None:
        data = self._console.recv(CHUNK)
        if data:
            self._connection.send_binary(data)
        else:
            self._close()
            self._connection.end(1000, "console closed")

    def congested(self) -> None:
        self._loop.remove_reader(self._fd)

    def writable(self) -> None:
        self._loop.add_reader(self._fd, self._readable)

    def operator_gone(self, departure: Departure) -> None:  # noqa: ARG002  # the feed's interface
        self._close()

    def _close(self) -> None:
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._console.close()


async def relay(port: int, console_path: str, pem: str | None) -> None:
    async def join(connection: OperatorConnection) -> None:
        connection.reserve()
        console = socket.socket(socket.AF_UNIX)
        console.setblocking(False)
        console.connect(console_path)
        connection.attach(Join(connection, console))
        await connection.wait_closed()

    tls = None
    if pem is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pem)
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    server = await websocket.serve(join, sock=listener, tls=tls)
    print("ready", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(relay(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
