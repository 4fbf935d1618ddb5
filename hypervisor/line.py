"""Lines: open consoles as the broker holds them, and the leash on the worker behind each."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import termios
from dataclasses import dataclass

from eva.consent import Kind
from hypervisor.control import BadMessage, Cause, DialFailure, Done, Ended, Inbox, Keys, Open, Refused, send


@dataclass(frozen=True, slots=True)
class LineEnd:
    """Why a line ended. `text` is for the log, never for a peer."""

    cause: Cause
    text: str = ""


class Leash:
    """The broker's hold on one worker: our end of its control stream and, once it is forked, its pidfd.

    `answer` is the worker's first word, `console` the socket that came with it, `ended` its last word.
    """

    def __init__(self, request: Open | Keys) -> None:
        """Makes the control stream and puts the request into it. `theirs` is the end for the worker. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._control, self.theirs = socket.socketpair()
        self._control.setblocking(False)
        self._inbox = Inbox(self._control, Done, Refused, Ended)
        self._pidfd: int | None = None
        self._released = False
        self.pid: int | None = None
        self.console: socket.socket | None = None
        self.answer: asyncio.Future[Done | Refused] = self._loop.create_future()
        self.ended: asyncio.Future[LineEnd] = self._loop.create_future()
        send(self._control, request)
        self._loop.add_reader(self._control, self._read)

    def attach(self, pid: int, pidfd: int) -> None:
        """The worker is forked. The descriptor is the leash's from here on; if it was released meanwhile, both end now."""
        self.pid, self._pidfd = pid, pidfd
        if self._released:
            self._kill()

    def take_console(self) -> socket.socket | None:
        """The console that came with the answer, now the caller's."""
        console, self.console = self.console, None
        return console

    def release(self) -> None:
        """Kills the worker and closes all that is ours of it. Never waits; safe to call twice."""
        self._kill()
        if self._released:
            return
        self._released = True
        self.theirs.close()
        self._stop(LineEnd(Cause.CUT))
        self._control.close()
        self._inbox.close()
        if self.console is not None:
            self.console.close()

    def _kill(self) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = None

    def _read(self) -> None:
        try:
            messages = self._inbox.read()
        except BlockingIOError:
            return
        except (BadMessage, OSError) as error:
            self._stop(LineEnd(Cause.WORKER_DIED, str(error)))
            return
        if messages is None:
            self._stop(LineEnd(Cause.WORKER_DIED, "its control stream ended"))
            return
        for message, fds in messages:
            for fd in fds:
                sock = socket.socket(fileno=fd)
                if self.console is None and not self.answer.done():
                    self.console = sock
                else:
                    sock.close()
            if isinstance(message, Ended):
                self._settle(LineEnd(message.cause, message.detail))
            elif not self.answer.done():
                self.answer.set_result(message)

    def _stop(self, end: LineEnd) -> None:
        self._loop.remove_reader(self._control)
        self._settle(end)

    def _settle(self, end: LineEnd) -> None:
        if not self.answer.done():
            self.answer.set_result(Refused(DialFailure.WORKER_DIED, end.text))
        if not self.ended.done():
            self.ended.set_result(end)


class Line:
    """One open console.

    `sock` is the broker's end, a non-blocking stream socket. Serial: one end of a socketpair, the other is a worker's.
    Graphics: QEMU's very socket, with no process in between (`worker_pid` is None). It must be read to its end by the
    owner: while nobody reads, a serial console's guest waits, and after minutes of that (1 MiB held) the line is lost.
    """

    def __init__(self, kind: Kind, sock: socket.socket, leash: Leash | None) -> None:
        self.kind = kind
        self.sock = sock
        self._leash = leash
        self._cut = asyncio.get_running_loop().create_future() if leash is None else leash.ended

    @property
    def worker_pid(self) -> int | None:
        return None if self._leash is None else self._leash.pid

    @property
    def unread(self) -> int:
        """Bytes that have come of the guest and nobody has read (FIONREAD, unix(7)). Raises OSError."""
        count = array.array("i", [0])
        fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, count)
        return count[0]

    def cut(self) -> None:
        """Ends every byte path: shutdown, which a duplicate of the descriptor cannot outlive, close, SIGKILL by pidfd.

        Synchronous, idempotent, never waits, needs nothing of libvirt. The loop's thread only. An owner that has put a
        transport on `sock` aborts that in the same step, so that it does not go on with a number that is no longer its own.
        """
        with contextlib.suppress(OSError):  # the guest's side has closed, or this line is cut already
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self._leash is not None:
            self._leash.release()
        elif not self._cut.done():
            self._cut.set_result(LineEnd(Cause.CUT))

    async def ended(self) -> LineEnd:
        """Returns why it ended, by itself or by `cut`; any number of times. What the guest said before lies in `sock` still.

        The end of a graphics console is seen by its reader alone (the socket's EOF): for it, this returns only after `cut`.
        """
        return await asyncio.shield(self._cut)
