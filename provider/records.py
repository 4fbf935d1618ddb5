"""What the store knows beyond a single token: a consent's tokens over renewals and moves, a node's, a subscription's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from eva.resource_id import ResourceId
from eva.wire import Event
from provider.books import Filed, Notice, filed_of, notice_of
from provider.schema import consents, receipts, revocations

CHUNK = 500  # numbers in one statement

_STANDS = and_(
    consents.c.granted_ms.is_not(None),
    consents.c.revoked_ms.is_(None),
    consents.c.ended_ms.is_(None),
    consents.c.replaced_ms.is_(None),
    consents.c.moved_ms.is_(None),
)
_HOMELESS = and_(consents.c.moved_ms.is_not(None), consents.c.replaced_ms.is_(None), consents.c.ended_ms.is_(None))
_SAID = (receipts.c.kid, receipts.c.number)


class Records:
    """In one transaction; reads only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _filed(self, which: ColumnElement[bool], most: int | None = None) -> list[Filed]:
        rows = select(consents).where(which).order_by(consents.c.issued_at, consents.c.jti).limit(most)
        return [filed_of(row._mapping) for row in self._connection.execute(rows)]

    def tokens_of(self, cid: str) -> list[Filed]:
        """A consent's tokens, the oldest first."""
        return self._filed(consents.c.cid == cid)

    def newest_of(self, resource_id: ResourceId, most: int) -> list[Filed]:
        """The VM's newest tokens, the newest first."""
        mine = consents.c.resource_key == resource_id.key
        rows = select(consents).where(mine).order_by(consents.c.expires_at.desc(), consents.c.issued_at.desc()).limit(most)
        return [filed_of(row._mapping) for row in self._connection.execute(rows)]

    def served_by(self, nodes: Iterable[str], now: int, most: int) -> list[Filed]:
        """What stands at these nodes, at most so much of it, what ends soonest first."""
        found: list[Filed] = []
        for node in nodes:
            mine = and_(consents.c.node == node, consents.c.expires_at > now, _STANDS)
            rows = select(consents).where(mine).order_by(consents.c.expires_at).limit(most - len(found))
            found += [filed_of(row._mapping) for row in self._connection.execute(rows)]
        return found

    def homeless(self, now: int, most: int, after: str = "") -> list[Filed]:
        """Tokens whose node was lost, and whose consent no other node has yet; those with a jti past `after`, by jti."""
        mine = and_(_HOMELESS, consents.c.expires_at > now, consents.c.jti > after)
        rows = select(consents).where(mine).order_by(consents.c.jti).limit(most)
        return [filed_of(row._mapping) for row in self._connection.execute(rows)]

    def living(self, now: int, subscription: str | None = None) -> list[Filed]:
        """Every unexpired token that may stand somewhere, or is on its way to another node; of one subscription, or of all."""
        may_stand = or_(consents.c.revoked_ms.is_(None), _HOMELESS)
        mine: list[ColumnElement[bool]] = [consents.c.expires_at > now, may_stand]
        if subscription is not None:
            mine.append(consents.c.resource_key.startswith(f"/subscriptions/{subscription.lower()}/", autoescape=True))
        return self._filed(and_(*mine))

    def revocations_of(self, filed: Sequence[Filed]) -> list[Notice]:
        """What revoked these tokens of one VM: by name, or by a watermark at their nodes."""
        if not filed:
            return []
        by_name = revocations.c.consent.in_([one.jti for one in filed])
        by_mark = and_(
            revocations.c.resource_key == filed[0].resource_key,
            revocations.c.node.in_({one.node for one in filed}),
            revocations.c.issued_by >= min(one.issued_at for one in filed),
        )
        rows = select(revocations).where(or_(by_name, by_mark)).order_by(revocations.c.made_ms, revocations.c.node)
        return [notice_of(row._mapping) for row in self._connection.execute(rows)]

    def notices(self, keys: Iterable[tuple[str, int]]) -> list[Notice]:
        """These revocations, each a node and its number there."""
        found: list[Notice] = []
        for node, mine in groupby(sorted(keys), key=itemgetter(0)):
            seqs = [seq for _, seq in mine]
            for start in range(0, len(seqs), CHUNK):
                which = and_(revocations.c.node == node, revocations.c.seq.in_(seqs[start : start + CHUNK]))
                found += [notice_of(row._mapping) for row in self._connection.execute(select(revocations).where(which))]
        return found

    def receipt_tokens(self, abouts: Collection[str], most: int) -> list[str]:
        """What nodes said about these consents, tokens and revocations, by key and in the order of each one's numbers."""
        mine = receipts.c.about.in_(abouts)
        return list(self._connection.scalars(select(receipts.c.token).where(mine).order_by(*_SAID).limit(most)))

    def newest_recorded(self, cid: str, most: int) -> list[str]:
        """The newest receipts that tell a record of this consent, by key and number."""
        mine = and_(receipts.c.about == cid, receipts.c.event == str(Event.RECORDED))
        newest = select(receipts.c.token).where(mine).order_by(*(column.desc() for column in _SAID)).limit(most)
        return list(self._connection.scalars(newest))[::-1]
