"""A provider's HTTPS port that answers what the test says, over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.settings import Provider
from lab.certificates import Authority


@dataclass
class AnsweringProvider:
    """`asked`: the path and the body of each request. `answer`: status and body of what is answered, once `go` is set."""

    settings: Provider
    answer: tuple[int, bytes] = (404, b"")
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.partition(":")[2] for line in head.splitlines() if line.lower().startswith("content-length:")]
        self.asked.append((head.split()[1], await reader.readexactly(int(lengths[0]))))
        self.came.set()
        await self.go.wait()
        status, body = self.answer
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def answering_provider(authority: Authority) -> AsyncIterator[AnsweringProvider]:
    pair = authority.server("provider")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.certificate, pair.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await provider.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    provider = AnsweringProvider(Provider(f"https://127.0.0.1:{port}", authority.ca))
    provider.go.set()
    try:
        yield provider
    finally:
        provider.go.set()
        server.close()
