"""What befalls the virtual machine: stopped, removed, re-created, reset, claimed twice; and Ctrl+Alt+Del."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from eva.control import CTRL_ALT_DEL, Refusal, Refused
from eva.ending import Ending
from lab.cloud import Cloud
from lab.domain import domain_xml
from lab.libvirt_host import Guest, LibvirtHost
from tests.conftest import resource_id_of
from tests.system_operator import LOOK, NODE, PATIENCE, signed_in, until_refused
from tests.system_parts import consented, end_of, granted, revoked, tell_provider, until, well

# By which news of it came first, or none within a second of the console's own end
GONE = (Ending.VM_GONE.code, Ending.VM_STOPPED.code, Ending.CONSOLE_LOST.code)


@pytest.fixture
async def ready(cloud: Cloud, vm: Guest) -> AsyncIterator[Cloud]:
    """Give the cloud with no consent for this VM before or after."""
    await well(cloud)
    yield cloud
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


async def test_a_vm_that_is_stopped_ends_its_sessions_and_not_the_consent(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice:
        serial = await alice.console(vm.resource_id)
        screen = await alice.console(vm.resource_id, "graphics")
        await serial.ask("true")
        vm.destroy()
        for console in (serial, screen):
            # where libvirtd or the watcher got no processor for a second, the news of why came too late
            code = await console.ended()
            assert code in (Ending.VM_STOPPED.code, Ending.CONSOLE_LOST.code)
            assert (await end_of(ready.nodes[NODE], console.opened))["reason"] == Ending.of_code(code).word
        await until_refused(alice, vm.resource_id, Refusal.VM_NOT_RUNNING)
        vm.start()  # which begins its log anew
        await asyncio.to_thread(vm.wait_ready)
        assert await (await alice.console(vm.resource_id)).ask("echo $((40+2))") == b"42\n"


async def test_a_vm_that_is_undefined_ends_the_consent(ready: Cloud, mortal: Guest) -> None:
    grant = await consented(ready, mortal)
    async with signed_in(ready) as alice:
        console = await alice.console(mortal.resource_id)
        mortal.destroy()
        mortal.undefine()
        assert await console.ended() in GONE
        await until_refused(alice, mortal.resource_id)
        # the same VM, the same resource ID, but not before the tenant's eyes
        again = mortal.host.start_guest(mortal.name, mortal.uuid, resource_id=mortal.resource_id, wait=False)
        await until_refused(alice, mortal.resource_id)
        await until(lambda: grant.consent + "  " in stands(ready, "vm-gone"), "the consent's end in the node's books")
        again.discard()


async def test_a_transient_vm_that_is_destroyed_is_gone(ready: Cloud, mortal: Guest) -> None:
    mortal.undefine()  # it runs on, without a definition
    await consented(ready, mortal)
    async with signed_in(ready) as alice:
        console = await alice.console(mortal.resource_id)
        mortal.destroy()
        assert await console.ended() in GONE
        await until_refused(alice, mortal.resource_id)


def stands(cloud: Cloud, fate: str) -> str:
    return "\n".join(line for line in cloud.node_command(NODE, "consents").splitlines() if fate in line)


@pytest.mark.parametrize("same_uuid", [True, False], ids=["same UUID", "another UUID"])
async def test_a_vm_re_created_under_the_same_name_is_another_vm(ready: Cloud, mortal: Guest, same_uuid: bool) -> None:
    await consented(ready, mortal)
    async with signed_in(ready) as alice:
        mortal.destroy()
        mortal.undefine()
        again = mortal.host.start_guest(
            mortal.name, mortal.uuid if same_uuid else None, resource_id=mortal.resource_id, wait=False
        )
        try:
            await well(ready)
            await until_refused(alice, mortal.resource_id)
            # a new consent is for the new one
            await consented(ready, mortal)
            console = await alice.console(mortal.resource_id)
            await console.wait(lambda: console.marks, "that it is attached")
        finally:
            again.discard()


async def test_a_reset_keeps_the_session(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice:
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        after = len(console.data)
        vm.reset()
        await console.shows(b"EVA guest ready", after=after, patience=PATIENCE)
        assert await console.ask("echo $((40+2))") == b"42\n"


async def test_two_vms_that_claim_one_resource_id_are_refused(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice:
        before = await alice.console(vm.resource_id)
        double = vm.host.define_guest(resource_id=vm.resource_id)
        try:
            await until_refused(alice, vm.resource_id, Refusal.VM_AMBIGUOUS)
            # and a consent for it cannot say which one it means
            with pytest.raises(AssertionError, match="ambiguous"):
                await granted(ready, vm)
            # what was open is of the VM that was consented to
            assert await before.ask("echo $((40+2))") == b"42\n"
        finally:
            double.discard()


async def test_a_resource_id_that_was_changed_away_opens_nothing(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    old = str(vm.resource_id)
    async with signed_in(ready) as alice:
        vm.set_resource_id(resource_id_of("another"))
        try:
            for name in (old, vm.resource_id):
                await until_refused(alice, name)
        finally:
            vm.set_resource_id(old)


async def test_no_name_in_another_case_is_another_vm(ready: Cloud, vm: Guest) -> None:
    grant = await consented(ready, str(vm.resource_id).upper().replace("/SUBSCRIPTIONS", "/subscriptions"))
    async with signed_in(ready) as alice:
        await alice.console(str(vm.resource_id).lower())
        await revoked(ready, grant)
        await until_refused(alice, vm.resource_id)


async def test_ctrl_alt_del_reaches_the_guest_with_no_viewer(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        opened = await alice.open(vm.resource_id, "graphics")
        console = await alice.attach(opened)
        other = await bob.console(vm.resource_id)
        after = vm.serial.size()
        with pytest.raises(Refused) as refused:
            await bob.ask("keys.send", session=other.opened.session, chord=list(CTRL_ALT_DEL))  # type: ignore[arg-type]
        assert refused.value.refusal is Refusal.NO_KEYBOARD
        await alice.ask("keys.send", session=opened.session, chord=list(CTRL_ALT_DEL))  # type: ignore[arg-type]
        told = await vm.serial.seen("ctrl-alt-del", after=after)
        await vm.serial.seen("EVA guest ready", after=told, timeout=PATIENCE)
        await tell_provider(ready, "/revoke", {"resource_id": vm.resource_id})
        assert await console.ended() == 4002
        with pytest.raises(Refused) as refused:
            await alice.ask("keys.send", session=opened.session, chord=list(CTRL_ALT_DEL))  # type: ignore[arg-type]
        assert refused.value.refusal is Refusal.NO_SESSION
        size = vm.serial.size()
        await asyncio.sleep(0.5)
        assert b"ctrl-alt-del" not in vm.serial.content(size)


async def test_a_display_on_tcp_is_reported_and_is_none_of_ours(ready: Cloud, libvirt_host: LibvirtHost, vm: Guest) -> None:
    await well(ready)
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        url = f"http://127.0.0.1:{ready.nodes[NODE].metrics_port}/metrics"
        assert "eva_domains_with_tcp_display 0.0" in (await client.get(url)).text
        xml = domain_xml("vm-tcp", "d3b07384-d9a0-4c1b-8f4e-2f1b7c9e5a11", libvirt_host.image)
        open_door = libvirt_host.define(xml.replace("<listen type='none'/>", "<listen type='address' address='127.0.0.1'/>"))
        try:
            deadline = time.monotonic() + PATIENCE
            while "eva_domains_with_tcp_display 1.0" not in (await client.get(url)).text:
                assert time.monotonic() < deadline, "not reported"
                await asyncio.sleep(LOOK)
        finally:
            open_door.discard()
