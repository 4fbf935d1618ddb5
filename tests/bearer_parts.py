"""Tokens as an OIDC issuer signs them, and as an attacker would."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from oidc.key_set import Algorithm
from provider.rest.settings import Issuer

ISSUER = "https://login.example/realms/cloud"
AUDIENCE = "https://management.example"
OID = "11111111-2222-4333-8444-555555555555"
NOW = 1_700_000_000

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": P256, "EdDSA": EDWARDS}


def issuer(**changed: Any) -> Issuer:
    fields: dict[str, Any] = {
        "name": ISSUER,
        "jwks_file": None,
        "jwks_url": None,
        "jwks_ca": None,
        "signing_key": None,
        "algorithms": frozenset(Algorithm),
        "principal_claim": "oid",
        "groups_claim": "groups",
        "name_claim": "preferred_username",
        "clock_skew_seconds": 60,
        "home": True,
    }
    return Issuer(**(fields | changed))


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Pen:
    """Signs what it is told to: `claims` and `header` with some changed, None takes one out."""

    algorithm: str = "EdDSA"
    kid: str = "key-1"
    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "oid": OID,
            "sub": "s",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 3600,
        }
    )

    def token(self, header: dict[str, Any] | None = None, **changed: Any) -> str:
        claims = {name: value for name, value in (self.claims | changed).items() if value is not None}
        head = {name: value for name, value in ({"kid": self.kid, "typ": "JWT"} | (header or {})).items() if value is not None}
        return self.raw(json.dumps(claims).encode(), head)

    def raw(self, body: bytes, header: dict[str, Any]) -> str:
        """Any bytes under a signature that fits."""
        head = {"alg": self.algorithm} | header
        signed = f"{segment(head)}.{segment(body)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{segment(algorithm.sign(signed.encode(), PRIVATE[self.algorithm]))}"


def jwk(algorithm: str = "EdDSA", kid: str = "key-1", **changed: Any) -> dict[str, Any]:
    public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key()))
    return {name: value for name, value in ({**public, "kid": kid, "use": "sig"} | changed).items() if value is not None}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys) or [jwk()]}).encode()
