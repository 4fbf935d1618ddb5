"""The strict profile of compact JWS (RFC 7515, RFC 8037) that every signed message of ours keeps to.

PyJWT verifies the signature; by itself it accepts duplicate keys, float and string times, any `typ` and an embedded key, so
everything around the signature is checked here. Errors:

    BadToken        any reason to refuse; nothing else leaves `verify` and the Claims readers, whatever the input
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eva.members import Json, Members, strict_json

MAX_BYTES = 4096


class Typ(StrEnum):
    """The `typ` of each kind of token: who may sign it is in design section 3."""

    CONSENT = "eva-consent+jwt"
    REVOCATION = "eva-revocation+jwt"
    LEASE_REQUEST = "eva-lease-request+jwt"
    LEASE = "eva-lease+jwt"
    RECEIPT = "eva-receipt+jwt"
    KEYS = "eva-keys+jwt"
    QUERY = "eva-query+jwt"
    WATCH = "eva-watch+jwt"


class Fault(StrEnum):
    """What a token was refused for; a metric label."""

    SIZE = "size"
    ENCODING = "encoding"
    JSON = "json"
    HEADER = "header"
    KEY = "key"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    CLAIMS = "claims"
    TIME = "time"


class BadToken(Exception):
    """`fault` for counting, `detail` for the log; the detail quotes no signature and no claim's value."""

    def __init__(self, fault: Fault, detail: str) -> None:
        self.fault = fault
        self.detail = detail
        super().__init__(f"{fault}: {detail}")


def thumbprint(public: Ed25519PublicKey) -> str:
    """The `kid` of a key: the first 16 bytes of SHA-256 over its 32 raw bytes, base64url. A kid so names one key only."""
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b64(hashlib.sha256(raw).digest()[:16])


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the kid that its public half has everywhere."""

    private: Ed25519PrivateKey

    @property
    def kid(self) -> str:
        return thumbprint(self.private.public_key())

    def sign(self, typ: Typ, claims: Mapping[str, Json]) -> str:
        """The compact token. Raises ValueError where it would be longer than any reader takes."""
        payload = json.dumps(claims, separators=(",", ":")).encode()
        header = {"typ": str(typ), "kid": self.kid}
        token = jwt.PyJWS(algorithms=["EdDSA"]).encode(payload, self.private, algorithm="EdDSA", headers=header)
        if len(token) > MAX_BYTES:
            raise ValueError(f"the {typ} would be {len(token)} bytes, over {MAX_BYTES}")
        return token


Keyring: TypeAlias = Mapping[str, Ed25519PublicKey]


def b64(raw: bytes) -> str:
    """base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of canonical base64url: no padding, no stray bits, no other alphabet. Raises ValueError."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if b64(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def is_jti(text: str) -> bool:
    """Whether `text` is 128 bits in canonical base64url: 22 characters."""
    try:
        return len(text) == 22 and len(unb64(text)) == 16
    except ValueError:
        return False


def verify(token: str | bytes, typ: Typ, keys: Keyring, audience: str) -> Claims:
    """The claims of a token of this `typ`, signed by one of `keys`, meant for `audience`. Raises BadToken."""
    if len(token) > MAX_BYTES:
        raise BadToken(Fault.SIZE, f"{len(token)} bytes")
    try:
        text = token.decode("ascii") if isinstance(token, bytes) else token
        head, body, signature = text.split(".")
        header_raw, body_raw, _ = unb64(head), unb64(body), unb64(signature)
    except ValueError:
        raise BadToken(Fault.ENCODING, "not three canonical base64url parts") from None
    try:
        header, body_json = strict_json(header_raw), strict_json(body_raw)
    except ValueError as error:
        raise BadToken(Fault.JSON, str(error)[:80]) from None
    if header.keys() != {"alg", "typ", "kid"} or header["alg"] != "EdDSA" or header["typ"] != str(typ):
        raise BadToken(Fault.HEADER, f"not the header of a {typ}")
    kid = header["kid"]
    if not isinstance(kid, str) or kid not in keys:
        raise BadToken(Fault.KEY, "signed by a key that does not stand")
    try:
        jwt.PyJWS(algorithms=["EdDSA"]).decode(text, keys[kid], algorithms=["EdDSA"])
    except jwt.PyJWTError:
        raise BadToken(Fault.SIGNATURE, "the signature does not fit") from None
    claims = Claims(body_json, kid)
    if claims.text("aud") != audience:
        raise BadToken(Fault.AUDIENCE, "meant for another")
    return claims


class Claims(Members):
    """A verified token's claims. Every reader raises BadToken."""

    def __init__(self, body: Mapping[str, Json], kid: str) -> None:
        super().__init__(body)
        self.kid = kid

    def refuse(self, why: str) -> NoReturn:
        raise BadToken(Fault.CLAIMS, why)

    def jti(self, name: str = "jti") -> str:
        found = self.text(name)
        if not is_jti(found):
            self.refuse(f"{name} is not 128 bits in base64url")
        return found
