"""What the store has, in the field's own types: nodes, consents, revocations, and what a consent is by what its row says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import jwt
from sqlalchemy import RowMapping

from eva.consent import Consent
from eva.members import strict_json
from eva.token import Claims, unb64
from eva.wire import Event

UNANSWERED = "unanswered"  # `why` of a renewal that its node never spoke of


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A node as the store has it: provider/store/schema.py says what each number is."""

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
    asked_at: int | None

    @property
    def rolled_back(self) -> bool:
        """Whether it is refused, until it has another key: its state is older than what it signed."""
        return self.behind_ms is not None or self.conflict_ms is not None


class State(StrEnum):
    """What a consent is now, for people to read; whether it stands is the node's to say."""

    OFFERED = "offered"
    GRANTED = "granted"
    REFUSED = "refused"
    REVOKED = "revoked"
    ENDED = "ended"
    EXPIRED = "expired"
    REPLACED = "replaced"  # by a renewal
    MOVING = "moving"  # its node was lost, and no other has it yet
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Filed:
    """A consent as the store has it. `claims` are those of its token, as they were signed."""

    jti: str
    cid: str
    kid: str
    node: str
    resource_key: str
    issued_at: int
    expires_at: int
    token: str
    claims: str
    offered_until_ms: int
    answer: str | None
    answered_ms: int | None
    uuid: str | None
    why: str | None
    granted_ms: int | None
    revoked_ms: int | None
    ended_ms: int | None
    ended_reason: str | None
    replaced_ms: int | None
    moved_ms: int | None

    def consent(self) -> Consent:
        """As it was signed."""
        return Consent.from_claims(Claims(strict_json(self.claims.encode()), self.kid))

    def stands(self, now: int) -> bool:
        """Whether its giver may count on it: accepted, and by nothing ended that the provider knows of."""
        return self.granted_ms is not None and self.expires_at > now and self.may_stand

    @property
    def may_stand(self) -> bool:
        """Whether nothing that the provider knows of has ended it; its node may have refused it."""
        return all(end is None for end in (self.revoked_ms, self.ended_ms, self.replaced_ms, self.moved_ms))

    def under_way(self, now_ms: int) -> bool:
        """Whether its node may still say yes or no, and somebody waits for that."""
        silent = self.answer is None or (self.answer == Event.ACCEPTED and self.granted_ms is None)
        return silent and self.revoked_ms is None and self.offered_until_ms >= now_ms

    def homeless(self, now: int) -> bool:
        """Whether its node was lost and no other has taken it."""
        return self.moved_ms is not None and self.replaced_ms is None and self.ended_ms is None and self.expires_at > now

    def state(self, now: int) -> State:
        over = self.expires_at <= now
        moved = self.moved_ms is not None and self.ended_ms is None
        states = (
            (moved and self.replaced_ms is not None, State.MOVED),
            (moved and not over, State.MOVING),
            (moved, State.EXPIRED),
            (self.replaced_ms is not None, State.REPLACED),
            (self.moved_ms is None and self.revoked_ms is not None, State.REVOKED),
            (self.answer == Event.REFUSED, State.REFUSED),
            (self.ended_ms is not None, State.ENDED),
            (over, State.EXPIRED),
            (self.granted_ms is not None, State.GRANTED),
        )
        return next((state for holds, state in states if holds), State.OFFERED)


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


def enrolled_of(row: RowMapping) -> Enrolled:
    return Enrolled(**{name: row[name] for name in Enrolled.__slots__})


def filed_of(row: RowMapping) -> Filed:
    return Filed(**{name: row[name] for name in Filed.__slots__})


def notice_of(row: RowMapping) -> Notice:
    return Notice(**{name: row[name] for name in Notice.__slots__})


def kid_of(token: str) -> str:
    """The key by which one of our own tokens is signed."""
    return str(jwt.get_unverified_header(token)["kid"])


def claims_of(token: str) -> Claims:
    """What a token says that was verified when it was filed, or that we signed; its key may be gone since."""
    return Claims(strict_json(unb64(token.split(".")[1])), kid_of(token))
