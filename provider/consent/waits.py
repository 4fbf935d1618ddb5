"""Waiting for what nodes say: woken by this provider's own intake, and once a second in case another provider took the word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOOK_SECONDS = 1.0


class Wait:
    """One who waits; look first, then pause, then look again."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def pause(self) -> None:
        """Until something was said, or it is time to look what another provider filed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()
        self._woken.clear()


class Waits:
    """By the jti of a consent or revocation. The store holds what was said; here is only who wants to know."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Wait]] = {}

    @contextmanager
    def on(self, *abouts: str) -> Iterator[Wait]:
        """Nothing that is said from here on is missed."""
        wait = Wait()
        for about in abouts:
            self._waiting.setdefault(about, set()).add(wait)
        try:
            yield wait
        finally:
            for about in abouts:
                waiting = self._waiting.get(about, set())
                waiting.discard(wait)
                if not waiting:
                    self._waiting.pop(about, None)

    def wake(self, about: str) -> None:
        for wait in self._waiting.get(about, ()):
            wait.wake()
