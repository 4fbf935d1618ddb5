"""What the broker's tests share: a clock that the test moves, consents signed by a real key."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eva.consent import CLOUDADMIN, Access, Consent, Kind, Principal, Revocation
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Pin
from eva.resource_id import ResourceId
from eva.token import SigningKey, b64
from eva.wire import NODES, ROOT, Envelope, KeySet, Lease

NODE = "AzS-ERCS01"
START = 1_800_000_000  # Unix seconds at which every test's clock begins
PIN = Pin("host1", "11111111-2222-4333-8444-555555555555", 1)
_numbers = itertools.count(1)


def vm_id(name: str = "vm1") -> ResourceId:
    return ResourceId("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "rg1", name)


def jti() -> str:
    """128 bits, another each time."""
    return b64(next(_numbers).to_bytes(16))


class HandClock:
    """Two clocks that go on only when the test says so."""

    def __init__(self) -> None:
        self.wall = START * NS
        self.boot = 1000 * NS

    def now(self) -> Instant:
        return Instant(self.wall, self.boot)

    def run(self, seconds: float) -> Instant:
        """Both clocks go on."""
        self.step(seconds)
        self.boot += round(seconds * NS)
        return self.now()

    def step(self, seconds: float) -> Instant:
        """Somebody sets the wall clock."""
        self.wall += round(seconds * NS)
        return self.now()


def consent(seconds: int = 28_800, issued_at: int = START, vm: str = "vm1", **other: object) -> Consent:
    """A consent of the sort that most tenants give."""
    facts: dict[str, object] = {
        "jti": jti(),
        "node": NODE,
        "resource_id": vm_id(vm),
        "giver": "tenant1",
        "operators": frozenset({CLOUDADMIN}),
        "kinds": frozenset(Kind),
        "access": Access.KEYBOARD,
        "issued_at": issued_at,
        "expires_at": issued_at + seconds,
        "kid": "key1",
    }
    return Consent(**(facts | other))  # type: ignore[arg-type]


def revocation_of(one: Consent, seq: int = 1, reason: Ending = Ending.CONSENT_REVOKED) -> Revocation:
    return Revocation(jti(), one.node, seq, one.issued_at, reason, one.expires_at, consent=one.jti)


def watermark_over(one: Consent, seq: int = 1, issued_by: int | None = None) -> Revocation:
    by = one.issued_at if issued_by is None else issued_by
    return Revocation(jti(), one.node, seq, by, Ending.CONSENT_REVOKED, one.expires_at, resource_id=one.resource_id, issued_by=by)


@dataclass
class Signer:
    """A provider's keys, and what it signs with them."""

    root: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    key: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    version: int = 1

    def key_set(self, *keys: SigningKey) -> str:
        """The current key set, or one of these keys."""
        members = {k.kid: k.private.public_key() for k in keys or (self.key,)}
        claims = KeySet(self.version, members).to_claims()
        assert (claims["iss"], claims["aud"]) == (ROOT, NODES)
        return self.root.sign(KeySet.TYP, claims)

    def sign(self, what: Consent | Revocation | Lease) -> str:
        return self.key.sign(what.TYP, what.to_claims())

    def letter(self, what: Consent | Revocation | Lease, *revocations: Revocation) -> bytes:
        """What travels over MQTT."""
        return Envelope(self.sign(what), keys=self.key_set(), revocations=tuple(map(self.sign, revocations))).encode()


def principal(text: str) -> Principal:
    return Principal.parse(text)
