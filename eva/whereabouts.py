"""Where the consent for a VM is: a node asks the provider over HTTPS, when an operator came to the wrong one."""

from __future__ import annotations

import json
from dataclasses import dataclass

from eva.consent import PROVIDER, is_node_name
from eva.members import BadMember, Json, Members, strict_json
from eva.resource_id import ResourceId
from eva.token import Claims, Fault, Typ

WHEREABOUTS_PATH = "/eva/v1/whereabouts"  # the provider's HTTPS path for a query, which travels in an Envelope (eva.wire)
QUERY_SECONDS = 60  # by which a query's `iat` may differ from the provider's clock


@dataclass(frozen=True, slots=True)
class Query:
    """The question. `issued_at`: Unix seconds."""

    node: str
    nonce: str
    issued_at: int
    resource_id: ResourceId

    TYP = Typ.QUERY

    def to_claims(self) -> dict[str, Json]:
        return {
            "iss": self.node,
            "aud": PROVIDER,
            "nonce": self.nonce,
            "iat": self.issued_at,
            "resource_id": str(self.resource_id),
        }

    @classmethod
    def from_claims(cls, claims: Claims) -> Query:
        """Raises BadToken. That the key which signed is this node's own is for the caller to know, and what time it is."""
        query = cls(claims.text("iss"), claims.jti("nonce"), claims.integer("iat"), claims.resource_id())
        claims.text("aud")
        claims.nothing_else()
        return query

    def time_fault(self, wall_seconds: int) -> Fault | None:
        """What is wrong with its time as seen at `wall_seconds`, or None."""
        return Fault.TIME if abs(wall_seconds - self.issued_at) > QUERY_SECONDS else None


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The provider's answer to a query, unsigned: a hint for people, and nothing hangs on it."""

    node: str

    def encode(self) -> bytes:
        return json.dumps({"node": self.node}).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Whereabouts:
        """Raises BadMember."""
        try:
            members = Members(strict_json(raw))
        except ValueError as error:
            raise BadMember(str(error)[:80]) from None
        node = members.text("node", longest=63)
        members.nothing_else()
        if not is_node_name(node):
            raise BadMember("node is no node's name")
        return cls(node)
