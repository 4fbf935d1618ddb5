"""What a tenant is shown of his virtual machine: the consent that stands, who is or was connected, and what came before.

Who was connected is the nodes' own word: the audit records that they sent as signed receipts (provider.consent.receipt).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from eva.audit import Event as Audited
from eva.audit import Told
from eva.consent import Access, Kind, Revocation
from eva.members import BadMember, Json
from eva.resource_id import ResourceId
from eva.wire import Receipt
from provider.consent.features import FeatureBooks
from provider.consent.origin import origin_at
from provider.store.books import Filed, Notice, State, claims_of
from provider.store.records import Records

MOST = 10  # consents shown at a time
TOKENS = 8  # of each consent on the average: renewals, moves, nodes that refused
MAX_RECORDS = 2048  # of one consent that are read for it


@dataclass(frozen=True, slots=True)
class Visit:
    """One operator's session. `ended_ms` None: its end is not recorded, or not yet."""

    session: str
    account: str
    address: str
    kind: str
    access: str
    node: str
    began_ms: int
    ended_ms: int | None
    ending: str | None


@dataclass(frozen=True, slots=True)
class Stay:
    """One token of a consent at one node. `why`: what the node said to it if not yes, or why it ended."""

    node: str
    jti: str
    state: State
    issued_at: int
    expires_at: int
    answered_ms: int | None
    ended_ms: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Tenure:
    """One consent over its renewals and moves. `node`: who has it, None while it is between two. `ending`: empty while none.

    `watched`: it stands only while its giver watches. `origin`: where he can, None for nowhere.
    """

    consent_id: str
    state: State
    node: str | None
    resource_id: ResourceId
    giver: str
    kinds: frozenset[Kind]
    access: Access
    operators: tuple[str, ...]
    watched: bool
    reason: str
    issued_at: int
    expires_at: int
    uuid: str
    ending: str
    origin: str | None
    stays: tuple[Stay, ...]
    visits: tuple[Visit, ...]
    cuts: tuple[Notice, ...]

    def connected(self) -> tuple[Visit, ...]:
        """Who is connected now, as far as the node has told."""
        serving = self.state is State.GRANTED
        return tuple(one for one in self.visits if serving and one.ended_ms is None and one.node == self.node)


@dataclass(frozen=True, slots=True)
class Standing:
    """`enabled`: whether the subscription may consent. `current`: what stands or is on its way, None for none."""

    resource_id: ResourceId
    enabled: bool
    current: Tenure | None
    earlier: tuple[Tenure, ...]


_OPEN = frozenset({State.GRANTED, State.OFFERED, State.MOVING})


def standing(records: Records, features: FeatureBooks, resource_id: ResourceId, now: int, most: int = MOST) -> Standing:
    """The VM's newest `most` consents, the newest first."""
    newest = records.newest_of(resource_id, most * TOKENS)
    cids = list(dict.fromkeys(filed.cid for filed in newest))[:most]
    tenures = [_tenure(records, cid, now) for cid in cids]
    current = next((one for one in tenures if one.state in _OPEN), None)
    earlier = tuple(one for one in tenures if one is not current)
    return Standing(resource_id, features.allows(resource_id.subscription), current, earlier)


def _tenure(records: Records, cid: str, now: int) -> Tenure:
    tokens = records.tokens_of(cid)
    filed = leading(tokens, now)
    consent = filed.consent()
    state = filed.state(now)
    cuts = records.revocations_of(tokens)
    return Tenure(
        consent_id=cid,
        state=state,
        node=None if state is State.MOVING else filed.node,
        resource_id=consent.resource_id,
        giver=consent.giver,
        kinds=consent.kinds,
        access=consent.access,
        operators=tuple(sorted(map(str, consent.operators))),
        watched=consent.watched,
        reason=consent.reason,
        issued_at=min(one.issued_at for one in tokens),
        expires_at=filed.expires_at,
        uuid=filed.uuid or "",
        ending=ending(filed, state, cuts),
        origin=origin_at(records, filed) if state is State.GRANTED else None,
        stays=tuple(_stay(one, now) for one in tokens),
        visits=visits(told_of(records, cid)),
        cuts=tuple(cuts),
    )


def told_of(records: Records, cid: str) -> Iterator[Receipt]:
    """The newest records of a consent."""
    return (Receipt.from_claims(claims_of(token)) for token in records.newest_recorded(cid, MAX_RECORDS))


def leading(tokens: Sequence[Filed], now: int) -> Filed:
    """The token that says how the consent is: what stands, else what is between two nodes, else the newest that was granted."""
    ranks = {State.GRANTED: 3, State.MOVING: 2, State.OFFERED: 1}

    def rank(filed: Filed) -> tuple[int, bool, int]:
        return ranks.get(filed.state(now), 0), filed.granted_ms is not None, filed.issued_at

    return max(tokens, key=rank)


def ending(filed: Filed, state: State, cuts: Sequence[Notice]) -> str:
    if state is State.REVOKED:
        mine = [Revocation.from_claims(claims_of(cut.token)) for cut in cuts if cut.node == filed.node]
        covering = [one for one in mine if one.consent == filed.jti or (one.issued_by or 0) >= filed.issued_at]
        return covering[0].reason.word if covering else ""
    if state is State.EXPIRED:
        return "consent-expired"
    return filed.ended_reason or ""


def _stay(filed: Filed, now: int) -> Stay:
    ends = [end for end in (filed.replaced_ms, filed.moved_ms, filed.revoked_ms, filed.ended_ms) if end is not None]
    return Stay(
        node=filed.node,
        jti=filed.jti,
        state=State.MOVED if filed.moved_ms is not None else filed.state(now),
        issued_at=filed.issued_at,
        expires_at=filed.expires_at,
        answered_ms=filed.answered_ms,
        ended_ms=min(ends, default=None),
        why=filed.ended_reason or filed.why or "",
    )


def is_paused(receipts: Iterable[Receipt]) -> bool:
    """Whether the giver's last word that these receipts tell of was to pause; of two nodes' words the later one."""
    words = [told for _, told in _records(receipts) if told.event in (Audited.INPUT_PAUSED, Audited.INPUT_RESUMED)]
    return bool(words) and max(words, key=lambda told: told.at_ms).event is Audited.INPUT_PAUSED


def _records(receipts: Iterable[Receipt]) -> Iterator[tuple[Receipt, Told]]:
    for receipt in receipts:
        try:
            yield receipt, Told.parse(receipt.record)
        except BadMember:
            continue  # signed by its node and filed as it is; what it is worth, `verify-receipt` says


def visits(receipts: Iterable[Receipt]) -> tuple[Visit, ...]:
    """The sessions that these receipts tell of, in the order in which they began."""
    found: dict[str, Visit] = {}
    for receipt, told in _records(receipts):
        session = _text(told.facts.get("session"))
        if told.event is Audited.SESSION_START:
            account, address, kind, access = (_text(told.facts.get(name)) for name in ("account", "address", "kind", "access"))
            found[session] = Visit(session, account, address, kind, access, receipt.node, told.at_ms, None, None)
        elif told.event is Audited.SESSION_END and (begun := found.get(session)) is not None:
            found[session] = replace(begun, ended_ms=told.at_ms, ending=_text(told.facts.get("reason")))
    return tuple(sorted(found.values(), key=lambda one: (one.began_ms, one.session)))


def _text(found: Json) -> str:
    return found if isinstance(found, str) else ""
