"""An OpenID Connect issuer of our own that says whatever a test wants it to say, over real TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519

from eva.token import b64
from lab.certificates import Authority

CLIENT = "console"


def said(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """A whole HTTP answer."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n".encode() + body


def dumped(value: object) -> bytes:
    return said(json.dumps(value).encode())


class ScriptedIssuer:
    """`answers`: by path, instead of what it would say by itself; None says nothing at all. `asked`: the paths, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.kid = "k1"
        self.nonce = ""
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.bodies: list[str] = []
        self.heads: list[str] = []
        self.dripping = False  # a byte at a time
        self._silence = asyncio.Event()

    @property
    def configuration(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "authorization_response_iss_parameter_supported": True,
        }

    def id_token(self, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": self.url, "aud": CLIENT, "sub": "olivia", "nonce": self.nonce, "iat": now, "exp": now + 300, **claims}
        return jwt.encode(body, self.key, "EdDSA", {"kid": self.kid})

    def granted(self, **changed: Any) -> dict[str, Any]:
        """What its token endpoint says."""
        return {"token_type": "Bearer", "access_token": "at", "expires_in": 60, "id_token": self.id_token(), **changed}

    def _usual(self, path: str) -> bytes:
        match path:
            case "/.well-known/openid-configuration":
                return dumped(self.configuration)
            case "/jwks":
                public = self.key.public_key().public_bytes_raw()
                return dumped({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(public), "kid": self.kid}]})
            case "/token":
                return dumped(self.granted())
            case _:
                return said(b"", "404 Not Found")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ", 2)[1]
            length = [int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            self.asked.append(path)
            self.heads.append(head)
            self.bodies.append((await reader.readexactly(length[0])).decode() if length else "")
            answer = self.answers.get(path, b"") or (None if path in self.answers else self._usual(path))
            if answer is None:
                await self._silence.wait()
            elif self.dripping:
                for byte in answer:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.02)
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def hush(self) -> None:
        self._silence.set()


@asynccontextmanager
async def scripted_issuer(authority: Authority) -> AsyncIterator[ScriptedIssuer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = authority.server("issuer")
    context.load_cert_chain(pair.certificate, pair.key)
    issuer = ScriptedIssuer()
    listening = await asyncio.start_server(issuer.serve, "127.0.0.1", 0, ssl=context)
    issuer.url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        issuer.hush()
        listening.close()
