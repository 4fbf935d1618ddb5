"""What is typed at one serial console, told to who watches: `broker.echo` with the loop's clock and a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from broker.echo import Echo, Hidden, Text
from broker.masks import Masks
from broker.session import Session

GATHER = 0.05  # seconds in which parts are gathered into one notice

Parts = Sequence[Text | Hidden]


class Transcript:
    """`tell(session, parts)` is called for each bundle; close it when nobody watches any more."""

    def __init__(self, tell: Callable[[Session, Parts], None]) -> None:
        self._tell = tell
        self._echo = Echo()
        self._typist: Session | None = None  # who typed last
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._flush: asyncio.TimerHandle | None = None

    def passed(self, session: Session, data: bytes, start: int, masks: Masks) -> None:
        """The session's bytes from its `start`th on have passed the gate."""
        for piece, masked in masks.split(start, data):
            self.typed(session, piece, masked=masked)

    def typed(self, session: Session, data: bytes, *, masked: bool) -> None:
        """The same of bytes that are all masked, or none of them."""
        if session is not self._typist:
            self._echo.break_off()
            self.flush()
            self._typist = session
        self._echo.typed(data, self._loop.time(), masked=masked)
        self._plan()

    def guest(self, shown: bytes) -> None:
        """The guest's output, as its viewers see it."""
        if self._echo.due is not None:
            self._echo.guest(shown, self._loop.time())
            self._plan()

    def close(self) -> None:
        """Tells what is decided, and stops."""
        self._echo.break_off()
        self.flush()
        if self._look is not None:
            self._look.cancel()

    def flush(self) -> None:
        """Tells now what is decided."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        parts = self._echo.told()
        if parts and self._typist is not None:
            self._tell(self._typist, parts)

    def _plan(self) -> None:
        if self._flush is None:
            self._flush = self._loop.call_later(GATHER, self.flush)
        due = self._echo.due
        if due is None or (self._look is not None and self._look_at <= due):
            return  # nothing waits, or a look comes in time and plans the next
        if self._look is not None:
            self._look.cancel()
        self._look_at = due
        self._look = self._loop.call_at(due, self._again)

    def _again(self) -> None:
        self._look = None
        self._echo.look(self._loop.time())
        self._plan()
