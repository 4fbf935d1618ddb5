"""A process of ours that runs one module of this package and talks over one socket, its only descriptor.

Errors: OSError, from starting it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

# What libvirt needs to find a session's sockets; no more, as a daemon's environment may hold secrets.
_PASSED = ("HOME", "PATH", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
_FIXED = {
    "LC_ALL": "C",  # libvirt's messages are compared with, where its codes say too little
    "LIBVIRT_AUTOSTART": "0",  # a client library that finds no daemon would start one
    "MALLOC_ARENA_MAX": "1",
}


class Child:
    """A started process and our end of its socket (`sock`, non-blocking). Made on the loop's thread, which must outlive it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        with theirs:
            try:
                # -I: nothing is imported from the working directory, where anything may be called `hypervisor`
                command = [sys.executable, "-I", "-m", module, str(theirs.fileno()), str(os.getpid()), *arguments]
                self._process = _start(command, theirs.fileno())
            except OSError:
                self.sock.close()
                raise
        self.pid = self._process.pid
        self._loop = asyncio.get_running_loop()
        self._reaped = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.sock.close()
            self._process.kill()
            self._process.wait()
            raise
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()  # pidfd_open(2): readable means that it has ended, so this does not wait
        self._reaped.set()

    @property
    def alive(self) -> bool:
        return not self._reaped.is_set()

    def kill(self) -> None:
        """Closes the socket and kills it. Never waits; safe to call twice."""
        self.sock.close()
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()  # ours and not reaped: the pid cannot be another's

    async def gone(self) -> None:
        """Returns when it has been reaped."""
        await self._reaped.wait()


def _start(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ} | _FIXED
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[fd],
        env=environment,
        cwd="/",
        start_new_session=True,  # a Ctrl-C at the daemon's terminal is the daemon's
    )
