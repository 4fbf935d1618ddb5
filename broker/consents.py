"""The node's side of consent: takes the provider's tokens, keeps them on disk, and ends what they end.

Everything that can end a session is done synchronously, in the callback that brought it; only then comes the disk, and
only after the disk the receipt. What the ledger decides is in eva/ledger.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit_log import Entry
from broker.clock import Clock
from broker.journal import Journal
from broker.lease import LeaseState
from broker.metrics import Metrics
from broker.outbox import Outbox
from broker.session import TENANT
from broker.state import Change, Loaded, StoredReceipt
from eva import audit
from eva.consent import Consent, Revocation
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import KEEP_SECONDS, Accepted, Ended, Ledger, Pin, Reject, Rejected, Term, renewed
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Fault, Keyring, thumbprint, verify
from eva.watch import Watch
from eva.wire import NODES, Envelope, Event, KeySet, Lease

log = logging.getLogger(__name__)


class Cutter(Protocol):
    """What ends sessions, and carries them over to the consent that renews theirs: broker.sessions.Sessions.

    A cut is done when the call returns; it gives how many it ended.
    """

    def end_consents(self, jtis: Iterable[str], ending: Ending) -> int: ...
    def carry_on(self, before: Accepted, after: Accepted) -> int: ...
    def extend(self, accepted: Accepted) -> None: ...


class Consents:
    """See the module. `resolve` gives the pins of the domains that carry a resource ID now."""

    def __init__(
        self,
        node: str,
        root: Ed25519PublicKey,
        clock: Clock,
        boot_id: str,
        journal: Journal,
        outbox: Outbox,
        lease: LeaseState,
        metrics: Metrics,
        resolve: Callable[[ResourceId], tuple[Pin, ...]],
    ) -> None:
        self.ledger = Ledger()
        self.lease = lease
        self.keys_version = 0
        self._node = node
        self._root: Keyring = {thumbprint(root): root}
        self._clock = clock
        self._boot_id = boot_id
        self._journal = journal
        self._outbox = outbox
        self._metrics = metrics
        self._resolve = resolve
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._keys_ever: dict[str, Ed25519PublicKey] = {}
        self.seq_on_disk = 0
        self.watch_origin = ""  # where tenants can watch, if they can
        self.cutter: Cutter | None = None
        self.publish: Callable[[StoredReceipt], None] = lambda _: None
        self.behind: Callable[[], None] = lambda: None  # ask for the next lease at once
        self.renewed: Callable[[], None] = lambda: None  # a lease counted: held input may go on
        self.begins_paused: Callable[[Consent], bool] = lambda consent: consent.paused  # one that replaces none
        self.delivered: Callable[[], None] = lambda: None  # the provider has more of the receipts
        self._lost: list[Accepted] = []  # what stood by the state's file, and is over by the audit

    # -- start ---------------------------------------------------------------------------------------------------

    def restore(self, loaded: Loaded, over: Iterable[Ended] = ()) -> None:
        """Takes up what the disk holds, each token verified again. Raises BadToken for one that does not verify.

        `over`: what has ended by the audit. SQLite keeps no checksums: a row that was lost brings no consent back.
        """
        now = self._clock.now()
        self.ledger.resume_at(loaded.seq, loaded.wall_seen)
        self.seq_on_disk = loaded.seq
        for version in sorted(loaded.keys):
            self._use_keys(KeySet.from_claims(verify(loaded.keys[version], KeySet.TYP, self._root, NODES)))
        self.ledger.end(loaded.ended)
        for mark in loaded.watermarks:
            self.ledger.raise_watermark(mark)
        for row in loaded.consents:
            consent = Consent.from_claims(verify(row.token, Consent.TYP, self._keys_ever, self._node))
            left = consent.expires_at * NS - max(now.wall, loaded.wall_seen)
            # another boot's clock says nothing; this boot's says how much is left whatever the wall clock says. What the token
            # itself says is signed, and the file is not: it may only shorten
            boot = now.boot + max(0, left)
            if row.boot_id == self._boot_id:
                boot = min(boot, row.term_boot)
            term = Term(min(consent.expires_at * NS, row.term_wall), boot)
            self.ledger.restore(Accepted(consent, Pin(row.host, row.uuid, row.generation), term))
        self._outbox.restore(loaded.receipts, loaded.last_receipt)
        self._lost = self.ledger.end(over)

    def begin(self, now: Instant) -> None:
        """Ends what ran out while nothing ran, and puts the time on disk: a clock set back before the next note is known.

        So are the ends on this boot's clock: read again from a wall clock that was set back, they would be later.
        """
        self._write_lost(now)
        self.tick(now)
        change = Change()
        for one in self.ledger.standing(now):
            change.term(one.consent.jti, one.term.boot, self._boot_id)
        self._post(change, [], [])
        self.note_time(now)

    def _write_lost(self, now: Instant) -> None:
        """A crash came between the audit and the state: the provider hears what only the audit knows."""
        change, receipts = Change(), []
        for one in self._lost:
            ending = self.ledger.why_ended(one.consent) or Ending.CONSENT_REVOKED
            change.ended(Ended(one.consent.jti, ending, one.consent.expires_at + KEEP_SECONDS))
            facts = {"reason": ending.word, "sessions": "0"}
            receipts.append(self._outbox.add(change, Event.ENDED, one.consent.jti, now, facts=facts))
        self._lost = []
        self._post(change, [], receipts)

    # -- what the provider sends ---------------------------------------------------------------------------------

    def take_consent(self, raw: bytes) -> None:
        """A consent from MQTT. Never raises: what is wrong is counted and logged."""
        with self._metrics.counting(Consent.TYP):
            envelope = Envelope.decode(raw)
            self._take_keys(envelope)
            consent = Consent.from_claims(verify(envelope.token, Consent.TYP, self._keys, self._node))
            self._accept(consent, envelope.token)

    def take_revocation(self, raw: bytes) -> None:
        """A revocation from MQTT. Never raises."""
        with self._metrics.counting(Revocation.TYP):
            envelope = Envelope.decode(raw)
            self._take_keys(envelope)
            self._revoke([envelope.token], time.perf_counter())

    def take_lease(self, raw: bytes) -> bool:
        """A lease answer from MQTT or HTTPS. Never raises. Whether it answered a question of ours."""
        with self._metrics.counting(Lease.TYP):
            arrived = time.perf_counter()
            envelope = Envelope.decode(raw)
            self._take_keys(envelope)
            lease = Lease.from_claims(verify(envelope.token, Lease.TYP, self._keys, self._node))
            if not self.lease.expects(lease):
                return False
            had = self.ledger.seq
            self._revoke(envelope.revocations, arrived)
            delivered = self._outbox.delivered(lease.receipts)
            if had < self.ledger.seq < lease.seq:
                self.behind()  # there is more than one answer can carry
            if delivered or self.ledger.seq > self.seq_on_disk:
                # the journal keeps the order: when this is on disk, so is every revocation before it
                change = Change().receipts_delivered(delivered)
                self._journal.post(change, then=lambda: self._count(lease))
            else:
                self._count(lease)
            if delivered:
                self.delivered()
            return True
        return False

    def _count(self, lease: Lease) -> None:
        if self.lease.count(lease, self.seq_on_disk):
            self.renewed()

    def take_watch(self, token: str) -> Watch | None:
        """The watch token, if it is the provider's for this node and in time. Whether it came before, the caller knows."""
        with self._metrics.counting(Watch.TYP):
            watch = Watch.from_claims(verify(token, Watch.TYP, self._keys, self._node))
            # not by a clock that was set back: those that were in time before are forgotten
            if watch.time_fault(max(self._clock.now().wall, self.ledger.wall_seen) // NS) is not None:
                raise BadToken(Fault.TIME, "late, or of a clock ahead")
            return watch
        return None

    def of(self, cid: str) -> Accepted | None:
        """The consent of that cid that stands."""
        return self.ledger.standing_as(cid, self._clock.now())

    def has(self, resource_id: ResourceId) -> bool:
        """Whether any consent for the VM stands here, whomever it admits."""
        return any(one.consent.resource_id == resource_id for one in self.ledger.standing(self._clock.now()))

    # -- what ends consents here ---------------------------------------------------------------------------------

    def delete(self, accepted: Iterable[Accepted], account: str) -> tuple[int, float]:
        """An operator's Delete, or the giver's Stop: a tombstone of the same standing as a revocation, made asking nobody.

        Gives the count of sessions cut and the seconds it took. `deleted_on_disk` is the caller's to await.
        """
        began = time.perf_counter()
        now = self._clock.now()
        by = account if account.startswith(TENANT) else f"account:{account}"
        change, entries, receipts, cut = Change(), [], [], 0
        for one in accepted:
            ended = Ended(one.consent.jti, Ending.CONSENT_REVOKED, one.consent.expires_at + KEEP_SECONDS)
            self.ledger.end([ended])
            cut += self._cut([one.consent.jti], Ending.CONSENT_REVOKED)
            change.ended(ended)
            facts = {"account": account}
            receipts.append(self._outbox.add(change, Event.DELETED, one.consent.jti, now, facts=facts))
            entries.append(self._ended_entry(one, Ending.CONSENT_REVOKED, now, by=by))
        seconds = time.perf_counter() - began
        self._post(change, entries, receipts)
        return cut, seconds

    def end_missing(self, is_there: Callable[[Pin], bool]) -> None:
        """Ends the consents whose domain was undefined or re-created: they mean nothing any more."""
        now = self._clock.now()
        gone = [a for a in self.ledger.standing(now) if not is_there(a.pin)]
        if gone:
            self._end_locally(gone, Ending.VM_GONE, now)

    def tick(self, now: Instant) -> None:
        """Ends what has run out on either clock, and forgets what is long over."""
        over = self.ledger.tick(now)
        if over:
            self._end_locally(over, Ending.CONSENT_EXPIRED, now)

    def note_time(self, now: Instant) -> None:
        """Puts the wall clock on disk, so that one that was set back is known at the next start, and prunes."""
        gone = self.ledger.prune(now)
        # never lower: what is forgotten here could otherwise come back at a start with the clock set back
        seen = self.ledger.wall_seen
        self._post(Change().forget(gone, seen // NS).meta("wall_seen", seen), [], [])

    # -- inside --------------------------------------------------------------------------------------------------

    def _accept(self, consent: Consent, token: str) -> None:
        now = self._clock.now()
        self.tick(now)  # what has run out is over, and is not renewed
        known = self.ledger.knows(consent)
        try:
            self.ledger.check(consent, now)
            pins = self._resolve(consent.resource_id)
            if len(pins) != 1:
                raise Rejected(Reject.VM_AMBIGUOUS if pins else Reject.VM_UNKNOWN)
            before = self.ledger.renewed_by(consent)
            accepted = self.ledger.accept(consent, pins[0], now)
        except Rejected as error:
            self._metrics.consents_refused.labels(error.reject).inc()
            if not known:
                self._refuse(consent, error.reject, now)
            return  # a replay has had its receipt
        if not known:
            self._stand(accepted, before, token, now)

    def _refuse(self, consent: Consent, why: Reject, now: Instant) -> None:
        """For good: the provider hears of it once, and signs another if it wants to ask again."""
        change = Change()
        ended = Ended(consent.jti, Ending.CONSENT_REVOKED, consent.expires_at + KEEP_SECONDS)
        self.ledger.end([ended])
        receipt = self._outbox.add(change.ended(ended), Event.REFUSED, consent.jti, now, facts={"why": str(why)})
        facts: dict[str, Json] = {"consent": consent.jti, "why": str(why)}
        log.warning("consent %s refused: %s", consent.jti, why)
        self._post(change, [Entry(consent.cid, audit.Event.CONSENT_REFUSED, facts, now.wall // 1_000_000)], [receipt])

    def _stand(self, accepted: Accepted, before: Accepted | None, token: str, now: Instant) -> None:
        """Writes down a consent that stands from now on, in the place of `before` if it renews that."""
        consent, pin, change = accepted.consent, accepted.pin, Change()
        change.consent(accepted, token, self._boot_id)
        if before is None:
            change.forget_reins([consent.cid]).pause(consent.cid, paused=self.begins_paused(consent))
        else:
            change.ended(renewed(before))
            if self.cutter is not None:
                self.cutter.carry_on(before, accepted)
        where = {"host": pin.host, "uuid": pin.uuid, "generation": str(pin.generation)}
        watch = {"watch": self.watch_origin} if self.watch_origin else {}
        receipt = self._outbox.add(change, Event.ACCEPTED, consent.jti, now, facts=where | watch)
        facts: dict[str, Json] = {
            **where,
            "consent": consent.jti,
            "resource_id": str(consent.resource_id),
            "giver": consent.giver,
            "operators": sorted(map(str, consent.operators)),
            "kinds": sorted(map(str, consent.kinds)),
            "access": str(consent.access),
            "watched": consent.watched,
            "expires_at": consent.expires_at,
        }
        if before is not None:
            facts["renews"] = before.consent.jti
        log.info("consent %s accepted for domain %s on %s", consent.cid, pin.uuid, pin.host)
        entry = Entry(consent.cid, audit.Event.CONSENT_ACCEPTED, facts, now.wall // 1_000_000)

        def on_disk() -> None:
            if before is not None and self.cutter is not None:
                self.cutter.extend(accepted)

        self._post(change, [entry], [receipt], then=on_disk)

    def _revoke(self, tokens: Iterable[str], arrived: float) -> None:
        """Applies revocations at once, then writes them down and answers. `arrived`: time.perf_counter() of the message."""
        now = self._clock.now()
        change, entries, receipts = Change(), [], []
        for token in tokens:
            with self._metrics.counting(Revocation.TYP):
                # a signature is enough, however late, by any key that ever stood: it can only close
                revocation = Revocation.from_claims(verify(token, Revocation.TYP, self._keys_ever, self._node))
                new = revocation.seq > self.ledger.seq
                stood = self.ledger.revoke(revocation)
                cut = self._cut([a.consent.jti for a in stood], revocation.reason)
                seconds = time.perf_counter() - arrived
                self._keep(revocation, change)
                if stood:
                    self._metrics.cut.observe(seconds)
                if new:
                    about = revocation.consent or revocation.jti
                    facts = {"reason": revocation.reason.word, "sessions": str(cut), "cut_us": str(round(seconds * 1e6))}
                    receipts.append(self._outbox.add(change, Event.ENDED, about, now, revocation.seq, facts))
                entries += [self._ended_entry(a, revocation.reason, now, by="provider") for a in stood]
        seq = self.ledger.seq
        if change.statements:
            self._post(change.meta("seq", seq), entries, receipts, seq)

    def _keep(self, revocation: Revocation, change: Change) -> None:
        if revocation.consent is not None:
            self._outbox.answered(change, revocation.consent)
            change.ended(Ended(revocation.consent, revocation.reason, revocation.consent_expires_at + KEEP_SECONDS))
        elif revocation.resource_id is not None:
            mark = self.ledger.watermark_of(revocation.resource_id)
            change.watermark(mark)
            for covered in self.ledger.covered_by(mark):
                self._outbox.answered(change, covered.consent.jti)

    def _end_locally(self, accepted: Iterable[Accepted], ending: Ending, now: Instant) -> None:
        change, entries, receipts = Change(), [], []
        for one in accepted:
            ended = Ended(one.consent.jti, ending, one.consent.expires_at + KEEP_SECONDS)
            self.ledger.end([ended])
            cut = self._cut([one.consent.jti], ending)
            facts = {"reason": ending.word, "sessions": str(cut)}
            receipts.append(self._outbox.add(change.ended(ended), Event.ENDED, one.consent.jti, now, facts=facts))
            entries.append(self._ended_entry(one, ending, now, by="node"))
        self._post(change, entries, receipts)

    def _cut(self, jtis: list[str], ending: Ending) -> int:
        return self.cutter.end_consents(jtis, ending) if self.cutter is not None and jtis else 0

    @staticmethod
    def _ended_entry(one: Accepted, ending: Ending, now: Instant, by: str) -> Entry:
        log.info("consent %s ended: %s", one.consent.cid, ending.word)
        facts = {"consent": one.consent.jti, "reason": ending.word, "by": by}
        return Entry(one.consent.cid, audit.Event.CONSENT_ENDED, facts, now.wall // 1_000_000)

    def _post(
        self,
        change: Change,
        entries: list[Entry],
        receipts: list[StoredReceipt],
        seq: int = 0,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes, and sends the receipts once they are on disk."""
        if not change.statements and not entries:
            return

        def on_disk() -> None:
            self.seq_on_disk = max(self.seq_on_disk, seq)
            for receipt in receipts:
                self.publish(receipt)
            then()

        self._journal.post(change, *entries, then=on_disk)

    def _take_keys(self, envelope: Envelope) -> None:
        """Uses the key set that travels along, if it is the root's and newer than the one held."""
        if envelope.keys is None:
            return
        key_set = KeySet.from_claims(verify(envelope.keys, KeySet.TYP, self._root, NODES))
        if key_set.version <= self.keys_version:
            return  # an older one cannot bring a withdrawn key back
        ended = self._use_keys(key_set)
        log.info("key set %d with %d keys", key_set.version, len(key_set.keys))
        self._post(Change().meta(f"keys:{key_set.version}", envelope.keys), [], [])
        self._end_locally(ended, Ending.CONSENT_REVOKED, self._clock.now())

    def _use_keys(self, key_set: KeySet) -> list[Accepted]:
        self.keys_version = key_set.version
        self._keys = dict(key_set.keys)
        self._keys_ever |= key_set.keys
        return self.ledger.use_keys(key_set.keys)
