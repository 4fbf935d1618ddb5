"""What travels over MQTT 5 and, word for word the same, over HTTPS when MQTT does not answer.

Topics (all under `eva/v1/`): see docs/protocol.md. Tokens never travel bare where several belong together: an Envelope is
a JSON object of them. An envelope has no authority of its own; each token in it is verified by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eva.audit import MAX_RECORD
from eva.consent import PROVIDER
from eva.members import Json, strict_json
from eva.token import BadToken, Claims, Fault, Typ, b64, thumbprint, unb64

PREFIX = "eva/v1"
MAX_REVOCATIONS = 64  # in one lease answer; a node further behind asks again at once
MAX_RECEIPTS = 16  # in one lease request
MAX_ENVELOPE = (MAX_REVOCATIONS + 3) * 4096 + 1024  # bytes
NODES = "eva-nodes"  # `aud` of a key set: every node
ROOT = "eva-root"  # `iss` of a key set
CONTENT_TYPE = "application/eva+json"
LEASE_PATH = "/eva/v1/lease"  # the provider's HTTPS path for a lease request


def consent_topic(node: str) -> str:
    return f"{PREFIX}/node/{node}/consent"


def revocation_topic(node: str) -> str:
    return f"{PREFIX}/node/{node}/revocation"


def lease_topic(node: str) -> str:
    return f"{PREFIX}/node/{node}/lease"


def lease_request_topic(node: str) -> str:
    return f"{PREFIX}/lease-request/{node}"


def receipt_topic(node: str) -> str:
    return f"{PREFIX}/receipt/{node}"


def status_topic(node: str) -> str:
    return f"{PREFIX}/status/{node}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Tokens that travel together, as JSON. Each member is a compact token or a list of them."""

    token: str
    keys: str | None = None
    revocations: tuple[str, ...] = ()
    receipts: tuple[str, ...] = ()

    def encode(self) -> bytes:
        body: dict[str, Json] = {"token": self.token}
        if self.keys is not None:
            body["keys"] = self.keys
        if self.revocations:
            body["revocations"] = list(self.revocations)
        if self.receipts:
            body["receipts"] = list(self.receipts)
        return json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Envelope:
        """Raises BadToken for anything that is not such an object within its bounds."""
        if len(raw) > MAX_ENVELOPE:
            raise BadToken(Fault.SIZE, f"an envelope of {len(raw)} bytes")
        try:
            body = strict_json(raw)
        except ValueError as error:
            raise BadToken(Fault.JSON, f"envelope: {str(error)[:80]}") from None
        token, keys = body.pop("token", None), body.pop("keys", None)
        revocations = _tokens(body.pop("revocations", []), MAX_REVOCATIONS)
        receipts = _tokens(body.pop("receipts", []), MAX_RECEIPTS)
        if not isinstance(token, str) or not isinstance(keys, str | None) or body:
            raise BadToken(Fault.CLAIMS, "an envelope of another shape")
        return cls(token, keys, revocations, receipts)


def _tokens(found: Json, most: int) -> tuple[str, ...]:
    if not isinstance(found, list) or len(found) > most:
        raise BadToken(Fault.CLAIMS, f"an envelope's list is no list of at most {most}")
    tokens = tuple(item for item in found if isinstance(item, str))
    if len(tokens) != len(found):
        raise BadToken(Fault.CLAIMS, "an envelope's list holds what is no token")
    return tokens


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A node asks whether its consents still stand. `seq`: all revocations up to it are applied and on disk here.

    `issued_at`: Unix seconds on the node's clock. `audit_count` and `audit_head` anchor the node's own chain with the
    provider: a chain cut short is seen there.
    """

    node: str
    nonce: str
    issued_at: int
    boot_id: str
    seq: int
    keys_version: int
    audit_count: int
    audit_head: str

    TYP = Typ.LEASE_REQUEST

    def to_claims(self) -> dict[str, Json]:
        return {
            "iss": self.node,
            "aud": PROVIDER,
            "nonce": self.nonce,
            "iat": self.issued_at,
            "boot_id": self.boot_id,
            "seq": self.seq,
            "keys_version": self.keys_version,
            "audit_count": self.audit_count,
            "audit_head": self.audit_head,
        }

    @classmethod
    def from_claims(cls, claims: Claims) -> LeaseRequest:
        """Raises BadToken. That the key which signed is this node's own is for the caller to know."""
        request = cls(
            node=claims.text("iss"),
            nonce=claims.jti("nonce"),
            issued_at=claims.integer("iat"),
            boot_id=claims.text("boot_id", longest=64),
            seq=claims.integer("seq"),
            keys_version=claims.integer("keys_version"),
            audit_count=claims.integer("audit_count"),
            audit_head=claims.text("audit_head", longest=64),
        )
        claims.text("aud")
        claims.nothing_else()
        return request


@dataclass(frozen=True, slots=True)
class Lease:
    """The provider's word that, once every revocation up to `seq` is applied, the node's consents stand.

    `receipts`: the provider has every receipt of the node up to this number.
    """

    node: str
    nonce: str
    seq: int
    receipts: int
    issued_at: int

    TYP = Typ.LEASE

    def to_claims(self) -> dict[str, Json]:
        return {
            "iss": PROVIDER,
            "aud": self.node,
            "nonce": self.nonce,
            "seq": self.seq,
            "receipts": self.receipts,
            "iat": self.issued_at,
        }

    @classmethod
    def from_claims(cls, claims: Claims) -> Lease:
        """Raises BadToken."""
        claims.exactly("iss", PROVIDER)
        lease = cls(
            node=claims.text("aud"),
            nonce=claims.jti("nonce"),
            seq=claims.integer("seq"),
            receipts=claims.integer("receipts"),
            issued_at=claims.integer("iat"),
        )
        claims.nothing_else()
        return lease


class Event(StrEnum):
    """What a node's receipt says happened."""

    ACCEPTED = "accepted"  # the consent stands here; facts: uuid, generation, host, and watch where tenants can (eva.watch)
    REFUSED = "refused"  # the consent does not stand here; facts: why
    ENDED = "ended"  # a revocation was applied, or the consent ended by itself; facts: reason, sessions, cut_us
    DELETED = "deleted"  # an operator deleted the session here: answer it with a revocation; facts: account
    RECORDED = "recorded"  # the audit of a consent (about: its cid) has one record more; no facts, but the record itself


@dataclass(frozen=True, slots=True)
class Receipt:
    """A node's signed word about one consent or revocation, verified without expiry, for years.

    `number` is gapless for each node. `about` is the jti of the consent, or of the revocation that had no single one; the
    consent's cid where a record is told. `at_ms`: Unix milliseconds on the node's clock. `seq`: the revocation this answers,
    0 for none. `facts`: short texts. `record`: the text whose SHA-256 is the record's digest (eva/audit.py), else empty.
    """

    node: str
    jti: str
    number: int
    event: Event
    about: str
    at_ms: int
    seq: int = 0
    facts: tuple[tuple[str, str], ...] = field(default=())
    record: str = ""

    TYP = Typ.RECEIPT

    def to_claims(self) -> dict[str, Json]:
        claims: dict[str, Json] = {
            "iss": self.node,
            "aud": PROVIDER,
            "jti": self.jti,
            "number": self.number,
            "event": str(self.event),
            "about": self.about,
            "at_ms": self.at_ms,
            "seq": self.seq,
            "facts": dict(self.facts),
        }
        if self.event is Event.RECORDED:
            claims["record"] = self.record
        return claims

    @classmethod
    def from_claims(cls, claims: Claims) -> Receipt:
        """Raises BadToken. That the key which signed is this node's own is for the caller to know."""
        facts = claims.table("facts", most=8)
        event = claims.convert("event", Event)
        receipt = cls(
            node=claims.text("iss"),
            jti=claims.jti(),
            number=claims.integer("number", least=1),
            event=event,
            about=claims.jti("about"),
            at_ms=claims.integer("at_ms"),
            seq=claims.integer("seq"),
            facts=tuple(sorted((name, text) for name, text in facts.items() if isinstance(text, str))),
            record=claims.text("record", longest=MAX_RECORD, empty=False) if event is Event.RECORDED else "",
        )
        claims.text("aud")
        claims.nothing_else()
        if len(receipt.facts) != len(facts) or any(len(n) + len(t) > 256 or not (n + t).isprintable() for n, t in receipt.facts):
            raise BadToken(Fault.CLAIMS, "facts are not short printable texts")
        return receipt

    def fact(self, name: str) -> str:
        """The fact of that name, or an empty text."""
        return dict(self.facts).get(name, "")


@dataclass(frozen=True, slots=True)
class KeySet:
    """The provider's signing keys by kid, signed by the root key. A key that is not in it does not stand."""

    version: int
    keys: dict[str, Ed25519PublicKey]

    TYP = Typ.KEYS

    def to_claims(self) -> dict[str, Json]:
        raw = {kid: b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw)) for kid, key in self.keys.items()}
        return {"iss": ROOT, "aud": NODES, "version": self.version, "keys": raw}

    @classmethod
    def from_claims(cls, claims: Claims) -> KeySet:
        """Raises BadToken, also for a kid that is not its key's thumbprint."""
        claims.exactly("iss", ROOT)
        claims.text("aud")
        version = claims.integer("version", least=1)
        keys: dict[str, Ed25519PublicKey] = {}
        for kid, raw in claims.table("keys", most=16).items():
            try:
                key = Ed25519PublicKey.from_public_bytes(unb64(raw if isinstance(raw, str) else ""))
            except ValueError:
                raise BadToken(Fault.CLAIMS, "a key that is no Ed25519 public key") from None
            if thumbprint(key) != kid:
                raise BadToken(Fault.CLAIMS, "a kid that is not its key's thumbprint")
            keys[kid] = key
        claims.nothing_else()
        return cls(version, keys)
