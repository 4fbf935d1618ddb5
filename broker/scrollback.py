"""The last output of a console, numbered from its first byte: for operators who join, resume or lag. Pure."""

from __future__ import annotations

CAPACITY = 256 * 1024  # bytes
FIRST = 4 * 1024  # bytes of room before there is output: most sessions never need all of it
GROWTH = 8  # times as much, each time it is full


class Scrollback:
    """A window of at most CAPACITY bytes onto a stream. Offsets count from the stream's first byte."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ring = bytearray(min(FIRST, capacity))  # a ring from CAPACITY on
        self.end = 0  # offset after the last byte

    @property
    def start(self) -> int:
        """The offset of the oldest byte still held."""
        return max(0, self.end - self._capacity)

    def append(self, data: bytes) -> None:
        if len(data) > self._capacity:
            self.end += len(data) - self._capacity
            data = data[-self._capacity :]
        if len(self._ring) < min(self.end + len(data), self._capacity):
            self._grow(self.end + len(data))
        place = self.end % self._capacity
        first = min(len(data), self._capacity - place)
        self._ring[place : place + first] = data[:first]
        self._ring[: len(data) - first] = data[first:]
        self.end += len(data)

    def _grow(self, wanted: int) -> None:
        """Makes room, and leaves nothing of what is held where it was: `wipe` would not find it."""
        size = len(self._ring)
        while size < min(wanted, self._capacity):
            size = min(size * GROWTH, self._capacity)
        ring, held = bytearray(size), self.end
        ring[:held] = memoryview(self._ring)[:held]
        self.wipe()
        self._ring = ring

    def read(self, offset: int, most: int) -> bytes:
        """Up to `most` bytes from `offset` on. Raises ValueError where they are no longer, or not yet, held."""
        if not self.start <= offset <= self.end:
            raise ValueError(f"offset {offset} is outside {self.start} to {self.end}")
        count = min(most, self.end - offset)
        place = offset % self._capacity
        first = min(count, self._capacity - place)
        return bytes(self._ring[place : place + first]) + bytes(self._ring[: count - first])

    def first_whole(self) -> int:
        """Where one who has none of it begins: not inside a sequence or character, so at the first line end or ESC held."""
        held = self.read(self.start, self._capacity)
        places = [place for place in (held.find(b"\n"), held.find(b"\x1b")) if place >= 0]
        return self.start + min(places, default=0)

    def wipe(self) -> None:
        """Overwrites what is held. Offsets go on."""
        held = min(self.end, len(self._ring))
        memoryview(self._ring)[:held] = bytes(held)
