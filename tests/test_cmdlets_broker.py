"""The operator's commands against the real node: a real guest, a consent, a network that breaks, another operator, a cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest

from cmdlets import serial
from cmdlets.graphics import GraphicsSession, LoopbackPort
from cmdlets.node import Credentials, Node, sign_in
from cmdlets.serial import SerialSession
from cmdlets.standing import Ended
from eva.control import Method
from eva.ending import Ending
from eva.resource_id import ResourceId
from lab.cloud import OPERATOR, PASSWORD, Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import PATIENCE_S
from tests.conftest import resource_id_of
from tests.scripted_node import BreakingRelay
from tests.system_parts import well
from tests.test_cmdlets_serial import Clock, Script


@pytest.fixture(scope="module")
def cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        for account in (OPERATOR, "bob"):
            cloud.cmdlet("Grant-RdpAccessToErcsVM", account=account)
        yield cloud


@pytest.fixture
async def vm(cloud: Cloud, shared_guest: Guest) -> ResourceId:
    """A VM that the tenant has consented to."""
    await well(cloud)
    name = resource_id_of(shared_guest.name)
    cloud.grant(name)
    return ResourceId.parse(name)


def at(cloud: Cloud, port: int | None = None, account: str = OPERATOR) -> Node:
    tls = ssl.create_default_context(cafile=cloud.authority.ca)
    ercs = cloud.nodes["AzS-ERCS01"]
    return Node(ercs.name, f"wss://localhost:{port or ercs.port}", tls, Credentials(account, PASSWORD))


class Sitting(Script):
    """An operator at a console, whose terminal is a pair of pipes: interactive, as far as the session is concerned."""

    def __init__(self, node: Node, vm: ResourceId, *, interactive: bool = True, linger_s: float = 2.0) -> None:
        super().__init__()
        self.pipes.interactive = interactive
        self.session = SerialSession(lambda: sign_in(node), self.pipes, vm, None, linger_s)

    @contextlib.asynccontextmanager
    async def sit(self) -> AsyncIterator[asyncio.Task[Ended]]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self.output, self.read)
        task = asyncio.create_task(self.session.run())
        try:
            yield task
        finally:
            loop.remove_reader(self.output)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.close()

    async def hears(self, pattern: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not re.search(pattern, bytes(self.got)):
                await asyncio.sleep(0.02)

    async def told(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not any(text in line for line in self.lines):
                await asyncio.sleep(0.02)


async def test_a_breaking_network_loses_and_doubles_nothing(cloud: Cloud, vm: ResourceId, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(serial, "PAUSES", (0.05,))
    monkeypatch.setattr(serial, "boot_s", clock)
    chance = random.Random(3)
    budgets = itertools.chain((None, 20_000), (chance.randint(5_000, 40_000) for _ in range(8)), itertools.repeat(None))
    relay = BreakingRelay(cloud.nodes["AzS-ERCS01"].port, budgets.__next__)
    async with relay.serving() as port:
        operator = Sitting(at(cloud, port), vm, interactive=False, linger_s=0.2)
        async with operator.sit() as task:
            # one line: what is typed while a command runs would be echoed into its output
            await operator.write(b"\nseq 1 20000; seq 20001 20100 | md5sum\n")
            await operator.hears(rb"\n[0-9a-f]{32}  -")
            clock.now_s += 5
            assert (await asyncio.wait_for(task, PATIENCE_S)).ending is Ending.OPERATOR_LEFT
    counted = b"\r\n".join(b"%d" % number for number in range(1, 20_001))
    assert operator.got.count(counted) == 1
    assert relay.broken >= 4


async def test_a_lost_control_connection_alone_does_not_end_the_session(cloud: Cloud, vm: ResourceId):
    operator = Sitting(at(cloud), vm)
    async with operator.sit() as task:
        await operator.write(b"echo he''re\r", end=False)
        await operator.hears(rb"\nhere")
        control = operator.session._control
        assert control is not None
        control._connection.transport.abort()
        await operator.told("connected again.")
        await operator.write(b"echo the''re\r", end=False)
        await operator.hears(rb"\nthere")
        assert not task.done()
        await operator.write(b"~.", end=False)
        assert (await asyncio.wait_for(task, PATIENCE_S)).ending is Ending.OPERATOR_LEFT


async def test_the_keyboard_goes_openly_from_one_operator_to_another(cloud: Cloud, vm: ResourceId):
    alice, bob = Sitting(at(cloud), vm), Sitting(at(cloud, account="bob"), vm)
    async with alice.sit():
        await alice.told("the keyboard is yours")
        async with bob.sit():
            await bob.told("the keyboard is not yours")
            await bob.write(b"~k", end=False)
            await alice.told("Now bob has the keyboard")
            await bob.write(b"echo fr''om bob\r", end=False)
            await alice.hears(rb"\nfrom bob")
            await alice.write(b"x", end=False)
            await alice.told("the keyboard is not yours: ~k takes it.")


async def test_an_operator_who_deletes_cuts_every_session(cloud: Cloud, vm: ResourceId):
    operator = Sitting(at(cloud), vm)
    async with operator.sit() as task:
        await operator.told("the keyboard is yours")
        out = await asyncio.to_thread(cloud.cmdlet, "Delete-TenantVMSession", "-ResourceID", str(vm), account="bob")
        assert ", 1 session cut" in out
        assert (await asyncio.wait_for(task, PATIENCE_S)).ending is Ending.CONSENT_REVOKED


async def test_the_screen_comes_through_the_port_and_is_cut(cloud: Cloud, vm: ResourceId):
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def show() -> Ended:
        async with sign_in(at(cloud)) as (control, _):
            session = GraphicsSession(control, LoopbackPort(), lambda _: None, lambda c: port.set_result(int(c.split("::")[1])))
            return await session.run(vm, None)

    task = asyncio.create_task(show())
    reader, writer = await asyncio.open_connection("127.0.0.1", await asyncio.wait_for(port, PATIENCE_S))
    assert await asyncio.wait_for(reader.readexactly(12), PATIENCE_S) == b"RFB 003.008\n"
    async with sign_in(at(cloud, account="bob")) as (control, _):
        await control.ask(Method.SESSION_DELETE, resource_id=str(vm))
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) is not None
    assert (await asyncio.wait_for(task, PATIENCE_S)).ending is Ending.CONSENT_REVOKED
    writer.close()
