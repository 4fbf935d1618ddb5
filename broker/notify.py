"""What systemd is told (sd_notify(3)). Says nothing where NOTIFY_SOCKET is not set."""

from __future__ import annotations

import contextlib
import os
import socket


class Supervisor:
    """The service manager, as the environment names it."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if microseconds.isdigit() and ours else None  # seconds
        # made once: a node that has no descriptor left is still alive, and must be able to say so
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._channel is not None:
            self._channel.setblocking(False)

    def tell(self, state: str) -> None:
        """READY=1, STOPPING=1, WATCHDOG=1, STATUS=…: one datagram, lost where the service manager is not there: never waits."""
        if self._channel is not None:
            with contextlib.suppress(OSError):  # it draws its own conclusions
                self._channel.sendto(state.encode(), self._address)
