"""The dialer: the seam between the broker and libvirt. `dial` gives a Line; where and how a worker runs stays below it.

Errors: BadHost (from Host.parse), DialError.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from eva.consent import Kind
from hypervisor.child import Child
from hypervisor.control import (
    BadMessage,
    Cause,
    Device,
    DialFailure,
    Fork,
    Forked,
    Inbox,
    Keys,
    Open,
    Ready,
    Refused,
    send,
)
from hypervisor.host import BadHost, Host
from hypervisor.line import Leash, Line, LineEnd

__all__ = ["BadHost", "Cause", "DialError", "DialFailure", "Dialer", "Host", "Kind", "Line", "LineEnd"]

AT_ONCE = 32  # dials under way; more wait their turn within their own timeout
GUEST_BUFFER = 4096  # bytes of a serial line's kernel buffer towards the guest (socket(7) doubles it): little lies below the gate
BACKOFF = (0.1, 5.0)  # seconds between two starts of a fork server that dies: first, longest
LONG_LIFE = 10.0  # seconds after which a death is no part of a row of them
MAX_CHORD = 16
MAX_HOLD_MS = 1000


class DialError(Exception):
    """No console was opened, or no key sent. `detail` is libvirt's or the system's text, for the log only."""

    def __init__(self, failure: DialFailure, detail: str) -> None:
        super().__init__(failure, detail)
        self.failure = failure
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.failure}: {self.detail}"


class _ForkServer:
    """One run of the fork server's process: asked for workers, it answers with their pidfds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.child = Child("hypervisor.forkserver")
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._inbox = Inbox(self.child.sock, Ready, Forked)
        self._forks: dict[int, tuple[Leash, asyncio.Future[None]]] = {}
        self._places: list[int] = []  # descriptors that keep a place for the pidfd of each fork that is asked for
        self._number = 0
        self.down = False
        self._loop.add_reader(self.child.sock, self._read)

    def fork(self, leash: Leash, ends: Sequence[socket.socket]) -> asyncio.Future[None]:
        """Asks for a worker that holds `ends`, which are closed here; it is attached to the leash when the future is done.

        Raises DialError.
        """
        self._number += 1
        try:
            # a pidfd that found no place would be lost, and the stream with it: all workers would have to go
            self._places.append(os.eventfd(0))
            # a fork server that stands still fills this socket, and then is not asked any more: that bounds _forks
            send(self.child.sock, Fork(self._number), [end.fileno() for end in ends])
        except OSError as error:
            self._keep_places(len(self._forks))
            raise DialError(DialFailure.WORKER_DIED, f"fork server: {error}") from error
        for end in ends:
            end.close()
        future: asyncio.Future[None] = self._loop.create_future()
        self._forks[self._number] = leash, future
        return future

    def _keep_places(self, count: int) -> None:
        while len(self._places) > count:
            os.close(self._places.pop())
        with contextlib.suppress(OSError):
            while len(self._places) < count:
                self._places.append(os.eventfd(0))

    def _read(self) -> None:
        # the next pidfd's place is free now: one read takes in one message's descriptors at most (unix(7))
        self._keep_places(max(0, len(self._places) - 1))
        try:
            messages = self._inbox.read()
        except BlockingIOError:
            messages = []
        except (BadMessage, OSError) as error:
            self.stop(str(error))
            return
        if messages is None:
            self.stop("its control stream ended")
            return
        for message, fds in messages:
            if isinstance(message, Ready):
                if not self.ready.done():
                    self.ready.set_result(None)
            else:
                self._forked(message, fds)
        self._keep_places(len(self._forks))

    def _forked(self, message: Forked, fds: list[int]) -> None:
        leash, future = self._forks.pop(message.number)
        if fds:
            leash.attach(message.pid, fds[0])
        if future.done():  # the dial was cancelled meanwhile
            return
        if fds:
            future.set_result(None)
        else:
            future.set_exception(DialError(DialFailure.WORKER_DIED, f"fork: {message.error}"))

    def stop(self, why: str) -> None:
        """Ends the process, its workers with it, and what waits for it. Safe to call twice."""
        if self.down:
            return
        self.down = True
        self._loop.remove_reader(self.child.sock)
        self._inbox.close()
        self._keep_places(0)
        self.child.kill()
        for future in (self.ready, *(future for _, future in self._forks.values())):
            if not future.done():
                future.set_exception(DialError(DialFailure.WORKER_DIED, f"fork server: {why}"))
                future.exception()  # seen, also when nobody waits
        self._forks.clear()


class Dialer:
    """Opens consoles. Owns the fork server's process; start, stop, dial and send_keys belong to one loop."""

    def __init__(self) -> None:
        self._server: _ForkServer | None = None
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._started_at = 0.0  # on the loop's clock
        self._short_lives = 0
        self._stopped = True

    async def start(self) -> None:
        """Starts the fork server. Raises DialError."""
        self._stopped = False
        await self._ready_server()

    async def stop(self) -> None:
        """Ends the fork server and every worker, and so every serial line; returns when no process of ours is left."""
        self._stopped = True
        if self._server is not None:
            server, self._server = self._server, None
            server.stop("the dialer was stopped")
            await server.child.gone()

    async def dial(self, host: Host, uuid: str, kind: Kind, timeout: float = 5.0) -> Line:  # noqa: ASYNC109  # kills, too
        """Opens the console of the domain with this UUID within `timeout` seconds. Cancelled, it leaves nothing.

        Raises DialError.
        """
        request = Open(host.uri, uuid, Device(kind.value))
        if kind is Kind.GRAPHICS:
            leash = await self._ask(request, None, timeout)
            console = leash.take_console()
            leash.release()
            if console is None:
                raise DialError(DialFailure.WORKER_DIED, "it gave no console")
            console.setblocking(False)
            return Line(kind, console, None)
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise DialError(DialFailure.WORKER_DIED, str(error)) from error
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, GUEST_BUFFER)
        try:
            return Line(kind, ours, await self._ask(request, theirs, timeout))
        except BaseException:  # also CancelledError: until there is a Line nobody else would close it
            ours.close()
            raise
        finally:
            theirs.close()

    async def send_keys(
        self,
        host: Host,
        uuid: str,
        chord: Sequence[int],
        hold_ms: int = 100,
        timeout: float = 5.0,  # noqa: ASYNC109  # kills the worker, too
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Presses 1 to 16 Linux key codes (1 to 255) together for `hold_ms`, with no viewer needed.

        Returns when libvirt has them; one that waits does not hold the next back, the caller does. `wanted` is asked once
        nothing has to be waited for any more but libvirt.

        Raises DialError, ValueError. After TIMED_OUT they may or may not have reached the guest.
        """
        if not 1 <= len(chord) <= MAX_CHORD or not all(1 <= code <= 255 for code in chord):
            raise ValueError(f"not a chord: {chord!r}")
        if not 1 <= hold_ms <= MAX_HOLD_MS:
            raise ValueError(f"keys are held for 1 to {MAX_HOLD_MS} ms")
        (await self._ask(Keys(host.uri, uuid, tuple(chord), hold_ms), None, timeout, wanted)).release()

    async def _ask(
        self, request: Open | Keys, end: socket.socket | None, seconds: float, wanted: Callable[[], bool] = lambda: True
    ) -> Leash:
        """A worker that has done what was asked and holds `end`. Raises DialError; on every failure it is released."""
        try:
            leash = Leash(request)
        except OSError as error:
            raise DialError(DialFailure.WORKER_DIED, str(error)) from error
        try:
            async with asyncio.timeout(seconds), self._slots:
                server = await self._ready_server()
                if not wanted():
                    raise DialError(DialFailure.UNWANTED, "nobody wants it any more")
                await server.fork(leash, [leash.theirs] if end is None else [leash.theirs, end])
                answer = await leash.answer
            if isinstance(answer, Refused):
                raise DialError(answer.failure, answer.detail)
        except TimeoutError:
            leash.release()
            raise DialError(DialFailure.TIMED_OUT, f"no answer within {seconds:g} s") from None
        except BaseException:  # also CancelledError: a worker without an owner would hold the guest's console
            leash.release()
            raise
        return leash

    async def _ready_server(self) -> _ForkServer:
        """The fork server, started again if it has died. Raises DialError."""
        loop = asyncio.get_running_loop()
        async with self._starting:
            if self._stopped:
                raise DialError(DialFailure.WORKER_DIED, "the dialer is stopped")
            if self._server is None or self._server.down:
                if loop.time() - self._started_at > LONG_LIFE:
                    self._short_lives = 0
                elif self._server is not None:
                    self._short_lives += 1
                    await asyncio.sleep(min(BACKOFF[0] * 2 ** (self._short_lives - 1), BACKOFF[1]))
                self._started_at = loop.time()
                try:
                    self._server = _ForkServer()
                except OSError as error:
                    raise DialError(DialFailure.WORKER_DIED, f"fork server: {error}") from error
            server = self._server
            await asyncio.shield(server.ready)
            return server
