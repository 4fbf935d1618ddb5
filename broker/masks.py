"""Where in an operator's stream a masked entry stands: whoever watches is told how long it is, and no more. Pure.

Errors:

    MasksFull       as many masked entries are announced as may be
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

MAX_MASKS = 16  # announced and not passed yet
MAX_MASKED = 4096  # bytes of one: a password, and never the whole of what is typed


class MasksFull(Exception):
    pass


class Masks:
    """Of one session. Offsets count the operator's bytes from the session's first on."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []  # from, to

    def add(self, start: int, count: int, passed: int) -> None:
        """Masks `count` bytes from `start` on. `passed`: so many bytes have gone already. Raises MasksFull."""
        self._spans = [span for span in self._spans if span[1] > passed]
        if len(self._spans) >= MAX_MASKS:
            raise MasksFull
        self._spans.append((start, start + count))

    def split(self, start: int, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The bytes, which stand at `start`, piece by piece with whether they are masked."""
        end = start + len(data)
        edges = {start, end, *(edge for span in self._spans for edge in span if start < edge < end)}
        cuts = sorted(edges)
        for at, to in pairwise(cuts):
            yield data[at - start : to - start], any(low <= at < high for low, high in self._spans)
