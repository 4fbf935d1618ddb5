"""Invariants 1 and 4 on real parts: a cut is a second at most, and little lies below the gate."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from eva.audit import Event as Audited
from eva.control import Refused
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.rfb_bytes import request
from tests.system_operator import NODE, PATIENCE, Console, doing, pressed, run_on_screen, shown, signed_in, typing
from tests.system_parts import (
    PROMISE,
    SLACK,
    STALE,
    Grant,
    assert_silence_after,
    audit_of,
    calm,
    consented,
    count_in,
    end_of,
    granted,
    is_gone,
    listening,
    revoked,
    tell_provider,
    until,
    well,
    workers,
)


@pytest.fixture
async def grant(cloud: Cloud, vm: Guest) -> AsyncIterator[Grant]:
    """Give a consent for the guest; none stands afterwards."""
    await well(cloud)
    yield await consented(cloud, vm)
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


async def worker_ends(before: set[int], asked: float) -> None:
    await until(lambda: all(map(is_gone, before)), "the end of the worker", asked + PROMISE + SLACK - time.monotonic())


async def test_an_operator_who_types_all_the_time_is_cut(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 20, "what is typed in the guest")
            before = workers(cloud.nodes[NODE])
            cut = await revoked(cloud, grant)
            assert cut.sessions == 1
            assert cut.cut_us is not None
            assert cut.cut_us < PROMISE * 1e6
            assert await console.ended() == 4002
            assert console.ended_at is not None
            assert console.ended_at - cut.asked < PROMISE + SLACK
            await worker_ends(before, cut.asked)
            await assert_silence_after(cloud.nodes[NODE], console, vm, cut.asked, after)
        end = await end_of(cloud.nodes[NODE], console.opened)
        assert end["reason"] == "consent-revoked"
        assert end["to_guest"] >= 40


async def read_to_the_end(console: Console) -> None:
    while True:
        await console.websocket.recv()


async def test_an_operator_who_reads_nothing_is_cut(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.attach(await alice.open(vm.resource_id), stalled=True)
        await console.type(b"while :; do cat /proc/cpuinfo; done\n")
        start = vm.serial.size()
        # more than every buffer on the way to him holds, until the guest itself stands still
        await until(lambda: vm.serial.size() - start > 300_000, "output")
        before = workers(cloud.nodes[NODE])
        cut = await revoked(cloud, grant)
        assert cut.cut_us is not None
        assert cut.cut_us < PROMISE * 1e6
        assert len(before) == 1
        await worker_ends(before, cut.asked)
        # his websocket is not waited for: the transport is aborted, though he never answered the close
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(read_to_the_end(console), PATIENCE)
        assert (await end_of(cloud.nodes[NODE], console.opened))["reason"] == "consent-revoked"


async def test_a_paused_guest_gets_little_of_what_was_pasted(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        vm.pause()
        after = vm.serial.size()
        await console.type((b"Q" * 63 + b"\n") * 512)
        await console.wait(lambda: any(mark == "held" for mark, _ in console.marks), "the notice that input is held")
        cut = await revoked(cloud, grant)
        assert cut.cut_us is not None
        assert cut.cut_us < PROMISE * 1e6
        assert await console.ended() == 4002
        end = await end_of(cloud.nodes[NODE], console.opened)
        vm.resume()
        await asyncio.to_thread(calm, vm)
        came = count_in(vm, b"Q", after)
        assert 0 < came <= end["stale_at_most"] <= STALE


async def test_each_release_of_held_input_is_256_bytes_more_and_is_counted(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        vm.pause()
        after = vm.serial.size()
        await console.type(b"Q" * 1000)
        await console.wait(lambda: console.taken >= STALE, "the first bytes")
        taken = console.taken
        await alice.ask("input.release", session=console.opened.session)  # type: ignore[arg-type]
        await console.wait(lambda: console.taken == taken + STALE, "256 more")
        await revoked(cloud, grant)
        end = await end_of(cloud.nodes[NODE], console.opened)
        vm.resume()
        await asyncio.to_thread(calm, vm)
        assert count_in(vm, b"Q", after) <= end["stale_at_most"] == 2 * STALE


async def test_a_hung_libvirtd_and_a_hung_worker_do_not_delay_it(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 20, "what is typed in the guest")
            vm.host.freeze()
            try:
                before = workers(cloud.nodes[NODE])
                for pid in before:  # one that hangs cannot end by itself
                    os.kill(pid, signal.SIGSTOP)
                cut = await revoked(cloud, grant)
                assert cut.cut_us is not None
                assert cut.cut_us < PROMISE * 1e6
                assert await console.ended() == 4002
                assert console.ended_at is not None
                assert console.ended_at - cut.asked < PROMISE + SLACK
                await worker_ends(before, cut.asked)
                frozen = count_in(vm, b"Q", after)
            finally:
                vm.host.thaw()
            await asyncio.sleep(2.0)  # what libvirtd had taken before, and nothing else, may still come
            assert count_in(vm, b"Q\r\n", after) - frozen <= STALE


async def test_it_holds_under_load_both_ways(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.type(b"while read x; do echo $x; seq 1000 1020; done\n")
        after = vm.serial.size()
        # long lines: a terminal that has no room for input takes no Ctrl+C either
        async with doing(typing(console, b"Q" * 200 + b"\n", 0.0)):
            await until(lambda: count_in(vm, b"Q", after) > 2000, "what is typed in the guest")
            cut = await revoked(cloud, grant)
            assert cut.cut_us is not None
            assert cut.cut_us < PROMISE * 1e6
            assert await console.ended() == 4002
            assert console.ended_at is not None
            assert console.ended_at - cut.asked < PROMISE + SLACK


async def test_graphics_is_cut_under_load_both_ways(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id, "graphics")
        await shown(console)
        after = vm.serial.size()
        await run_on_screen(console, "echo up >/dev/ttyS0; cat >/dev/ttyS0", lambda: b"up\r\n" in vm.serial.content(after))
        async with doing(typing(console, pressed("Q\n"), 0.1)), doing(typing(console, request(), 0.3)):
            await until(lambda: count_in(vm, b"Q", after) > 3, "what is typed on the screen, in the guest")
            cut = await revoked(cloud, grant)
            assert cut.cut_us is not None
            assert cut.cut_us < PROMISE * 1e6
            # a client that got no processor in its grace has megabytes of pixels to read before the close frame
            assert await console.ended() in (4002, 1006)
            assert console.ended_at is not None
            assert console.ended_at - cut.asked < PROMISE + SLACK
            await assert_silence_after(cloud.nodes[NODE], console, vm, cut.asked, after, each=len(pressed("Q\n")))
        end = await end_of(cloud.nodes[NODE], console.opened)
        assert end["reason"] == "consent-revoked"
        assert end["stale_at_most"] <= STALE
    vm.reset()
    await asyncio.to_thread(vm.wait_ready, after=after)


async def test_an_operators_delete_cuts_and_the_provider_confirms_it(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 5, "what is typed in the guest")
            done = await asyncio.to_thread(cloud.cmdlet, "Delete-TenantVMSession", "-ResourceID", str(vm.resource_id))
            asked = time.monotonic()
            assert done
            assert await console.ended() == 4002
            assert console.ended_at is not None
            assert console.ended_at < asked + SLACK
            await assert_silence_after(cloud.nodes[NODE], console, vm, asked, after)
    # it is final for the provider as well: the node's receipt made it sign a revocation of its own
    assert (await revoked(cloud, grant)).confirmed


async def test_a_short_consent_ends_at_its_second(cloud: Cloud, vm: Guest, grant: Grant) -> None:
    node = cloud.nodes[NODE]
    async with signed_in(cloud) as alice:
        seconds, short, in_time = 4, grant, False
        while not in_time:
            with contextlib.suppress(AssertionError, IndexError):  # it has run out
                await revoked(cloud, short)
            short = await granted(cloud, vm, seconds=seconds)
            seconds *= 2  # where it ran out before there was anything to end
            with contextlib.suppress(Refused, AssertionError, ConnectionClosed):
                console = await alice.console(vm.resource_id)
                await listening(console)
                after = vm.serial.size()
                async with doing(typing(console, b"Q\n")):
                    await until(lambda after=after: count_in(vm, b"Q", after) > 5, "what is typed in the guest", 2.0)
                    in_time = console.code is None
                    code = await console.ended()
        assert code == 4001
        end = await end_of(node, console.opened)
        assert end["reason"] == "consent-expired"
        (at_ms,) = [
            one.at_ms
            for one in audit_of(node).records
            if one.event is Audited.SESSION_END and one.facts["session"] == console.opened.session
        ]
        late = at_ms / 1000 - short.expires_at
        assert -0.1 < late < PROMISE + SLACK
        assert console.ended_at is not None
        await assert_silence_after(node, console, vm, console.ended_at, after)
