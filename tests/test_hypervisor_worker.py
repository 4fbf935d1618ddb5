"""hypervisor.worker: what one is and holds, and that it neither spins nor loses a byte when the broker does not read."""

import asyncio
import fcntl
import hashlib
import os
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from hypervisor.control import Done, Ended, Inbox
from hypervisor.dialer import Cause, Kind
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.hypervisor_lines import ask, descriptors, host_of, processor_ticks, quiet, read_until, started_dialer, type_in

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="its /proc entries are closed to its own user (PR_SET_DUMPABLE)")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_it_is_one_thread_without_a_way_to_more_privileges(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        said = status(line.worker_pid)
        assert (said["Name"], said["Threads"], said["NoNewPrivs"]) == ("eva-worker", "1", "1")
        line.cut()


async def test_a_signal_that_asks_politely_does_not_end_it(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        for number in (1, 2, 3, 15):
            os.kill(line.worker_pid, number)
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        line.cut()


@needs_root
async def test_it_holds_its_own_ends_and_no_siblings(libvirt_host: LibvirtHost, shared_guest: Guest, guest: Guest) -> None:
    async with started_dialer() as dialer:
        lines = [await dialer.dial(host_of(libvirt_host), each.uuid, Kind.SERIAL) for each in (shared_guest, guest)]
        first, second = (
            {target for target in descriptors(line.worker_pid or 0).values() if target.startswith("socket:")} for line in lines
        )
        assert len(first) == len(second) == 3  # control, console, libvirt
        assert not first & second
        assert not (first | second) & set(descriptors(os.getpid()).values())
        for line in lines:
            line.cut()


async def test_it_is_idle_when_the_guest_is(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        assert line.worker_pid is not None
        before = processor_ticks(line.worker_pid)
        await asyncio.sleep(1.0)
        assert processor_ticks(line.worker_pid) - before <= 1
        line.cut()


async def test_it_rests_while_nobody_reads_and_then_no_byte_is_missing(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        start = guest.serial.size()
        # 30,000 lines are 270 KB: more than the sockets and the worker hold
        await type_in(line, b"\x15seq 1000001 1030000; echo e''nd\n")
        await stalled(guest, start, line.worker_pid)
        assert guest.serial.size() - start < 200_000
        before = processor_ticks(line.worker_pid)
        await asyncio.sleep(1.0)
        assert processor_ticks(line.worker_pid) - before <= 1
        said = await read_until(line, b"end\r\n", 2 * PATIENCE_S)
        numbers = [int(part) for part in said.split(b"\r\n") if part.isdigit() and len(part) == 7]
        assert numbers == list(range(1000001, 1030001))
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        line.cut()


async def stalled(guest: Guest, start: int, worker: int) -> None:
    """Returns when the guest has said much since `start` and cannot get another byte out."""
    async with asyncio.timeout(PATIENCE_S):
        size = -1
        while guest.serial.size() < start + 20_000 or size != guest.serial.size():
            size = guest.serial.size()
            await quiet(guest.qemu_pid, guest.host.pid, worker)  # it is not that one of them waits for a processor


async def test_what_waits_is_sent_when_the_broker_reads_again(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        start = guest.serial.size()
        # more than its socket holds, less than makes it rest
        await type_in(line, b"\x15seq 1000001 1006000; echo e''nd\n")
        await asyncio.to_thread(guest.serial.wait_for, "end\r\n", after=start)
        assert line.worker_pid is not None
        await quiet(guest.qemu_pid, libvirt_host.pid, line.worker_pid)  # what a worker holds cannot be seen
        libvirt_host.freeze()  # nothing but the broker's reading can wake it now
        try:
            await read_until(line, b"end\r\n")
        finally:
            libvirt_host.thaw()
        line.cut()


def untaken(sock: socket.socket) -> int:
    """Bytes that the other end has not read (unix(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


async def test_a_key_passes_while_nobody_reads(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        start = guest.serial.size()
        await type_in(line, b"\x15yes\n")
        await stalled(guest, start, line.worker_pid)
        await type_in(line, b"\x03")
        async with asyncio.timeout(10):  # with its next sign of life, 15 s after the last, it would take it all the same
            while untaken(line.sock):
                await asyncio.sleep(0.01)  # how much a socket holds can only be asked
        await read_until(line, b"^C")
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        line.cut()


async def test_the_guest_gets_every_byte_in_order(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await ask(line, b"stty -echo raw; echo read''y; head -c 20000 | md5sum; stty sane; echo don''e", b"ready")
        data = bytes(33 + i % 90 for i in range(20000))
        for i in range(0, len(data), 200):
            await type_in(line, data[i : i + 200])
            await asyncio.sleep(0.01)  # the emulated UART has 16 bytes of FIFO and the tty 4 KB
        said = await read_until(line, b"done")
        assert hashlib.md5(data).hexdigest().encode() in said  # noqa: S324  # what busybox has
        line.cut()


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_broker_that_does_not_read_for_longer_than_the_daemons_keepalive_loses_nothing(
    libvirt_host: LibvirtHost, guest: Guest
) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await type_in(line, b"\x15seq 1000001 1080000; echo e''nd\n")
        await asyncio.sleep(50)
        said = await read_until(line, b"end\r\n", 60)
        numbers = [int(part) for part in said.split(b"\r\n") if part.isdigit() and len(part) == 7]
        assert numbers == list(range(1000001, 1080001))
        line.cut()


IMPATIENT = """
import socket, sys
from hypervisor import worker
from hypervisor.control import Device, Open
worker.GIVE_UP, worker.SIGN_OF_LIFE = 250_000, 0.1
control, console = (socket.socket(fileno=int(fd)) for fd in sys.argv[3:])
worker.attend(Open(sys.argv[1], sys.argv[2], Device.SERIAL), control, console)
"""


async def test_a_broker_that_never_reads_loses_the_line_and_the_memory_is_bounded(
    libvirt_host: LibvirtHost, guest: Guest
) -> None:
    (control, theirs), (console, its) = socket.socketpair(), socket.socketpair()
    with control, console:
        control.settimeout(PATIENCE_S)
        command = [sys.executable, "-c", IMPATIENT, libvirt_host.uri, guest.uuid, str(theirs.fileno()), str(its.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno(), its.fileno()]) as worker:
            theirs.close()
            its.close()
            inbox = Inbox(control, Done, Ended)
            assert await asyncio.to_thread(inbox.read) == [(Done(), [])]
            console.send(b"\x15yes\n")
            ((end, _),) = await asyncio.to_thread(inbox.read) or []
            assert isinstance(end, Ended)
            assert end.cause is Cause.ERROR
            assert 250_000 <= int(end.detail.split()[0]) < 300_000
            control.close()
            assert await asyncio.to_thread(worker.wait, PATIENCE_S) == 0


TOO_EARLY = """
import socket, sys
from hypervisor import worker
from hypervisor.control import Device, Open
def pauses(real=worker.RELEASE):
    print("busy", flush=True)
    sys.stdin.readline()
    yield from real
worker.RELEASE = pauses()
control, console = (socket.socket(fileno=int(fd)) for fd in sys.argv[3:])
worker.attend(Open(sys.argv[1], sys.argv[2], Device.SERIAL), control, console)
"""


def test_it_opens_though_the_last_console_lets_go_a_moment_late(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    stream = libvirt_host.connection.newStream(0)
    shared_guest.domain.openConsole(None, stream, 0)
    (control, theirs), (console, its) = socket.socketpair(), socket.socketpair()
    ends, pipe = [theirs.fileno(), its.fileno()], subprocess.PIPE
    command = [sys.executable, "-c", TOO_EARLY, libvirt_host.uri, shared_guest.uuid, *map(str, ends)]
    with subprocess.Popen(command, pass_fds=ends, stdin=pipe, stdout=pipe, text=True) as worker, control, console:
        theirs.close()
        its.close()
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "busy\n"
        stream.abort()
        worker.stdin.write("\n")
        worker.stdin.flush()
        control.settimeout(PATIENCE_S)
        assert Inbox(control, Done, Ended).read() == [(Done(), [])]
