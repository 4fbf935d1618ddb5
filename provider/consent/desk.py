"""What the provider decides of itself, each within one transaction: offers and revocations. Blocking, no network.

A decision is signed here and leaves the process only after its transaction is on disk. Through the desk act, beside it, intake
(what nodes send), enabling (what a tenant's call means), disabling and loss. Errors: Refused (authority), which undoes the
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from eva.consent import MAX_SECONDS, Consent, Revocation, is_node_name
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import MAX_BYTES, Typ, thumbprint
from eva.wire import Event
from provider.consent.ask import Ask, How, Scopes
from provider.consent.authority import (
    Candidate,
    Refusal,
    Refused,
    check_span,
    expiry,
    issue_time,
    ranked,
    watermark_time,
)
from provider.consent.features import FeatureBooks
from provider.keys import Signer
from provider.store.books import Books
from provider.store.filed import UNANSWERED, Filed, Notice
from provider.store.records import Records
from provider.store.visits import Visits

SWEPT = 64  # overdue offers in one transaction
MAX_NODE_NAME = 63  # characters: eva.consent.is_node_name


@dataclass(frozen=True, slots=True)
class Terms:
    """What a consent says, whichever node it is for."""

    resource_id: ResourceId
    giver: str
    scopes: Scopes
    expires_at: int
    reason: str

    @classmethod
    def of(cls, consent: Consent) -> Terms:
        return cls(consent.resource_id, consent.giver, Scopes.of(consent), consent.expires_at, consent.reason)


@dataclass(frozen=True, slots=True)
class Offer:
    """A signed consent on its way to its node. `others`: how many more nodes could be asked if this one will not."""

    consent: Consent
    token: str
    how: How
    others: int = 0


class Desk:
    """`now_ms`: Unix milliseconds. `new_jti`: 128 random bits in base64url at each call."""

    def __init__(self, connection: Connection, signer: Signer, now_ms: int, new_jti: Callable[[], str]) -> None:
        self.books = Books(connection)
        self.records = Records(connection)
        self.visits = Visits(connection)
        self.features = FeatureBooks(connection)
        self.signer = signer
        self.now_ms = now_ms
        self.now = now_ms // 1000
        self.new_jti = new_jti

    # offers

    def offer(self, ask: Ask, answer_ms: int, tried: Collection[str] = ()) -> Offer:
        """A new consent, signed for a node that has `answer_ms` to accept it before the sweep takes it back."""
        self.check_feature(ask.resource_id)
        return self.offer_allowed(ask, answer_ms, tried)

    def offer_allowed(self, ask: Ask, answer_ms: int, tried: Collection[str] = ()) -> Offer:
        """The same where this very transaction has checked the feature."""
        nodes = [self._named(ask.node)] if ask.node is not None else self.nodes_for(tried)
        return self.place(nodes, self.terms(ask), None, answer_ms, How.FRESH)

    def terms(self, ask: Ask, standing: Consent | None = None) -> Terms:
        """What is asked for, with what is left open taken from the consent that stands."""
        return Terms(ask.resource_id, ask.giver, ask.scopes(standing), expiry(self.now, ask.seconds), ask.reason)

    def place(self, nodes: list[str], terms: Terms, cid: str | None, answer_ms: int, how: How) -> Offer:
        """Signs and files a token for the first of the nodes. `cid`: the consent that it goes on with, None for a new one."""
        older = [one.issued_at for one in self.records.tokens_of(cid)] if cid is not None else []
        issued_at = issue_time(self.now, self.books.watermark(terms.resource_id), *older)
        check_span(issued_at, terms.expires_at)
        jti = self.new_jti()
        consent = Consent(
            jti=jti,
            cid=cid or jti,
            node=nodes[0],
            resource_id=terms.resource_id,
            giver=terms.giver,
            operators=terms.scopes.operators,
            kinds=terms.scopes.kinds,
            access=terms.scopes.access,
            issued_at=issued_at,
            expires_at=terms.expires_at,
            watched=terms.scopes.watched,
            reason=terms.reason,
            # its giver's word goes along to whichever node has it next
            paused=cid is not None and self.visits.is_paused(cid),
        )
        token = self._signed(consent, how)
        self.books.file_consent(consent, token, self.now_ms + answer_ms)
        return Offer(consent, token, how, len(nodes) - 1)

    def _signed(self, consent: Consent, how: How) -> str:
        """Raises Refused where no token could hold it; nor what is asked for now where one for another node could not."""
        # a node's name may be longer, and `paused` a letter, when it has to move; base64 makes 4 of 3
        more = 0 if how is How.REPEATED else -(-4 * (MAX_NODE_NAME + 1 - len(consent.node)) // 3)
        try:
            token = self.signer.key.sign(Typ.CONSENT, consent.to_claims())
            if len(token) + more > MAX_BYTES:
                raise ValueError
        except ValueError:
            raise Refused(Refusal.TOO_BIG, "reason, operators and names are longer together than a consent can hold") from None
        return token

    def nodes_for(self, tried: Collection[str]) -> list[str]:
        """Who may be offered a consent, the best first. Raises Refused, also where all who are alive were tried."""
        loads = self.books.loads(self.now)
        nodes = [one for one in self.books.nodes() if not one.rolled_back]
        candidates = [Candidate(one.name, one.asked_ms, loads.get(one.name, 0)) for one in nodes]
        left = [name for name in ranked(candidates, self.now_ms) if name not in tried]
        if not left:
            raise Refused(Refusal.NO_NODE, "every node that is alive was asked")
        return left

    def _named(self, name: str) -> str:
        found = self.books.node_like(name)
        if found is None:
            raise Refused(Refusal.UNKNOWN_NODE, f"no node {name} is enrolled")
        return found.name

    def acknowledge(self, jti: str) -> Filed | None:
        """The consent, from now on granted for the giver too; None if it was not accepted, cannot be watched or is over."""
        filed = self.books.consent(jti)
        if filed is None or filed.answer != Event.ACCEPTED or filed.why == Refusal.NOT_WATCHABLE:
            return None
        if filed.revoked_ms is not None or filed.ended_ms is not None:
            return None
        if filed.granted_ms is None:
            self.books.update_consent(jti, granted_ms=self.now_ms, why=None)
            for older in self.records.tokens_of(filed.cid):
                # also the one that a lost node had: its consent has arrived
                if older.jti != jti and older.granted_ms is not None and older.replaced_ms is None:
                    self.books.update_consent(older.jti, replaced_ms=self.now_ms)
        return filed

    def settle(self, jti: str) -> Filed | Notice | None:
        """An offer that is waited for no more: granted where its node has accepted it by now, else taken back."""
        return self.acknowledge(jti) or self.take_back(jti)

    def take_back(self, jti: str) -> Notice | None:
        """An offer that came to nothing: revoked, so that it can never stand. None where nothing needs to be said.

        A renewal that its node has not answered is left: if it arrived, the old token is gone, and to revoke the new one
        would end what the tenant asked to go on. He is told that one of the two stands.
        """
        filed = self.books.consent(jti)
        if filed is None:
            return None
        if filed.answer is None and self._renews(filed):
            self.books.update_consent(jti, why=UNANSWERED)
            return None
        return self.revoke_token(filed, Ending.CONSENT_REVOKED)

    def _renews(self, filed: Filed) -> bool:
        if filed.jti == filed.cid:
            return False
        others = self.records.tokens_of(filed.cid)
        return any(one.node == filed.node and one.jti != filed.jti and one.stands(self.now) for one in others)

    def sweep(self) -> list[Notice]:
        """Takes back offers that nobody was told of: a grant cut short by a crash leaves nothing half granted."""
        overdue = self.books.overdue(self.now_ms, SWEPT)
        return [notice for filed in overdue if (notice := self.take_back(filed.jti)) is not None]

    # who may

    def check_feature(self, resource_id: ResourceId) -> None:
        """Raises Refused where the virtual machine's subscription may not consent."""
        if not self.features.allows(resource_id.subscription):
            raise Refused(
                Refusal.FEATURE_OFF,
                f"The Emergency VM Access feature is not enabled for subscription '{resource_id.subscription}'",
            )

    # revocations

    def revoke_vm(self, resource_id: ResourceId, reason: Ending) -> list[Notice]:
        """Every consent for the VM, by one watermark at each node that has any; a node revoked before gives its old notice."""
        live = self.books.unexpired(resource_id, self.now)
        if not live:
            raise Refused(Refusal.NO_CONSENT, "no consent for this virtual machine is in force")
        standing = {filed.node for filed in live if filed.revoked_ms is None}
        notices = {(notice.node, notice.seq): notice for notice in self._mark(resource_id, standing, live, reason)}
        for filed in live:
            if filed.homeless(self.now):
                self.conclude(filed, reason)
            if filed.node not in standing and (before := self.books.covering(filed)) is not None:
                notices[before.node, before.seq] = before
        return list(notices.values())

    def revoke_everywhere(self, resource_id: ResourceId, reason: Ending) -> list[Notice]:
        """Every consent for the VM at every node: also those that a lost store knew of."""
        live = self.books.unexpired(resource_id, self.now)
        for filed in live:
            if filed.homeless(self.now):
                self.conclude(filed, reason)
        return self._mark(resource_id, {one.name for one in self.books.nodes()}, live, reason)

    def _mark(self, resource_id: ResourceId, nodes: Collection[str], live: Sequence[Filed], reason: Ending) -> list[Notice]:
        """A watermark at each of these nodes, past all that is live."""
        before = self.books.watermark(resource_id)
        # never lower than the last: it may run ahead of the clock
        issued_by = watermark_time(self.now, [*(filed.issued_at for filed in live), *([] if before is None else [before])])
        if nodes:
            self.books.set_watermarks({resource_id.key: issued_by})
        notices: list[Notice] = []
        for node in sorted(nodes):
            ends = max((filed.expires_at for filed in live if filed.node == node), default=self.now + MAX_SECONDS)
            revocation = self._numbered(node, reason, ends, resource_id=resource_id, issued_by=issued_by)
            self.books.cover(node, resource_id, issued_by, self.now_ms)
            notices += self.file([revocation])
        return notices

    def revoke_consent(self, cid: str, reason: Ending) -> list[Notice]:
        """One consent, wherever it is; if it is revoked already, the notice of then. Raises Refused."""
        tokens = self.records.tokens_of(cid)
        if not tokens:
            raise Refused(Refusal.NO_CONSENT, "no consent has this id")
        unexpired = [one for one in tokens if one.expires_at > self.now]
        if not unexpired:
            raise Refused(Refusal.NO_CONSENT, "this consent has run out")
        return self.end_rest(cid, reason) or [
            before for filed in unexpired[-1:] if (before := self.books.covering(filed)) is not None
        ]

    def end_rest(self, cid: str, reason: Ending) -> list[Notice]:
        """Revokes what is left of a consent, wherever it is. Nothing where all of it is revoked."""
        notices: list[Notice] = []
        for filed in self.records.tokens_of(cid):
            if filed.expires_at <= self.now:
                continue
            if filed.homeless(self.now):
                self.conclude(filed, reason)
            elif filed.revoked_ms is None and filed.replaced_ms is None:
                notices.append(self.revoke_token(filed, reason))
        return notices

    def revoke_token(self, filed: Filed, reason: Ending) -> Notice:
        """One token at its node; if it is revoked already, the notice of then."""
        return self.books.covering(filed) or self.revoke_single(filed.node, filed.jti, filed.expires_at, reason)

    def revoke_single(self, node: str, jti: str, ends: int, reason: Ending) -> Notice:
        revocation = self._numbered(node, reason, ends, consent=jti)
        filed = self.books.consent(jti)
        if filed is not None and filed.node == node and filed.revoked_ms is None:
            self.books.update_consent(jti, revoked_ms=self.now_ms)
        return self.file([revocation])[0]

    def conclude(self, filed: Filed, reason: Ending) -> None:
        """A consent between two nodes: no node has to hear of its end."""
        self.books.update_consent(filed.jti, ended_ms=self.now_ms, ended_reason=reason.word)

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
        return Revocation(self.new_jti(), node, row.seq + 1, self.now, reason, ends, consent, resource_id, issued_by)

    def file(self, revocations: Sequence[Revocation]) -> list[Notice]:
        """Signs and files revocations that follow their nodes' last."""
        signed = [(one, self.signer.key.sign(Typ.REVOCATION, one.to_claims())) for one in revocations]
        if signed:
            self.books.file_revocations(signed, self.now_ms)
        return [Notice(one.node, one.seq, one.jti, one.consent, self.now_ms, token, None, None, None) for one, token in signed]


def enrol(books: Books, name: str, key: Ed25519PublicKey, now_ms: int) -> None:
    """A new node with the key that was brought out of band. Raises Refused where name or key is taken."""
    _check_free(books, key)
    if not is_node_name(name):
        raise Refused(Refusal.BAD_NAME, f"{name!r} is no host name")
    if (there := books.node_like(name)) is not None:
        why = f"{there.name} is enrolled already: --replace brings a new key, and ends the old one with what stands there"
        raise Refused(Refusal.ENROLLED, why)
    books.enrol(name, key, now_ms)


def replace(desk: Desk, name: str, key: Ed25519PublicKey) -> int:
    """Another key for an enrolled name: a new node in an old place. Gives how many consents stood there and are ended.

    Every unexpired token for the name is revoked, also what the old node ended by itself: the new one has no memory of how they
    ended, and whoever carries messages could bring them to it. Raises Refused.
    """
    _check_free(desk.books, key)
    there = desk.books.node_like(name)
    if there is None:
        raise Refused(Refusal.UNKNOWN_NODE, f"no node {name} is enrolled")
    open_still = [one for one in desk.records.unrevoked_at(there.name, desk.now) if desk.books.covering(one) is None]
    served = [one.jti for one in open_still if one.may_stand]
    revocations = [
        Revocation(desk.new_jti(), one.node, seq, desk.now, Ending.CONSENT_REVOKED, one.expires_at, one.jti)
        for seq, one in enumerate(open_still, there.seq + 1)
    ]
    desk.books.revoke(served, desk.now_ms)
    desk.file(revocations)
    desk.books.replace_key(there.name, key, desk.now_ms)
    return len({one.cid for one in open_still if one.stands(desk.now)})


def _check_free(books: Books, key: Ed25519PublicKey) -> None:
    owner = books.node_of_key(thumbprint(key))
    if owner is not None:
        raise Refused(Refusal.ENROLLED, f"this key is {owner.name}'s already")
