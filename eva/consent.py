"""Consents and what ends them, as the provider signs them for one node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from eva.ending import REVOKING, Ending
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Claims, Fault, Typ

MAX_SECONDS = 28_800  # the 8 hours
MAX_AHEAD = 30  # seconds by which the signer's clock may be ahead of the node's
PROVIDER = "eva-provider"  # `iss` of what the provider signs, `aud` of what a node signs

_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._@+-]{1,64}", re.ASCII)
MAX_REASON = 256
MAX_OPERATORS = 16


class Kind(StrEnum):
    """The device a console is."""

    SERIAL = "serial"
    GRAPHICS = "graphics"


class Access(StrEnum):
    """What an operator may do with it. KEYBOARD includes VIEW."""

    VIEW = "view"
    KEYBOARD = "keyboard"


def is_node_name(text: str) -> bool:
    """Whether `text` can name an ERCS node (a host label, so that it is safe in an MQTT topic)."""
    return _NODE.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """An operator account, or a group of them. Spelled `account:NAME` or `group:NAME`; names compare with case."""

    is_group: bool
    name: str

    @classmethod
    def parse(cls, text: str) -> Principal:
        """Raises ValueError."""
        sort, _, name = text.partition(":")
        if sort not in ("account", "group") or _NAME.fullmatch(name) is None:
            raise ValueError(f"not account:NAME or group:NAME: {text[:80]!r}")
        return cls(sort == "group", name)

    def __str__(self) -> str:
        return f"{'group' if self.is_group else 'account'}:{self.name}"


CLOUDADMIN = Principal(True, "cloudadmin")


@dataclass(frozen=True, slots=True)
class Consent:
    """Who granted what, where, to whom and until when. `issued_at`, `expires_at`: Unix seconds. `kid`: the key that signed.

    `cid` is the consent's id for people, the same over its renewals and moves; `jti` is this token's own. A consent's first
    token has the two alike. Of two tokens with one cid, the one that was issued later replaces the other. `watched`: operators
    may look and type only while the giver watches.
    """

    jti: str
    cid: str
    node: str
    resource_id: ResourceId
    giver: str
    operators: frozenset[Principal]
    kinds: frozenset[Kind]
    access: Access
    issued_at: int
    expires_at: int
    watched: bool
    reason: str = ""
    kid: str = ""
    paused: bool = False  # its giver paused it where it was before: a node that has not met it begins with that

    TYP = Typ.CONSENT

    def to_claims(self) -> dict[str, Json]:
        return {
            "iss": PROVIDER,
            "aud": self.node,
            "jti": self.jti,
            "cid": self.cid,
            "iat": self.issued_at,
            "exp": self.expires_at,
            "sub": self.giver,
            "resource_id": str(self.resource_id),
            "operators": sorted(map(str, self.operators)),
            "kinds": sorted(self.kinds),
            "access": str(self.access),
            "watched": self.watched,
            "paused": self.paused,
            "reason": self.reason,
        }

    @classmethod
    def from_claims(cls, claims: Claims) -> Consent:
        """Raises BadToken. Whether it is unexpired is asked of a clock by `time_fault`."""
        claims.exactly("iss", PROVIDER)
        consent = cls(
            jti=claims.jti(),
            cid=claims.jti("cid"),
            node=claims.text("aud"),
            resource_id=claims.resource_id(),
            giver=claims.text("sub", longest=128, empty=False),
            operators=frozenset(claims.each("operators", Principal.parse, most=MAX_OPERATORS)),
            kinds=frozenset(claims.each("kinds", Kind, most=len(Kind))),
            access=claims.convert("access", Access),
            issued_at=claims.integer("iat"),
            expires_at=claims.integer("exp"),
            watched=claims.truth("watched"),
            paused=claims.truth("paused"),
            reason=claims.text("reason", longest=MAX_REASON),
            kid=claims.kid,
        )
        claims.nothing_else()
        if not 0 < consent.expires_at - consent.issued_at <= MAX_SECONDS:
            raise BadToken(Fault.TIME, "exp - iat is not within 1 to 28800 seconds")
        return consent

    def time_fault(self, wall_seconds: int) -> Fault | None:
        """What is wrong with its times as seen at `wall_seconds`, or None."""
        if self.expires_at <= wall_seconds or self.issued_at > wall_seconds + MAX_AHEAD:
            return Fault.TIME
        return None

    def admits(self, account: str, groups: frozenset[str]) -> bool:
        """Whether this operator is one of those the tenant consented to."""
        return Principal(False, account) in self.operators or any(Principal(True, g) in self.operators for g in groups)


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of one consent, or of every consent for a VM issued at or before a moment. Nothing undoes it.

    Exactly one of `consent` (a jti) and `resource_id` with `issued_by` (Unix seconds, inclusive) is set. `seq` is gapless
    for each node. `consent_expires_at` tells how long the fact must be remembered.
    """

    jti: str
    node: str
    seq: int
    issued_at: int
    reason: Ending
    consent_expires_at: int
    consent: str | None = None
    resource_id: ResourceId | None = None
    issued_by: int | None = None

    TYP = Typ.REVOCATION

    def to_claims(self) -> dict[str, Json]:
        claims: dict[str, Json] = {
            "iss": PROVIDER,
            "aud": self.node,
            "jti": self.jti,
            "iat": self.issued_at,
            "seq": self.seq,
            "reason": self.reason.word,
            "consent_exp": self.consent_expires_at,
        }
        if self.consent is not None:
            claims["consent"] = self.consent
        else:
            claims["resource_id"] = str(self.resource_id)
            claims["issued_by"] = self.issued_by
        return claims

    @classmethod
    def from_claims(cls, claims: Claims) -> Revocation:
        """Raises BadToken."""
        claims.exactly("iss", PROVIDER)
        single = claims.has("consent")
        revocation = cls(
            jti=claims.jti(),
            node=claims.text("aud"),
            seq=claims.integer("seq", least=1),
            issued_at=claims.integer("iat"),
            reason=claims.convert("reason", Ending.of_word),
            consent_expires_at=claims.integer("consent_exp"),
            consent=claims.jti("consent") if single else None,
            resource_id=None if single else claims.resource_id(),
            issued_by=None if single else claims.integer("issued_by"),
        )
        claims.nothing_else()
        if revocation.reason not in REVOKING:
            raise BadToken(Fault.CLAIMS, f"reason {revocation.reason.word} is not the provider's to give")
        return revocation
