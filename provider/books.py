"""One transaction's view of the store, in the field's own types. Reads and writes rows; decides nothing (provider.desk does)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, Row, RowMapping, and_, func, insert, or_, select, update

from eva.consent import Consent, Revocation
from eva.resource_id import ResourceId
from eva.token import b64, thumbprint, unb64
from eva.wire import Event, LeaseRequest, Receipt
from provider.store import anchors, consents, key_sets, nodes, receipts, revocations, watermarks


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A node as the store has it: provider/store.py says what each number is."""

    name: str
    kid: str
    seq: int
    receipts: int
    applied: int
    asked_ms: int
    audit_count: int
    audit_head: str
    behind_ms: int | None
    conflict_ms: int | None
    conflict_count: int | None


class State(StrEnum):
    """What a consent is now, for people to read; whether it stands is the node's to say."""

    OFFERED = "offered"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    ENDED = "ended"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Filed:
    """A consent as the store has it. `claims` are those of its token, as they were signed."""

    jti: str
    node: str
    resource_key: str
    issued_at: int
    expires_at: int
    token: str
    claims: str
    answer: str | None
    uuid: str | None
    why: str | None
    granted_ms: int | None
    revoked_ms: int | None
    ended_ms: int | None
    ended_reason: str | None

    def state(self, now: int) -> State:
        if self.revoked_ms is not None:
            return State.REVOKED
        if self.answer == Event.REFUSED:
            return State.REFUSED
        if self.ended_ms is not None:
            return State.ENDED
        if self.expires_at <= now:
            return State.EXPIRED
        return State.GRANTED if self.granted_ms is not None else State.OFFERED


@dataclass(frozen=True, slots=True)
class Notice:
    """A revocation as the store has it: to be sent, and what the node said of it."""

    node: str
    seq: int
    jti: str
    consent: str | None
    made_ms: int
    token: str
    confirmed_ms: int | None
    cut_us: int | None
    sessions: int | None


def _enrolled(row: RowMapping) -> Enrolled:
    return Enrolled(**{name: row[name] for name in Enrolled.__slots__})


def _filed(row: RowMapping) -> Filed:
    return Filed(**{name: row[name] for name in Filed.__slots__})


def _notice(row: RowMapping) -> Notice:
    return Notice(**{name: row[name] for name in Notice.__slots__})


class Keyring(Mapping[str, Ed25519PublicKey]):
    """The enrolled nodes' keys by kid, each looked up when it is asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getitem__(self, kid: str) -> Ed25519PublicKey:
        raw = self._connection.scalar(select(nodes.c.public_key).where(nodes.c.kid == kid))
        if raw is None:
            raise KeyError(kid)
        return Ed25519PublicKey.from_public_bytes(unb64(raw))

    def __iter__(self) -> Iterator[str]:
        return iter(self._connection.scalars(select(nodes.c.kid)).all())

    def __len__(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(nodes)) or 0


class Books:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.keyring = Keyring(connection)

    def _first(self, statement: Any) -> RowMapping | None:
        row: Row[Any] | None = self._connection.execute(statement).first()
        return None if row is None else row._mapping

    # nodes

    def node(self, name: str) -> Enrolled | None:
        row = self._first(select(nodes).where(nodes.c.name == name))
        return None if row is None else _enrolled(row)

    def node_like(self, name: str) -> Enrolled | None:
        """The node of this name in any case."""
        row = self._first(select(nodes).where(nodes.c.folded == name.lower()))
        return None if row is None else _enrolled(row)

    def node_of_key(self, kid: str) -> Enrolled | None:
        row = self._first(select(nodes).where(nodes.c.kid == kid))
        return None if row is None else _enrolled(row)

    def nodes(self) -> list[Enrolled]:
        return [_enrolled(row._mapping) for row in self._connection.execute(select(nodes).order_by(nodes.c.name))]

    def enrol(self, name: str, key: Ed25519PublicKey, now_ms: int) -> None:
        raw = b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        row = {"name": name, "folded": name.lower(), "kid": thumbprint(key), "public_key": raw, "enrolled_ms": now_ms}
        self._connection.execute(insert(nodes).values(row))

    def replace_key(self, name: str, key: Ed25519PublicKey, now_ms: int) -> None:
        """A new key is a new node in an old place: it counts its receipts and audit records anew; revocations go on."""
        raw = b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        anew = {"receipts": 0, "applied": 0, "asked_ms": 0, "audit_count": 0, "audit_head": ""}
        evidence = {"behind_ms": None, "conflict_ms": None, "conflict_count": None}
        row = {"kid": thumbprint(key), "public_key": raw, "enrolled_ms": now_ms, **anew, **evidence}
        self._connection.execute(update(nodes).where(nodes.c.name == name).values(row))

    def update_node(self, name: str, **columns: int | str | None) -> None:
        self._connection.execute(update(nodes).where(nodes.c.name == name).values(columns))

    def head_at(self, kid: str, count: int) -> str | None:
        return self._connection.scalar(select(anchors.c.head).where(anchors.c.kid == kid, anchors.c.count == count))

    def anchor(self, kid: str, request: LeaseRequest, now_ms: int) -> None:
        row = {"kid": kid, "count": request.audit_count, "head": request.audit_head, "told_ms": now_ms}
        self._connection.execute(insert(anchors).values(row))

    def loads(self, now: int) -> dict[str, int]:
        """How many unexpired, unrevoked consents each node serves; a node without one is not in it."""
        live = and_(consents.c.expires_at > now, consents.c.revoked_ms.is_(None))
        rows = self._connection.execute(select(consents.c.node, func.count()).where(live).group_by(consents.c.node))
        return {row[0]: row[1] for row in rows}

    # consents

    def file_consent(self, consent: Consent, token: str, offered_until_ms: int) -> None:
        row = {
            "jti": consent.jti,
            "node": consent.node,
            "resource_key": consent.resource_id.key,
            "issued_at": consent.issued_at,
            "expires_at": consent.expires_at,
            "token": token,
            "claims": json.dumps(consent.to_claims()),
            "offered_until_ms": offered_until_ms,
        }
        self._connection.execute(insert(consents).values(row))

    def consent(self, jti: str) -> Filed | None:
        row = self._first(select(consents).where(consents.c.jti == jti))
        return None if row is None else _filed(row)

    def unexpired(self, resource_id: ResourceId, now: int) -> list[Filed]:
        """The VM's consents that have not run out, revoked ones too."""
        mine = and_(consents.c.resource_key == resource_id.key, consents.c.expires_at > now)
        return [_filed(row._mapping) for row in self._connection.execute(select(consents).where(mine))]

    def overdue(self, now_ms: int, most: int) -> list[Filed]:
        """Offers whose giver was never told that they were granted, and never will be."""
        open_still = and_(consents.c.granted_ms.is_(None), consents.c.revoked_ms.is_(None))
        late = and_(open_still, consents.c.offered_until_ms < now_ms)
        return [_filed(row._mapping) for row in self._connection.execute(select(consents).where(late).limit(most))]

    def latest(self, most: int) -> list[Filed]:
        rows = self._connection.execute(select(consents).order_by(consents.c.issued_at.desc()).limit(most))
        return [_filed(row._mapping) for row in rows]

    def update_consent(self, jti: str, **columns: int | str | None) -> None:
        self._connection.execute(update(consents).where(consents.c.jti == jti).values(columns))

    def cover(self, node: str, resource_id: ResourceId, issued_by: int, now_ms: int) -> None:
        """Marks what a watermark revokes at this node."""
        under = and_(consents.c.resource_key == resource_id.key, consents.c.issued_at <= issued_by, consents.c.node == node)
        mark = update(consents).where(under, consents.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        self._connection.execute(mark)

    # revocations

    def watermark(self, resource_id: ResourceId) -> int | None:
        mine = watermarks.c.resource_key == resource_id.key
        return self._connection.scalar(select(watermarks.c.issued_by).where(mine))

    def set_watermark(self, resource_id: ResourceId, issued_by: int) -> None:
        mine = watermarks.c.resource_key == resource_id.key
        if self._connection.execute(update(watermarks).where(mine).values(issued_by=issued_by)).rowcount == 0:
            self._connection.execute(insert(watermarks).values(resource_key=resource_id.key, issued_by=issued_by))

    def file_revocation(self, revocation: Revocation, token: str, now_ms: int) -> None:
        """Files it and takes its number; the caller numbered it one past the node's last."""
        row = {
            "node": revocation.node,
            "seq": revocation.seq,
            "jti": revocation.jti,
            "consent": revocation.consent,
            "resource_key": revocation.resource_id.key if revocation.resource_id else None,
            "issued_by": revocation.issued_by,
            "made_ms": now_ms,
            "token": token,
        }
        self._connection.execute(insert(revocations).values(row))
        self.update_node(revocation.node, seq=revocation.seq)

    def revocation(self, node: str, seq: int) -> Notice | None:
        row = self._first(select(revocations).where(revocations.c.node == node, revocations.c.seq == seq))
        return None if row is None else _notice(row)

    def revocations_after(self, node: str, seq: int, most: int) -> list[str]:
        later = and_(revocations.c.node == node, revocations.c.seq > seq)
        tokens = select(revocations.c.token).where(later).order_by(revocations.c.seq).limit(most)
        return list(self._connection.scalars(tokens))

    def single_revocation(self, node: str, consent: str) -> Notice | None:
        row = self._first(select(revocations).where(revocations.c.node == node, revocations.c.consent == consent))
        return None if row is None else _notice(row)

    def covering(self, filed: Filed) -> Notice | None:
        """The first revocation that covers this consent."""
        under = and_(revocations.c.resource_key == filed.resource_key, revocations.c.issued_by >= filed.issued_at)
        mine = and_(revocations.c.node == filed.node, or_(revocations.c.consent == filed.jti, under))
        row = self._first(select(revocations).where(mine).order_by(revocations.c.seq).limit(1))
        return None if row is None else _notice(row)

    def confirm(self, receipt: Receipt, cut_us: int | None, sessions: int | None) -> None:
        mine = and_(revocations.c.node == receipt.node, revocations.c.seq == receipt.seq, revocations.c.confirmed_ms.is_(None))
        mark = {"confirmed_ms": receipt.at_ms, "cut_us": cut_us, "sessions": sessions}
        self._connection.execute(update(revocations).where(mine).values(mark))

    # receipts and key sets

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
        self._connection.execute(insert(receipts), rows)

    def receipt_token(self, kid: str, number: int) -> str | None:
        mine = and_(receipts.c.kid == kid, receipts.c.number == number)
        return self._connection.scalar(select(receipts.c.token).where(mine))

    def key_set(self) -> tuple[str, str] | None:
        """The newest set's token and the kid that signs since."""
        row = self._connection.execute(select(key_sets).order_by(key_sets.c.version.desc()).limit(1)).first()
        return None if row is None else (row.token, row.signing_kid)

    def file_key_set(self, version: int, token: str, signing_kid: str, now_ms: int) -> None:
        row = {"version": version, "token": token, "signing_kid": signing_kid, "made_ms": now_ms}
        self._connection.execute(insert(key_sets).values(row))
