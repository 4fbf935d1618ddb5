"""Grants, revocations and what nodes send, from the first word to the node's signed receipt. Errors:

Refused         provider.authority, as the desk raises it; NODE_REFUSED and NODE_SILENT after the offer was taken back
Undelivered     a letter that MQTT did not take in time
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from eva.consent import Consent
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, b64
from eva.wire import Envelope, Event, consent_topic, revocation_topic
from provider.authority import AnchorVerdict, RecentNonces, Refusal, Refused, at_latest
from provider.books import Books, Notice
from provider.desk import Answered, Desk, Taken, Wish
from provider.keys import Signer
from provider.meters import Meters
from provider.settings import Limits
from provider.store import StoreThread

SWEEP_SECONDS = 5.0
SWEEP_MARGIN_MS = 5_000
HINT_SECONDS = 1.0  # how long a letter is tried for that nobody waits for

T = TypeVar("T")

log = logging.getLogger("provider.registrar")


class Undelivered(Exception):
    """`why` for the log."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Post(Protocol):
    """The way to the nodes."""

    async def send(self, topic: str, payload: bytes, *, expires: int | None, patience: float) -> None:
        """Until the MQTT broker has acknowledged it. `expires`, `patience`: seconds. Raises Undelivered."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A consent that its node has accepted. `uuid`: the virtual machine, as the node resolved it."""

    consent: Consent
    uuid: str


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of a revocation at one node: confirmed, or cut `at_latest_ms` without its word."""

    notice: Notice
    at_latest_ms: int

    @property
    def confirmed(self) -> bool:
        return self.notice.confirmed_ms is not None


def random_jti() -> str:
    return b64(secrets.token_bytes(16))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Registrar:
    def __init__(self, store: StoreThread, signer: Signer, post: Post, limits: Limits, meters: Meters) -> None:
        self._store = store
        self._signer = signer
        self._post = post
        self._limits = limits
        self._meters = meters
        self._nonces = RecentNonces()
        # by the jti of a consent or revocation: set when a receipt about it is in; the store holds what it said
        self._awaited: dict[str, set[asyncio.Event]] = {}

    async def _decide(self, decide: Callable[[Desk], T]) -> T:
        def in_transaction(connection: Connection) -> T:
            return decide(Desk(connection, self._signer, wall_ms(), random_jti))

        return await self._store.write(in_transaction)

    async def _look(self, look: Callable[[Books], T]) -> T:
        return await self._store.read(lambda connection: look(Books(connection)))

    # what nodes send

    async def answer_lease(self, raw: bytes, way: str, spoken_as: str | None = None) -> Answered:
        """The answer to a lease request's envelope. `way`: mqtt or https, for counting. Raises Refused, BadToken."""
        began = time.monotonic()
        with self._counting():
            envelope = Envelope.decode(raw)
            answer = await self._decide(lambda desk: desk.answer_lease(envelope, spoken_as, self._nonces))
        self._meters.lease_seconds.observe(time.monotonic() - began)
        self._meters.leases.labels(way).inc()
        if answer.verdict is AnchorVerdict.BEHIND:
            log.warning("%s tells a shorter audit chain than before, or an old message of it came again", answer.node)
            self._meters.anchors_behind.inc()
        elif answer.verdict is AnchorVerdict.CONFLICT:
            log.error("%s signed two heads for one count of its audit chain: its records were changed", answer.node)
            self._meters.conflicts.labels("anchor").inc()
        self._announce(answer.taken)
        # the lease carries the revocations that its own receipts brought about: no letter is needed
        return answer

    async def take_receipt(self, raw: bytes, spoken_as: str) -> None:
        """Raises Refused, BadToken."""
        with self._counting():
            envelope = Envelope.decode(raw)
            came = await self._decide(lambda desk: desk.take_receipt(envelope, spoken_as))
        self._announce(came)
        for notice in came.notices:
            await self._send_revocation(notice, HINT_SECONDS)

    def _announce(self, came: Taken) -> None:
        self._meters.bad_receipts.inc(came.bad)
        self._meters.conflicts.labels("receipt").inc(came.conflicts)
        for receipt in came.receipts:
            self._meters.receipts.labels(str(receipt.event)).inc()
            self._wake(receipt.about)
        for notice in came.confirmed:
            if notice.confirmed_ms is not None:
                self._meters.confirmed_seconds.observe(max(0, wall_ms() - notice.made_ms) / 1000)
            self._wake(notice.jti)

    def _wake(self, about: str) -> None:
        for event in self._awaited.get(about, ()):
            event.set()

    # grants

    async def grant(self, wish: Wish) -> Granted:
        """Returns once the node's signed acceptance is in and the grant is on disk. Raises Refused; nothing stands then."""
        deadline = asyncio.get_running_loop().time() + self._limits.receipt_seconds
        with self._counting():
            answer_ms = self._limits.receipt_seconds * 1000 + SWEEP_MARGIN_MS
            offer = await self._decide(lambda desk: desk.offer(wish, answer_ms))
        consent = offer.consent
        log.info("consent %s offered to %s until %d", consent.jti, consent.node, consent.expires_at)
        why = "no answer"
        try:
            async with asyncio.timeout_at(deadline), self._awaiting(consent.jti) as answered:
                payload = Envelope(offer.token, keys=self._signer.key_set).encode()
                life = max(1, consent.expires_at - wall_ms() // 1000)
                # a little less than the whole wait, so that what failed can be told apart
                patience = 0.9 * self._limits.receipt_seconds
                await self._post.send(consent_topic(consent.node), payload, expires=life, patience=patience)
                await answered.wait()
        except TimeoutError:
            pass
        except Undelivered as error:
            why = error.why
        filed = await self._decide(lambda desk: desk.acknowledge(consent.jti))
        if filed is not None:
            self._meters.grants.labels("granted").inc()
            log.info("consent %s granted: accepted by %s", consent.jti, consent.node)
            return Granted(consent, filed.uuid or "")
        raise await self._take_back(consent, why)

    async def _take_back(self, consent: Consent, why: str) -> Refused:
        notice = await self._decide(lambda desk: desk.revoke_consent(consent.jti, Ending.CONSENT_REVOKED))
        filed = await self._look(lambda books: books.consent(consent.jti))
        refused = filed is not None and filed.answer == Event.REFUSED
        refusal = Refusal.NODE_REFUSED if refused else Refusal.NODE_SILENT
        self._meters.grants.labels(str(refusal)).inc()
        log.warning("consent %s taken back (%s, %s)", consent.jti, refusal, why)
        await self._send_revocation(notice, HINT_SECONDS)
        said = f"{consent.node} refused: {filed.why}" if refused and filed is not None else f"{consent.node}: {why}"
        return Refused(refusal, said)

    # revocations

    async def revoke_vm(self, resource_id: ResourceId, reason: Ending = Ending.CONSENT_REVOKED) -> list[Cut]:
        """Every consent for the VM; waits for each node's word or the deadline. Raises Refused."""
        with self._counting():
            notices = await self._decide(lambda desk: desk.revoke_vm(resource_id, reason))
        return await self._see_through(notices)

    async def revoke_consent(self, jti: str, reason: Ending = Ending.CONSENT_REVOKED) -> list[Cut]:
        with self._counting():
            notice = await self._decide(lambda desk: desk.revoke_consent(jti, reason))
        return await self._see_through([notice])

    async def _see_through(self, notices: Iterable[Notice]) -> list[Cut]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._until_confirmed(notice)) for notice in notices]
        return [task.result() for task in tasks]

    async def _until_confirmed(self, notice: Notice) -> Cut:
        log.info("revocation %d of %s is on disk", notice.seq, notice.node)
        patience = self._limits.receipt_seconds
        try:
            async with asyncio.timeout(patience), self._awaiting(notice.jti) as confirmed, asyncio.TaskGroup() as group:
                # looked up after the wait was set up: a receipt that came before is seen here, a later one wakes us
                filed = await self._look(lambda books: books.revocation(notice.node, notice.seq))
                if filed is None or filed.confirmed_ms is None:
                    # beside the wait: with MQTT down the node has it by its next lease, and its receipt the same way
                    sending = group.create_task(self._send_revocation(notice, patience))
                    await confirmed.wait()
                    sending.cancel()
        except TimeoutError:
            log.warning("revocation %d of %s is not confirmed", notice.seq, notice.node)
        last = await self._look(lambda books: books.revocation(notice.node, notice.seq))
        return Cut(last or notice, at_latest(notice.made_ms, self._limits.cut_seconds))

    async def _send_revocation(self, notice: Notice, patience: float) -> None:
        """Sent at once for speed only: the node's next lease carries it, whatever becomes of the letter."""
        payload = Envelope(notice.token, keys=self._signer.key_set).encode()
        try:
            await self._post.send(revocation_topic(notice.node), payload, expires=None, patience=patience)
        except Undelivered as error:
            log.warning("revocation %d of %s waits for its next lease: %s", notice.seq, notice.node, error.why)
        else:
            self._meters.revocations.inc()

    async def is_well(self) -> bool:
        """Whether the store answers."""
        try:
            await self._look(lambda books: books.key_set())
        except SQLAlchemyError as error:
            log.error("the store does not answer: %s", error)
            return False
        return True

    # the sweep

    async def sweep_for_ever(self) -> None:
        while True:
            for notice in await self._decide(lambda desk: desk.sweep()):
                log.warning("an offer to %s that nobody was told of is taken back (revocation %d)", notice.node, notice.seq)
                await self._send_revocation(notice, HINT_SECONDS)
            await asyncio.sleep(SWEEP_SECONDS)

    @asynccontextmanager
    async def _awaiting(self, about: str) -> AsyncIterator[asyncio.Event]:
        event = asyncio.Event()
        events = self._awaited.setdefault(about, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events:
                self._awaited.pop(about, None)

    def _counting(self) -> _Counting:
        return _Counting(self._meters)


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
