"""hypervisor.inventory: hosts that come, go, hang and come back, as the watch sees them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from eva.resource_id import ResourceId
from hypervisor import inventory as front
from hypervisor.dialer import Host
from hypervisor.inventory import Change, Fate, HostDown, HostUp, Inventory, VmBefell, VmChanged, Watch
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.hypervisor_lines import children, host_of

TEST_HOST = Host.parse("test", "test:///default")


class Log:
    """The changes in their order, to be waited for."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._news = asyncio.Event()

    def __call__(self, change: Change) -> None:
        self.changes.append(change)
        self._news.set()

    async def until(self, wanted: Callable[[Change], bool], after: int = 0, seconds: float = PATIENCE_S) -> Change:
        """The first change after the first `after` ones that is wanted. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                found = next(filter(wanted, self.changes[after:]), None)
                if found is not None:
                    return found
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(*hosts: Host, inventory: Inventory | None = None) -> AsyncIterator[tuple[Watch, Log]]:
    log = Log()
    before = children(os.getpid())
    watch = Watch(hosts, inventory or Inventory(), log)
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await watch.ready()
        yield watch, log
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert children(os.getpid()) == before, "a watcher outlived its watch"


def watchers(before: set[int]) -> set[int]:
    return children(os.getpid()) - before


async def test_the_first_listing_finds_a_guest_by_its_resource_id(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (watch, log):
        assert shared_guest.resource_id is not None
        (vm,) = watch.inventory.find(ResourceId.parse(shared_guest.resource_id.upper()))
        assert (vm.uuid, vm.generation, vm.running, vm.kinds) == (shared_guest.uuid, 1, True, {"serial", "graphics"})
        assert watch.host_up("host-1")
        assert log.changes[-1] == HostUp("host-1")


async def test_ready_waits_for_each_host_and_a_dead_one_is_reported(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    dead = Host.parse("dead", "qemu+unix:///session?socket=/nonexistent/libvirt-sock")
    async with watching(TEST_HOST, dead, host_of(libvirt_host)) as (watch, _):
        assert [watch.host_up(name) for name in ("test", "dead", "host-1", "unknown")] == [True, False, True, False]


async def test_without_hosts_it_is_ready() -> None:
    async with watching() as (watch, log):
        assert log.changes == []
        assert watch.inventory.vms == ()


def test_it_works_on_uvloop() -> None:
    async def look() -> None:
        async with watching(TEST_HOST) as (watch, _):
            assert len(watch.inventory.vms) == 1

    uvloop.run(look())


async def test_a_killed_watcher_is_a_host_down_and_another_is_started() -> None:
    before = children(os.getpid())
    async with watching(TEST_HOST) as (watch, log):
        (watcher,) = watchers(before)
        mark = len(log.changes)
        os.kill(watcher, signal.SIGKILL)
        assert isinstance(await log.until(lambda change: isinstance(change, HostDown)), HostDown)
        await log.until(lambda change: isinstance(change, HostUp), after=mark)
        assert watch.host_up("test")
        assert watchers(before) != {watcher}
        # the same VM: nothing of it has changed
        assert [type(change) for change in log.changes[mark:]] == [HostDown, HostUp]


async def test_a_silent_watcher_is_a_host_down_and_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SILENCE", 3.0)
    before = children(os.getpid())
    async with watching(TEST_HOST) as (_, log):
        await log.until(lambda change: isinstance(change, HostUp))  # the first may have been too slow for it
        (watcher,) = watchers(before)
        mark = len(log.changes)
        os.kill(watcher, signal.SIGSTOP)
        assert await log.until(lambda change: isinstance(change, HostDown), after=mark) == HostDown("test", "silent")
        await log.until(lambda change: isinstance(change, HostUp), after=mark)
        assert watchers(before) != {watcher}


async def test_a_hung_libvirtd_is_a_silent_host(
    libvirt_host: LibvirtHost, shared_guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "SILENCE", 4.0)
    async with watching(host_of(libvirt_host)) as (watch, log):
        await log.until(lambda change: isinstance(change, HostUp))  # the first watcher may have been too slow for it
        mark = len(log.changes)
        libvirt_host.freeze()
        try:
            down = await log.until(lambda change: isinstance(change, HostDown), after=mark)
            assert down == HostDown("host-1", "silent")
            assert not watch.host_up("host-1")
            assert watch.inventory.get("host-1", shared_guest.uuid) is not None
        finally:
            libvirt_host.thaw()
        await log.until(lambda change: isinstance(change, HostUp), after=mark)


async def test_it_stays_silent_no_longer_than_its_beats(libvirt_host: LibvirtHost, shared_guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        await asyncio.sleep(front.SILENCE + 1)
        assert log.changes[mark:] == []


async def test_a_restarted_libvirtd_gives_down_differences_up(libvirt_host: LibvirtHost, guest: Guest) -> None:
    uuid = guest.uuid
    async with watching(host_of(libvirt_host)) as (watch, log):
        mark = len(log.changes)
        await asyncio.to_thread(libvirt_host.kill)
        await log.until(lambda change: isinstance(change, HostDown), after=mark)
        os.kill(guest.qemu_pid, signal.SIGKILL)  # stops while nobody looks
        await asyncio.to_thread(libvirt_host.restart)
        await log.until(lambda change: isinstance(change, HostUp), after=mark)
        # libvirtd answers before it has found that one of its guests runs no more
        stopped = await log.until(lambda change: isinstance(change, VmBefell) and change.vm.uuid == uuid, after=mark)
        news = [change for change in log.changes[mark:] if not isinstance(change, VmChanged | VmBefell) or change.vm.uuid == uuid]
        assert isinstance(news[0], HostDown)
        assert {type(change) for change in news[1:]} == {VmBefell, HostUp}
        assert len(news) == 3
        assert isinstance(stopped, VmBefell)
        assert stopped.fate is Fate.STOPPED
        vm = watch.inventory.get("host-1", uuid)
        assert vm is not None
        assert (vm.running, vm.generation) == (False, 1)


async def test_a_domain_that_went_while_nobody_looked_is_gone(libvirt_host: LibvirtHost) -> None:
    libvirt_host.revive()
    guest = libvirt_host.define_guest()
    inventory = Inventory()
    async with watching(host_of(libvirt_host), inventory=inventory):
        vm = inventory.get("host-1", guest.uuid)
        assert vm is not None
    guest.undefine()
    async with watching(host_of(libvirt_host), inventory=Inventory(inventory.generations)) as (watch, log):
        assert watch.inventory.generations["host-1", guest.uuid] == vm.generation + 1
        assert not any(isinstance(change, VmBefell) for change in log.changes)  # it was not this run's VM
