"""Bearer tokens of OIDC issuers (RFC 6750, RFC 7519, RFC 9068), read strictly. Pure.

PyJWT verifies the signature, with a key that comes from the issuer's key set as the settings name it and from nowhere else; a
token that brings or points to a key is refused. Times, issuer and audience are checked here, against a `now` that is given.
Errors:

    BadBearer       any reason to refuse: `fault`, and a `detail` for caller and log that quotes no signature
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

import jwt

from eva.token import unb64
from oidc.jwt_json import read_object
from oidc.key_set import Algorithm, PublicKey
from provider.rest.caller import MAX_GROUPS, Caller, is_id
from provider.rest.settings import Issuer

MAX_BYTES = 16_384  # a token with 200 groups is about 9 KB
MAX_TIME = 1 << 40
MAX_NAME = 96

# `typ` is optional (RFC 7519 5.1) and compares without regard to case (RFC 7515 4.1.9); at+jwt is RFC 9068's
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_FOREIGN_KEYS = ("jwk", "jku", "x5u", "x5c", "crit")


class Fault(StrEnum):
    """Why, in the code that ARM answers with."""

    MISSING = "AuthenticationFailed"
    INVALID = "InvalidAuthenticationToken"
    EXPIRED = "ExpiredAuthenticationToken"
    AUDIENCE = "InvalidAuthenticationTokenAudience"


class BadBearer(Exception):
    def __init__(self, fault: Fault, detail: str) -> None:
        self.fault = fault
        self.detail = detail
        super().__init__(f"{fault}: {detail}")


def _invalid(detail: str) -> NoReturn:
    raise BadBearer(Fault.INVALID, f"The access token is invalid: {detail}.")


def bearer(authorization: list[str]) -> str:
    """The token of the Authorization headers of a request. Raises BadBearer."""
    if not authorization:
        raise BadBearer(Fault.MISSING, "Authentication failed. The 'Authorization' header is missing.")
    scheme, _, token = authorization[0].partition(" ")
    if len(authorization) > 1 or scheme.lower() != "bearer" or not token.strip() or " " in token.strip():
        raise BadBearer(Fault.MISSING, "Authentication failed. The 'Authorization' header is provided in an invalid format.")
    return token.strip()


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token as it reads before anything of it is believed: by its issuer and `kid` the key is looked for."""

    text: str
    issuer: Issuer
    kid: str
    algorithm: Algorithm
    claims: Mapping[str, object]


def parse(token: str, issuers: Mapping[str, Issuer]) -> Unverified:
    """`issuers` by the exact `iss`. Raises BadBearer."""
    if len(token) > MAX_BYTES or not token.isascii():
        _invalid("it is too long, or no token")
    try:
        head, body, signature = token.split(".")
        header, claims = read_object(unb64(head)), read_object(unb64(body))
        unb64(signature)
    except ValueError:
        _invalid("it is no JSON Web Token")
    if any(name in header for name in _FOREIGN_KEYS):
        _invalid("its header brings, or points to, a key of its own")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        _invalid("it is a token of another type")
    issuer = issuers.get(_text(claims, "iss"))
    if issuer is None:
        _invalid("its issuer is not known here")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        _invalid("its algorithm is not taken from this issuer")
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        _invalid("it does not say which key signed it")
    return Unverified(token, issuer, kid, Algorithm(algorithm), claims)


def verify(token: Unverified, key: PublicKey, audiences: tuple[str, ...], now: int) -> Caller:
    """Who calls, by a token signed with `key`, which is the issuer's. `now`: Unix seconds. Raises BadBearer."""
    algorithm = str(token.algorithm)
    try:
        jwt.PyJWS(algorithms=[algorithm]).decode(token.text, key, algorithms=[algorithm])
    except (jwt.PyJWTError, TypeError):  # TypeError: PyJWT's for a key of another kind
        _invalid("its signature does not fit")
    _check_times(token, now)
    _check_audience(token.claims, audiences)
    identifier = _text(token.claims, token.issuer.principal_claim)
    if not is_id(identifier):
        _invalid(f"its claim {token.issuer.principal_claim} names nobody")
    return Caller(
        issuer=token.issuer.name,
        id=identifier,
        name=_name(token.claims.get(token.issuer.name_claim)),
        groups=_groups(token.claims.get(token.issuer.groups_claim)),
        home=token.issuer.home,
    )


def _check_times(token: Unverified, now: int) -> None:
    skew = token.issuer.clock_skew_seconds
    expires = _time(token.claims, "exp")
    if expires is None:
        _invalid("it does not say when it ends")
    if expires + skew <= now:
        raise BadBearer(Fault.EXPIRED, f"The access token expiry UTC time '{expires}' is earlier than current UTC time '{now}'.")
    for name in ("nbf", "iat"):
        begins = _time(token.claims, name)
        if begins is not None and begins - skew > now:
            _invalid("it is from the future")


def _check_audience(claims: Mapping[str, object], audiences: tuple[str, ...]) -> None:
    found = claims.get("aud")
    meant = [found] if isinstance(found, str) else found
    if not isinstance(meant, list) or not any(one in audiences for one in meant if isinstance(one, str)):
        raise BadBearer(
            Fault.AUDIENCE,
            "The access token has been obtained for wrong audience or resource. It should exactly match with one of the "
            f"allowed audiences '{','.join(audiences)}'.",
        )


def _text(claims: Mapping[str, object], name: str) -> str:
    found = claims.get(name)
    if not isinstance(found, str):
        _invalid(f"it has no claim {name}")
    return found


def _time(claims: Mapping[str, object], name: str) -> int | None:
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < MAX_TIME:
        _invalid(f"its claim {name} is no time")
    return found


def _name(found: object) -> str:
    """For people to read only: what is no name is left out."""
    return found if isinstance(found, str) and found.isprintable() and len(found) <= MAX_NAME else ""


def _groups(found: object) -> frozenset[str]:
    """What is no list of ids gives no right, and is no reason to refuse: an issuer with too many groups leaves them out."""
    if not isinstance(found, list) or len(found) > MAX_GROUPS:
        return frozenset()
    return frozenset(one for one in found if isinstance(one, str) and is_id(one))
