"""ID tokens (OpenID Connect Core 1.0, 2 and 3.1.3.7), read strictly. Pure: `now` is given.

PyJWT verifies the signature, with a key of the issuer's key set; a token that brings or points to a key is refused, and all that
is around the signature is checked here. Errors: NotBelieved.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256, sha512
from typing import Final

import jwt

from eva.token import b64, unb64
from oidc.failure import NotBelieved
from oidc.jwt_json import read_object
from oidc.key_set import Algorithm, PublicKey

MAX_TOKEN: Final = 32_768  # characters: with 200 groups a token is about 9 KB
MAX_KID: Final = 256
SKEW_SECONDS: Final = 60
OLDEST_SECONDS: Final = 600  # since `iat`: it was asked for just now
MAX_TIME: Final = 1 << 40

_FOREIGN_KEYS = ("jwk", "jku", "x5u", "x5c", "crit")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token as it reads before anything of it is believed: `kid` and `algorithm` say which key to take."""

    text: str = field(repr=False)
    kid: str
    algorithm: Algorithm
    claims: Mapping[str, object] = field(repr=False)


def parse(token: str) -> Unverified:
    """Raises NotBelieved."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise NotBelieved("the ID token is too long, or none")
    try:
        head, body, signature = token.split(".")
        header, claims = read_object(unb64(head)), read_object(unb64(body))
        unb64(signature)
    except ValueError:
        raise NotBelieved("the ID token is no JSON Web Token") from None
    if any(name in header for name in _FOREIGN_KEYS):
        raise NotBelieved("the ID token's header brings, or points to, a key of its own")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.upper() != "JWT":  # RFC 7515 4.1.9: without regard to case
        raise NotBelieved("the ID token is a token of another type")
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in tuple(Algorithm):
        raise NotBelieved("the ID token's algorithm is not taken")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise NotBelieved("the ID token does not say which key signed it")
    return Unverified(token, kid, Algorithm(algorithm), claims)


def verify(token: Unverified, key: PublicKey, issuer: str, client_id: str, nonce: str, now: int) -> Mapping[str, object]:
    """The claims of a token that is signed with `key`, of `issuer`, and meant for this client and this sign-in.

    `now`: Unix seconds. Raises NotBelieved.
    """
    algorithm = str(token.algorithm)
    try:
        jwt.PyJWS(algorithms=[algorithm]).decode(token.text, key, algorithms=[algorithm])
    except (jwt.PyJWTError, TypeError):  # TypeError: PyJWT's for a key of another kind
        raise NotBelieved("the ID token's signature does not fit") from None
    claims = token.claims
    if claims.get("iss") != issuer:
        raise NotBelieved("the ID token is of another issuer")
    # 3.1.3.7 (3): one that is meant for others as well is not trusted with the sign-in
    if claims.get("aud") not in (client_id, [client_id]):
        raise NotBelieved("the ID token is not for us alone")
    if claims.get("azp", client_id) != client_id:
        raise NotBelieved("the ID token was issued to another client")
    found = claims.get("nonce")
    if not isinstance(found, str) or not hmac.compare_digest(found.encode("utf-8", "surrogatepass"), nonce.encode()):
        raise NotBelieved("the ID token answers another sign-in")
    _check_times(claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise NotBelieved("the ID token names nobody")
    return claims


def check_access_token(claims: Mapping[str, object], algorithm: Algorithm, access_token: str) -> None:
    """Whether it came with this access token, if the ID token says with which (3.1.3.8). Raises NotBelieved."""
    if "at_hash" not in claims:
        return
    # the hash of the signature's algorithm (3.1.3.6); Ed25519's is SHA-512 (RFC 8032 5.1)
    digest = (sha512 if algorithm is Algorithm.EDDSA else sha256)(access_token.encode()).digest()
    if claims["at_hash"] != b64(digest[: len(digest) // 2]):
        raise NotBelieved("the ID token came with another access token")


def _check_times(claims: Mapping[str, object], now: int) -> None:
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires + SKEW_SECONDS <= now:
        raise NotBelieved("the ID token has expired")
    if issued - SKEW_SECONDS > now or ("nbf" in claims and _time(claims, "nbf") - SKEW_SECONDS > now):
        raise NotBelieved("the ID token is from the future: compare the clocks")
    if now - issued > OLDEST_SECONDS:
        raise NotBelieved("the ID token was issued long ago: compare the clocks")


def _time(claims: Mapping[str, object], name: str) -> int:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < MAX_TIME:
        raise NotBelieved(f"the ID token's {name} is no time")
    return found
