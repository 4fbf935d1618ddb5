"""Two providers on one PostgreSQL and one MQTT broker: either may be killed at any moment, and the other serves on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from lab.cloud import Cloud, Provider
from lab.libvirt_host import Guest, LibvirtHost
from lab.postgresql import Postgresql
from provider.store.books import Books
from provider.store.key_sets import KeySets
from provider.store.place import PostgresqlServer, parse_place
from provider.store.schema import consents, receipts, revocations
from provider.store.store import Store
from tests.system_operator import LOOK, NODE, PATIENCE, signed_in
from tests.system_parts import until, well

GIVERS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    """Give a PostgreSQL that a test may stop; each leaves it running."""
    with Postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def own_cloud(libvirt_host: LibvirtHost, server: Postgresql) -> Iterator[Cloud]:
    names = ("eva-provider", "eva-provider-2")
    # as long as a busy machine may take to start a database
    with Cloud({"host1": libvirt_host.uri}, store=server, providers=names, limits={"lease_cut_seconds": 60}) as cloud:
        yield cloud


@pytest.fixture
async def store(own_cloud: Cloud, server: Postgresql) -> AsyncIterator[Store]:
    place = parse_place(server.url(own_cloud.directory.name.replace("-", "_")))
    assert isinstance(place, PostgresqlServer)
    store = Store(replace(place, password_file=server.password_file))
    yield store
    store.close()


@pytest.fixture(autouse=True)
async def _nothing_left(own_cloud: Cloud, vm: Guest) -> AsyncIterator[None]:
    """Leave no consent, so that no session that could be resumed holds the guest's console."""
    yield
    await tell(own_cloud.providers[0], "/revoke", {"resource_id": vm.resource_id})


async def tell(provider: Provider, path: str, body: dict[str, Any]) -> httpx.Response:
    """Raises httpx.HTTPError where it is not there, or dies in the middle."""
    transport = httpx.AsyncHTTPTransport(uds=str(provider.home / "admin.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://provider", timeout=PATIENCE) as client:
        return await client.post(path, json=body)


def wish(vm: Guest) -> dict[str, Any]:
    return {
        "resource_id": vm.resource_id,
        "giver": "tenant1",
        "operators": ["group:cloudadmin"],
        "kinds": ["serial"],
        "access": "keyboard",
        "seconds": 3600,
        "reason": "",
        "node": None,
        "watched": False,
    }


async def granted(provider: Provider, vm: Guest) -> str:
    """Once the node has heard of the VM."""
    deadline = time.monotonic() + PATIENCE
    while "vm-unknown" in (answer := await tell(provider, "/grant", wish(vm))).text and time.monotonic() < deadline:
        await asyncio.sleep(LOOK)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["consent_id"])


@dataclass
class Acknowledged:
    """What clients were told is done."""

    granted: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)  # to be revoked, whatever was answered
    refused: list[str] = field(default_factory=list)

    def has_granted(self, count: int) -> bool:
        return len(self.granted) >= count


async def give_and_take(cloud: Cloud, vm: Guest, told: Acknowledged, dice: random.Random) -> None:
    """A client that asks either provider, for ever; where one is not there it goes to the other."""
    while True:
        provider = dice.choice(cloud.providers)
        try:
            answer = await tell(provider, "/grant", wish(vm))
            if answer.status_code != 200:
                told.refused.append(answer.text)
                continue
            consent = answer.json()["consent_id"]
            told.granted.add(consent)
            if dice.random() < 0.5:
                told.tried.add(consent)
                answer = await tell(dice.choice(cloud.providers), "/revoke", {"consent_id": consent})
                if answer.status_code == 200 and all(cut["confirmed_at_ms"] is not None for cut in answer.json()["cuts"]):
                    told.revoked.add(consent)
        except httpx.HTTPError:
            await asyncio.sleep(0.05)


def standing_at(cloud: Cloud) -> set[str]:
    """What the node says that it serves."""
    return {line.split()[0] for line in cloud.node_command(NODE, "consents").splitlines() if "  stands  " in line}


def receipts_in(store: Store) -> tuple[int, int, int]:
    """How many receipts of the node are in the store, the highest number, and the one that the node is told."""
    with store.read() as connection:
        node = Books(connection).node(NODE)
        assert node is not None
        count, highest = connection.execute(
            select(func.count(), func.max(receipts.c.number)).where(receipts.c.kid == node.kid)
        ).one()
        return count, highest, node.receipts


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=[pytest.mark.faults, pytest.mark.timeout(600)])])
async def test_whoever_of_two_is_killed_nothing_that_was_acknowledged_is_lost(
    own_cloud: Cloud, vm: Guest, store: Store, kills: int
) -> None:
    await well(own_cloud)
    dice = random.Random()
    told = Acknowledged()
    await granted(own_cloud.providers[0], vm)
    async with signed_in(own_cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        givers = [asyncio.create_task(give_and_take(own_cloud, vm, told, dice)) for _ in range(GIVERS)]
        for _ in range(kills):
            victim = dice.choice(own_cloud.providers)
            await asyncio.sleep(dice.uniform(0.0, 1.0))
            victim.program.kill()
            # the other serves on
            enough = len(told.granted) + 5
            await until(partial(told.has_granted, enough), "grants while one is dead")
            await victim.started()
        for giver in givers:
            giver.cancel()
        await asyncio.gather(*givers, return_exceptions=True)
        assert all(giver.cancelled() for giver in givers)
        # a session has a lease all the time
        assert await console.ask("echo $((40+2))") == b"42\n"
    assert len(told.granted) > kills * 5
    assert told.revoked
    with store.read() as connection:
        rows = {row.jti: row for row in connection.execute(select(consents))}
        confirmed = set(connection.scalars(select(revocations.c.consent).where(revocations.c.confirmed_ms.is_not(None))))
    assert told.granted <= {jti for jti, row in rows.items() if row.granted_ms is not None}
    assert told.revoked <= confirmed
    assert told.revoked <= {jti for jti, row in rows.items() if row.revoked_ms is not None}
    at_node = await asyncio.to_thread(standing_at, own_cloud)
    assert not told.revoked & at_node
    assert told.granted - told.tried <= at_node
    # every receipt up to the number that the node was told is there
    await until(lambda: len(set(receipts_in(store))) == 1, f"all of the receipts: {receipts_in(store)}")


async def test_a_revocation_by_one_is_confirmed_to_whoever_waits_at_the_other(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    first, second = own_cloud.providers
    consent = await granted(first, vm)
    began = time.monotonic()
    answers = await asyncio.gather(*(tell(one, "/revoke", {"consent_id": consent}) for one in (first, second)))
    assert [answer.json()["cuts"][0]["confirmed_at_ms"] is not None for answer in answers] == [True, True]
    assert time.monotonic() - began < 8.0  # and not when it had given up to wait


async def test_a_node_is_told_of_a_key_that_the_other_made(own_cloud: Cloud, vm: Guest, store: Store) -> None:
    await well(own_cloud)
    await asyncio.to_thread(own_cloud.providers[1].command, "keys", "rotate")
    consent = await granted(own_cloud.providers[0], vm)
    with store.read() as connection:
        filed, newest = Books(connection).consent(consent), KeySets(connection).newest()
        assert filed is not None
        assert newest is not None
        assert filed.kid == newest.signing_kid


async def test_a_database_that_is_away_for_a_moment_ends_no_session(own_cloud: Cloud, vm: Guest, server: Postgresql) -> None:
    await well(own_cloud)
    await granted(own_cloud.providers[0], vm)
    async with signed_in(own_cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        server.kill()
        refused = await tell(own_cloud.providers[0], "/grant", wish(vm))
        assert refused.status_code == 503
        server.start()  # here, since it ends with the thread that starts it
        await well(own_cloud)
        assert await console.ask("echo $((40+2))") == b"42\n"
        assert all(provider.program.running for provider in own_cloud.providers)
        assert (await tell(own_cloud.providers[1], "/grant", wish(vm))).status_code == 200


async def test_a_provider_waits_for_a_database_that_starts_later(own_cloud: Cloud, vm: Guest, server: Postgresql) -> None:
    victim = own_cloud.providers[1]
    victim.program.kill()
    server.stop()
    before = victim.program.transcript.size()
    starting = asyncio.create_task(victim.started())
    await victim.program.transcript.seen("cannot be reached", after=before)
    assert not starting.done()
    server.start()
    await starting
    await well(own_cloud)
    await granted(victim, vm)
