"""One document of an issuer, fetched when it is asked for and kept for a while; never more than one fetch at a time.

A failure is kept, too, for a moment: an issuer that does not answer is not asked again by everybody who wants to sign in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from oidc.failure import SignInFailed

FRESH_SECONDS: Final = 3600.0
PAUSE_SECONDS: Final = 3.0  # from one fetch to the next

T = TypeVar("T")


class Document(Generic[T]):
    """`fetch` raises SignInFailed."""

    def __init__(self, fetch: Callable[[], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._lock = asyncio.Lock()
        self._found: T | None = None
        self._failure: SignInFailed | None = None
        self._fetched = 0.0  # monotonic
        self._tried = 0.0

    async def get(self, *, anew: bool = False) -> T:
        """The document; `anew`: fetched just now, if the last fetch was not just now. Raises SignInFailed."""
        async with self._lock:
            now = time.monotonic()
            known = self._found is not None and now - self._fetched < FRESH_SECONDS
            if (anew or not known) and not (self._tried and now - self._tried < PAUSE_SECONDS):
                self._tried = now
                try:
                    self._found, self._failure = await self._fetch(), None
                    self._fetched = now
                except SignInFailed as error:
                    self._failure = error
                    self._found = None
            if self._found is None:
                assert self._failure is not None  # noqa: S101 - a fetch has failed, or there would be a document
                raise type(self._failure)(self._failure.detail) from None
            return self._found
