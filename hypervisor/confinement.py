"""What each process of ours gives up before it talks to libvirt, and how it comes to die with its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Iterable

# prctl(2), linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    value = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def confine(name: str, parent: int) -> None:
    """For a process that was just started: `tie`, and it and all it forks give up new privileges, core dumps and tracing.

    A core dump, or a tracer of the same user, would hold the console's bytes. The signals that ask politely are ignored:
    the daemon decides the order in which things stop. Raises OSError.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tie(name, parent)


def tie(name: str, parent: int) -> None:
    """Names this process and ties its life to `parent`: SIGKILL when that one's thread which made it ends. Raises OSError.

    Exits if the parent is gone already, as PDEATHSIG speaks only of later deaths (prctl(2)).
    """
    _prctl(_PR_SET_NAME, name.encode()[:15])
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def keep_only(descriptors: Iterable[int]) -> None:
    """Closes every descriptor above standard error but these."""
    low = 3
    for descriptor in sorted(d for d in descriptors if d >= low):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
