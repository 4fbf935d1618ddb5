"""What a tenant is shown of his virtual machine: the consent that stands, who is or was connected, and what came before.

Who was connected is the nodes' own word: the audit records that they sent as signed receipts (provider.store.visits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eva.consent import Access, Kind, Revocation
from eva.resource_id import ResourceId
from provider.consent.features import FeatureBooks
from provider.consent.origin import origin_at
from provider.store.filed import Filed, Notice, State, claims_of
from provider.store.records import Records
from provider.store.visits import Visit, Visits

MOST = 10  # consents shown at a time
TOKENS = 8  # of each consent on the average: renewals, moves, nodes that refused
MOST_VISITS = 512  # sessions in one answer, those of the newest consents first: nodes wait for their leases meanwhile


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


def standing(
    records: Records, visits: Visits, features: FeatureBooks, resource_id: ResourceId, now: int, most: int = MOST
) -> Standing:
    """The VM's newest `most` consents, the newest first."""
    newest = records.newest_of(resource_id, most * TOKENS)
    cids = list(dict.fromkeys(filed.cid for filed in newest))[:most]
    tenures: list[Tenure] = []
    room = MOST_VISITS
    for cid in cids:
        tenures.append(_tenure(records, visits.newest(cid, room), cid, now))
        room -= len(tenures[-1].visits)
    current = next((one for one in tenures if one.state in _OPEN), None)
    earlier = tuple(one for one in tenures if one is not current)
    return Standing(resource_id, features.allows(resource_id.subscription), current, earlier)


def _tenure(records: Records, visits: Sequence[Visit], cid: str, now: int) -> Tenure:
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
        visits=tuple(visits),
        cuts=tuple(cuts),
    )


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
