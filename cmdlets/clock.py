"""The two clocks of the operator's side."""

from __future__ import annotations

import time


def boot_s() -> float:
    """Seconds since this host booted, suspend included: by it time left is counted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    """Unix milliseconds, for moments that a person is told."""
    return time.time_ns() // 1_000_000
