"""The two numbered byte streams of a serial session: what makes a drop lose and double nothing (docs/protocol.md). Pure.

Both sides count the console's bytes after the terminal filter, and the operator's bytes that the node is done with.

Errors:

    OutOfStep       the node counts what cannot be: more than was sent, or less than it said before
"""

from __future__ import annotations

LIMIT = 64 * 1024  # bytes of input kept until the node has taken them


class OutOfStep(Exception):
    """`counted` is the node's count, `least` to `most` what it could be."""

    def __init__(self, counted: int, least: int, most: int) -> None:
        self.counted = counted
        self.least = least
        self.most = most
        super().__init__(f"the node counts {counted} bytes of input, it can be {least} to {most}")


class Inbound:
    """The console's output. `received`: the offset after the last byte that came in; 0 before the first attachment."""

    def __init__(self) -> None:
        self.received = 0
        self._begun = False
        self._skip = 0

    def attach(self, offset: int) -> int:
        """An attachment starts at `offset`. Gives the count of bytes that are lost between here and there."""
        lost = max(0, offset - self.received) if self._begun else 0
        self._skip = max(0, self.received - offset) if self._begun else 0
        self.received = max(self.received, offset)
        self._begun = True
        return lost

    def feed(self, frame: bytes) -> bytes:
        """What of a frame is new."""
        skipped = min(self._skip, len(frame))
        self._skip -= skipped
        new = frame[skipped:]
        self.received += len(new)
        return new


class Outbound:
    """The operator's input: kept, at most LIMIT bytes, until the node has taken it, and sent again from there after a drop."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._taken = 0
        self._sent = 0

    @property
    def room(self) -> int:
        """Bytes that `add` may take now."""
        return LIMIT - len(self._kept)

    @property
    def untaken(self) -> int:
        return len(self._kept)

    @property
    def begun(self) -> bool:
        """Whether anything was ever sent."""
        return self._sent > 0

    def add(self, data: bytes) -> None:
        """Raises ValueError past the room."""
        if len(data) > self.room:
            raise ValueError(f"{len(data)} bytes into {self.room}")
        self._kept += data

    def next(self, most: int) -> bytes:
        """The next bytes to send, at most `most`; they count as sent."""
        start = self._sent - self._taken
        chunk = bytes(self._kept[start : start + most])
        self._sent += len(chunk)
        return chunk

    def taken(self, count: int) -> None:
        """The node has taken so many bytes since the session began. Raises OutOfStep."""
        if not self._taken <= count <= self._sent:
            raise OutOfStep(count, self._taken, self._sent)
        del self._kept[: count - self._taken]
        self._taken = count

    def attach(self, count: int) -> None:
        """A new attachment, and the node's count: what it did not take is to be sent again. Raises OutOfStep."""
        self.taken(count)
        self._sent = count

    def forget_unsent(self) -> int:
        """Drops what was not sent yet, and says how much that was."""
        start = self._sent - self._taken
        dropped = len(self._kept) - start
        del self._kept[start:]
        return dropped
