"""hypervisor.watcher: what libvirt's events become."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt
import pytest

from hypervisor.inventory import Change, Fate, Vm, VmBefell, VmChanged
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.hypervisor_lines import children, host_of
from tests.test_hypervisor_inventory import Log, watchers, watching

OTHER_ID = (
    "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/other"
)


def of(uuid: str, kind: type | Fate, where: Callable[[Vm], bool] = lambda _: True) -> Callable[[Change], bool]:
    def wanted(change: Change) -> bool:
        return (
            isinstance(change, VmChanged | VmBefell) and change.vm.uuid == uuid and kind_of(change) is kind and where(change.vm)
        )

    return wanted


@contextmanager
def held(before: set[int]) -> Iterator[None]:
    """Holds the one watcher that was not among the children `before`."""
    (watcher,) = watchers(before)
    os.kill(watcher, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGCONT)


def kind_of(change: VmChanged | VmBefell) -> type | Fate:
    return change.fate if isinstance(change, VmBefell) else VmChanged


def seen_of(log: Log, uuid: str, after: int) -> list[type | Fate]:
    return [kind_of(c) for c in log.changes[after:] if isinstance(c, VmChanged | VmBefell) and c.vm.uuid == uuid]


async def test_metadata_set_changed_and_taken_away(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        guest.set_resource_id(OTHER_ID)
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: str(vm.resource_id) == OTHER_ID), mark)
        guest.set_resource_id("no resource id")
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.resource_id is None and vm.fault is not None), mark)
        guest.set_resource_id(None)
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.resource_id is None and vm.fault is None), mark)


async def test_pause_resume_reset(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        guest.pause()
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.paused and vm.running), mark)
        guest.resume()
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: not vm.paused), mark)
        guest.reset()
        await log.until(of(guest.uuid, Fate.RESET), mark)
        assert seen_of(log, guest.uuid, mark)[:3] == [VmChanged, VmChanged, Fate.RESET]


async def test_a_destroyed_guest_stops_and_keeps_its_generation(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (watch, log):
        mark = len(log.changes)
        guest.destroy()
        await log.until(of(guest.uuid, Fate.STOPPED), mark)
        guest.start()
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.running), mark)
        vm = watch.inventory.get("host-1", guest.uuid)
        assert vm is not None
        assert vm.generation == 1


async def test_a_quick_destroy_and_start_is_still_a_stop(libvirt_host: LibvirtHost, guest: Guest) -> None:
    before = children(os.getpid())
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        with held(before):
            guest.destroy()
            guest.start()
        await log.until(of(guest.uuid, Fate.STOPPED), mark)


async def test_undefined_and_defined_again_under_one_uuid_is_another_generation(libvirt_host: LibvirtHost) -> None:
    libvirt_host.revive()
    guest = libvirt_host.define_guest(resource_id=OTHER_ID)
    xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    before = children(os.getpid())
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        with held(before):
            guest.undefine()
            again = libvirt_host.define(xml)
        assert again.uuid == guest.uuid
        changed = await log.until(of(guest.uuid, VmChanged), mark)
        assert seen_of(log, guest.uuid, mark)[:2] == [Fate.GONE, VmChanged]
        assert isinstance(changed, VmChanged)
        assert changed.vm.generation == 2
        again.undefine()
        await log.until(of(guest.uuid, Fate.GONE, where=lambda vm: vm.generation == 2), mark)


async def test_an_updated_definition_is_the_same_vm(libvirt_host: LibvirtHost) -> None:
    libvirt_host.revive()
    guest = libvirt_host.define_guest(resource_id=OTHER_ID)
    xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        libvirt_host.define(xml.replace("<listen type='none'/>", "<listen type='address' address='127.0.0.1'/>"))
        changed = await log.until(of(guest.uuid, VmChanged), mark)
        assert isinstance(changed, VmChanged)
        assert (changed.vm.generation, changed.vm.tcp_display) == (1, True)
        guest.undefine()


async def test_a_running_guest_that_is_undefined_has_gone_though_it_runs_on(libvirt_host: LibvirtHost, guest: Guest) -> None:
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        guest.undefine()
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.running and vm.generation == 2), mark)
        assert seen_of(log, guest.uuid, mark) == [Fate.GONE, VmChanged]
        guest.destroy()
        await log.until(of(guest.uuid, Fate.GONE, where=lambda vm: vm.generation == 2), mark)


async def test_a_transient_guest_destroyed_and_made_again_at_once_is_another_generation(libvirt_host: LibvirtHost) -> None:
    libvirt_host.revive()
    guest = libvirt_host.define_guest(resource_id=OTHER_ID)
    xml = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    guest.undefine()
    domain = libvirt_host.connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
    before = children(os.getpid())
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        with held(before):  # when it looks into the end of the first, the second is there already
            domain.destroy()
            domain = libvirt_host.connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.running and vm.generation == 2), mark)
        assert seen_of(log, guest.uuid, mark)[:2] == [Fate.STOPPED, Fate.GONE]
        domain.destroy()
        await log.until(of(guest.uuid, Fate.GONE, where=lambda vm: vm.generation == 2), mark)


async def test_a_new_name_is_no_new_vm(libvirt_host: LibvirtHost) -> None:
    libvirt_host.revive()
    guest = libvirt_host.define_guest(resource_id=OTHER_ID)
    async with watching(host_of(libvirt_host)) as (_, log):
        mark = len(log.changes)
        guest.domain.rename(f"{guest.name}-b")
        await log.until(of(guest.uuid, VmChanged, where=lambda vm: vm.name.endswith("-b")), mark)
        assert Fate.GONE not in seen_of(log, guest.uuid, mark)
        guest.undefine()


@pytest.mark.parametrize("uri", ["test:///default", "qemu+unix:///session?socket=/nonexistent/sock"], ids=["up", "down"])
def test_it_ends_with_its_stream(uri: str) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-m", "hypervisor.watcher", str(theirs.fileno()), str(os.getpid()), uri]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        with ours:
            assert ours.recv(1) == b"{"
        assert process.wait(PATIENCE_S) == 0
