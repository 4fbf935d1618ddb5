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

    def tell(self, state: str) -> None:
        """READY=1, STOPPING=1, WATCHDOG=1, STATUS=…: one datagram, lost where the service manager does not read: never waits.

        Raises OSError where the socket is named but not there.
        """
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                channel.connect(self._address)
                channel.send(state.encode())
