"""The one place where the broker reads its clocks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from eva.instant import Instant


class Clock(Protocol):
    """What tells the time. Tests hand in one whose clocks they move."""

    def now(self) -> Instant: ...


class SystemClock:
    """CLOCK_REALTIME and CLOCK_BOOTTIME of this host."""

    def now(self) -> Instant:
        return Instant(time.clock_gettime_ns(time.CLOCK_REALTIME), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def boot_id() -> str:
    """The kernel's name of this boot: a CLOCK_BOOTTIME reading means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
