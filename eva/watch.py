"""A tenant watches: the token that lets a consent's giver look on at one node, and the language of the websocket it opens.

The provider, which knows who the giver is, signs the token; the node takes it once, on a listener that no operator needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from eva.consent import MAX_AHEAD, PROVIDER
from eva.control import rpc_members
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Claims, Fault, Typ

MAX_WATCH_SECONDS = 60
WATCH_PATH = "/v1/watch"
WATCH_SUBPROTOCOL = "eva.watch.v1"
TOKEN_PREFIX = "eva.token."  # noqa: S105 - not a secret: the second offered subprotocol carries the token behind it
MAX_ORIGIN = 200  # characters: it is a fact of a receipt

# also goes into a Content-Security-Policy, so nothing that could end a source there
_ORIGIN = re.compile(r"https://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?", re.ASCII)


def watch_origin(text: str) -> str:
    """The origin at which tenants' browsers reach a node's watch listener, `https://host` or `https://host:port`.

    Raises ValueError.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None or len(text) > MAX_ORIGIN or int(found[1] or 0) > 65_535:
        raise ValueError("it needs https:// and a host in small letters, perhaps a port, and nothing behind it")
    return text


def watch_socket(origin: str) -> str:
    """The websocket's address at such an origin."""
    return f"wss{origin.removeprefix('https')}{WATCH_PATH}"


@dataclass(frozen=True, slots=True)
class Watch:
    """The giver of the consent `cid` may watch at `node`. `issued_at`, `expires_at`: Unix seconds.

    The node takes each `jti` once.
    """

    jti: str
    cid: str
    node: str
    resource_id: ResourceId
    giver: str
    issued_at: int
    expires_at: int

    TYP = Typ.WATCH

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
        }

    @classmethod
    def from_claims(cls, claims: Claims) -> Watch:
        """Raises BadToken. Whether it is in time is asked of a clock by `time_fault`."""
        claims.exactly("iss", PROVIDER)
        watch = cls(
            jti=claims.jti(),
            cid=claims.jti("cid"),
            node=claims.text("aud"),
            resource_id=claims.resource_id(),
            giver=claims.text("sub", longest=128, empty=False),
            issued_at=claims.integer("iat"),
            expires_at=claims.integer("exp"),
        )
        claims.nothing_else()
        if not 0 < watch.expires_at - watch.issued_at <= MAX_WATCH_SECONDS:
            raise BadToken(Fault.TIME, "exp - iat is not within 1 to 60 seconds")
        return watch

    def time_fault(self, wall_seconds: int) -> Fault | None:
        """What is wrong with its times as seen at `wall_seconds`, or None."""
        if self.expires_at <= wall_seconds or self.issued_at > wall_seconds + MAX_AHEAD:
            return Fault.TIME
        return None


class WatchMethod(StrEnum):
    """What who watches may ask. Parameters and results: docs/protocol.md."""

    WATCH_OPEN = "watch.open"  # kind
    WATCH_LEAVE = "watch.leave"  # session
    INPUT_PAUSE = "input.pause"
    INPUT_RESUME = "input.resume"
    CONSENT_STOP = "consent.stop"


class WatchEvent(StrEnum):
    """What a node tells who watches, beside what it tells an operator of a session."""

    STATE = "watch.state"
    TYPED = "watch.typed"  # session, account, parts
    ENDED = "watch.ended"  # reason, text, at_ms, cut_us


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """One call, as eva.control.Request is; answers and failures are those of eva.control."""

    id: int
    method: WatchMethod
    params: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def decode(cls, text: str) -> WatchRequest:
        """Raises BadMember."""
        members = rpc_members(text)
        request = cls(members.integer("id"), members.convert("method", WatchMethod), members.table("params", most=8))
        members.nothing_else()
        return request
