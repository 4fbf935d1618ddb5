"""Programs of the lab: started with PDEATHSIG, waited for, stopped by TERM and then KILL, their output kept in a file.

A program dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG): start it from one that stays, such as the main one.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from lab.transcript import PATIENCE_S, Transcript


class ProgramEnded(Exception):
    """The program ended before it was ready, or before it said what was waited for."""

    def __init__(self, argv: Sequence[str], returncode: int | None, output: str) -> None:
        super().__init__(argv, returncode, output)
        self.argv = argv
        self.returncode = returncode
        self.output = output


class NotReady(Exception):
    """The program runs and did not say in time what was waited for."""

    def __init__(self, wanted: str, heard: Sequence[str], output: str) -> None:
        super().__init__(wanted, heard, output)
        self.wanted = wanted
        self.heard = heard
        self.output = output


class NotifySocket:
    """The service manager's end of sd_notify(3)."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="eva-notify-")
        self.path = Path(self._directory.name) / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        # Any user's daemon may speak to it, also one that has dropped root.
        Path(self._directory.name).chmod(0o711)
        self.path.chmod(0o777)
        self.heard: list[str] = []

    def take(self) -> list[str]:
        """Move what has come into `heard`, line by line; give all that was ever heard."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard += self.socket.recv(4096).decode().splitlines()
        return self.heard

    def close(self) -> None:
        """Close and remove the socket."""
        self.socket.close()
        self._directory.cleanup()


class Program:
    """One run of a program; `notify` says that it speaks sd_notify, `stdin` is a descriptor that stays the caller's."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        notify: bool = False,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.transcript = Transcript(log)
        self.notify = NotifySocket() if notify else None
        self._environment = dict(environment or {})
        self._directory = directory
        self._stdin = stdin
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return at once. A second run appends to the same log."""
        environment = os.environ | self._environment
        if self.notify is not None:
            environment["NOTIFY_SOCKET"] = str(self.notify.path)
        with self.transcript.path.open("ab") as log:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", *self.argv],
                stdin=self._stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self._directory,
            )
        self._pidfd = os.pidfd_open(self._popen.pid)

    @property
    def pid(self) -> int:
        """Give its pid; it stays its own until stop() or kill() has returned."""
        assert self._popen is not None  # noqa: S101 - start() came first
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Give its exit status (minus the signal), None while it runs or when it was never started."""
        return self._popen.poll() if self._popen is not None else None

    @property
    def running(self) -> bool:
        """Say whether it runs."""
        return self._popen is not None and self._popen.poll() is None

    def wait_notified(self, wanted: str = "READY=1", timeout: float = PATIENCE_S) -> None:
        """Block until the daemon has sent the line. Raises ProgramEnded, NotReady."""
        deadline = time.monotonic() + timeout
        while not self._has_said(wanted, deadline):
            poll = select.poll()
            for descriptor in self._descriptors():
                poll.register(descriptor, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)

    async def notified(self, wanted: str = "READY=1", timeout: float = PATIENCE_S) -> None:
        """Wait like wait_notified, without blocking the loop."""
        deadline = time.monotonic() + timeout
        while not self._has_said(wanted, deadline):
            await _readable(self._descriptors(), deadline - time.monotonic())

    def signal(self, number: int) -> None:
        """Send a signal; nothing if it has ended."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def stop(self, grace: float = 5.0) -> int | None:
        """TERM, after `grace` seconds KILL; give its exit status. Blocks; may be called twice."""
        self.signal(signal.SIGTERM)
        if self._popen is not None:
            try:
                self._popen.wait(grace)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._finish()

    async def stopped(self, grace: float = 5.0) -> int | None:
        """Stop like stop(), without blocking the loop."""
        self.signal(signal.SIGTERM)
        if self.running:
            await _readable([self._pidfd], grace)
        if self.running:
            self.signal(signal.SIGKILL)
        return self._finish()

    def kill(self) -> int | None:
        """KILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        return self._finish()

    async def ended(self, timeout: float = PATIENCE_S) -> int:
        """Wait until it ends by itself; give its exit status. Raises NotReady."""
        if self.running:
            await _readable([self._pidfd], timeout)
        code = self.returncode
        if code is None:
            raise NotReady("end", [], self.transcript.tail())
        return code

    def close(self) -> None:
        """Stop it and remove the notify socket; the log stays."""
        self.stop()
        if self.notify is not None:
            self.notify.close()

    def _finish(self) -> int | None:
        if self._popen is None:
            return None
        code = self._popen.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return code

    def _descriptors(self) -> list[int]:
        assert self.notify is not None  # noqa: S101 - asked for by the caller
        return [self._pidfd, self.notify.socket.fileno()]

    def _has_said(self, wanted: str, deadline: float) -> bool:
        assert self.notify is not None  # noqa: S101 - asked for by the caller
        # Whether it runs is asked first: what it said before its end has then certainly come.
        running = self.running
        if wanted in self.notify.take():
            return True
        if not running:
            raise ProgramEnded(self.argv, self.returncode, self.transcript.tail())
        if time.monotonic() > deadline:
            raise NotReady(wanted, self.notify.heard, self.transcript.tail())
        return False


async def _readable(descriptors: Sequence[int], timeout: float) -> None:
    """Return when one of the descriptors can be read, or after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for descriptor in descriptors:
        loop.add_reader(descriptor, event.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout)
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)
