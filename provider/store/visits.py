"""Who was connected, and whether a consent's giver paused it: what nodes' records tell, kept as rows of their own.

They could be read from the receipts each time, but nodes wait for their leases while the store is read, and how much is
recorded is up to tenants, operators and nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, insert, select, update

from eva.audit import Event as Audited
from eva.audit import Told
from eva.members import Json
from provider.store.schema import consents, pauses, visits

KEPT = frozenset({Audited.SESSION_START, Audited.SESSION_END, Audited.INPUT_PAUSED, Audited.INPUT_RESUMED})
MAX_TEXT = 256


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


class Visits:
    """In one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def file(self, cid: str, node: str, told: Told, now_ms: int) -> None:
        """What this node tells of this consent; of one that it never had it tells nothing. `now_ms`: when it came."""
        if told.event not in KEPT or told.chain != cid or not self._had(cid, node):
            return
        match told.event:
            case Audited.SESSION_START:
                self._begin(cid, node, told)
            case Audited.SESSION_END:
                mine = and_(visits.c.cid == cid, visits.c.node == node, visits.c.session == _text(told, "session"))
                self._connection.execute(update(visits).where(mine).values(ended_ms=told.at_ms, ending=_text(told, "reason")))
            case _:
                self._connection.execute(delete(pauses).where(pauses.c.cid == cid, pauses.c.node == node))
                # a node's clock may be wrong: its word is none of the future
                row = {
                    "cid": cid,
                    "node": node,
                    "at_ms": min(told.at_ms, now_ms),
                    "paused": int(told.event is Audited.INPUT_PAUSED),
                }
                self._connection.execute(insert(pauses).values(row))

    def _had(self, cid: str, node: str) -> bool:
        mine = select(consents.c.jti).where(consents.c.cid == cid, consents.c.node == node).limit(1)
        return self._connection.scalar(mine) is not None

    def _begin(self, cid: str, node: str, told: Told) -> None:
        names = ("session", "account", "address", "kind", "access")
        row = {name: _text(told, name) for name in names} | {"cid": cid, "node": node}
        there = select(visits.c.began_ms).where(*(visits.c[name] == row[name] for name in ("cid", "node", "session")))
        if self._connection.scalar(there) is None:
            self._connection.execute(insert(visits).values(row | {"began_ms": told.at_ms}))

    def newest(self, cid: str, most: int) -> list[Visit]:
        """The sessions that began last, in the order in which they did."""
        order = (visits.c.began_ms.desc(), visits.c.session.desc(), visits.c.node)
        rows = self._connection.execute(select(visits).where(visits.c.cid == cid).order_by(*order).limit(most)).all()
        return [Visit(**{name: row._mapping[name] for name in Visit.__slots__}) for row in reversed(rows)]

    def is_paused(self, cid: str) -> bool:
        """Whether the giver's last word was to pause; of two nodes' words the later one."""
        last = select(pauses.c.paused).where(pauses.c.cid == cid).order_by(pauses.c.at_ms.desc(), pauses.c.paused.desc())
        return bool(self._connection.scalar(last.limit(1)))


def _text(told: Told, name: str) -> str:
    """What can be stored and shown; a record may hold anything that JSON can."""
    found: Json = told.facts.get(name)
    return found if isinstance(found, str) and len(found) <= MAX_TEXT and found.isprintable() else ""
