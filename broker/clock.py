"""The one place where the broker reads its clocks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Protocol

from eva.instant import Instant


class Clock(Protocol):
    """What tells the time. Tests hand in one whose clocks they move."""

    def now(self) -> Instant: ...


# by name, as they are read for each byte that an operator types
_read: Final = time.clock_gettime_ns
_WALL: Final = time.CLOCK_REALTIME
_BOOT: Final = time.CLOCK_BOOTTIME


class SystemClock:
    """CLOCK_REALTIME and CLOCK_BOOTTIME of this host."""

    def now(self) -> Instant:
        return Instant(_read(_WALL), _read(_BOOT))


def boot_id() -> str:
    """The kernel's name of this boot: a CLOCK_BOOTTIME reading means nothing in another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
