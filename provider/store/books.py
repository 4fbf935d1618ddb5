"""One transaction's view of what provider.store.filed has the types of. Reads and writes rows; decides nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import ColumnElement, Connection, Row, RowMapping, and_, delete, func, insert, or_, select, update

from eva.consent import Consent, Revocation
from eva.resource_id import ResourceId
from eva.token import b64, thumbprint, unb64
from eva.wire import LeaseRequest, Receipt
from provider import statements
from provider.store.filed import UNANSWERED, Enrolled, Filed, Notice, enrolled_of, filed_of, kid_of, notice_of
from provider.store.schema import consents, nodes, revocations, watermarks

QUARTER = 900  # seconds
CHUNK = 500  # keys in one statement


def _quarter(expires_at: int) -> int:
    """The end of the quarter of an hour in which it runs out."""
    return -(-expires_at // QUARTER) * QUARTER


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many as one statement may name."""
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


class Keyring(Mapping[str, Ed25519PublicKey]):
    """The enrolled nodes' keys by kid, each looked up when it is first asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: dict[str, Ed25519PublicKey] = {}

    def __getitem__(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._found:
            raw = self._connection.scalar(statements.PUBLIC_KEY, {"kid_": kid})
            if raw is None:
                raise KeyError(kid)
            self._found[kid] = Ed25519PublicKey.from_public_bytes(unb64(raw))
        return self._found[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._connection.scalars(select(nodes.c.kid)).all())

    def __len__(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(nodes)) or 0


class Books:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.keyring = Keyring(connection)

    def _first(self, statement: Any, **compared: int | str) -> RowMapping | None:
        row: Row[Any] | None = self._connection.execute(statement, compared).first()
        return None if row is None else row._mapping

    # nodes

    def node(self, name: str) -> Enrolled | None:
        row = self._first(statements.NODE, name_=name)
        return None if row is None else enrolled_of(row)

    def node_like(self, name: str) -> Enrolled | None:
        """The node of this name in any case."""
        row = self._first(select(nodes).where(nodes.c.folded == name.lower()))
        return None if row is None else enrolled_of(row)

    def node_of_key(self, kid: str) -> Enrolled | None:
        row = self._first(statements.NODE_OF_KEY, kid_=kid)
        return None if row is None else enrolled_of(row)

    def nodes(self) -> list[Enrolled]:
        return [enrolled_of(row._mapping) for row in self._connection.execute(statements.NODES)]

    def enrol(self, name: str, key: Ed25519PublicKey, now_ms: int) -> None:
        raw = b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        row = {"name": name, "folded": name.lower(), "kid": thumbprint(key), "public_key": raw, "enrolled_ms": now_ms}
        self._connection.execute(insert(nodes).values(row))

    def replace_key(self, name: str, key: Ed25519PublicKey, now_ms: int) -> None:
        """A new key is a new node in an old place: it counts its receipts and audit records anew; revocations go on."""
        raw = b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        anew = {"receipts": 0, "applied": 0, "asked_ms": 0, "audit_count": 0, "audit_head": ""}
        evidence = {"behind_ms": None, "conflict_ms": None, "conflict_count": None, "asked_at": None}
        row = {"kid": thumbprint(key), "public_key": raw, "enrolled_ms": now_ms, **anew, **evidence}
        self._connection.execute(update(nodes).where(nodes.c.name == name).values(row))

    def update_node(self, name: str, **columns: int | str | None) -> None:
        self._connection.execute(statements.SET_NODE, {**columns, "name_": name})

    def told_of(self, kid: str, count: int) -> str | None:
        """The head that the node once told for this count."""
        return self._connection.scalar(statements.ANCHOR, {"kid_": kid, "count_": count})

    def anchor(self, kid: str, request: LeaseRequest, now_ms: int) -> None:
        row = {"kid": kid, "count": request.audit_count, "head": request.audit_head, "told_ms": now_ms}
        self._connection.execute(statements.ADD_ANCHOR, row)

    def loads(self, now: int) -> dict[str, int]:
        """How many consents each node serves, give or take those that run out in this quarter of an hour.

        The cost does not grow with the consents: LEAVING says by what one is counted no more. A node with none may be missing.
        """
        return {row[0]: int(row[1]) for row in self._connection.execute(statements.LOADS, {"now_": now})}

    def _count(self, node: str, until: int, by: int) -> bool:
        """Whether there was a row for this quarter of an hour already."""
        if self._connection.execute(statements.COUNT, {"node_": node, "until_": until, "by_": by}).rowcount > 0:
            return True
        self._connection.execute(statements.ADD_LOAD, {"node": node, "until": until, "consents": by})
        return False

    # consents

    def file_consent(self, consent: Consent, token: str, offered_until_ms: int) -> None:
        row = {
            "jti": consent.jti,
            "cid": consent.cid,
            "kid": kid_of(token),
            "node": consent.node,
            "resource_key": consent.resource_id.key,
            "issued_at": consent.issued_at,
            "expires_at": consent.expires_at,
            "token": token,
            "claims": json.dumps(consent.to_claims()),
            "offered_until_ms": offered_until_ms,
        }
        self._connection.execute(statements.ADD_CONSENT, row)
        if not self._count(consent.node, _quarter(consent.expires_at), +1):
            # once in a quarter of an hour
            self._connection.execute(statements.DROP_LOADS, {"node_": consent.node, "now_": consent.issued_at})

    def consent(self, jti: str) -> Filed | None:
        row = self._first(statements.CONSENT, jti_=jti)
        return None if row is None else filed_of(row)

    def unexpired(self, resource_id: ResourceId, now: int) -> list[Filed]:
        """The VM's consents that have not run out, revoked ones too."""
        mine = {"resource_key_": resource_id.key, "now_": now}
        return [filed_of(row._mapping) for row in self._connection.execute(statements.UNEXPIRED, mine)]

    def overdue(self, now_ms: int, most: int) -> list[Filed]:
        """Offers whose giver was never told that they were granted, and never will be."""
        open_still = and_(consents.c.granted_ms.is_(None), consents.c.revoked_ms.is_(None))
        # a renewal that its node never spoke of is not awaited any more (provider.consent.desk)
        late = and_(open_still, consents.c.offered_until_ms < now_ms, func.coalesce(consents.c.why, "") != UNANSWERED)
        return [filed_of(row._mapping) for row in self._connection.execute(select(consents).where(late).limit(most))]

    def latest(self, most: int) -> list[Filed]:
        rows = self._connection.execute(select(consents).order_by(consents.c.issued_at.desc()).limit(most))
        return [filed_of(row._mapping) for row in rows]

    def update_consent(self, jti: str, **columns: int | str | None) -> None:
        if columns.keys() & statements.LEAVING:
            self._count_out(statements.SERVED, jti_=jti)
        self._connection.execute(statements.SET_CONSENT, {**columns, "jti_": jti})

    def cover(self, node: str, resource_id: ResourceId, issued_by: int, now_ms: int) -> None:
        """Marks what a watermark revokes at this node."""
        under: dict[str, int | str] = {"resource_key_": resource_id.key, "issued_by_": issued_by, "node_": node}
        self._count_out(statements.SERVED_AND_COVERED, **under)
        self._connection.execute(statements.REVOKE_COVERED, {**under, "now_ms_": now_ms})

    def revoke(self, jtis: Sequence[str], now_ms: int) -> None:
        """Marks these consents, as a watermark that covers them was signed."""
        for some in _chunks(jtis):
            mine = consents.c.jti.in_(some)
            self.count_out(mine)
            self._connection.execute(update(consents).where(mine, consents.c.revoked_ms.is_(None)).values(revoked_ms=now_ms))

    def count_out(self, which: ColumnElement[bool]) -> None:
        """Counts these consents out: before a column of LEAVING is set."""
        self._count_out(select(consents.c.node, consents.c.expires_at).where(which, statements.SERVED_STILL))

    def _count_out(self, still_served: Any, **compared: int | str) -> None:
        rows = self._connection.execute(still_served, compared).all()
        for (node, until), count in Counter((row.node, _quarter(row.expires_at)) for row in rows).items():
            self._count(node, until, -count)

    # revocations

    def watermark(self, resource_id: ResourceId) -> int | None:
        return self._connection.scalar(statements.WATERMARK, {"resource_key_": resource_id.key})

    def watermarks(self, keys: Sequence[str]) -> dict[str, int]:
        """Those of these resource keys that have one."""
        found: dict[str, int] = {}
        for some in _chunks(keys):
            rows = self._connection.execute(select(watermarks).where(watermarks.c.resource_key.in_(some)))
            found |= {row.resource_key: row.issued_by for row in rows}
        return found

    def set_watermarks(self, marks: Mapping[str, int]) -> None:
        """By resource key. One that stands lower than before is the caller's fault."""
        for some in _chunks(list(marks)):
            self._connection.execute(delete(watermarks).where(watermarks.c.resource_key.in_(some)))
        rows = [{"resource_key": key, "issued_by": issued_by} for key, issued_by in marks.items()]
        self._connection.execute(insert(watermarks), rows)

    def file_revocations(self, items: Sequence[tuple[Revocation, str]], now_ms: int) -> None:
        """Files them with their tokens and takes their numbers; the caller numbered each one past its node's last."""
        rows = [
            {
                "node": revocation.node,
                "seq": revocation.seq,
                "jti": revocation.jti,
                "consent": revocation.consent,
                "resource_key": revocation.resource_id.key if revocation.resource_id else None,
                "issued_by": revocation.issued_by,
                "made_ms": now_ms,
                "token": token,
            }
            for revocation, token in items
        ]
        self._connection.execute(statements.ADD_REVOCATION, rows)
        for node in {revocation.node for revocation, _ in items}:
            self.update_node(node, seq=max(revocation.seq for revocation, _ in items if revocation.node == node))

    def revocation(self, node: str, seq: int) -> Notice | None:
        row = self._first(statements.REVOCATION, node_=node, seq_=seq)
        return None if row is None else notice_of(row)

    def revocations_after(self, node: str, seq: int, most: int) -> list[str]:
        return list(self._connection.scalars(statements.REVOCATIONS_AFTER, {"node_": node, "seq_": seq, "most_": most}))

    def single_revocation(self, node: str, consent: str) -> Notice | None:
        row = self._first(select(revocations).where(revocations.c.node == node, revocations.c.consent == consent))
        return None if row is None else notice_of(row)

    def covering(self, filed: Filed) -> Notice | None:
        """The first revocation that covers this consent."""
        under = and_(revocations.c.resource_key == filed.resource_key, revocations.c.issued_by >= filed.issued_at)
        mine = and_(revocations.c.node == filed.node, or_(revocations.c.consent == filed.jti, under))
        row = self._first(select(revocations).where(mine).order_by(revocations.c.seq).limit(1))
        return None if row is None else notice_of(row)

    def confirm(self, receipt: Receipt, cut_us: int | None, sessions: int | None) -> None:
        mine = and_(revocations.c.node == receipt.node, revocations.c.seq == receipt.seq, revocations.c.confirmed_ms.is_(None))
        mark = {"confirmed_ms": receipt.at_ms, "cut_us": cut_us, "sessions": sessions}
        self._connection.execute(update(revocations).where(mine).values(mark))

    # receipts

    def file_receipts(self, kid: str, items: Sequence[tuple[Receipt, str]], now_ms: int) -> None:
        rows = [
            {
                "kid": kid,
                "number": receipt.number,
                "node": receipt.node,
                "about": receipt.about,
                "event": str(receipt.event),
                "received_ms": now_ms,
                "token": token,
            }
            for receipt, token in items
        ]
        self._connection.execute(statements.ADD_RECEIPT, rows)

    def receipt_token(self, kid: str, number: int) -> str | None:
        return self._connection.scalar(statements.RECEIPT, {"kid_": kid, "number_": number})
