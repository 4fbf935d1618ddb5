"""Consoles of a real guest:  python -m benchmarks.guest_consoles ROUNDS      prints one line of JSON

Beside the workers: libvirt in this very process (no process to start, and nothing to kill when it hangs) and in a new
Python process for each console, as one would do it without a fork server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt

from benchmarks.measures import IN_PROCESS, NEW_PROCESS, WORKER
from eva.consent import Kind
from hypervisor.dialer import Dialer, Host
from lab.libvirt_host import LibvirtHost

Samples = dict[str, dict[str, list[float]]]  # by measure and contender

RELEASED = 0.1  # seconds: libvirtd learns of a console's end a moment after it, and until then there is no second one

# what hypervisor/worker.py does for each console, in a process of its own
PROGRAM = """
import libvirt, sys, time
uri, uuid, serial = sys.argv[1], sys.argv[2], sys.argv[3] == "serial"
libvirt.virEventRegisterDefaultImpl()
domain = libvirt.open(uri).lookupByUUIDString(uuid)
if serial:
    stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
    domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
else:
    domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
print("open", flush=True)
sys.stdin.read()
"""


def private_dirty_kib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(text.partition("\nPrivate_Dirty:")[2].split()[0])


@contextlib.contextmanager
def console_in_process(uri: str, uuid: str, kind: Kind) -> Iterator[None]:
    connection: Any = libvirt.open(uri)  # libvirt-python has no types
    domain = connection.lookupByUUIDString(uuid)
    if kind is Kind.SERIAL:
        stream = connection.newStream(0)
        domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        yield
        stream.abort()
    else:
        descriptor = domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
        yield
        with open(descriptor, "rb"):  # noqa: PTH123  # a descriptor, not a path
            pass
    connection.close()


@contextlib.contextmanager
def console_in_new_process(uri: str, uuid: str, kind: Kind) -> Iterator[int]:
    """Gives its pid."""
    command = [sys.executable, "-I", "-c", PROGRAM, uri, uuid, kind.value]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process.pid
        process.kill()


async def measure(rounds: int, note: Callable[[str, str, float], None]) -> None:
    """Opens one console after the other, each kind each way, `rounds` times after one that does not count."""
    with LibvirtHost() as host:
        guest = host.start_guest("bench")
        uri, uuid = host.uri, guest.uuid
        dialer = Dialer()
        await dialer.start()
        try:
            for number in range(-1, rounds):
                for kind in Kind:
                    opening = f"{kind}-open"
                    start = time.perf_counter()
                    line = await dialer.dial(Host.parse("host1", uri), uuid, kind)
                    taken = {WORKER: time.perf_counter() - start}
                    dirty = private_dirty_kib(line.worker_pid) if line.worker_pid else 0.0
                    line.cut()
                    await asyncio.sleep(RELEASED)
                    start = time.perf_counter()
                    with console_in_process(uri, uuid, kind):
                        taken[IN_PROCESS] = time.perf_counter() - start
                    await asyncio.sleep(RELEASED)
                    start = time.perf_counter()
                    with console_in_new_process(uri, uuid, kind) as pid:
                        taken[NEW_PROCESS] = time.perf_counter() - start
                        dirty_alone = private_dirty_kib(pid)
                    await asyncio.sleep(RELEASED)
                    if number < 0:
                        continue
                    for who, seconds in taken.items():
                        note(opening, who, seconds * 1000)
                    if kind is Kind.SERIAL:
                        note("worker-memory", WORKER, dirty)
                        note("worker-memory", NEW_PROCESS, dirty_alone)
        finally:
            await dialer.stop()


def main() -> None:
    samples: Samples = defaultdict(lambda: defaultdict(list))
    asyncio.run(measure(int(sys.argv[1]), lambda name, who, value: samples[name][who].append(value)))
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
