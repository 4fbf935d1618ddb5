"""Key sets as issuers have them."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from oidc.key_set import Algorithm, read_key_set
from tests.bearer_parts import EDWARDS, PRIVATE, jwk, jwks, segment


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_each_kind_of_key(algorithm: str):
    found = read_key_set(jwks(jwk(algorithm)))
    assert found == {("key-1", Algorithm(algorithm)): PRIVATE[algorithm].public_key()}


def weak_rsa() -> dict[str, Any]:
    public = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - that is the test
    return json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(public)) | {"kid": "key-1"}


def other_curve() -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return json.loads(jwt.get_algorithm_by_name("ES384").to_jwk(public)) | {"kid": "key-1"}


UNUSABLE = [
    jwk(kid=None),
    jwk(kid=1),
    jwk(use="enc"),
    jwk(use=None, key_ops=["sign"]),
    jwk(alg="RS256"),
    jwk(x="AA"),
    jwk(kty="unknown"),
    {"kty": "oct", "k": segment(b"secret"), "kid": "key-1"},
    {**jwk(), "d": segment(EDWARDS.private_bytes_raw())},  # a private key in a public set is nobody's
    jwk(alg="none"),
    jwk(alg="HS256"),
    jwk(alg=["EdDSA"]),
    jwk(crv={}),
    weak_rsa(),
    other_curve(),
    {},
]


@pytest.mark.parametrize("entry", UNUSABLE)
def test_a_key_that_cannot_be_used_is_left_out(entry: dict[str, Any]):
    good = jwk("RS256", "good")
    assert list(read_key_set(jwks(entry, good))) == [("good", Algorithm.RS256)]


@pytest.mark.parametrize("entry", [5, None, "key", ["kty"]])
def test_what_is_no_entry_is_left_out(entry: Any) -> None:
    assert list(read_key_set(jwks(entry, jwk("RS256", "good")))) == [("good", Algorithm.RS256)]


def test_a_set_of_64_is_read() -> None:
    assert len(read_key_set(jwks(*(jwk(kid=str(number)) for number in range(64))))) == 64


@pytest.mark.parametrize("bits", [2048, 8192])
def test_an_rsa_key_at_its_bounds_is_taken(bits: int) -> None:
    numbers = jwt.utils.to_base64url_uint((1 << bits - 1) | 1).decode()
    assert len(read_key_set(jwks(jwk("RS256", n=numbers)))) == 1


def test_two_keys_of_one_name_are_none():
    assert list(read_key_set(jwks(jwk(), jwk(), jwk("ES256")))) == [("key-1", Algorithm.ES256)]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 100_000, jwks(*[jwk()] * 65)])
def test_what_is_no_key_set(raw: bytes):
    with pytest.raises(ValueError, match=r".*"):
        read_key_set(raw)


def test_an_rsa_key_that_would_cost_too_much_is_left_out() -> None:
    numbers = jwt.utils.to_base64url_uint((1 << 16_383) | 1).decode()
    assert read_key_set(jwks(jwk("RS256", n=numbers))) == {}


@pytest.mark.timeout(60)
def test_no_primes_are_looked_for_in_a_private_key() -> None:
    """Of 8 KB an issuer could make hours of work, in the loop that every console is served by."""
    modulus, exponent = (jwt.utils.to_base64url_uint((1 << 24_575) | one).decode() for one in (1, 3))
    entry = jwk("RS256", n=modulus) | {"d": exponent}
    assert read_key_set(jwks(entry)) == {}
