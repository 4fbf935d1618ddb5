"""A small issuer of our own, for demonstrations and tests: one Ed25519 key, and the key set that makes its tokens believed.

Its tokens count only where the settings list it among `identity.issuers`, with `signing_key` beside its key set. Pure but for
the files of provider.keys.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eva.token import SigningKey, b64
from oidc.key_set import Algorithm
from provider.rest.settings import Issuer


def key_set(key: SigningKey) -> bytes:
    """The JWKS of this one key (RFC 7517, RFC 8037 2)."""
    raw = key.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    listed = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": key.kid, "use": "sig", "alg": str(Algorithm.EDDSA)}
    return json.dumps({"keys": [listed]}, indent=1).encode() + b"\n"


def sign(
    key: SigningKey, issuer: Issuer, audience: str, principal: str, groups: Sequence[str], name: str, now: int, seconds: int
) -> str:
    """A bearer token as `issuer` gives it. `now`: Unix seconds."""
    claims: dict[str, object] = {
        "iss": issuer.name,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
        "sub": principal,
    }
    claims[issuer.principal_claim] = principal
    if groups:
        claims[issuer.groups_claim] = list(groups)
    if name:
        claims[issuer.name_claim] = name
    return jwt.encode(claims, key.private, algorithm=str(Algorithm.EDDSA), headers={"kid": key.kid})
