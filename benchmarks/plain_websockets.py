"""A peer: the asyncio interface of `websockets`, used the ordinary way, on asyncio's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def relay(port: int, console_path: str, pem: str | None) -> None:
    async def join(connection: ServerConnection) -> None:
        reader, writer = await asyncio.open_unix_connection(console_path)

        async def up() -> None:
            async for message in connection:
                assert isinstance(message, bytes)
                writer.write(message)
                await writer.drain()

        async def down() -> None:
            while data := await reader.read(65536):
                await connection.send(data)

        halves = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            with contextlib.suppress(ConnectionClosed, OSError, asyncio.CancelledError):
                await asyncio.gather(*halves)
            writer.close()

    tls = None
    if pem is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(pem)
    async with serve(join, "127.0.0.1", port, ssl=tls, compression=None, max_size=None) as server:
        print("ready", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
