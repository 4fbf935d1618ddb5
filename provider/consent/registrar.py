"""Consents, revocations and what nodes send, from the first word to the node's signed receipt. Errors:

Refused         as the desk raises it (authority); NODE_REFUSED, NODE_SILENT, UNKNOWN_VM after every offer was taken back
StoreDown       provider.store.store: nothing was decided
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, b64
from eva.wire import Envelope, Event
from provider.consent.ask import Ask, Enabled
from provider.consent.authority import AnchorVerdict, Failed, RecentNonces, Refusal, Refused, verdict
from provider.consent.desk import Desk, Offer
from provider.consent.disabling import disable_subscription, set_global_state
from provider.consent.enabling import UnderWay, enable
from provider.consent.features import Feature, FeatureBooks, GlobalState
from provider.consent.intake import Ahead, Answered, Intake, Numbers, RolledBack, Taken
from provider.consent.letters import Cut, Letters, Post, Undelivered
from provider.consent.loss import Hearing, Moves, is_work, lost_nodes, move
from provider.consent.receipt import document
from provider.consent.standing import MOST, Standing, standing
from provider.consent.waits import Wait, Waits
from provider.consent.watching import Watching
from provider.keys import Signers
from provider.meters import Meters
from provider.settings import Limits
from provider.store.books import Books
from provider.store.filed import Filed, Notice
from provider.store.key_sets import KeySets
from provider.store.pruning import prune_anchors
from provider.store.records import Mark, Records
from provider.store.store import StoreDown, StoreThread
from provider.store.visits import Visits

SWEEP_MARGIN_MS = 5_000

T = TypeVar("T")

log = logging.getLogger("provider.consent.registrar")


def random_jti() -> str:
    return b64(secrets.token_bytes(16))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Registrar:
    def __init__(self, store: StoreThread, signers: Signers, post: Post, limits: Limits, meters: Meters) -> None:
        self._store = store
        self._signers = signers
        self._limits = limits
        self._meters = meters
        self._nonces = RecentNonces()
        self._waits = Waits()
        self._letters = Letters(post, signers, self._waits, meters, limits.cut_seconds)
        self._offered_here: set[str] = set()  # the jtis of offers whose callers wait in this process
        self._ahead: dict[str, Numbers] = {}  # by enrolled node, what only `repair` mends
        self._answer_ms = limits.receipt_seconds * 1000 + SWEEP_MARGIN_MS
        self.watching = Watching(store, signers, wall_ms, random_jti)

    async def _decide(self, decide: Callable[[Desk], T]) -> T:
        def in_transaction(connection: Connection) -> T:
            return decide(Desk(connection, self._signers.in_force(connection), wall_ms(), random_jti))

        with _Counting(self._meters):
            return await self._store.write(in_transaction)

    async def look(self, look: Callable[[Records], T]) -> T:
        return await self._store.read(lambda connection: look(Records(connection)))

    # what nodes send

    async def answer_lease(self, raw: bytes, way: str, spoken_as: str | None = None) -> Answered:
        """The answer to a lease request's envelope. `way`: mqtt or https, for counting. Raises Refused, BadToken."""
        began = time.monotonic()
        envelope = self._decoded(raw)
        try:
            answer = await self._decide(lambda desk: self._intake(desk).answer_lease(envelope, spoken_as, self._nonces))
        except Ahead as ahead:
            self._ahead[ahead.numbers.node] = ahead.numbers
            raise
        if isinstance(answer, RolledBack):
            self._announce_rollback(answer)
            with _Counting(self._meters):
                raise answer.refused()
        self._meters.lease_seconds.observe(time.monotonic() - began)
        self._meters.leases.labels(way).inc()
        if answer.lost is not None and self._ahead.get(answer.node) != answer.lost:
            self._ahead[answer.node] = answer.lost
            log.error("this store lacks receipts of %s up to %d: see `nodes repair`", answer.node, answer.lost.receipts)
        self._announce(answer.taken)
        # the lease carries the revocations that its own receipts brought about: no letter is needed
        return answer

    def _announce_rollback(self, found: RolledBack) -> None:
        if found.verdict is AnchorVerdict.CONFLICT:
            self._meters.conflicts.labels("anchor").inc()
        log.error(
            "%s is refused from now on: it tells %d audit records after it told %d, or others than then, so that what it ended "
            "might stand again. Keep its disk, and make it a new node: docs/operations.md, EvaNodeRolledBack",
            *(found.node, found.count, found.told),
        )

    async def take_receipt(self, raw: bytes, spoken_as: str) -> None:
        """Raises Refused, BadToken."""
        envelope = self._decoded(raw)
        came = await self._decide(lambda desk: self._intake(desk).take_receipt(envelope, spoken_as))
        self._announce(came)
        await self._letters.hint(came.notices)

    async def whereabouts(self, raw: bytes) -> str | None:
        """The node that serves the virtual machine which a node asks after. Raises Refused, BadToken."""
        envelope = self._decoded(raw)
        return await self._decide(lambda desk: Intake(desk).whereabouts(envelope))

    def _intake(self, desk: Desk) -> Intake:
        return Intake(desk, self._offered_here)

    def _decoded(self, raw: bytes) -> Envelope:
        with _Counting(self._meters):
            return Envelope.decode(raw)

    def _announce(self, came: Taken) -> None:
        self._meters.bad_receipts.inc(came.bad)
        self._meters.conflicts.labels("receipt").inc(came.conflicts)
        for receipt in came.receipts:
            self._meters.receipts.labels(str(receipt.event)).inc()
        for receipt in (*came.receipts, *came.known):
            self._waits.wake(receipt.about)
        for notice in came.confirmed:
            if notice.confirmed_ms is not None:
                self._meters.confirmed_seconds.observe(max(0, wall_ms() - notice.made_ms) / 1000)
            self._waits.wake(notice.jti)

    # consents

    async def enable_access(self, ask: Ask) -> Enabled:
        """What stands for the VM already, or a consent that a node has accepted. Raises Refused; nothing new stands then."""
        return await self._enabled(lambda desk, tried: enable(desk, ask, self._answer_ms, tried))

    async def grant(self, ask: Ask) -> Enabled:
        """A new consent beside whatever stands, as the platform's own command makes it. Raises Refused."""
        return await self._enabled(lambda desk, tried: desk.offer(ask, self._answer_ms, tried))

    async def _enabled(self, decide: Callable[[Desk, list[str]], Enabled | Offer | UnderWay]) -> Enabled:
        deadline = asyncio.get_running_loop().time() + self._limits.receipt_seconds
        failed: list[Failed] = []
        while True:
            try:
                decision = await self._decide(lambda desk: decide(desk, [one.node for one in failed]))
            except Refused as refused:
                if failed and refused.refusal is Refusal.NO_NODE:  # every node had its turn
                    raise verdict(failed) from None
                raise
            if isinstance(decision, Enabled):
                return decision
            if isinstance(decision, UnderWay):
                await self._outcome(decision.jti, deadline)
                continue
            answer = await self._offered(decision, deadline)
            if isinstance(answer, Enabled):
                self._meters.grants.labels("granted").inc()
                return answer
            failed.append(answer)
            if decision.others == 0 or asyncio.get_running_loop().time() >= deadline:
                came_to = verdict(failed)
                self._meters.grants.labels(str(came_to.refusal)).inc()
                raise came_to

    async def _offered(self, offer: Offer, deadline: float) -> Enabled | Failed:
        """What the node says to an offer, in its share of the time that is left."""
        consent = offer.consent
        log.info("consent %s offered to %s until %d", consent.cid, consent.node, consent.expires_at)
        left = max(0.0, deadline - asyncio.get_running_loop().time()) / (offer.others + 1)
        why = "MQTT did not take it in time"
        filed: Filed | None = None
        self._offered_here.add(consent.jti)
        try:
            with self._waits.on(consent.jti) as wait:
                async with asyncio.timeout(left):
                    await self._letters.send_offer(offer, left)
                    why = "no answer"
                    filed = await self._answer(consent.jti, wait)
        except TimeoutError:
            pass
        except Undelivered as error:
            why = error.why
        finally:
            self._offered_here.discard(consent.jti)
        came: Filed | Notice | None = filed if filed is not None and filed.stands(wall_ms() // 1000) else None
        if came is None:
            # no answer, or another provider took it; in one transaction, or what is accepted meanwhile would be taken back
            came = await self._decide(lambda desk: desk.settle(consent.jti))
        self._waits.wake(consent.jti)
        if isinstance(came, Filed):
            log.info("consent %s granted: accepted by %s", consent.cid, consent.node)
            return Enabled(consent, came.uuid or "", offer.how)
        return await self._taken_back(offer, came, why)

    async def _answer(self, jti: str, wait: Wait) -> Filed:
        """The consent once its node has said yes or no, however long that takes."""
        while True:
            await wait.pause()
            filed = await self._token(jti)
            if filed is not None and filed.answer is not None:
                return filed

    async def _taken_back(self, offer: Offer, notice: Notice | None, why: str) -> Failed:
        node = offer.consent.node
        filed = await self._token(offer.consent.jti)
        said_no = filed is not None and (filed.answer == Event.REFUSED or filed.why == Refusal.NOT_WATCHABLE)
        refused = filed.why or "" if filed is not None and said_no else ""
        if filed is not None and filed.ended_ms is not None:
            why = f"accepted it, and it ended at once: {filed.ended_reason}"
        log.warning("consent %s not granted: %s %s", offer.consent.cid, node, f"refused: {refused}" if refused else why)
        if notice is None:
            return Failed(node, "", f"{why}; what stood before stands, unless the node took the renewal and could not say so")
        await self._letters.send_revocation(notice)
        return Failed(node, refused, why)

    async def _token(self, jti: str) -> Filed | None:
        return await self._store.read(lambda connection: Books(connection).consent(jti))

    async def _outcome(self, jti: str, deadline: float) -> None:
        """Until another call's offer is granted or taken back. Raises Refused when this call's time is up."""
        with self._waits.on(jti) as wait:
            try:
                async with asyncio.timeout_at(deadline):
                    while (filed := await self._token(jti)) is not None and filed.under_way(wall_ms()):
                        await wait.pause()
            except TimeoutError:
                why = "another request for this virtual machine waits for its node: ask again"
                raise Refused(Refusal.NODE_SILENT, why) from None

    async def standing(self, resource_id: ResourceId, most: int = MOST) -> Standing:
        return await self._store.read(
            lambda connection: standing(
                Records(connection), Visits(connection), FeatureBooks(connection), resource_id, wall_ms() // 1000, most
            )
        )

    async def receipt(self, resource_id: ResourceId, consent_id: str | None = None, after: Mark | None = None) -> bytes:
        """The nodes' signed word about one consent for the VM, None for the newest: `verify-receipt` reads it. One page of
        it; `after`: the one that follows. Raises Refused."""
        return await self.look(lambda records: document(records, resource_id, consent_id, wall_ms(), after))

    # revocations

    async def disable_access(self, resource_id: ResourceId) -> list[Cut]:
        """Every consent for the VM; waits for each node's word or the deadline. Raises Refused."""
        return await self._cut(lambda desk: desk.revoke_vm(resource_id, Ending.CONSENT_REVOKED))

    async def revoke_everywhere(self, resource_id: ResourceId) -> list[Cut]:
        """Every consent for the VM at every node, also those that a lost store knew of."""
        return await self._cut(lambda desk: desk.revoke_everywhere(resource_id, Ending.CONSENT_REVOKED))

    async def revoke_consent(self, cid: str) -> list[Cut]:
        return await self._cut(lambda desk: desk.revoke_consent(cid, Ending.CONSENT_REVOKED))

    async def _cut(self, decide: Callable[[Desk], list[Notice]]) -> list[Cut]:
        notices = await self._decide(decide)
        return await self._letters.see_through(notices, self.look, self._limits.receipt_seconds)

    # the feature

    async def features(self) -> list[Feature]:
        return await self._store.read(lambda connection: [FeatureBooks(connection).feature()])

    async def enable_subscription(self, subscription: str, by: str) -> None:
        await self._decide(lambda desk: desk.features.enable(subscription, by, desk.now_ms))

    async def disable_subscription(self, subscription: str) -> list[Cut]:
        """Its consents end in the same transaction; waits for the nodes' word."""
        return await self._cut(lambda desk: disable_subscription(desk, subscription))

    async def set_global_state(self, state: GlobalState) -> list[Cut]:
        return await self._cut(lambda desk: set_global_state(desk, state))

    # what goes on by itself

    async def sweep(self) -> None:
        """Takes back what a crash left offered."""
        notices = await self._decide(lambda desk: desk.sweep())
        for notice in notices:
            log.warning("an offer to %s that nobody was told of is taken back (revocation %d)", notice.node, notice.seq)
        await self._letters.hint(notices)

    async def move_lost(self, hearing: Hearing, after: str = "") -> Moves:
        """Moves what lost nodes served, as much as one transaction does. `after`: the `last` of the call before."""
        nodes = await self._store.read(lambda connection: Books(connection).nodes())
        since = hearing.look([one.asked_ms for one in nodes], wall_ms())
        lost = lost_nodes(nodes, since, wall_ms(), self._limits.cut_seconds)
        if not await self.look(lambda records: is_work(records, lost, wall_ms() // 1000)):
            return Moves()
        moves = await self._decide(lambda desk: move(desk, since, self._limits.cut_seconds, self._answer_ms, after))
        await self._send(moves)
        return moves

    async def _send(self, moves: Moves) -> None:
        for notice in moves.notices:
            log.warning("%s is lost: what it served moves (revocation %d)", notice.node, notice.seq)
        self._meters.moved.inc(len(moves.offers))
        async with asyncio.TaskGroup() as group:
            for offer in moves.offers:
                log.info("consent %s offered to %s, its node is lost", offer.consent.cid, offer.consent.node)
                group.create_task(self._send_offer(offer))
        await self._letters.hint(moves.notices)

    async def _send_offer(self, offer: Offer) -> None:
        try:
            await self._letters.send_offer(offer, self._limits.receipt_seconds)
        except Undelivered as error:
            log.warning("consent %s not offered to %s: %s", offer.consent.cid, offer.consent.node, error.why)

    async def prune(self) -> None:
        while await self._store.write(lambda connection: prune_anchors(connection, wall_ms())):
            pass

    # repair and health

    async def repair(self, name: str) -> Numbers:
        """Takes a node's own word for how many revocations it applied and receipts it is rid of. Raises Refused."""
        ahead = next((one for one in self._ahead.values() if one.node.lower() == name.lower()), None)
        if ahead is None:
            raise Refused(Refusal.UNKNOWN_NODE, f"no node {name} has asked with a number above this store's: nothing to repair")
        await self._decide(lambda desk: Intake(desk).repair(ahead))
        del self._ahead[ahead.node]
        return ahead

    async def is_well(self) -> bool:
        """Whether the store answers."""
        try:
            await self._store.read(lambda connection: KeySets(connection).version())
        except StoreDown as error:
            log.error("the store does not answer: %s", error.why)
            return False
        return True


class _Counting:
    """Counts what is refused by its reason, and lets it go on."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, BadToken):
            self._meters.refused.labels(str(error.fault)).inc()
        elif isinstance(error, Refused):
            self._meters.refused.labels(str(error.refusal)).inc()
