"""What the provider decides, each within one transaction: offers, revocations, leases, receipts. Blocking, no network.

A decision is signed here and leaves the process only after its transaction is on disk. Errors: Refused (provider.authority)
and BadToken (eva.token); either undoes the transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from eva.consent import MAX_SECONDS, PROVIDER, Access, Consent, Kind, Principal, Revocation, is_node_name
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, Fault, Typ, thumbprint, verify
from eva.wire import MAX_REVOCATIONS, Envelope, Event, Lease, LeaseRequest, Receipt
from provider.authority import (
    AnchorVerdict,
    Candidate,
    RecentNonces,
    Refusal,
    Refused,
    choose,
    confirms,
    expiry,
    issue_time,
    judge_anchor,
    taken,
    watermark_time,
)
from provider.books import Books, Enrolled, Filed, Notice
from provider.keys import Signer

SWEPT = 64  # overdue offers in one transaction

log = logging.getLogger("provider.desk")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a giver asks for. `seconds` from now; `node` None: choose one."""

    resource_id: ResourceId
    giver: str
    operators: frozenset[Principal]
    kinds: frozenset[Kind]
    access: Access
    seconds: int
    reason: str = ""
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    consent: Consent
    token: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of receipts: those that were new, the revocations they brought about, how many could not be right."""

    receipts: tuple[Receipt, ...] = ()
    notices: tuple[Notice, ...] = ()
    confirmed: tuple[Notice, ...] = ()
    bad: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The envelope that answers a lease request."""

    node: str
    payload: bytes
    verdict: AnchorVerdict
    taken: Taken = field(default_factory=Taken)


class Desk:
    """`now_ms`: Unix milliseconds. `new_jti`: 128 random bits in base64url at each call."""

    def __init__(self, connection: Connection, signer: Signer, now_ms: int, new_jti: Callable[[], str]) -> None:
        self.books = Books(connection)
        self._signer = signer
        self._now_ms = now_ms
        self._now = now_ms // 1000
        self._new_jti = new_jti

    # consents

    def offer(self, wish: Wish, answer_ms: int) -> Offer:
        """A consent signed for a node, which has `answer_ms` to accept it before the sweep takes it back."""
        node = self._node_for(wish)
        issued_at = issue_time(self._now, self.books.watermark(wish.resource_id))
        consent = Consent(
            jti=self._new_jti(),
            node=node,
            resource_id=wish.resource_id,
            giver=wish.giver,
            operators=wish.operators,
            kinds=wish.kinds,
            access=wish.access,
            issued_at=issued_at,
            expires_at=expiry(self._now, issued_at, wish.seconds),
            reason=wish.reason,
        )
        token = self._signer.key.sign(Typ.CONSENT, consent.to_claims())
        self.books.file_consent(consent, token, self._now_ms + answer_ms)
        return Offer(consent, token)

    def _node_for(self, wish: Wish) -> str:
        if wish.node is not None:
            named = self.books.node_like(wish.node)
            if named is None:
                raise Refused(Refusal.UNKNOWN_NODE, f"no node {wish.node} is enrolled")
            return named.name
        loads = self.books.loads(self._now)
        candidates = [Candidate(one.name, one.asked_ms, loads.get(one.name, 0)) for one in self.books.nodes()]
        return choose(candidates, self._now_ms)

    def acknowledge(self, jti: str) -> Filed | None:
        """The consent, from now on granted for the giver too; None if it was not accepted or is revoked."""
        filed = self.books.consent(jti)
        if filed is None or filed.answer != Event.ACCEPTED or filed.revoked_ms is not None:
            return None
        self.books.update_consent(jti, granted_ms=self._now_ms)
        return filed

    # revocations

    def revoke_vm(self, resource_id: ResourceId, reason: Ending) -> list[Notice]:
        """Every consent for the VM, by one watermark at each node that has any; a node revoked before gives its old notice."""
        live = self.books.unexpired(resource_id, self._now)
        if not live:
            raise Refused(Refusal.NO_CONSENT, "no consent for this virtual machine is in force")
        standing = {filed.node for filed in live if filed.revoked_ms is None}
        issued_by = watermark_time(self._now, (filed.issued_at for filed in live))
        if standing:
            self.books.set_watermark(resource_id, issued_by)
        notices: dict[tuple[str, int], Notice] = {}
        for node in sorted(standing):
            ends = max(filed.expires_at for filed in live if filed.node == node)
            revocation = self._numbered(node, reason, ends, resource_id=resource_id, issued_by=issued_by)
            self.books.cover(node, resource_id, issued_by, self._now_ms)
            notice = self._file(revocation)
            notices[notice.node, notice.seq] = notice
        for filed in live:
            if filed.node not in standing and (before := self.books.covering(filed)) is not None:
                notices[before.node, before.seq] = before
        return list(notices.values())

    def revoke_consent(self, jti: str, reason: Ending) -> Notice:
        """One consent; if it is revoked already, the notice of then."""
        filed = self.books.consent(jti)
        if filed is None:
            raise Refused(Refusal.NO_CONSENT, "no consent has this id")
        if (before := self.books.covering(filed)) is not None:
            return before
        if filed.expires_at <= self._now:
            raise Refused(Refusal.NO_CONSENT, "this consent has run out")
        return self._revoke_single(filed.node, jti, filed.expires_at, reason)

    def sweep(self) -> list[Notice]:
        """Takes back offers that nobody was told of: a grant cut short by a crash leaves nothing half granted."""
        overdue = self.books.overdue(self._now_ms, SWEPT)
        return [self._revoke_single(filed.node, filed.jti, filed.expires_at, Ending.CONSENT_REVOKED) for filed in overdue]

    def _revoke_single(self, node: str, jti: str, ends: int, reason: Ending) -> Notice:
        revocation = self._numbered(node, reason, ends, consent=jti)
        filed = self.books.consent(jti)
        if filed is not None and filed.node == node and filed.revoked_ms is None:
            self.books.update_consent(jti, revoked_ms=self._now_ms)
        return self._file(revocation)

    def _numbered(
        self,
        node: str,
        reason: Ending,
        ends: int,
        *,
        consent: str | None = None,
        resource_id: ResourceId | None = None,
        issued_by: int | None = None,
    ) -> Revocation:
        row = self.books.node(node)
        if row is None:
            raise Refused(Refusal.UNKNOWN_NODE, node)
        return Revocation(self._new_jti(), node, row.seq + 1, self._now, reason, ends, consent, resource_id, issued_by)

    def _file(self, revocation: Revocation) -> Notice:
        token = self._signer.key.sign(Typ.REVOCATION, revocation.to_claims())
        self.books.file_revocation(revocation, token, self._now_ms)
        return Notice(revocation.node, revocation.seq, revocation.jti, revocation.consent, self._now_ms, token, None, None, None)

    # what nodes send

    def answer_lease(self, envelope: Envelope, spoken_as: str | None, nonces: RecentNonces) -> Answered:
        """`spoken_as`: the node that the topic names; None where the way names none (HTTPS)."""
        claims = verify(envelope.token, Typ.LEASE_REQUEST, self.books.keyring, PROVIDER)
        request = LeaseRequest.from_claims(claims)
        node = self._speaker(claims.kid, request.node, spoken_as)
        if request.seq > node.seq:
            raise Refused(Refusal.AHEAD, f"{node.name} applied {request.seq} revocations, this store made {node.seq}")
        came = self._take(node, envelope.receipts)
        first = nonces.first_time(node.kid, request.nonce)
        verdict = self._note(node, request) if first else AnchorVerdict.SAME
        node = self.books.node(node.name) or node
        lease = Lease(node.name, request.nonce, node.seq, node.receipts, self._now)
        answer = Envelope(
            token=self._signer.key.sign(Typ.LEASE, lease.to_claims()),
            keys=self._signer.key_set if request.keys_version < self._signer.version else None,
            revocations=tuple(self.books.revocations_after(node.name, request.seq, MAX_REVOCATIONS)),
        )
        return Answered(node.name, answer.encode(), verdict, came)

    def take_receipt(self, envelope: Envelope, spoken_as: str) -> Taken:
        """A receipt that came by itself."""
        node = self.books.node(spoken_as)
        if node is None:
            raise Refused(Refusal.UNKNOWN_NODE, spoken_as)
        return self._take(node, (envelope.token, *envelope.receipts))

    def _speaker(self, kid: str, name: str, spoken_as: str | None) -> Enrolled:
        node = self.books.node_of_key(kid)
        if node is None:
            raise Refused(Refusal.UNKNOWN_NODE, name)
        if node.name != name or (spoken_as is not None and spoken_as != name):
            raise Refused(Refusal.WRONG_NODE, f"the key of {node.name} speaks as {name} at {spoken_as or 'HTTPS'}")
        return node

    def _note(self, node: Enrolled, request: LeaseRequest) -> AnchorVerdict:
        """Puts the ask on disk before its answer leaves: another provider must not think the node lost while it holds a lease."""
        then = self.books.head_at(node.kid, request.audit_count)
        verdict = judge_anchor(request, node.audit_count, node.audit_head, then)
        columns: dict[str, int | str | None] = {"asked_ms": max(self._now_ms, node.asked_ms), "applied": request.seq}
        if verdict is AnchorVerdict.FORWARD:
            self.books.anchor(node.kid, request, self._now_ms)
            columns |= {"audit_count": request.audit_count, "audit_head": request.audit_head}
        elif verdict is AnchorVerdict.BEHIND:
            columns |= {"behind_ms": self._now_ms}
        elif verdict is AnchorVerdict.CONFLICT and node.conflict_ms is None:
            columns |= {"conflict_ms": self._now_ms, "conflict_count": request.audit_count}
        self.books.update_node(node.name, **columns)
        return verdict

    def _take(self, node: Enrolled, tokens: Sequence[str]) -> Taken:
        found: dict[int, tuple[Receipt, str]] = {}
        bad = conflicts = 0
        for token in tokens:
            try:
                receipt = self._receipt(node, token)
            except BadToken as error:
                log.warning("a receipt of %s is not taken: %s", node.name, error)
                bad += 1
                continue
            if receipt.number <= node.receipts and self.books.receipt_token(node.kid, receipt.number) != token:
                log.error("%s signed two receipts with number %d", node.name, receipt.number)
                conflicts += 1
            found[receipt.number] = (receipt, token)
        run = taken(node.receipts, [receipt for receipt, _ in found.values()])
        notices: list[Notice] = []
        confirmed: list[Notice] = []
        for receipt in run:
            self._apply(receipt, notices, confirmed)
        if run:
            self.books.file_receipts(node.kid, [found[receipt.number] for receipt in run], self._now_ms)
            self.books.update_node(node.name, receipts=run[-1].number)
        return Taken(tuple(run), tuple(notices), tuple(confirmed), bad, conflicts)

    def _receipt(self, node: Enrolled, token: str) -> Receipt:
        claims = verify(token, Typ.RECEIPT, self.books.keyring, PROVIDER)
        receipt = Receipt.from_claims(claims)
        if claims.kid != node.kid or receipt.node != node.name:
            raise BadToken(Fault.KEY, "signed by another node")
        return receipt

    def _apply(self, receipt: Receipt, notices: list[Notice], confirmed: list[Notice]) -> None:
        filed = self.books.consent(receipt.about)
        mine = filed is not None and filed.node == receipt.node
        match receipt.event:
            case Event.ACCEPTED | Event.REFUSED if filed is not None and mine and filed.answer is None:
                said = {"answer": str(receipt.event), "uuid": receipt.fact("uuid"), "why": receipt.fact("why")}
                self.books.update_consent(filed.jti, answered_ms=receipt.at_ms, **said)
            case Event.ENDED if receipt.seq > 0:
                notice = self.books.revocation(receipt.node, receipt.seq)
                if notice is not None and confirms(receipt, notice.seq, notice.consent, notice.jti):
                    self.books.confirm(receipt, _count(receipt.fact("cut_us")), _count(receipt.fact("sessions")))
                    confirmed.append(self.books.revocation(receipt.node, receipt.seq) or notice)
            case Event.ENDED if filed is not None and mine and filed.ended_ms is None:
                self.books.update_consent(filed.jti, ended_ms=receipt.at_ms, ended_reason=receipt.fact("reason"))
            case Event.DELETED if self.books.single_revocation(receipt.node, receipt.about) is None:
                # also for a consent that these books do not know: ending one that is none harms nobody
                ends = filed.expires_at if filed is not None else self._now + MAX_SECONDS
                notices.append(self._revoke_single(receipt.node, receipt.about, ends, Ending.CONSENT_REVOKED))


def enrol(books: Books, name: str, key: Ed25519PublicKey, now_ms: int, *, replace: bool) -> None:
    """A node with the key that was brought out of band. Raises Refused where name or key is taken."""
    if not is_node_name(name):
        raise Refused(Refusal.BAD_NAME, f"{name!r} is no host name")
    owner = books.node_of_key(thumbprint(key))
    if owner is not None:
        raise Refused(Refusal.ENROLLED, f"this key is {owner.name}'s already")
    there = books.node_like(name)
    if there is None:
        books.enrol(name, key, now_ms)
    elif replace:
        books.replace_key(there.name, key, now_ms)
    else:
        raise Refused(Refusal.ENROLLED, f"{there.name} is enrolled already: --replace brings a new key, and ends the old one")


def _count(text: str) -> int | None:
    """A node's number, if it is one that the store can hold."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
