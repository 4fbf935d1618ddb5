"""provider/consent/registrar.py with a real store, a real mosquitto and nodes written by hand; at times there are two of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection

from eva.consent import Access, Revocation
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.wire import Event
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from provider.consent.ask import Ask, Enabled, How
from provider.consent.authority import Refusal, Refused
from provider.consent.features import GlobalState
from provider.consent.intake import Numbers
from provider.consent.letters import Post, Undelivered
from provider.consent.loss import Hearing, Moves
from provider.consent.registrar import Registrar
from provider.keys import Signer, Signers, load_signer
from provider.meters import Meters
from provider.mqtt import MqttPost
from provider.settings import Limits, read
from provider.store.books import Books
from provider.store.filed import State
from provider.store.store import Store, StoreThread
from tests.provider_office import VM, Office
from tests.provider_parts import Cloud, Node, Pen

SECONDS = 40  # that a call may take: where it takes them all, the clock leaps

T = TypeVar("T")


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[Cloud]:
    """Keys, store and mosquitto; the registrars are the tests' own."""
    cloud = Cloud(tmp_path_factory.mktemp("provider"), certificates)
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(still: Cloud) -> Cloud:
    """One in which no node of a test before counts as alive."""
    store = Store(read(still.place.config).store)
    with store.write() as connection:
        for node in Books(connection).nodes():
            Books(connection).update_node(node.name, asked_ms=0)
    store.close()
    still.fresh()
    return still


@asynccontextmanager
async def registrar(cloud: Cloud, name: str = "p1") -> AsyncIterator[Registrar]:
    """One provider of perhaps several on the store and the mosquitto; what was said before it came it does not hear."""
    settings = read(cloud.place.config)
    store = Store(settings.store)
    signers, thread, meters = Signers(settings.keys, load_signer(settings.keys, store)), StoreThread(store), Meters()
    post = MqttPost(replace(settings.mqtt, client_id=f"{name}-{cloud.vm}"), meters)
    found = Registrar(thread, signers, post, Limits(15, SECONDS), meters)
    running = asyncio.create_task(post.run(found))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not post.connected:
                await asyncio.sleep(0.01)
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(thread.close)


@asynccontextmanager
async def nodes(cloud: Cloud, *ways: dict[str, Any]) -> AsyncIterator[list[Node]]:
    """So many nodes that are alive, in the order in which they are chosen; the ways of each as provider_parts.Node takes them."""
    async with AsyncExitStack() as stack:
        found = []
        for one in ways:
            cloud.fresh()
            found.append(await stack.enter_async_context(cloud.node(cloud.pen, **one)))
        yield found


async def alive(found: list[Node]) -> None:
    for node in found:
        await node.ask()


def ask(cloud: Cloud, **more: Any) -> Ask:
    return Ask(ResourceId.parse(cloud.resource_id), "tenant", **more)


async def refused(awaited: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaited
    return caught.value


def leap(seconds: float) -> None:
    """The loop's clock leaps on: who waits no longer than that waits no more."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]


# enabling


async def test_a_call_answers_with_the_node_that_took_it(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        await alive(found)
        granted = await provider.enable_access(ask(cloud))
        assert (granted.consent.node, granted.uuid, granted.how) == (found[0].pen.name, "uuid-1", How.FRESH)
        assert granted.consent.cid == granted.consent.jti
        again = await provider.enable_access(ask(cloud))
        assert (again.consent, again.how) == (replace(granted.consent, kid=again.consent.kid), How.REPEATED)
        assert (await refused(provider.enable_access(ask(cloud, access=Access.VIEW)))).refusal is Refusal.CONFLICT


async def test_a_node_that_does_not_know_the_vm_makes_the_next_be_asked(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {"accepts": False}, {}) as found:
        await alive(found)
        granted = await provider.enable_access(ask(cloud))
        assert granted.consent.node == found[1].pen.name
        revocation = await found[0].has_revocation(1)
        assert revocation.consent == found[0].consents[0].jti


async def test_a_vm_that_no_node_has(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {"accepts": False}, {"accepts": False}) as found:
        await alive(found)
        error = await refused(provider.enable_access(ask(cloud)))
        assert error.refusal is Refusal.UNKNOWN_VM
        assert all(f"{node.pen.name} refused: vm-unknown" in error.detail for node in found)
        standing = await provider.standing(ResourceId.parse(cloud.resource_id))
        assert (standing.current, len(standing.earlier)) == (None, 2)


async def test_a_silent_node_leaves_time_for_the_next(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {"accepts": None}, {}) as found:
        await alive(found)
        asked = asyncio.create_task(provider.enable_access(ask(cloud)))
        await found[0].has_consents(1)
        leap(SECONDS / 2)
        granted = await asked
        assert granted.consent.node == found[1].pen.name
        assert (await found[0].has_revocation(1)).consent == found[0].consents[0].jti


async def test_when_nobody_answers_nothing_is_left_half_granted(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {"accepts": None}, {"accepts": None}) as found:
        await alive(found)
        asked = asyncio.create_task(refused(provider.enable_access(ask(cloud))))
        async with asyncio.timeout(SECONDS + SECONDS / 2):
            for node in found:
                await node.has_consents(1)
                leap(SECONDS / 2)
            error = await asked
        assert (error.refusal, error.detail.count("no answer")) == (Refusal.NODE_SILENT, 2)
        for node in found:
            assert (await node.has_revocation(1)).consent == node.consents[0].jti
        standing = await provider.standing(ResourceId.parse(cloud.resource_id))
        assert [one.state for one in standing.earlier] == [State.REVOKED] * 2


async def test_of_many_calls_at_once_one_makes_the_consent(cloud: Cloud):
    async with registrar(cloud, "p1") as one, registrar(cloud, "p2") as two, nodes(cloud, {}, {}) as found:
        await alive(found)
        answers: list[Enabled] = await asyncio.gather(
            *(provider.enable_access(ask(cloud)) for _ in range(5) for provider in (one, two))
        )
        assert len({answer.consent.jti for answer in answers}) == 1
        assert sorted(answer.how for answer in answers) == [How.FRESH] + [How.REPEATED] * 9
        assert len(found[0].consents) + len(found[1].consents) == 1


async def test_calls_for_many_vms_at_once_spread_over_the_nodes(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}, {}) as found:
        await alive(found)
        vms = [f"{cloud.resource_id}-{number}" for number in range(20)]
        await asyncio.gather(*(provider.enable_access(Ask(ResourceId.parse(vm), "tenant")) for vm in vms))
        assert [len(node.consents) for node in found] == [10, 10]


# renewal


async def test_a_renewal_keeps_node_and_id(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}, {}) as found:
        await alive(found)
        first = await provider.enable_access(ask(cloud, seconds=60))
        again = await provider.enable_access(ask(cloud, renew=True))
        assert (again.consent.cid, again.consent.node, again.how) == (first.consent.cid, first.consent.node, How.RENEWED)
        assert again.consent.expires_at > first.consent.expires_at
        standing = await provider.standing(ResourceId.parse(cloud.resource_id))
        assert standing.current is not None
        assert [stay.state for stay in standing.current.stays] == [State.REPLACED, State.GRANTED]
        assert found[0].revocations == []


async def test_a_renewal_without_an_answer_ends_nothing(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        await alive(found)
        first = await provider.enable_access(ask(cloud))
        found[0].accepts = None
        asked = asyncio.create_task(refused(provider.enable_access(ask(cloud, renew=True))))
        await found[0].has_consents(2)
        leap(SECONDS)
        error = await asked
        assert (error.refusal, "what stood before stands" in error.detail) == (Refusal.NODE_SILENT, True)
        assert (await provider.enable_access(ask(cloud))).consent.jti == first.consent.jti
        # the word comes late
        await found[0].send(found[0].pen.receipt(Event.ACCEPTED, found[0].consents[1].jti, uuid="uuid-1"))
        await found[0].ask()
        assert (await provider.enable_access(ask(cloud))).consent.jti == found[0].consents[1].jti
        assert found[0].revocations == []


# ends


async def test_disabling_says_when_the_node_confirmed(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        await alive(found)
        granted = await provider.enable_access(ask(cloud))
        (cut,) = await provider.disable_access(ResourceId.parse(cloud.resource_id.upper()))
        assert (cut.confirmed, cut.notice.node, cut.notice.cut_us) == (True, found[0].pen.name, 37400)
        (earlier,) = (await provider.standing(granted.consent.resource_id)).earlier
        assert (earlier.state, earlier.ending) == (State.REVOKED, "consent-revoked")
        assert (await refused(provider.disable_access(ResourceId.parse(cloud.resource_id + "x")))).refusal is Refusal.NO_CONSENT


async def test_a_confirmation_that_another_provider_took_is_seen(cloud: Cloud):
    async with registrar(cloud, "p1") as hearing, nodes(cloud, {}) as found:
        await alive(found)
        async with registrar(cloud, "p2") as deaf:
            await hearing.enable_access(ask(cloud))
            # what nodes say comes to the first alone from here on
            deaf.take_receipt = deaf.answer_lease = _nothing  # type: ignore[method-assign,assignment]
            (cut,) = await deaf.disable_access(ResourceId.parse(cloud.resource_id))
            assert cut.confirmed
            again = await deaf.enable_access(ask(cloud))
            assert again.how is How.FRESH


async def _nothing(*_: Any) -> None:
    raise Refused(Refusal.WRONG_NODE, "deaf")


async def reasons(node: Node, count: int) -> list[Revocation]:
    return [await node.has_revocation(seq) for seq in range(1, count + 1)]


async def test_a_subscription_that_is_disabled_ends_at_once(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        await alive(found)
        other = ResourceId("0d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c91", "rg1", cloud.vm)
        await provider.enable_subscription(other.subscription, "test")
        await provider.enable_access(Ask(other, "tenant"))
        await provider.enable_access(ask(cloud))
        cuts = await provider.disable_subscription(other.subscription.upper())
        assert [(cut.notice.node, cut.confirmed) for cut in cuts] == [(found[0].pen.name, True)]
        (revocation,) = await reasons(found[0], 1)
        assert (revocation.reason, revocation.resource_id) == (Ending.FEATURE_DISABLED, other)
        assert (await refused(provider.enable_access(Ask(other, "tenant")))).refusal is Refusal.FEATURE_OFF
        assert (await provider.enable_access(ask(cloud))).how is How.REPEATED


async def test_the_feature_disabled_for_all_ends_every_consent(still_provider: Cloud):
    cloud = still_provider  # of its own: nodes of other tests would be waited for
    async with registrar(cloud) as provider, nodes(cloud, {}, {}) as found:
        await alive(found)
        vms = [ResourceId.parse(f"{cloud.resource_id}-{number}") for number in range(10)]
        for vm in vms:
            await provider.enable_access(Ask(vm, "tenant"))
        cuts = await provider.set_global_state(GlobalState.DISABLED)
        assert [cut.confirmed for cut in cuts] == [True] * 10
        (feature,) = await provider.features()
        assert feature.state is GlobalState.DISABLED
        assert {one.reason for node in found for one in await reasons(node, 5)} == {Ending.FEATURE_DISABLED}


# what a node tells


async def test_a_receipt_document_is_the_nodes_own_words(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        await alive(found)
        granted = await provider.enable_access(ask(cloud))
        body = json.loads(await provider.receipt(granted.consent.resource_id))
        assert (body["consent_id"], len(body["tokens"])) == (granted.consent.cid, 1)


# a store that was brought back from an old copy


async def test_a_node_ahead_of_the_store_is_repaired_by_its_own_word(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}) as found:
        node = found[0]
        node.pen.seq, node.pen.number = 17, 40
        receipt = node.pen.receipt(Event.ENDED, granted_before(node.pen), reason="vm-gone")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.ask(receipts=(receipt,)), 0.5)
        assert (await refused(provider.repair("nobody"))).refusal is Refusal.UNKNOWN_NODE
        ahead = await repaired(provider, node.pen.name.lower())
        assert (ahead.seq, ahead.receipts) == (17, 40)
        lease, envelope, _ = await node.ask(receipts=(receipt,))
        assert (lease.seq, lease.receipts, envelope.revocations) == (17, 41, ())
        # revocations go on from there
        await provider.enable_access(ask(cloud))
        await provider.disable_access(ResourceId.parse(cloud.resource_id))
        assert (await node.has_revocation(18)).seq == 18
        assert (await refused(provider.repair(node.pen.name))).refusal is Refusal.UNKNOWN_NODE


async def repaired(provider: Registrar, name: str) -> Numbers:
    """Once it has read what the node said, to which there is no answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(Refused):
                return await provider.repair(name)
            await asyncio.sleep(0.01)


def granted_before(pen: Pen) -> str:
    """The jti of a consent that only the lost store knew."""
    return pen.key.kid


async def test_what_a_lost_store_knew_can_be_revoked(still_provider: Cloud):
    cloud = still_provider  # with one node and no other, which would be waited for
    async with registrar(cloud) as provider, cloud.node() as node:
        vm = ResourceId.parse(cloud.resource_id)
        assert (await refused(provider.disable_access(vm))).refusal is Refusal.NO_CONSENT
        (cut,) = await provider.revoke_everywhere(vm)
        assert cut.confirmed
        assert node.revocations[0].resource_id == vm


# what comes at the last moment


class Crossed(StoreThread):
    """Before its transaction of this number, another comes between."""

    def __init__(self, office: Office, number: int, between: Callable[[], object]) -> None:
        super().__init__(office.store)
        self._left = number
        self._between = between

    async def write(self, decide: Callable[[Connection], T]) -> T:
        self._left -= 1
        if self._left == 0:
            self._between()
        return await super().write(decide)


class NoPost:
    async def send(self, topic: str, payload: bytes, *, expires: int | None, patience: float) -> None:
        pass


class FullPost:
    """One that is given up only when the time of the whole call is up, too."""

    async def send(self, topic: str, payload: bytes, *, expires: int | None, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                leap(SECONDS)
                await asyncio.Event().wait()
        except TimeoutError:
            raise Undelivered("MQTT did not take it in time") from None


class OneSigner:
    def __init__(self, signer: Signer) -> None:
        self.current = signer

    def in_force(self, _: Connection) -> Signer:
        return self.current


def alone(office: Office, thread: StoreThread, post: Post, seconds: int) -> Registrar:
    return Registrar(thread, OneSigner(office.signer), post, Limits(15, seconds), Meters())  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2, 3])
async def test_a_renewal_that_is_accepted_while_it_is_given_up_leaves_a_consent(office: Office, number: int):
    """To take it back then would end what its giver asked to go on: the old token is gone at the node."""
    office.now = int(time.time())
    first = office.granted()
    office.ask(office.pen.request())

    def accepts() -> None:
        (renewal,) = (one for one in office.do(lambda desk: desk.records.tokens_of(first.cid)) if one.jti != first.jti)
        office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, renewal.jti, uuid="u"))

    thread = Crossed(office, number, accepts)
    provider = alone(office, thread, NoPost(), seconds=1)
    with suppress(Refused):
        await provider.enable_access(Ask(VM, "tenant", renew=True))
    assert (await provider.enable_access(Ask(VM, "tenant"))).consent.cid == first.cid
    await asyncio.to_thread(thread.close)


async def test_a_letter_that_was_not_taken_is_told_so_whatever_else_is_late(office: Office):
    office.now = int(time.time())
    office.ask(office.pen.request())
    thread = StoreThread(office.store)
    error = await refused(alone(office, thread, FullPost(), SECONDS).enable_access(Ask(VM, "tenant")))
    assert (error.refusal, "MQTT did not take it" in error.detail) == (Refusal.NODE_SILENT, True)
    await asyncio.to_thread(thread.close)


# node loss


async def test_a_watch_that_just_began_moves_nothing(cloud: Cloud):
    async with registrar(cloud) as provider, nodes(cloud, {}, {}) as found:
        await alive(found)
        granted = await provider.enable_access(ask(cloud))
        assert await provider.move_lost(Hearing()) == Moves()
        standing = await provider.standing(granted.consent.resource_id)
        assert standing.current is not None
        assert standing.current.state is State.GRANTED
