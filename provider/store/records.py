"""What the store knows beyond a single token: a consent's tokens over renewals and moves, a node's, a subscription's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from eva.resource_id import ResourceId
from eva.wire import Event
from provider import statements
from provider.store.filed import Filed, Notice, filed_of, notice_of
from provider.store.schema import consents, nodes, receipts, revocations

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

_MARK = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{1,15})", re.ASCII)


def _within(subscription: str) -> ColumnElement[bool]:
    return consents.c.resource_key.startswith(f"/subscriptions/{subscription.lower()}/", autoescape=True)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place among what nodes said: the key, and the number that it gave."""

    kid: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Raises ValueError."""
        found = _MARK.fullmatch(text)
        if found is None:
            raise ValueError("a mark is a kid, a full stop and a number")
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.kid}.{self.number}"


@dataclass(frozen=True, slots=True)
class Said:
    """A node's receipt, as it signed it."""

    mark: Mark
    token: str


class Records:
    """In one transaction; reads only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _filed(self, which: ColumnElement[bool], most: int | None = None) -> list[Filed]:
        rows = select(consents).where(which).order_by(consents.c.issued_at, consents.c.jti).limit(most)
        return [filed_of(row._mapping) for row in self._connection.execute(rows)]

    def tokens_of(self, cid: str) -> list[Filed]:
        """A consent's tokens, the oldest first."""
        return [filed_of(row._mapping) for row in self._connection.execute(statements.TOKENS_OF, {"cid_": cid})]

    def newest_of(self, resource_id: ResourceId, most: int) -> list[Filed]:
        """The VM's newest tokens, the newest first."""
        mine = consents.c.resource_key == resource_id.key
        rows = select(consents).where(mine).order_by(consents.c.issued_at.desc(), consents.c.jti.desc()).limit(most)
        return [filed_of(row._mapping) for row in self._connection.execute(rows)]

    def served_by(self, nodes: Iterable[str], now: int, most: int) -> list[Filed]:
        """What stands at these nodes, at most so much of it, what ends soonest first."""
        found: list[Filed] = []
        for node in nodes:
            mine = and_(consents.c.node == node, consents.c.expires_at > now, _STANDS)
            rows = select(consents).where(mine).order_by(consents.c.expires_at).limit(most - len(found))
            found += [filed_of(row._mapping) for row in self._connection.execute(rows)]
        return found

    def unrevoked_at(self, node: str, now: int) -> list[Filed]:
        """Every unexpired token for this node that is not revoked, also those that are over otherwise."""
        return self._filed(and_(consents.c.node == node, consents.c.expires_at > now, consents.c.revoked_ms.is_(None)))

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
            mine.append(_within(subscription))
        return self._filed(and_(*mine))

    def unconfirmed(self, now: int, subscription: str | None = None) -> list[Notice]:
        """What revoked whole virtual machines with unexpired consents, and no node has confirmed; of one subscription, or all."""
        unexpired = and_(consents.c.expires_at > now, consents.c.revoked_ms.is_not(None), consents.c.moved_ms.is_(None))
        if subscription is not None:
            unexpired = and_(unexpired, _within(subscription))
        covered = and_(
            revocations.c.resource_key == consents.c.resource_key,
            revocations.c.node == consents.c.node,
            revocations.c.issued_by >= consents.c.issued_at,
        )
        rows = select(revocations).distinct().join(consents, covered).where(unexpired, revocations.c.confirmed_ms.is_(None))
        return [notice_of(row._mapping) for row in self._connection.execute(rows.order_by(revocations.c.node, revocations.c.seq))]

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

    def said(self, nodes: Collection[str], abouts: Collection[str], after: Mark | None, most: int) -> list[Said]:
        """What these nodes said about these consents, tokens and revocations, by key and in the order of each one's numbers."""
        mine: ColumnElement[bool] = and_(receipts.c.about.in_(abouts), receipts.c.node.in_(nodes))
        if after is not None:
            later = and_(receipts.c.kid == after.kid, receipts.c.number > after.number)
            mine = and_(mine, or_(receipts.c.kid > after.kid, later))
        rows = select(*_SAID, receipts.c.token).where(mine).order_by(*_SAID).limit(most)
        return [Said(Mark(kid, number), token) for kid, number, token in self._connection.execute(rows)]

    def accepted(self, jti: str, node: str) -> str | None:
        """The receipt by which this node accepted this token."""
        mine = and_(receipts.c.about == jti, receipts.c.event == str(Event.ACCEPTED), receipts.c.node == node)
        newest = select(receipts.c.token).where(mine).order_by(receipts.c.received_ms.desc()).limit(1)
        return self._connection.scalar(newest)

    def acceptances(self, most: int) -> list[str]:
        """Of so many nodes, each one's receipt for the consent that lasts longest of those that it took."""
        found: list[str] = []
        for node in self._connection.scalars(select(nodes.c.name).order_by(nodes.c.name).limit(most)).all():
            taken = and_(consents.c.node == node, consents.c.granted_ms.is_not(None))
            jti = self._connection.scalar(select(consents.c.jti).where(taken).order_by(consents.c.expires_at.desc()).limit(1))
            token = None if jti is None else self.accepted(jti, node)
            if token is not None:
                found.append(token)
        return found
