"""One document of an issuer, fetched when it is asked for and kept for a while; never more than one fetch at a time.

A failure is kept, too, for a moment: an issuer that does not answer is not asked again by everybody who wants to sign in. The
fetch is the document's own, and goes on when whoever asked for it goes: nobody can break it off for the others. Its requests
have their own ends (oidc.https), and the daemon's loop takes it along.
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
        self._fetching: asyncio.Task[None] | None = None
        self._found: T | None = None
        self._failure: SignInFailed | None = None
        self._fetched: float | None = None  # when the last fetch began that came to one of the two: monotonic

    async def get(self, *, anew: bool = False) -> T:
        """The document; `anew`: fetched just now, if the last fetch was not just now. Raises SignInFailed."""
        if self._fetching is None and self._is_due(anew):
            self._fetching = asyncio.create_task(self._renew())
            self._fetching.add_done_callback(self._renewed)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._found is None:
            assert self._failure is not None  # noqa: S101 - a fetch has failed, or there would be a document
            raise type(self._failure)(self._failure.detail) from None
        return self._found

    def _is_due(self, anew: bool) -> bool:
        if self._fetched is None:
            return True
        age = time.monotonic() - self._fetched
        return age >= PAUSE_SECONDS and (anew or self._found is None or age >= FRESH_SECONDS)

    async def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._found, self._failure = await self._fetch(), None
        except SignInFailed as error:
            self._found, self._failure = None, error
        self._fetched = began

    def _renewed(self, _: asyncio.Task[None]) -> None:
        self._fetching = None
