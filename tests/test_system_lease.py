"""Authority is a lease: with both ways to the provider gone, input is held and then every session cut; one way is enough."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator

import pytest

from eva.control import Mark, Method, Refusal, Refused
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from tests.system_operator import NODE, Console, doing, signed_in, typing
from tests.system_parts import SLACK, calm, consented, count_in, end_of, revoked, well

EVERY = 2.0  # seconds between two asks
TICK = 0.2  # seconds between two looks of the node at the lease
ANSWER = 1.5  # seconds that an ask may have been under way before the provider answered it


def limits(open_s: int, cut_s: int) -> dict[str, int]:
    return {"lease_open_seconds": open_s, "lease_cut_seconds": cut_s}


@contextlib.contextmanager
def quick_cloud(vm: Guest, open_s: int, cut_s: int) -> Iterator[Cloud]:
    with Cloud({"host1": vm.host.uri}, limits=limits(open_s, cut_s)) as cloud:
        yield cloud


async def echoing(cloud: Cloud, vm: Guest, console: Console) -> int:
    """Let the guest echo; give the place in its transcript from which to count."""
    await console.type(b"echo list''ening; cat >/dev/null\n")
    await console.shows(b"listening\r\n")
    return vm.serial.size()


async def lose_both(cloud: Cloud, vm: Guest, open_s: float, cut_s: float, *, mosquitto: bool) -> None:
    await well(cloud)
    grant = await consented(cloud, vm)
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        after = await echoing(cloud, vm, console)
        arrived: list[float] = []
        async with doing(typing(console, b"Q\n", 0.1)), doing(noting(console, arrived)):
            await asyncio.sleep(0.5)
            stopped = time.monotonic()
            cloud.provider.signal(signal.SIGSTOP)
            if mosquitto:
                cloud.mosquitto.kill()
            try:
                # nothing the provider can say from here on is less than its last answer old
                await asyncio.sleep(open_s + SLACK)
                with pytest.raises(Refused) as refused:
                    await alice.ask(Method.SESSION_OPEN, resource_id=str(vm.resource_id), kind="graphics")
                assert refused.value.refusal is Refusal.LEASE_STALE
                assert await console.ended() == 4004
                assert console.ended_at is not None
                assert console.ended_at - stopped < cut_s + TICK + SLACK
                assert console.ended_at - stopped > cut_s - EVERY - ANSWER - SLACK
                assert arrived[-1] - stopped < open_s + SLACK
                assert arrived[-1] - stopped > open_s - EVERY - ANSWER - SLACK
                assert [m.text("why") for mark, m in console.marks if mark is Mark.HELD][-1] == "lease"
                end = await end_of(cloud.nodes[NODE], console.opened)
                assert end["reason"] == "lease-lost"
                assert 0 < count_in(vm, b"Q", after) * len(b"Q\n") <= end["to_guest"]
            finally:
                cloud.provider.signal(signal.SIGCONT)
                if mosquitto:
                    cloud.mosquitto.start()
        # the consent still stands: with the provider back it opens again
        await well(cloud)
        again = await alice.console(grant.resource_id)
        assert b"6" in await calmed_ask(again)
        # or the session would wait for its operator to come back, and hold the console meanwhile
        await revoked(cloud, grant)


async def calmed_ask(console: Console) -> bytes:
    await console.type(b"\x03\x15\n")
    return await console.ask("echo $((2*3))")


async def noting(console: Console, arrived: list[float]) -> None:
    """Note when bytes that were typed have passed, as the node tells: a guest that gets no processor takes them later."""
    seen = console.taken
    while True:
        if console.taken > seen:
            seen = console.taken
            arrived.append(time.monotonic())
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def own_cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give a cloud whose leases are as short as they may be."""
    with Cloud({"host1": libvirt_host.uri}, limits=limits(5, 7)) as cloud:
        yield cloud


async def test_a_stopped_provider_holds_input_then_cuts(own_cloud: Cloud, vm: Guest) -> None:
    await lose_both(own_cloud, vm, 5, 7, mosquitto=False)


@pytest.mark.faults
@pytest.mark.parametrize("mosquitto", [False, True])
async def test_both_ways_gone_with_the_shipped_limits(vm: Guest, mosquitto: bool) -> None:
    with quick_cloud(vm, 6, 15) as cloud:
        await lose_both(cloud, vm, 6, 15, mosquitto=mosquitto)


async def nothing_ends(cloud: Cloud, vm: Guest, seconds: float) -> None:
    """Hold that what is typed flows for so long, and that new sessions open."""
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await echoing(cloud, vm, console)
        sent = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await console.type(b"Q\n")
            sent += 1
            await console.wait(lambda count=sent: console.data.count(b"Q") == count, "the echo of what was typed")
            await asyncio.sleep(0.05)
        assert console.code is None
        assert not [mark for mark, told in console.marks if mark is Mark.HELD and told.text("why") == "lease"]
        other = await alice.console(vm.resource_id)
        await console.type(b"R\n")
        await other.shows(b"R\r\n")


async def one_way_gone(cloud: Cloud, vm: Guest, seconds: float) -> None:
    await well(cloud)
    await consented(cloud, vm)
    cloud.mosquitto.kill()
    await nothing_ends(cloud, vm, seconds)
    cloud.mosquitto.start()
    # now the other way alone: nobody answers at the port that the node asks by HTTPS
    node = cloud.nodes[NODE]
    node.program.stop()
    await asyncio.to_thread(calm, vm)
    text = node.settings.read_text()
    node.settings.write_text(text.replace(f"https://localhost:{cloud.lease_port}", f"https://localhost:{free_port()}"))
    try:
        node.start()
        await well(cloud)
        await nothing_ends(cloud, vm, seconds)
    finally:
        node.program.stop()
        node.settings.write_text(text)
        node.start()


async def test_one_way_alone_ends_nothing(own_cloud: Cloud, vm: Guest) -> None:
    await one_way_gone(own_cloud, vm, 8.0)


@pytest.mark.faults
async def test_one_way_alone_ends_nothing_for_long(own_cloud: Cloud, vm: Guest) -> None:
    await one_way_gone(own_cloud, vm, 20.0)
