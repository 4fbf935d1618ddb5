"""Somebody else's web site, by TLS, on a port of its own: what it serves is what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from lab.certificates import Authority

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".css": "text/css",
}


class OtherSite:
    """`files`: contents by path, the type by its ending; a `folder` below which any file is served as it is.

    `policy`: its Content-Security-Policy; `shown`: the name in the client certificate of each request, None without one.
    """

    def __init__(self, files: Mapping[str, str], folder: Path | None = None, policy: str = "") -> None:
        self.files = dict(files)
        self.folder = folder
        self.policy = policy
        self.asked: list[str] = []
        self.shown: list[str | None] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self, authority: Authority, port: int = 0) -> AsyncIterator[OtherSite]:
        pair = authority.server("other-site")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
        tls.load_cert_chain(pair.certificate, pair.key)
        tls.verify_mode = ssl.CERT_OPTIONAL
        server = await asyncio.start_server(self._answer, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert")
        # a browser connects ahead of its need, and may then go without a word
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().partition("?")[0]
            self.asked.append(path)
            self.shown.append(certificate["subject"][0][0][1] if certificate else None)
            body = self._find(path)
            head = f"HTTP/1.1 {'404 Not Found' if body is None else '200 OK'}\r\nConnection: close\r\n"
            head += f"Content-Type: {TYPES.get(Path(path).suffix, TYPES['.html'])}\r\nContent-Length: {len(body or b'')}\r\n"
            if self.policy:
                head += f"Content-Security-Policy: {self.policy}\r\n"
            writer.write(f"{head}\r\n".encode() + (body or b""))
            await writer.drain()
        writer.close()

    def _find(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path].encode()
        if self.folder is not None and ".." not in path and (self.folder / path[1:]).is_file():
            return (self.folder / path[1:]).read_bytes()
        return None
