"""The fork server: one thread with libvirt loaded and no connection open, from which workers are forked in milliseconds.

`python -m hypervisor.forkserver FD PARENT`: FD is its control stream to the dialer, its only descriptor. It holds none of
the broker's ends and lets go of the workers' as soon as it has forked: a sibling that inherits one would keep a console
alive. When the stream ends it exits, and by PDEATHSIG every worker with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import traceback

import libvirt

from hypervisor import worker
from hypervisor.confinement import confine, keep_only, tie
from hypervisor.control import BadMessage, Done, Fork, Forked, Inbox, Keys, Open, Ready, encode, send


class _Wakeup:
    """Tells poll() of a SIGCHLD by a byte on a socketpair."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.reader.recv(4096)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def _read_request(end: int) -> Open | Keys:
    """What a worker is to do, read for it: parsing is warm here and would cost each worker 250 KB of its own pages.

    The dialer has written it before it passes the end. Raises BadMessage, OSError.
    """
    with socket.socket(fileno=os.dup(end)) as control:
        control.setblocking(False)
        messages = Inbox(control, Open, Keys).read()
        control.setblocking(True)
    if not messages:
        raise BadMessage("no request for the worker")
    request: Open | Keys = messages[0][0]
    return request


def _become_worker(request: Open | Keys, parent: int, ends: list[int]) -> None:
    """Runs in the child; never returns."""
    status = 70  # EX_SOFTWARE, sysexits.h
    try:
        signal.set_wakeup_fd(-1)
        keep_only(ends)
        tie("eva-worker", parent)
        control, *console = (socket.socket(fileno=fd) for fd in ends)
        worker.attend(request, control, console[0] if console else None)
        status = 0
    except BaseException:  # the edge of a process: nothing of the parent's may run on in the child  # noqa: BLE001
        traceback.print_exc()
    finally:
        # not exit(): closing a libvirt connection may wait for a hung libvirtd; the kernel closes it without asking
        os._exit(status)


def _fork(control: socket.socket, number: int, ends: list[int]) -> None:
    parent = os.getpid()
    try:
        request = _read_request(ends[0])
        pid = os.fork()
    except (BadMessage, OSError) as error:
        send(control, Forked(number, 0, str(error)))
        return
    if pid == 0:
        _become_worker(request, parent, ends)
    # children are reaped by the loop below and nowhere else, so this pid is still its own
    pidfd = os.pidfd_open(pid)
    try:
        send(control, Forked(number, pid), [pidfd])
    finally:
        os.close(pidfd)


def _warm() -> None:
    """Lets libvirt and the codec make what they make at their first use, so that the workers share it."""
    encode(Done())
    with contextlib.suppress(libvirt.libvirtError):  # there is no such socket, and it is not opened
        libvirt.open("qemu+unix:///session?socket=/nonexistent/libvirt-sock")
    # what is alive now is alive for good: kept out of the collector, its pages stay shared with the workers
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> None:
    """Forks on request until the stream ends. Raises BadMessage or OSError when the dialer is no dialer."""
    wakeup = _Wakeup()
    inbox = Inbox(control, Fork)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wakeup.reader, select.POLLIN)
    _warm()
    send(control, Ready())
    while True:
        for fd, _ in poll.poll():
            if fd != control.fileno():
                wakeup.clear()
                _reap()
                continue
            requests = inbox.read()
            if requests is None:
                return
            for request, ends in requests:
                try:
                    _fork(control, request.number, ends)
                finally:
                    for end in ends:
                        os.close(end)


def main() -> None:
    fd, parent = map(int, sys.argv[1:])
    keep_only([fd])
    confine("eva-forkserver", parent)
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised as well: not on standard error, too
    serve(socket.socket(fileno=fd))
    os._exit(0)


if __name__ == "__main__":
    main()
