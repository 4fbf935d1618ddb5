"""An issuer's public keys (RFC 7517), as far as they can be used here. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_KEYS: Final = 64
LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 8192  # what one verification may cost

# All that PyJWT is given of an entry. From a private RSA key it would work out the primes, for as long as the sender likes; of
# an `alg` that it does not know it raises what is no error of its own.
_PUBLIC: Final = ("kty", "crv", "n", "e", "x", "y")
_PRIVATE: Final = frozenset({"d", "k"})  # RFC 7518 6.2.2, 6.3.2, 6.4.1: who shows it has lost it


class Algorithm(StrEnum):
    """How an issuer may sign (RFC 7518 3.1, RFC 8037 3.1); no other is taken."""

    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
KeySet: TypeAlias = Mapping[tuple[str, Algorithm], PublicKey]


def read_key_set(raw: bytes) -> KeySet:
    """The signature keys of a JWKS that can be used here, by `kid` and algorithm. Raises ValueError.

    Others are left out: a set may hold keys for encryption, or of kinds that nobody here reads (RFC 7517 5). A `kid` with two
    keys of one kind names neither.
    """
    try:
        document = json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"no key set of at most {MAX_KEYS} keys")
    found: dict[tuple[str, Algorithm], PublicKey] = {}
    twice: set[tuple[str, Algorithm]] = set()
    for entry in listed:
        usable = _usable(entry) if isinstance(entry, dict) else None
        if usable is not None:
            name, key = usable
            if name in found:
                twice.add(name)
            found[name] = key
    return {name: key for name, key in found.items() if name not in twice}


def _usable(entry: dict[str, object]) -> tuple[tuple[str, Algorithm], PublicKey] | None:
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if (
        not isinstance(kid, str)
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or not _PRIVATE.isdisjoint(entry)
    ):
        return None
    try:
        key = jwt.PyJWK({name: entry[name] for name in _PUBLIC if name in entry}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    match key:
        case RSAPublicKey() if LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
            algorithm = Algorithm.RS256
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            algorithm = Algorithm.ES256
        case Ed25519PublicKey():
            algorithm = Algorithm.EDDSA
        case _:  # of another curve, or one that is too weak or too long
            return None
    if entry.get("alg", str(algorithm)) != str(algorithm):
        return None
    return (kid, algorithm), key
