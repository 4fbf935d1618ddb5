"""What the tests of lines share: reading one, and looking at processes from outside."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hypervisor.dialer import Dialer, Host, Kind, Line
from lab.libvirt_host import LibvirtHost
from lab.transcript import PATIENCE_S

PROMPT = 2.0  # seconds by which a busy machine may be late with what never waits


class PatientDialer(Dialer):
    """One whose guests and workers may have to wait for a processor."""

    async def dial(self, host: Host, uuid: str, kind: Kind, timeout: float = PATIENCE_S) -> Line:
        return await super().dial(host, uuid, kind, timeout)


def host_of(libvirt_host: LibvirtHost) -> Host:
    return Host.parse("host-1", libvirt_host.uri)


@asynccontextmanager
async def started_dialer() -> AsyncIterator[Dialer]:
    dialer = PatientDialer()
    await dialer.start()
    try:
        yield dialer
    finally:
        await dialer.stop()


async def type_in(line: Line, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(line.sock, data)


async def read_until(line: Line, wanted: bytes, seconds: float = PATIENCE_S) -> bytes:
    """Everything up to and with the chunk that completes `wanted`. Raises EOFError, TimeoutError with what came last."""
    data = b""
    try:
        async with asyncio.timeout(seconds):
            while wanted not in data:
                chunk = await asyncio.get_running_loop().sock_recv(line.sock, 65536)
                if not chunk:
                    raise EOFError(data[-500:])
                data += chunk
    except TimeoutError:
        raise TimeoutError(data[-500:]) from None
    return data


async def ask(line: Line, command: bytes, answer: bytes) -> bytes:
    """Types a command line (after clearing the one begun) and reads until `answer`, which the echo must not hold."""
    await type_in(line, b"\x15" + command + b"\n")
    return await read_until(line, answer)


async def ended(pid: int, seconds: float = PATIENCE_S) -> None:
    """Returns when the process has ended. Raises TimeoutError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(pidfd, over.set)
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def childless(pid: int, seconds: float = PATIENCE_S) -> None:
    """Returns when the process has no children, zombies among them. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while children(pid):
            await asyncio.sleep(0.005)  # a parent's reaping can be seen only by looking


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor is; the one that looks is left out."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except FileNotFoundError:
            continue
    return found


async def holding(pid: int, wanted: dict[int, str], seconds: float = PATIENCE_S) -> None:
    """Returns when these are the process's descriptors. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while descriptors(pid) != wanted:
            await asyncio.sleep(0.005)  # a close can be seen only by looking


def asleep(*pids: int) -> bool:
    """Whether no thread of theirs has anything to do, or would if it got a processor (proc(5), stat, field 3)."""
    threads = (thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir())
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "S" for thread in threads)


async def quiet(*pids: int, seconds: float = PATIENCE_S) -> None:
    """Returns when they have been asleep for half a second, each time one looked. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        looks = 0
        while looks < 10:
            await asyncio.sleep(0.05)  # that nothing happens cannot be awaited
            looks = looks + 1 if asleep(*pids) else 0


def processor_ticks(pid: int) -> int:
    """User and system time, in ticks of 10 ms (proc(5), stat, fields 14 and 15)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def private_dirty_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise ValueError(pid)
