"""What systemd is told (sd_notify(3)): READY=1, STOPPING=1, WATCHDOG=1. Says nothing where NOTIFY_SOCKET is not set."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str, *, wait: bool = True) -> None:
    """One datagram. Raises OSError where the socket is named but not there.

    Without `wait` it is dropped then, when the service manager does not read, and when no descriptor is left: none of them
    must stop us.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        suppress(*(() if wait else (OSError,))),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.connect(address)
        channel.setblocking(wait)
        channel.send(state.encode())


def watchdog_seconds() -> float | None:
    """Half of what systemd waits for a sign of life (sd_watchdog_enabled(3)), or None if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
