"""provider/rest/jwks.py: a file, and an issuer's server that is slow, gone, redirects or changes its keys."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import provider.rest.jwks
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from oidc.key_set import Algorithm
from provider.rest.jwks import MAX_BYTES, Keys, Unreachable
from tests.bearer_parts import issuer, jwk, jwks

# files


async def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider.rest.jwks, "REFRESH_SECONDS", 0.0)
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk(kid="old")))
    keys = Keys(issuer(jwks_file=path))
    assert await keys.key("old", Algorithm.EDDSA) is not None
    path.write_bytes(jwks(jwk(kid="new")))
    assert await keys.key("new", Algorithm.EDDSA) is not None
    assert await keys.key("old", Algorithm.EDDSA) is None


async def test_no_file(tmp_path: Path):
    with pytest.raises(Unreachable):
        await Keys(issuer(jwks_file=tmp_path / "none")).key("k", Algorithm.EDDSA)


# servers


@dataclass
class Server:
    """An issuer's HTTPS: `answer` is what it says, None for nothing at all; `asked` counts."""

    url: str
    answer: bytes | None = None
    asked: int = 0
    silence: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.answer is None:
                await self.silence.wait()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def said(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def running(authority: Authority, answer: bytes | None) -> AsyncIterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.server("issuer")
    context.load_cert_chain(pair.certificate, pair.key)
    server = Server("", answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.url = f"https://localhost:{listening.sockets[0].getsockname()[1]}/jwks"
    try:
        yield server
    finally:
        server.silence.set()
        listening.close()


async def test_a_key_is_fetched_over_tls(certificates: Authority):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        found = [await keys.key("key-1", Algorithm.EDDSA) for _ in range(3)]
    assert (all(found), server.asked) == (True, 1)


async def test_unknown_keys_do_not_make_it_ask_again_and_again(certificates: Authority):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        found = await asyncio.gather(*(keys.key(f"made-up-{n}", Algorithm.EDDSA) for n in range(50)))
    assert (set(found), server.asked) == ({None}, 1)


async def test_a_new_key_is_found_once_the_pause_is_over(certificates: Authority, monkeypatch: pytest.MonkeyPatch):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        await keys.key("key-1", Algorithm.EDDSA)
        server.answer = said(jwks(jwk(kid="key-2")))
        before = await keys.key("key-2", Algorithm.EDDSA)
        monkeypatch.setattr(provider.rest.jwks, "REFRESH_SECONDS", 0.0)
        after = await keys.key("key-2", Algorithm.EDDSA)
    assert (before, after is not None, server.asked) == (None, True, 2)


async def test_a_server_that_fails_later_takes_no_key_away(certificates: Authority, monkeypatch: pytest.MonkeyPatch):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        await keys.key("key-1", Algorithm.EDDSA)
        server.answer = said(b"", "500 Internal Server Error")
        monkeypatch.setattr(provider.rest.jwks, "FRESH_SECONDS", -1.0)
        monkeypatch.setattr(provider.rest.jwks, "REFRESH_SECONDS", 0.0)
        assert await keys.key("key-1", Algorithm.EDDSA) is not None
        assert server.asked == 2


async def test_a_set_of_yesterday_counts_no_more(certificates: Authority, monkeypatch: pytest.MonkeyPatch):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        await keys.key("key-1", Algorithm.EDDSA)
        monkeypatch.setattr(provider.rest.jwks, "STALE_SECONDS", -1.0)
        with pytest.raises(Unreachable):
            await keys.key("key-1", Algorithm.EDDSA)


async def test_who_has_a_known_key_does_not_wait_for_a_fetch(certificates: Authority, monkeypatch: pytest.MonkeyPatch):
    async with running(certificates, said(jwks())) as server:
        keys = Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca))
        await keys.key("key-1", Algorithm.EDDSA)
        server.answer = None
        monkeypatch.setattr(provider.rest.jwks, "REFRESH_SECONDS", 0.0)
        monkeypatch.setattr(provider.rest.jwks, "FETCH_SECONDS", 2 * PATIENCE_S)
        monkeypatch.setattr(provider.rest.jwks, "FRESH_SECONDS", -1.0)
        async with asyncio.timeout(PATIENCE_S):
            waiting = asyncio.create_task(keys.key("made-up", Algorithm.EDDSA))
            while server.asked < 2:
                await asyncio.sleep(0.01)
            assert await keys.key("key-1", Algorithm.EDDSA) is not None
            assert not waiting.done()
            server.silence.set()
            assert await waiting is None


ANSWERS = [
    said(b"", "302 Found", "location: https://localhost:1/jwks\r\n"),
    said(b"no json"),
    said(b" " * (MAX_BYTES + 1)),
    said(b"", "404 Not Found"),
    b"nonsense\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_is_no_answer(certificates: Authority, answer: bytes):
    async with running(certificates, answer) as server:
        with pytest.raises(Unreachable):
            await Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca)).key("key-1", Algorithm.EDDSA)


async def test_a_server_with_another_certificate(certificates: Authority, tmp_path: Path):
    async with running(Authority(tmp_path), said(jwks())) as server:
        with pytest.raises(Unreachable):
            await Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca)).key("key-1", Algorithm.EDDSA)
        assert server.asked == 0


async def test_a_silent_server_is_not_waited_for(certificates: Authority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider.rest.jwks, "FETCH_SECONDS", 0.2)
    async with running(certificates, None) as server, asyncio.timeout(PATIENCE_S):
        with pytest.raises(Unreachable):
            await Keys(issuer(jwks_url=server.url, jwks_ca=certificates.ca)).key("key-1", Algorithm.EDDSA)
