"""hypervisor.line: the ways in which an open console ends."""

import asyncio
import contextlib
import os
import time

import pytest

from hypervisor.dialer import Cause, Kind, LineEnd
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.hypervisor_lines import PROMPT, ask, ended, host_of, read_until, started_dialer, type_in


async def end_of(awaitable: object) -> LineEnd:
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable  # type: ignore[misc]


async def test_a_cut_is_quick_with_libvirtd_frozen_and_the_worker_is_gone(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        libvirt_host.freeze()
        try:
            for _ in range(50):
                with contextlib.suppress(BlockingIOError):
                    line.sock.send(1000 * b"x")
            began = time.perf_counter()
            line.cut()
            assert time.perf_counter() - began < PROMPT  # asked by us, libvirtd would not answer as long as it stands still
            await ended(line.worker_pid)
        finally:
            libvirt_host.thaw()
        await (await dialer_ready(dialer, libvirt_host, shared_guest)).ended()


async def dialer_ready(dialer, libvirt_host, guest):  # type: ignore[no-untyped-def]
    """Clears what the flood left in the shared guest's line, and gives the line, cut."""
    line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
    await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
    line.cut()
    return line


async def test_a_cut_shuts_the_very_socket_a_duplicate_too(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        for kind in Kind:
            line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, kind)
            duplicate = line.sock.dup()
            line.cut()
            with duplicate, pytest.raises(BrokenPipeError):
                duplicate.send(b"x")


async def test_a_cut_twice_is_a_cut(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        for kind in Kind:
            line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, kind)
            line.cut()
            line.cut()
            assert (await end_of(line.ended())).cause is Cause.CUT


async def test_a_waiter_that_is_cancelled_takes_nothing_from_the_next(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        waiter = asyncio.create_task(line.ended())
        await asyncio.sleep(0)
        waiter.cancel()
        line.cut()
        assert (await end_of(line.ended())).cause is Cause.CUT


async def test_a_killed_worker_is_told_and_the_neighbour_lives(
    libvirt_host: LibvirtHost, shared_guest: Guest, guest: Guest
) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        neighbour = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        assert line.worker_pid is not None
        os.kill(line.worker_pid, 9)
        assert (await end_of(line.ended())).cause is Cause.WORKER_DIED
        with pytest.raises(EOFError):
            await read_until(line, b"never")
        await ask(neighbour, b"echo $((6*7))", b"\r\n42\r\n")
        line.cut()
        neighbour.cut()


async def test_a_destroyed_guest_ends_it_after_its_last_byte(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        await asyncio.to_thread(guest.destroy)
        assert (await end_of(line.ended())).cause is Cause.EOF
        with pytest.raises(EOFError):
            await read_until(line, b"never")
        line.cut()


async def test_a_guest_that_powers_off_is_an_end_by_itself(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await type_in(line, b"\x15poweroff -f\n")
        assert (await end_of(line.ended())).cause is Cause.EOF
        line.cut()


async def test_a_reset_keeps_it(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await asyncio.to_thread(guest.reset)
        await read_until(line, b"EVA guest ready")
        await ask(line, b"echo $((6*7))", b"\r\n42\r\n")
        line.cut()


async def test_a_lost_libvirtd_is_told(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with started_dialer() as dialer:
        line = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        await asyncio.to_thread(libvirt_host.kill)
        try:
            assert (await end_of(line.ended())).cause is Cause.LIBVIRT_LOST
        finally:
            await asyncio.to_thread(libvirt_host.restart)
        line.cut()


async def test_a_flooded_paused_guest_costs_its_neighbour_nothing(
    libvirt_host: LibvirtHost, guest: Guest, shared_guest: Guest
) -> None:
    async with started_dialer() as dialer:
        flooded = await dialer.dial(host_of(libvirt_host), guest.uuid, Kind.SERIAL)
        neighbour = await dialer.dial(host_of(libvirt_host), shared_guest.uuid, Kind.SERIAL)
        guest.pause()

        async def flood() -> None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.get_running_loop().sock_sendall(flooded.sock, 512 * 1024 * b"x")

        flooding = asyncio.create_task(flood())
        said = await ask(neighbour, b"seq 1000001 1003000; echo e''nd", b"end\r\n")
        numbers = [int(line) for line in said.split(b"\r\n") if line.isdigit()]
        assert numbers == list(range(1000001, 1003001))
        flooding.cancel()
        began = time.perf_counter()
        flooded.cut()
        assert time.perf_counter() - began < PROMPT  # to abort its stream took 29.7 s
        neighbour.cut()
        guest.resume()
