"""Random faults for as long as one likes, and an oracle over the audit, the node's books and what came out of the guest.

EVA_SEED and EVA_STORM_SECONDS repeat a run: its actions in their order, not their races.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from eva.audit import Event as Audited
from eva.control import Refused
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.system_operator import NODE, Console, Operator, signed_in
from tests.system_parts import (
    Grant,
    audit_of,
    count_in,
    ends,
    granted,
    measured,
    provider_has_mqtt,
    revoked,
    tell_provider,
    until,
    well,
    workers,
)

TOLD = 1.0 + 1.0  # seconds from a confirmed revocation in which a byte that was typed may still come out on a busy machine
STALE = 256
ROUND = 600.0  # seconds between two calms: what is found wrong in one has its cause in the round before it

# What a fault may do to whoever asks: all of it is an answer, and the oracle is told of none.
FAILURES = (Refused, ConnectionClosed, InvalidHandshake, OSError, EOFError, httpx.HTTPError, AssertionError)


Action = Callable[[], Awaitable[None]]


@dataclass
class Storm:
    """The world, what was acknowledged in it, and the seeded choice of what to do next."""

    cloud: Cloud
    vm: Guest
    choose: random.Random
    accepted: list[Grant] = field(default_factory=list)
    standing: list[Grant] = field(default_factory=list)
    withdrawn: list[Grant] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    consoles: list[Console] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    # -- what people do

    async def grant(self) -> None:
        grant = await granted(self.cloud, self.vm, kinds=("serial", "graphics"))
        self.accepted.append(grant)
        self.standing.append(grant)

    async def revoke(self) -> None:
        if not self.standing:
            return
        grant = self.standing.pop(self.choose.randrange(len(self.standing)))
        if (await revoked(self.cloud, grant, confirmed=False)).confirmed:
            self.withdrawn.append(grant)

    async def open(self) -> None:
        for operator in self.operators:
            kind = self.choose.choice(("serial", "graphics"))
            self.consoles.append(await operator.console(self.vm.resource_id, kind))

    async def type(self) -> None:
        for console in self.consoles:
            if console.opened.kind == "serial" and console.code is None:
                await console.type(b"Q\n" * self.choose.randrange(1, 200))

    async def drop(self) -> None:
        if self.consoles:
            self.consoles.pop(self.choose.randrange(len(self.consoles))).websocket.transport.abort()

    # -- what befalls them

    async def pause(self) -> None:
        await asyncio.to_thread(self.vm.pause)
        await asyncio.sleep(self.choose.random())
        await asyncio.to_thread(self.vm.resume)

    async def reset(self) -> None:
        await asyncio.to_thread(self.vm.reset)

    async def freeze(self) -> None:
        self.vm.host.freeze()
        try:
            await asyncio.sleep(self.choose.random() * 3)
        finally:
            self.vm.host.thaw()

    async def kill_mosquitto(self) -> None:
        self.cloud.mosquitto.kill()
        await asyncio.sleep(self.choose.random() * 3)
        await asyncio.to_thread(self.cloud.mosquitto.start)

    async def stop_provider(self) -> None:
        self.cloud.provider.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.choose.random() * 9)
        finally:
            self.cloud.provider.signal(signal.SIGCONT)

    async def kill_broker(self) -> None:
        node = self.cloud.nodes[NODE]
        node.program.kill()
        await self.leave()
        node.start()

    async def kill_a_worker(self) -> None:
        for pid in workers(self.cloud.nodes[NODE]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- the turn of things

    async def enter(self, stack: contextlib.AsyncExitStack) -> None:
        if not self.operators:
            for account in ("alice", "bob"):
                with contextlib.suppress(*FAILURES):
                    self.operators.append(await stack.enter_async_context(signed_in(self.cloud, account)))

    async def leave(self) -> None:
        self.operators.clear()
        self.consoles.clear()

    async def rage(self, seconds: float) -> None:
        often: list[Callable[[], Awaitable[None]]] = [
            self.grant,
            self.revoke,
            self.open,
            self.open,
            self.type,
            self.type,
            self.drop,
        ]
        faults: list[Callable[[], Awaitable[None]]] = [
            *(self.pause, self.freeze, self.kill_mosquitto, self.stop_provider, self.kill_broker, self.kill_a_worker, self.reset)
        ]
        end = time.monotonic() + seconds
        async with contextlib.AsyncExitStack() as stack:
            while time.monotonic() < end:
                await self.enter(stack)
                action = self.choose.choice(faults if self.choose.random() < 0.15 else often)
                name = action.__name__
                self.done[name] = self.done.get(name, 0) + 1
                try:
                    async with asyncio.timeout(20):
                        await action()
                except FAILURES:
                    self.done[f"{name} failed"] = self.done.get(f"{name} failed", 0) + 1
                    self.operators = [operator for operator in self.operators if not operator.over]
                self.consoles = [console for console in self.consoles if console.code is None]
                await asyncio.sleep(self.choose.random() * 0.1)
        await self.leave()

    async def taken_in(self, seconds: float) -> int:
        """How much more the guest takes of what was typed."""
        after = self.vm.serial.size()
        await asyncio.sleep(seconds)
        return count_in(self.vm, b"Q", after)

    async def judge(self) -> None:
        """Holds what must be true of it all, once it is calm."""
        node = self.cloud.nodes[NODE]
        await asyncio.to_thread(self.vm.host.revive)
        await provider_has_mqtt(self.cloud)
        await well(self.cloud)
        with contextlib.suppress(AssertionError):  # none was left
            await tell_provider(self.cloud, "/revoke", {"resource_id": self.vm.resource_id})
        self.standing.clear()
        await until(lambda: set(ends(node)) == started_in(self.cloud), "the END of every session")
        assert await measured(self.cloud, "eva_sessions{") == 0
        # nothing is let down to the guest now: nobody is there, and little lay below the gate
        await asyncio.sleep(TOLD)
        came = 0
        while late := await self.taken_in(1.0):
            came += late
            assert came <= STALE  # of a guest that got no processor before
        records = audit_of(node).records
        accepted = {record.chain for record in records if record.event is Audited.CONSENT_ACCEPTED}
        assert {grant.consent for grant in self.accepted} <= accepted
        # no session under a consent after the node had said that its revocation was done
        withdrawn = {grant.consent for grant in self.withdrawn}
        over: set[str] = set()
        for record in records:
            if record.event is Audited.CONSENT_ENDED:
                over.add(record.chain)
            elif record.event is Audited.SESSION_START:
                assert record.chain not in over
        assert withdrawn <= over
        assert all(int(end.get("stale_at_most", 0)) <= STALE for end in ends(node).values())
        await until(lambda: workers(node) == set(), "the end of every worker")
        assert "chain valid" in await asyncio.to_thread(self.cloud.node_command, NODE, "verify-audit")
        # and all of it still works
        await granted(self.cloud, self.vm)
        async with signed_in(self.cloud) as alice:
            console = await alice.console(self.vm.resource_id)
            await console.wait(lambda: console.marks, "that it is attached")


def started_in(cloud: Cloud) -> set[str]:
    return {str(r.facts["session"]) for r in audit_of(cloud.nodes[NODE]).records if r.event is Audited.SESSION_START}


async def storm(vm: Guest, seconds: float, seed: int) -> None:
    print(f"EVA_SEED={seed} EVA_STORM_SECONDS={seconds:g}")  # noqa: T201 - pytest shows it with a failure
    limits = {"lease_open_seconds": 5, "lease_cut_seconds": 7}
    with Cloud({"host1": vm.host.uri}, limits=limits) as cloud:
        await well(cloud)
        raging = Storm(cloud, vm, random.Random(seed))
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await raging.rage(min(left, ROUND))
            print(raging.done, flush=True)  # noqa: T201 - the same
            await raging.judge()


def seed() -> int:
    return int(os.environ.get("EVA_SEED", random.SystemRandom().randrange(2**32)))


@pytest.mark.timeout(300)
async def test_a_short_storm(vm: Guest) -> None:
    await storm(vm, 15.0, seed())


@pytest.mark.faults
@pytest.mark.timeout(24 * 3600)
async def test_a_long_storm(vm: Guest) -> None:
    await storm(vm, float(os.environ.get("EVA_STORM_SECONDS", "3600")), seed())
