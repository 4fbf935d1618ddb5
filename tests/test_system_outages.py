"""Revoked stays revoked and no session comes back, whatever dies: mosquitto, provider, broker."""

import asyncio
import random
import signal
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from eva.audit import Event as Audited
from eva.control import Opened, Refusal, Refused
from eva.wire import Envelope, consent_topic
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from provider.store.books import Books
from provider.store.schema import revocations
from provider.store.store import Store
from tests.system_operator import LOOK, NODE, PATIENCE, Console, signed_in, until_refused
from tests.system_parts import (
    SLACK,
    Grant,
    audit_of,
    consented,
    ends,
    family,
    granted,
    is_gone,
    measured,
    provider_has_mqtt,
    publish_as_provider,
    revoked,
    tell_provider,
    until,
    well,
)


@pytest.fixture(scope="module")
def own_cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give a cloud in which everything may be killed; each test leaves it running."""
    # what is away for longer than a lease is not these tests' matter, and a busy machine takes its time to start it again
    with Cloud({"host1": libvirt_host.uri}, limits={"lease_cut_seconds": 60}) as cloud:
        yield cloud


def token_of(cloud: Cloud, grant: Grant) -> str:
    """The consent's token, out of the provider's store."""
    with Store(cloud.directory / "provider/provider.db").read() as connection:
        filed = Books(connection).consent(grant.consent)
    assert filed is not None
    return filed.token


async def assert_refused(cloud: Cloud, vm: Guest) -> None:
    await well(cloud)
    async with signed_in(cloud) as alice:
        with pytest.raises(Refused) as refused:
            await alice.open(vm.resource_id)
        assert refused.value.refusal is Refusal.NO_CONSENT


async def test_a_revocation_that_mqtt_loses_comes_with_the_lease(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    grant = await consented(own_cloud, vm)
    node = own_cloud.nodes[NODE]
    async with signed_in(own_cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        # the node's MQTT session is forgotten while the node cannot take it up again: the next letter has nobody to go to
        node.program.signal(signal.SIGSTOP)
        own_cloud.mosquitto.kill()
        for store in own_cloud.mosquitto.directory.glob("mosquitto.db*"):
            store.unlink()
        own_cloud.mosquitto.start()
        await provider_has_mqtt(own_cloud)
        count = revocation_count(own_cloud)
        withdrawing = asyncio.create_task(revoked(own_cloud, grant, confirmed=False))
        try:
            await until(lambda: revocation_count(own_cloud) > count, "the revocation in the provider's store")
            await asyncio.sleep(0.2)  # for its PUBACK, of which nothing tells outside the provider
            own_cloud.mosquitto.kill()
        finally:
            woken = time.monotonic()
            node.program.signal(signal.SIGCONT)
        assert await console.ended() == 4002
        assert console.ended_at is not None
        assert console.ended_at - woken < 2.0 + 1.0 + 1.5 + SLACK  # an ask every 2 s, then a second for MQTT, and HTTPS
        # its receipt comes with the ask after that, which the caller may have given up to wait for
        await withdrawing
        await until(lambda: is_confirmed(own_cloud, grant), "the node's receipt in the provider's store")
    own_cloud.mosquitto.start()
    await provider_has_mqtt(own_cloud)


def is_confirmed(cloud: Cloud, grant: Grant) -> bool:
    with Store(cloud.directory / "provider/provider.db").read() as connection:
        rows = connection.execute(select(revocations.c.confirmed_ms).where(revocations.c.consent == grant.consent))
        return [row.confirmed_ms is not None for row in rows] == [True]


def revocation_count(cloud: Cloud) -> int:
    with Store(cloud.directory / "provider/provider.db").read() as connection:
        return sum(node.seq for node in Books(connection).nodes())


async def test_a_provider_that_is_killed_and_started_again_ends_nothing(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    grant = await consented(own_cloud, vm)
    async with signed_in(own_cloud) as alice:
        console = await alice.console(vm.resource_id)
        own_cloud.provider.kill()
        await own_cloud.providers[0].started()
        assert await console.ask("echo $((40+2))") == b"42\n"
        await provider_has_mqtt(own_cloud)
        cut = await revoked(own_cloud, grant)
        assert cut.sessions == 1
        assert await console.ended() == 4002


async def test_a_node_that_stops_in_order_ends_and_records_each_session(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    grant = await consented(own_cloud, vm)
    node = own_cloud.nodes[NODE]
    async with signed_in(own_cloud) as alice:
        serial = await alice.console(vm.resource_id)
        screen = await alice.console(vm.resource_id, "graphics")
        before = family(node.program.pid)
        assert await node.program.stopped(PATIENCE) == 0
        assert (await serial.ended(), await screen.ended()) == (4008, 4008)
        await until(lambda: all(map(is_gone, before)), "the end of every process of the node")
        for console in (serial, screen):
            assert ends(node)[console.opened.session]["reason"] == "node-stopping"
    assert audit_of(node).records[-1].event is Audited.NODE_STOP
    node.start()
    await well(own_cloud)
    async with signed_in(own_cloud) as alice:
        # no session of before, not even to resume; the consent still stands
        with pytest.raises(Refused) as refused:
            await alice.resume(serial.opened, len(serial.data))
        assert refused.value.refusal is Refusal.NO_SESSION
        assert await (await alice.console(vm.resource_id)).ask("echo $((40+2))") == b"42\n"
    await revoked(own_cloud, grant)


async def replayed(cloud: Cloud, topic: str, letter: bytes) -> None:
    """Return when the node has counted it as refused."""
    before = await measured(cloud, "eva_consents_refused_total")
    await publish_as_provider(cloud, topic, letter)
    deadline = time.monotonic() + PATIENCE
    while await measured(cloud, "eva_consents_refused_total") == before:
        assert time.monotonic() < deadline, "the node has not refused it"
        await asyncio.sleep(LOOK)


async def test_revoked_stays_revoked_through_restart_and_replay(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    node = own_cloud.nodes[NODE]
    grant = await consented(own_cloud, vm)
    letter = Envelope(token_of(own_cloud, grant)).encode()
    topic = consent_topic(NODE)
    await revoked(own_cloud, grant)
    await replayed(own_cloud, topic, letter)
    await assert_refused(own_cloud, vm)
    node.program.kill()
    node.start()
    await assert_refused(own_cloud, vm)
    await replayed(own_cloud, topic, letter)
    await assert_refused(own_cloud, vm)
    assert "stands" not in own_cloud.node_command(NODE, "consents")


async def killed_somewhere(cloud: Cloud, vm: Guest, rounds: int, seed: int) -> None:
    """Kill the broker at any point of grant, sign-in, open, attach, typing, revoke, again and again."""
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    choose = random.Random(seed)
    node = cloud.nodes[NODE]
    await well(cloud)
    for number in range(rounds):
        acknowledged: list[Grant] = []
        opened: list[Opened] = []
        asked_back: list[Grant] = []
        withdrawn: list[Grant] = []
        before = family(node.program.pid)
        work = asyncio.create_task(live_through(cloud, vm, acknowledged, opened, asked_back, withdrawn))
        # from nothing to the time that all of it takes on a machine that is not busy, and some more
        await asyncio.sleep(choose.random() * 1.2)
        node.program.kill()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await until(lambda old=before: all(map(is_gone, old)), "the end of every process of the node")
        node.start()
        await well(cloud)
        records = audit_of(node).records
        accepted = {record.chain for record in records if record.event is Audited.CONSENT_ACCEPTED}
        started = {record.facts["session"] for record in records if record.event is Audited.SESSION_START}
        assert {grant.consent for grant in acknowledged} <= accepted, f"round {number}: an accepted consent is lost"
        assert {one.session for one in opened} <= started, f"round {number}: a START is lost"
        assert set(ends(node)) == started, f"round {number}: a session without its END"
        assert await measured(cloud, "eva_sessions{") == 0
        stood = cloud_consents(cloud)
        for grant in withdrawn:
            assert not stood[grant.consent], f"round {number}: a confirmed revocation is lost"
        for grant in acknowledged:
            assert stood[grant.consent] or grant in asked_back, f"round {number}: a consent is lost"
        # nobody holds the console any more, and all of the way works
        grant = await consented(cloud, vm)
        async with signed_in(cloud) as alice:
            console = await alice.console(vm.resource_id)
            await console.type(b"\x03\x15\n")
            assert await console.ask("echo $((40+2))") == b"42\n"
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})
    assert "chain valid" in cloud.node_command(NODE, "verify-audit")


async def test_one_re_created_while_the_node_is_down_is_another_vm(own_cloud: Cloud, mortal: Guest) -> None:
    await well(own_cloud)
    await consented(own_cloud, mortal)
    own_cloud.nodes[NODE].program.stop()
    mortal.destroy()
    mortal.undefine()
    again = mortal.host.start_guest(mortal.name, resource_id=mortal.resource_id, wait=False)
    try:
        own_cloud.nodes[NODE].start()
        await well(own_cloud)
        async with signed_in(own_cloud) as alice:
            await until_refused(alice, mortal.resource_id)
    finally:
        again.discard()


def cloud_consents(cloud: Cloud) -> dict[str, bool]:
    """Whether each consent stands, by the node's own books."""
    lines = cloud.node_command(NODE, "consents").splitlines()
    return {line.split("  ")[0]: line.split("  ")[2] == "stands" for line in lines}


async def live_through(
    cloud: Cloud, vm: Guest, acknowledged: list[Grant], opened: list[Opened], asked_back: list[Grant], withdrawn: list[Grant]
) -> None:
    """What a day at the node is, and what of it was acknowledged."""
    grant = await granted(cloud, vm)
    acknowledged.append(grant)
    async with signed_in(cloud) as alice:
        for kind in ("serial", "graphics"):
            opened.append(await alice.open(vm.resource_id, kind))  # noqa: PERF401 - each counts as soon as it is told
        console: Console = await alice.attach(opened[0])
        for _ in range(10):
            await console.type(b"echo $((40+2))\n")
            await console.shows(b"42\r\n")
    asked_back.append(grant)
    if (await revoked(cloud, grant, confirmed=False)).confirmed:
        withdrawn.append(grant)


@pytest.mark.timeout(300)
async def test_a_broker_killed_anywhere_loses_nothing_that_it_acknowledged(own_cloud: Cloud, vm: Guest) -> None:
    await killed_somewhere(own_cloud, vm, 3, random.SystemRandom().randrange(2**32))


@pytest.mark.faults
@pytest.mark.timeout(6 * 3600)
async def test_a_broker_killed_a_thousand_times_loses_nothing_that_it_acknowledged(own_cloud: Cloud, vm: Guest) -> None:
    await killed_somewhere(own_cloud, vm, 1000, random.SystemRandom().randrange(2**32))
