"""A file that another process appends to: a guest's serial line, a daemon's output."""

import asyncio
import time
from pathlib import Path

# A file cannot be awaited; this often it is looked at.
LOOK_S = 0.01
# With what takes milliseconds, where each of the machine's processors is wanted by many.
PATIENCE_S = 60.0


class NotSeen(Exception):
    """The text did not come in time."""

    def __init__(self, text: str, timeout_s: float, tail: str) -> None:
        super().__init__(text, timeout_s, tail)
        self.text = text
        self.timeout_s = timeout_s
        self.tail = tail


class Transcript:
    """What was written so far, and waiting for more of it. Offsets count bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def content(self, after: int = 0) -> bytes:
        """Give the bytes from `after` on; none while there is no such file."""
        try:
            with self.path.open("rb") as file:
                file.seek(after)
                return file.read()
        except FileNotFoundError:
            return b""

    def text(self, after: int = 0) -> str:
        """Give the same as text; what is no UTF-8 is replaced."""
        return self.content(after).decode(errors="replace")

    def tail(self, lines: int = 20) -> str:
        """Give the last lines, for a failure's message."""
        return "\n".join(self.text().splitlines()[-lines:])

    def size(self) -> int:
        """Give the offset at which the next byte will be."""
        return self.path.stat().st_size if self.path.exists() else 0

    def wait_for(self, text: str, *, after: int = 0, timeout: float = PATIENCE_S) -> int:
        """Block until `text` stands at or behind `after`; give the offset behind it. Raises NotSeen."""
        deadline = time.monotonic() + timeout
        while (end := self._end_of(text, after)) is None:
            if time.monotonic() > deadline:
                raise NotSeen(text, timeout, self.tail())
            time.sleep(LOOK_S)
        return end

    async def seen(self, text: str, *, after: int = 0, timeout: float = PATIENCE_S) -> int:
        """Wait like wait_for, without blocking the loop."""
        deadline = time.monotonic() + timeout
        while (end := self._end_of(text, after)) is None:
            if time.monotonic() > deadline:
                raise NotSeen(text, timeout, self.tail())
            await asyncio.sleep(LOOK_S)
        return end

    def _end_of(self, text: str, after: int) -> int | None:
        wanted = text.encode()
        place = self.content(after).find(wanted)
        return None if place < 0 else after + place + len(wanted)
