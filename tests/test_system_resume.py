"""A connection that breaks, anywhere, costs no byte and doubles none, either way."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from eva.audit import Event as Audited
from eva.control import Event, Opened, Refusal, Refused
from eva.members import Json
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.system_operator import NODE, Console, Operator, signed_in
from tests.system_parts import Wire, audit_of, calm, consented, end_of, revoked, tell_provider, until, well


@pytest.fixture
async def ready(cloud: Cloud, vm: Guest) -> AsyncIterator[Cloud]:
    await well(cloud)
    yield cloud
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


class Stubborn:
    """An operator's client that comes back after each drop, by the protocol's own counts of bytes."""

    def __init__(self, cloud: Cloud, port: int, vm: Guest) -> None:
        self.data = bytearray()  # all that earlier connections showed, from the first attachment's offset on
        self.console: Console | None = None
        self.typed = bytearray()  # all that was ever to be typed
        self.drops = 0
        self.session: Opened | None = None
        self._cloud = cloud
        self._port = port
        self._vm = vm
        self._offset = 0  # at which the first attachment began
        self._sent = 0
        self._news = asyncio.Event()

    @property
    def shown(self) -> bytes:
        """All that was shown so far."""
        return bytes(self.data) + bytes(self.console.data if self.console is not None else b"")

    def type(self, data: bytes) -> None:
        self.typed += data
        self._news.set()

    async def run(self) -> None:
        while True:
            try:
                async with signed_in(self._cloud, port=self._port) as operator:
                    await self._serve(operator)
            except (OSError, ConnectionClosed, InvalidHandshake, EOFError):
                self.drops += 1

    async def _serve(self, operator: Operator) -> None:
        if self.session is None:
            self.session = await operator.open(self._vm.resource_id)
        console = await operator.attach(await operator.resume(self.session, self._offset + len(self.data)))
        await console.wait(lambda: console.marks or console.ended_at, "where it starts")
        if not console.marks:
            raise ConnectionError
        if not self.data:
            self._offset = console.start
        assert console.start == self._offset + len(self.data), "a byte is lost or doubled"
        self._sent = console.taken
        self.console = console
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(console))
                group.create_task(self._until_over(console))
        except* (OSError, ConnectionClosed):
            pass
        finally:
            # also what came while the connection was breaking
            self.data += console.data
            self.console = None
        raise ConnectionError

    async def _send(self, console: Console) -> None:
        while True:
            if self._sent < len(self.typed):
                await console.type(bytes(self.typed[self._sent :]))
                self._sent = len(self.typed)
            self._news.clear()
            await self._news.wait()

    async def _until_over(self, console: Console) -> None:
        await console.ended(600)
        raise ConnectionError


async def dropped_often(cloud: Cloud, vm: Guest, lines: int, drops: int, seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    choose = random.Random(seed)
    await consented(cloud, vm)
    async with Wire(cloud.nodes[NODE].port) as wire:
        client = Stubborn(cloud, wire.port, vm)
        running = asyncio.create_task(client.run())
        # the guest prints a numbered stream while it takes another, and goes on for longer: without an answer only 256 bytes pass
        script = f"(i=100000; while [ $i -lt {100_000 + lines} ]; do echo p$i; i=$((i+1)); usleep 20000; done; echo e''nd) &"
        client.type(f"stty -echo; {script} cat >/tmp/typed; wait; stty echo; echo fin''ished\n".encode())
        await until(lambda: b"p100010" in vm.serial.content(), "the guest's stream")
        stream = b"".join(b"%06d\n" % number for number in range(lines // 4))
        sent = 0
        next_drop = time.monotonic() + choose.random()
        while sent < len(stream) or b"end\r\n" not in vm.serial.content():
            assert not running.done(), running
            client.type(stream[sent : sent + 14])
            sent += 14
            await asyncio.sleep(0.05)
            if time.monotonic() > next_drop and client.drops < drops:
                wire.cut()
                next_drop = time.monotonic() + choose.random()
        client.type(b"\x04")
        await until(lambda: b"finished\r\n" in client.shown, "the end of it")
        drops = client.drops
        wire.cut()  # and what is shown after it is no more of it
        await until(lambda: client.drops > drops, "the last drop")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert client.drops > 2
    shown = client.shown
    expected = b"".join(b"p%d\r\n" % number for number in range(100_000, 100_000 + lines))
    numbers = b"".join(line + b"\n" for line in shown.split(b"\n") if line.startswith(b"p1"))
    assert numbers == expected
    assert await asyncio.to_thread(digest_of_typed, cloud, vm) == hashlib.md5(stream, usedforsecurity=False).hexdigest()


def digest_of_typed(cloud: Cloud, vm: Guest) -> str:
    """What the guest took, as md5: 100 KiB of it take longer to print than the serial line's patience."""
    asyncio.run(tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id}))
    calm(vm)
    return vm.run("md5sum < /tmp/typed").split()[0]


@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_over_drops(ready: Cloud, vm: Guest) -> None:
    await dropped_often(ready, vm, 700, 8, random.SystemRandom().randrange(2**32))


@pytest.mark.faults
@pytest.mark.timeout(3600)
async def test_nothing_is_lost_or_doubled_over_many_drops(ready: Cloud, vm: Guest) -> None:
    await dropped_often(ready, vm, 60_000, 500, random.SystemRandom().randrange(2**32))


def resumed(cloud: Cloud) -> set[Json]:
    """The sessions that were, by the audit."""
    return {r.facts["session"] for r in audit_of(cloud.nodes[NODE]).records if r.event is Audited.SESSION_RESUMED}


async def test_a_session_that_is_resumed_elsewhere_says_so_to_the_first(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready) as again:
        first = await alice.console(vm.resource_id)
        await first.ask("true")
        second = await again.attach(await again.resume(first.opened, first.start + len(first.data)))
        assert await first.ended() == 4007
        assert await second.ask("echo $((40+2))") == b"42\n"
        await until(lambda: first.opened.session in resumed(ready), "the record that it was resumed")


async def test_a_session_is_resumed_by_its_own_account_only(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice, signed_in(ready, "bob") as bob:
        console = await alice.console(vm.resource_id)
        with pytest.raises(Refused) as refused:
            await bob.resume(console.opened, 0)
        assert refused.value.refusal is Refusal.NO_SESSION
        assert await console.ask("echo $((40+2))") == b"42\n"


async def test_a_session_that_was_cut_while_it_was_dropped_is_not_resumed(ready: Cloud, vm: Guest) -> None:
    grant = await consented(ready, vm)
    async with signed_in(ready) as alice:
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        console.websocket.transport.abort()
        await console.ended()
        assert (await revoked(ready, grant)).sessions == 1
        await consented(ready, vm)
        with pytest.raises(Refused) as refused:
            await alice.resume(console.opened, 0)
        assert refused.value.refusal is Refusal.NO_SESSION
        assert (await end_of(ready.nodes[NODE], console.opened))["reason"] == "consent-revoked"


def attached(operator: Operator, console: Console) -> bool:
    """What the node told last of whether this console's connection stands."""
    told = [notice for notice in operator.notices if notice.event is Event.VIEWERS]
    viewers = cast("list[dict[str, Json]]", told[-1].params["viewers"])
    return any(viewer["session"] == console.opened.session and viewer["attached"] for viewer in viewers)


async def test_nothing_is_typed_while_it_is_dropped(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    async with signed_in(ready) as alice:
        console = await alice.console(vm.resource_id)
        await console.type(b"echo list''ening; cat >/dev/null\n")
        await console.shows(b"listening\r\n")
        vm.pause()
        after = vm.serial.size()
        await console.type(b"Q" * 2000)  # 256 of them go down, the rest waits
        await console.wait(lambda: console.taken >= 256, "the first of them")
        console.websocket.transport.abort()
        await console.ended()
        await until(lambda: not attached(alice, console), "the node's news of the drop")
        vm.resume()
        await until(lambda: vm.serial.content(after).count(b"Q") >= 256, "what had gone down")
        await asyncio.sleep(1.0)
        assert vm.serial.content(after).count(b"Q") == 256
        # they are the client's to send again, and it is told from where
        back = await alice.attach(await alice.resume(console.opened, console.start + len(console.data)))
        await back.wait(lambda: back.marks, "where it starts")
        assert back.taken == console.taken
