"""What sessions do to one another: nothing, unless it is seeing one console and handing its keyboard over."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eva.control import Event, Method, Refusal, Refused
from eva.members import Json
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.rfb_bytes import extended_key, pointer, request
from tests.system_operator import LOOK, NODE, PATIENCE, Console, Operator, pressed, run_on_screen, shown, signed_in
from tests.system_parts import consented, count_in, end_of, measured, tell_provider, until, well, workers


@pytest.fixture
async def ready(cloud: Cloud, vm: Guest) -> AsyncIterator[Cloud]:
    """Give the cloud with no consent for this VM before or after."""
    await well(cloud)
    yield cloud
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


# --- one session's fault changes nothing in another


async def test_a_neighbour_loses_no_byte_while_a_paused_vm_is_flooded(ready: Cloud, vm: Guest, other_guest: Guest) -> None:
    await consented(ready, vm)
    await consented(ready, other_guest)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        flooded = await bob.console(other_guest.resource_id)
        await flooded.ask("true")
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        other_guest.pause()
        after = len(console.data)
        await console.type(b"stty -echo; seq 100001 103000; echo e''nd\n")
        flood = asyncio.create_task(pour(flooded, 64))
        end = await console.shows(b"end\r\n", after=after, patience=PATIENCE)
        begin = console.data.index(b"100001\r\n", after)
        assert bytes(console.data[begin : end - 5]) == b"".join(b"%d\r\n" % number for number in range(100001, 103001))
        assert await console.ask("stty echo; echo $((40+2))") == b"42\n"
        assert flooded.code is None
        assert flooded.taken < 4096
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
        # what was pasted is still his to see: the guest goes on and takes it
        other_guest.resume()


async def pour(console: Console, kib: int) -> None:
    for _ in range(kib):
        await console.type((b"#" * 63 + b"\n") * 16)


async def worker_of(cloud: Cloud) -> int:
    """The node's one worker, once those of sessions that are over are gone."""
    node = cloud.nodes[NODE]
    await until(lambda: len(workers(node)) == 1, "one worker")
    (worker,) = workers(node)
    return worker


async def test_a_worker_that_dies_ends_its_own_session_only(ready: Cloud, vm: Guest, other_guest: Guest) -> None:
    await consented(ready, vm)
    await consented(ready, other_guest)
    node = ready.nodes[NODE]
    async with signed_in(ready) as alice:
        first = await alice.console(vm.resource_id)
        worker = await worker_of(ready)
        second = await alice.console(other_guest.resource_id)
        screen = await alice.console(vm.resource_id, "graphics")
        os.kill(worker, signal.SIGKILL)
        assert await first.ended() == 4012
        assert (await end_of(node, first.opened))["reason"] == "console-lost"
        assert await second.ask("echo $((40+2))") == b"42\n"
        assert screen.code is None
        again = await alice.console(vm.resource_id)
        # the screen's session was there first, and nothing takes the keyboard from it
        await alice.ask(Method.KEYBOARD_TAKE, session=again.opened.session)
        assert await again.ask("echo $((40+2))") == b"42\n"


async def test_a_fork_server_that_dies_ends_what_hangs_on_it_and_is_replaced(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice:
        console = await alice.console(vm.resource_id)
        os.kill(parent_of(await worker_of(ready)), signal.SIGKILL)
        assert await console.ended() == 4012
        assert await (await alice.console(vm.resource_id)).ask("echo $((40+2))") == b"42\n"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# --- many viewers, one keyboard


async def test_two_operators_see_the_same_bytes(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        first = await alice.console(vm.resource_id)
        second = await bob.console(vm.resource_id)
        await worker_of(ready)
        assert (first.opened.keyboard, second.opened.keyboard) == (True, False)
        await first.ask("seq 1000 2000")
        upto = first.start + len(first.data)
        await second.wait(lambda: second.start + len(second.data) >= upto, "all that the other has")
        common = max(first.start, second.start)
        assert first.data[common - first.start :] == second.data[common - second.start :]
        # a second viewer is no event for the first: he is told, and that is all
        await until(lambda: any(notice.event is Event.VIEWERS for notice in alice.notices), "word of him")
        assert first.code is None


async def test_who_joins_sees_what_was_shown_before_under_the_same_consent(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        first = await alice.console(vm.resource_id)
        await first.ask("echo before-$((40+2))")
        second = await bob.console(vm.resource_id)
        await second.shows(b"before-42\r\n")


async def test_what_was_shown_under_one_consent_is_not_shown_under_another(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm, operators=("account:alice",))
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        first = await alice.console(vm.resource_id)
        await first.ask("echo secret-$((40+2))")
        await consented(ready, vm, operators=("account:bob",))
        second = await bob.console(vm.resource_id)
        await first.ask("echo after-$((40+2))")
        await second.shows(b"after-42\r\n")
        assert b"secret" not in second.data
        # nor under a third, once every session of the first two is over
        await tell_provider(ready, "/revoke", {"resource_id": vm.resource_id})
        assert await first.ended() == 4002
        await consented(ready, vm)
        third = await alice.console(vm.resource_id)
        await third.ask("true")
        assert b"secret" not in third.data
        assert b"after-42" not in third.data


def owners(operator: Operator) -> list[Json]:
    """Who had the keyboard, as he was told."""
    return [notice.params["keyboard"] for notice in operator.notices if notice.event is Event.VIEWERS]


async def test_the_keyboard_is_handed_over_and_taken(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        first = await alice.console(vm.resource_id)
        second = await bob.console(vm.resource_id)
        after = vm.serial.size()
        await second.type(b"XXXX")
        await second.wait(lambda: second.taken == 4, "the news that it was dropped")
        await first.ask("true")
        assert count_in(vm, b"X", after) == 0
        await alice.ask(Method.KEYBOARD_GIVE, session=first.opened.session, to=second.opened.session)
        assert await second.ask("echo $((40+2))") == b"42\n"
        with pytest.raises(Refused) as refused:
            await alice.ask(Method.KEYBOARD_GIVE, session=first.opened.session, to=first.opened.session + "0")
        assert refused.value.refusal is Refusal.NO_KEYBOARD
        await alice.ask(Method.KEYBOARD_TAKE, session=first.opened.session)
        assert await first.ask("echo $((50+3))") == b"53\n"
        await until(lambda: owners(bob)[-1:] == [first.opened.session], "word of who types")
        with pytest.raises(Refused) as refused:
            await bob.ask(Method.KEYBOARD_TAKE, session=first.opened.session)
        assert refused.value.refusal is Refusal.NO_SESSION


# --- view only


async def test_a_cheating_viewer_types_nothing_on_the_serial_console(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm, access="view")
    async with signed_in(ready) as alice:
        with pytest.raises(Refused) as refused:
            await alice.open(vm.resource_id, access="keyboard")
        assert refused.value.refusal is Refusal.NOT_CONSENTED
        console = await alice.console(vm.resource_id)
        after = vm.serial.size()
        await console.type(b"X" * 500)
        await console.wait(lambda: console.taken == 500, "the news that it was dropped")
        for method in (Method.KEYBOARD_TAKE, Method.INPUT_RELEASE):
            with pytest.raises(Refused) as refused:
                await alice.ask(method, session=console.opened.session)
            assert refused.value.refusal is Refusal.NO_KEYBOARD
        with pytest.raises(Refused):
            await alice.ask(Method.KEYS_SEND, session=console.opened.session, chord=[29, 56, 111])
        await asyncio.sleep(0.5)
        assert count_in(vm, b"X", after) == 0
        await alice.ask(Method.SESSION_LEAVE, session=console.opened.session)
        assert (await end_of(ready.nodes[NODE], console.opened))["to_guest"] == 0


async def test_a_cheating_viewer_types_nothing_on_the_screen(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm, kinds=("graphics",))
    async with signed_in(ready) as alice:
        console = await shown(await alice.console(vm.resource_id, "graphics", "view"))
        after = vm.serial.size()
        dropped = await measured(ready, 'eva_filtered_total{filter="rfb-client"')
        cheat = pressed("echo X>/dev/ttyS0\n") + extended_key(0xFF0D, 28, down=True) + pointer(1, 5, 5)
        for place in range(0, len(cheat), 7):  # no frame ends where a message ends
            await console.type(cheat[place : place + 7])
        await until_filtered(ready, dropped + 36)
        # and the same by the owner of a keyboard: behind it, so that the guest would have shown it before
        honest = await shown(await alice.console(vm.resource_id, "graphics"))
        await run_on_screen(honest, "echo Y>/dev/ttyS0", lambda: count_in(vm, b"Y", after) > 0)
        assert count_in(vm, b"X", after) == 0


async def until_filtered(cloud: Cloud, count: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while await measured(cloud, 'eva_filtered_total{filter="rfb-client"') < count:
        assert time.monotonic() < deadline, "the messages were not dropped"
        await asyncio.sleep(LOOK)


async def test_a_second_viewer_who_wants_the_screen_alone_throws_nobody_off(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm, kinds=("graphics",))
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        first = await shown(await alice.console(vm.resource_id, "graphics"))
        second = await shown(await bob.console(vm.resource_id, "graphics"))
        size = len(first.data)
        await first.type(request())
        await first.wait(lambda: len(first.data) > size + 100_000, "pixels for the first, still")
        assert (first.code, second.code) == (None, None)
