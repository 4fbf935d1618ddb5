"""Key sets of issuers (RFC 7517), read from a file or fetched over TLS, kept within bounds.

A set is fetched when a token names a key that is not in it, but never within REFRESH_SECONDS of the last try, whatever
tokens say; it is fetched anew after an hour, and what could not be fetched for a day counts no more. Errors:

    Unreachable     no key set of this issuer can be had just now: `issuer` and `why`, for the log
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from pathlib import Path

import httpx

from oidc.key_set import Algorithm, KeySet, PublicKey, read_key_set
from provider.rest.settings import Issuer

REFRESH_SECONDS = 30.0
FIRST_SECONDS = 3.0  # the same, while there has not been one answer
FRESH_SECONDS = 3_600.0
STALE_SECONDS = 86_400.0
FETCH_SECONDS = 5.0
MAX_BYTES = 262_144

log = logging.getLogger("provider.rest.jwks")


class Unreachable(Exception):
    def __init__(self, issuer: str, why: str) -> None:
        self.issuer = issuer
        self.why = why
        super().__init__(f"{issuer}: {why}")


class Keys:
    """One issuer's keys."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._keys: KeySet = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()

    async def key(self, kid: str, algorithm: Algorithm) -> PublicKey | None:
        """The key of this name; None if the issuer has none. Raises Unreachable."""
        known = (kid, algorithm) in self._keys and self._age() <= STALE_SECONDS
        # who brings a key that is known does not wait behind somebody else's fetch
        if not known or (self._age() > FRESH_SECONDS and not self._lock.locked()):
            await self._refresh()
        if self._age() > STALE_SECONDS:
            raise Unreachable(self._issuer.name, "its keys could not be read")
        return self._keys.get((kid, algorithm))

    def _age(self) -> float:
        return math.inf if self._fetched is None else time.monotonic() - self._fetched

    async def _refresh(self) -> None:
        before = self._tried
        async with self._lock:
            pause = REFRESH_SECONDS if self._fetched is not None else FIRST_SECONDS
            if self._tried != before or (before is not None and time.monotonic() - before < pause):
                return  # somebody else has just tried
            self._tried = time.monotonic()
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    raw = await self._read()
                self._keys = read_key_set(raw)
            except (OSError, httpx.HTTPError, ValueError, TimeoutError) as error:
                log.warning("the keys of %s could not be read: %s", self._issuer.name, error or type(error).__name__)
                return
            self._fetched = self._tried
            log.info("%d keys of %s", len(self._keys), self._issuer.name)

    async def _read(self) -> bytes:
        if self._issuer.jwks_file is not None:
            return await asyncio.to_thread(read_bounded, self._issuer.jwks_file)
        verify = ssl.create_default_context(cafile=self._issuer.jwks_ca)
        # neither proxies of the environment nor redirects: this URL, and nobody between
        async with (
            httpx.AsyncClient(verify=verify, trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS) as client,
            client.stream("GET", self._issuer.jwks_url or "", headers={"accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"HTTP status {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
            return bytes(body)


def read_bounded(path: Path) -> bytes:
    """A key set's file. Raises OSError, ValueError for one that is too long."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return raw
