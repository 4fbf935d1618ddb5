"""What nodes send, each envelope within one transaction: lease requests, receipts, queries. Blocking, no network.

Errors: Refused (provider.consent.authority) and BadToken (eva.token); either undoes the transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from eva.audit import Told
from eva.consent import MAX_SECONDS, PROVIDER
from eva.ending import Ending
from eva.members import BadMember
from eva.token import BadToken, Fault, Typ, verify
from eva.whereabouts import Query
from eva.wire import MAX_REVOCATIONS, Envelope, Event, Lease, LeaseRequest, Receipt
from provider.consent.authority import ROLLED_BACK, AnchorVerdict, RecentNonces, Refusal, Refused, confirms, judge_anchor, taken
from provider.consent.desk import Desk
from provider.consent.origin import origin_of
from provider.store.filed import Enrolled, Filed, Notice

log = logging.getLogger("provider.consent.intake")


@dataclass(frozen=True, slots=True)
class Numbers:
    """How far a node is by its own signed word, where this store is not: the store was brought back from an old copy.

    `seq`: the revocations that it applied. `receipts`: up to this number it holds none any more, because a provider had them.
    """

    node: str
    seq: int
    receipts: int


class Ahead(Refused):
    """A node has applied revocations that this store never made."""

    def __init__(self, numbers: Numbers, made: int) -> None:
        why = f"{numbers.node} applied {numbers.seq} revocations, this store made {made}: see `nodes repair`"
        super().__init__(Refusal.AHEAD, why)
        self.numbers = numbers


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of receipts: those that were new, the revocations they brought about, how many could not be right.

    `known`: those that are filed already: another provider may have taken them, and one who waits is here.
    """

    receipts: tuple[Receipt, ...] = ()
    notices: tuple[Notice, ...] = ()
    confirmed: tuple[Notice, ...] = ()
    known: tuple[Receipt, ...] = ()
    bad: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The envelope that answers a lease request. `lost`: where the node is, if this store lacks receipts that it had."""

    node: str
    payload: bytes
    taken: Taken = field(default_factory=Taken)
    lost: Numbers | None = None


@dataclass(frozen=True, slots=True)
class RolledBack:
    """No answer, and none from now on, which must be on disk before it is refused. `count`: told now, `told` before."""

    node: str
    verdict: AnchorVerdict
    count: int
    told: int

    def refused(self) -> Refused:
        return _rolled_back(self.node)


def _rolled_back(node: str) -> Refused:
    why = f"the state of {node} is older than what it signed: make it a new node (`nodes list`, docs/operations.md)"
    return Refused(Refusal.ROLLED_BACK, why)


class Intake:
    """`awaited`: offers whose callers wait in this process, to be told as soon as this transaction is on disk."""

    def __init__(self, desk: Desk, awaited: Container[str] = ()) -> None:
        self._desk = desk
        self._awaited = awaited
        self._books = desk.books

    def answer_lease(self, envelope: Envelope, spoken_as: str | None, nonces: RecentNonces) -> Answered | RolledBack:
        """`spoken_as`: the node that the topic names; None where the way names none (HTTPS)."""
        claims = verify(envelope.token, Typ.LEASE_REQUEST, self._books.keyring, PROVIDER)
        request = LeaseRequest.from_claims(claims)
        node = self._speaker(claims.kid, request.node, spoken_as)
        if request.seq > node.seq:
            missed = self._missed(node, envelope.receipts)
            raise Ahead(Numbers(node.name, request.seq, max(missed, node.receipts)), node.seq)
        verdict = self._judge(node, request)
        if verdict in ROLLED_BACK:
            return self._refuse_from_now_on(node, request, verdict)
        if verdict is AnchorVerdict.LATE:
            raise Refused(Refusal.LATE, f"{node.name} has told {node.audit_count} records since, here {request.audit_count}")
        came = self._take(node, envelope.receipts)
        lost = None
        if envelope.receipts and not came.receipts and (missed := self._missed(node, envelope.receipts)) > node.receipts:
            # a node sends all that no lease said we have, the oldest first: what is before it, a store once had
            lost = Numbers(node.name, request.seq, missed)
        if nonces.first_time(node.kid, request.nonce):
            self._note(node, request, verdict)
        node = self._books.node(node.name) or node
        lease = Lease(node.name, request.nonce, node.seq, node.receipts, self._desk.now)
        signer = self._desk.signer
        answer = Envelope(
            token=signer.key.sign(Typ.LEASE, lease.to_claims()),
            keys=signer.key_set if request.keys_version < signer.version else None,
            revocations=tuple(self._books.revocations_after(node.name, request.seq, MAX_REVOCATIONS)),
        )
        return Answered(node.name, answer.encode(), came, lost)

    def take_receipt(self, envelope: Envelope, spoken_as: str) -> Taken:
        """A receipt that came by itself."""
        node = self._books.node(spoken_as)
        if node is None:
            raise Refused(Refusal.UNKNOWN_NODE, spoken_as)
        if node.rolled_back:
            # its numbers began again: none of its words can be put after the others
            raise _rolled_back(node.name)
        return self._take(node, (envelope.token, *envelope.receipts))

    def whereabouts(self, envelope: Envelope) -> str | None:
        """The node that serves the virtual machine which an enrolled node asks after."""
        claims = verify(envelope.token, Typ.QUERY, self._books.keyring, PROVIDER)
        query = Query.from_claims(claims)
        self._speaker(claims.kid, query.node, None)
        # a query changes nothing, so one brought again within its minute is answered again
        if (fault := query.time_fault(self._desk.now)) is not None:
            raise BadToken(fault, "a query of another minute")
        standing = [one for one in self._books.unexpired(query.resource_id, self._desk.now) if one.stands(self._desk.now)]
        return max(standing, key=lambda one: one.issued_at).node if standing else None

    def repair(self, numbers: Numbers) -> None:
        """Goes on from the node's own numbers. What came between is lost with the store that had it."""
        node = self._books.node(numbers.node)
        if node is None:
            raise Refused(Refusal.UNKNOWN_NODE, numbers.node)
        self._books.update_node(node.name, seq=max(node.seq, numbers.seq), receipts=max(node.receipts, numbers.receipts))

    def _speaker(self, kid: str, name: str, spoken_as: str | None) -> Enrolled:
        node = self._books.node_of_key(kid)
        if node is None:
            raise Refused(Refusal.UNKNOWN_NODE, name)
        if node.name != name or (spoken_as is not None and spoken_as != name):
            raise Refused(Refusal.WRONG_NODE, f"the key of {node.name} speaks as {name} at {spoken_as or 'HTTPS'}")
        if node.rolled_back:
            raise _rolled_back(node.name)
        return node

    def _missed(self, node: Enrolled, tokens: Sequence[str]) -> int:
        """The number before the first receipt that the node still has; 0 where it sent none."""
        numbers: list[int] = []
        for token in tokens:
            try:
                numbers.append(self._receipt(node, token).number)
            except BadToken as error:
                log.warning("a receipt of %s is not read: %s", node.name, error)
        return min(numbers, default=1) - 1

    def _judge(self, node: Enrolled, request: LeaseRequest) -> AnchorVerdict:
        then = self._books.told_of(node.kid, request.audit_count) if request.audit_count < node.audit_count else None
        return judge_anchor(request, node.audit_count, node.audit_head, then, node.asked_at)

    def _note(self, node: Enrolled, request: LeaseRequest, verdict: AnchorVerdict) -> None:
        """Puts the ask on disk before its answer leaves: another provider must not think the node lost while it holds a lease."""
        now_ms = self._desk.now_ms
        columns: dict[str, int | str | None] = {"asked_ms": max(now_ms, node.asked_ms), "applied": request.seq}
        columns |= {"asked_at": max(request.issued_at, node.asked_at or 0)}
        if verdict is AnchorVerdict.FORWARD:
            self._books.anchor(node.kid, request, now_ms)
            columns |= {"audit_count": request.audit_count, "audit_head": request.audit_head}
        self._books.update_node(node.name, **columns)

    def _refuse_from_now_on(self, node: Enrolled, request: LeaseRequest, verdict: AnchorVerdict) -> RolledBack:
        """It counts as silent from its last answer on, so that what it served moves as from a node that is lost."""
        if verdict is AnchorVerdict.CONFLICT:
            self._books.update_node(node.name, conflict_ms=self._desk.now_ms, conflict_count=request.audit_count)
        else:
            self._books.update_node(node.name, behind_ms=self._desk.now_ms)
        return RolledBack(node.name, verdict, request.audit_count, node.audit_count)

    # receipts

    def _take(self, node: Enrolled, tokens: Sequence[str]) -> Taken:
        found: dict[int, tuple[Receipt, str]] = {}
        known: list[Receipt] = []
        bad = conflicts = 0
        for token in tokens:
            try:
                receipt = self._receipt(node, token)
            except BadToken as error:
                log.warning("a receipt of %s is not taken: %s", node.name, error)
                bad += 1
                continue
            if receipt.number > node.receipts:
                found[receipt.number] = (receipt, token)
            elif self._books.receipt_token(node.kid, receipt.number) == token:
                known.append(receipt)
            else:
                log.error("%s signed two receipts with number %d", node.name, receipt.number)
                conflicts += 1
        run = taken(node.receipts, [receipt for receipt, _ in found.values()])
        notices: list[Notice] = []
        confirmed: list[Notice] = []
        for receipt in run:
            self._apply(receipt, notices, confirmed)
        if run:
            self._books.file_receipts(node.kid, [found[receipt.number] for receipt in run], self._desk.now_ms)
            self._books.update_node(node.name, receipts=run[-1].number)
        return Taken(tuple(run), tuple(notices), tuple(confirmed), tuple(known), bad, conflicts)

    def _receipt(self, node: Enrolled, token: str) -> Receipt:
        claims = verify(token, Typ.RECEIPT, self._books.keyring, PROVIDER)
        receipt = Receipt.from_claims(claims)
        if claims.kid != node.kid or receipt.node != node.name:
            raise BadToken(Fault.KEY, "signed by another node")
        return receipt

    def _apply(self, receipt: Receipt, notices: list[Notice], confirmed: list[Notice]) -> None:
        filed = self._books.consent(receipt.about)
        mine = filed if filed is not None and filed.node == receipt.node else None
        match receipt.event:
            case Event.ACCEPTED | Event.REFUSED if mine is not None and mine.answer is None:
                self._answered(receipt, mine)
            case Event.ENDED if receipt.seq > 0:
                notice = self._books.revocation(receipt.node, receipt.seq)
                if notice is not None and confirms(receipt, notice.seq, notice.consent, notice.jti):
                    self._books.confirm(receipt, _count(receipt.fact("cut_us")), _count(receipt.fact("sessions")))
                    confirmed.append(self._books.revocation(receipt.node, receipt.seq) or notice)
            case Event.ENDED if mine is not None and mine.ended_ms is None:
                self._books.update_consent(mine.jti, ended_ms=receipt.at_ms, ended_reason=receipt.fact("reason"))
            case Event.DELETED:
                self._deleted(receipt, filed, mine, notices)
            case Event.RECORDED:
                self._recorded(receipt)

    def _answered(self, receipt: Receipt, filed: Filed) -> None:
        said = {"answer": str(receipt.event), "uuid": receipt.fact("uuid"), "why": receipt.fact("why")}
        if receipt.event is Event.ACCEPTED and filed.consent().watched and origin_of(receipt) is None:
            # its giver could never look, so that nothing would ever open: as good as refused
            said["why"] = str(Refusal.NOT_WATCHABLE)
        self._books.update_consent(filed.jti, answered_ms=receipt.at_ms, **said)
        if receipt.event is Event.ACCEPTED and (filed.jti != filed.cid or filed.jti in self._awaited):
            # of a renewal or a move the giver has the consent, so nobody need be told before it counts
            self._desk.acknowledge(filed.jti)

    def _recorded(self, receipt: Receipt) -> None:
        try:
            told = Told.parse(receipt.record)
        except BadMember:
            return  # signed by its node and filed as it is; what it is worth, `verify-receipt` says
        self._desk.visits.file(receipt.about, receipt.node, told, self._desk.now_ms)

    def _deleted(self, receipt: Receipt, filed: Filed | None, mine: Filed | None, notices: list[Notice]) -> None:
        if self._books.single_revocation(receipt.node, receipt.about) is None:
            # also for a consent that these books do not know: ending one that is none harms nobody
            ends = filed.expires_at if filed is not None else self._desk.now + MAX_SECONDS
            notices.append(self._desk.revoke_single(receipt.node, receipt.about, ends, Ending.CONSENT_REVOKED))
        if mine is not None and mine.granted_ms is not None and mine.expires_at > self._desk.now:
            # it may have been renewed, or moved to another node, while this one's word was under way
            notices += self._desk.end_rest(mine.cid, Ending.CONSENT_REVOKED)


def _count(text: str) -> int | None:
    """A node's number, if it is one that the store can hold."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
