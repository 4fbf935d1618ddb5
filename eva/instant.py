"""A moment on both clocks that a consent is held against.

The wall clock (CLOCK_REALTIME) says what the provider meant by `exp`; CLOCK_BOOTTIME runs through suspend and cannot be
set. Whichever reaches the end first ends it, so neither a step of the wall clock nor a suspend lengthens anything.
"""

from __future__ import annotations

from typing import NamedTuple

NS = 1_000_000_000


class Instant(NamedTuple):
    """`wall`: nanoseconds since the Unix epoch. `boot`: nanoseconds since this host booted, suspend included.

    A tuple, because one is made for each byte that an operator types: a frozen dataclass takes three times as long.
    """

    wall: int
    boot: int

    def later(self, seconds: float) -> Instant:
        """The instant `seconds` from here if both clocks run true."""
        step = round(seconds * NS)
        return Instant(self.wall + step, self.boot + step)

    @property
    def wall_seconds(self) -> int:
        return self.wall // NS
