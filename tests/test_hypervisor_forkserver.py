"""hypervisor.forkserver: what it holds, and what it does with a dialer that is none."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hypervisor.control import Device, Done, Fork, Forked, Inbox, Keys, Open, Ready, Refused, send
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.hypervisor_lines import descriptors, holding

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="its /proc entries are closed to its own user (PR_SET_DUMPABLE)")

Server = tuple[subprocess.Popen[bytes], socket.socket, Inbox]


@pytest.fixture
def server() -> Iterator[Server]:
    """A ready fork server, our end of its stream, and the inbox on that."""
    ours, theirs = socket.socketpair()
    with ours:
        command = [sys.executable, "-I", "-m", "hypervisor.forkserver", str(theirs.fileno()), str(os.getpid())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            ours.settimeout(PATIENCE_S)
            inbox = Inbox(ours, Ready, Forked)
            assert inbox.read() == [(Ready(), [])]
            yield process, ours, inbox
            ours.close()
            assert process.wait(PATIENCE_S) in (0, 1)


def forked(server: Server, request: object, *more: socket.socket) -> tuple[Forked, list[int], socket.socket]:
    """Asks for a worker with this request; gives the answer, its descriptors, and our end of the control stream."""
    _, stream, inbox = server
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    if request is not None:
        send(ours, request)
    send(stream, Fork(1), [theirs.fileno(), *(end.fileno() for end in more)])
    theirs.close()
    ((message, fds),) = inbox.read() or []
    return message, fds, ours


def test_a_worker_answers_and_its_pidfd_tells_its_end(server: Server) -> None:
    request = Open("test:///default", "6695eb01-f6a4-8304-79aa-97f2502e193f", Device.GRAPHICS)
    message, (pidfd,), control = forked(server, request)
    with control:
        ((answer, _),) = Inbox(control, Done, Refused).read() or []
    assert isinstance(answer, Refused)  # the test driver has no consoles
    assert message.pid > 0
    os.close(pidfd)


def test_a_worker_without_a_request_is_not_made(server: Server) -> None:
    message, fds, control = forked(server, None)
    control.close()
    assert (message.pid, fds) == (0, [])
    assert message.error


def test_a_request_that_is_none_harms_nobody(server: Server) -> None:
    message, _, control = forked(server, Ready())
    control.close()
    assert message.pid == 0
    message, (pidfd,), control = forked(server, Keys("test:///default", "x", (30,), 10))
    control.close()
    assert message.pid > 0
    os.close(pidfd)


@needs_root
async def test_it_holds_its_own_three_sockets_and_no_workers_end(
    server: Server, libvirt_host: LibvirtHost, shared_guest: Guest
) -> None:
    process, _, _ = server
    before = descriptors(process.pid)
    ours, theirs = socket.socketpair()
    with ours:
        _, (pidfd,), control = forked(server, Open(libvirt_host.uri, shared_guest.uuid, Device.SERIAL), theirs)
        theirs.close()
        with control:
            assert Inbox(control, Done, Refused).read() == [(Done(), [])]
            await holding(process.pid, before)  # the worker's answer may be here before it has closed its ends
            assert sum(target.startswith("socket:") for number, target in before.items() if number > 2) == 3
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            # nobody but the dead worker held the other ends
            assert ours.recv(65536, socket.MSG_WAITALL)[-1:] == b"" or ours.recv(1) == b""
            assert control.recv(1) == b""


def test_a_worker_whose_console_end_closes_goes_by_itself(server: Server, libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    ours, theirs = socket.socketpair()
    _, (pidfd,), control = forked(server, Open(libvirt_host.uri, shared_guest.uuid, Device.SERIAL), theirs)
    theirs.close()
    with control:
        assert Inbox(control, Done, Refused).read() == [(Done(), [])]
        ours.close()
        assert control.recv(1) == b""
    os.close(pidfd)


def test_it_ends_with_its_stream(server: Server) -> None:
    process, stream, _ = server
    stream.close()
    assert process.wait(PATIENCE_S) == 0


def test_a_signal_that_asks_politely_does_not_end_it(server: Server) -> None:
    process, _, _ = server
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    message, (pidfd,), control = forked(server, Keys("test:///default", "x", (30,), 10))
    control.close()
    os.close(pidfd)
    assert message.pid > 0


def test_started_by_another_than_it_was_told_it_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-m", "hypervisor.forkserver", str(theirs.fileno()), "1"]
        process = subprocess.run(command, pass_fds=[theirs.fileno()], timeout=PATIENCE_S, check=False)
    assert process.returncode == 0
