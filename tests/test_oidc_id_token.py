"""ID tokens: each rule of OpenID Connect Core 3.1.3.7, and what a token may not bring."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from oidc.failure import NotBelieved
from oidc.id_token import MAX_TOKEN, check_access_token, parse, verify
from oidc.key_set import Algorithm

ISSUER, CLIENT, NONCE, NOW = "https://id.example", "console", "n-1", 1_800_000_000
ED = ed25519.Ed25519PrivateKey.generate()
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "sub": "s", "nonce": NONCE, "iat": NOW, "exp": NOW + 300}


def signed(key: Any = ED, algorithm: str = "EdDSA", header: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(body, key, algorithm, {"kid": "k", **(header or {})})


def verified(token: str, key: Any = None, now: int = NOW) -> Any:
    return verify(parse(token), key or ED.public_key(), ISSUER, CLIENT, NONCE, now)


def raw(header: str, body: str = "{}") -> str:
    parts = (base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (header, body))
    return ".".join((*parts, "AAAA"))


def test_its_claims_are_given() -> None:
    assert verified(signed(groups=["a"]))["groups"] == ["a"]


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("RS256", rsa.generate_private_key(65537, 2048)), ("ES256", ec.generate_private_key(ec.SECP256R1())), ("EdDSA", ED)],
)
def test_each_algorithm_that_is_taken(algorithm: str, key: Any) -> None:
    token = parse(signed(key, algorithm))
    assert token.algorithm is Algorithm(algorithm)
    assert verified(token.text, key.public_key())["sub"] == "s"


def test_the_client_may_be_the_only_one_of_a_list() -> None:
    assert verified(signed(aud=[CLIENT], azp=CLIENT))["sub"] == "s"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example/"},
        {"iss": None},
        {"aud": "other"},
        {"aud": [CLIENT, "other"]},
        {"aud": []},
        {"aud": None},
        {"azp": "other"},
        {"nonce": "n-2"},
        {"nonce": None},
        {"nonce": 1},
        {"exp": NOW - 60},
        {"exp": None},
        {"exp": str(NOW + 60)},
        {"exp": NOW + 60.5},
        {"exp": True},
        {"iat": NOW + 61},
        {"iat": NOW - 601},
        {"iat": None},
        {"nbf": NOW + 61},
        {"nbf": "soon"},
        {"sub": ""},
        {"sub": None},
        {"sub": "s" * 256},
    ],
    ids=str,
)
def test_a_claim_that_does_not_fit(claims: dict[str, Any]) -> None:
    with pytest.raises(NotBelieved):
        verified(signed(**claims))


def test_what_is_just_within_the_skew_is_taken() -> None:
    assert verified(signed(exp=NOW - 59, iat=NOW - 600, nbf=NOW + 60))["sub"] == "s"


@pytest.mark.parametrize("claims", [{"iat": NOW + 60}, {"sub": "s" * 255}, {"exp": (1 << 40) - 1}])
def test_what_is_just_within_its_bound_is_taken(claims: dict[str, Any]) -> None:
    assert verified(signed(**claims))["iss"] == ISSUER


@pytest.mark.parametrize("claims", [{"exp": 1 << 40}, {"nbf": -1}, {"exp": 1 << 400}])
def test_what_is_no_time_is_not_believed(claims: dict[str, Any]) -> None:
    with pytest.raises(NotBelieved):
        verified(signed(**claims))


# of "token": what OpenSSL's sha256 and sha512 give, the left half, as base64url
AT_HASHES = [
    (Algorithm.RS256, "PEaenWxYddN6Q_NT1PiOYQ"),
    (Algorithm.ES256, "PEaenWxYddN6Q_NT1PiOYQ"),
    (Algorithm.EDDSA, "ImXaughy_DrvFp0Hk2XlkPDLyO1GwqeYTIpkKAPP2Ww"),
]


@pytest.mark.parametrize(("algorithm", "at_hash"), AT_HASHES)
def test_the_access_token_that_it_names_is_taken(algorithm: Algorithm, at_hash: str) -> None:
    check_access_token({"at_hash": at_hash}, algorithm, "token")


def test_it_need_not_name_an_access_token() -> None:
    check_access_token({}, Algorithm.RS256, "token")


@pytest.mark.parametrize("at_hash", [AT_HASHES[2][1], AT_HASHES[0][1] + "=", AT_HASHES[0][1][:-1], "", None, 1, ["x"]])
def test_it_names_another_access_token(at_hash: object) -> None:
    with pytest.raises(NotBelieved):
        check_access_token({"at_hash": at_hash}, Algorithm.RS256, "token")


def test_another_keys_signature() -> None:
    with pytest.raises(NotBelieved):
        verified(signed(ed25519.Ed25519PrivateKey.generate()))


def test_a_key_of_another_kind() -> None:
    with pytest.raises(NotBelieved):
        verified(signed(), ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize("algorithm", ["HS256", "PS256", "RS512"])
def test_another_algorithm_is_not_taken(algorithm: str) -> None:
    key: Any = "s" * 64 if algorithm == "HS256" else rsa.generate_private_key(65537, 2048)
    with pytest.raises(NotBelieved):
        parse(signed(key, algorithm))


def test_no_algorithm_is_not_taken() -> None:
    with pytest.raises(NotBelieved):
        parse(raw('{"alg": "none", "kid": "k"}'))


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit"])
def test_a_header_that_brings_a_key(name: str) -> None:
    with pytest.raises(NotBelieved):
        parse(raw(json.dumps({"alg": "EdDSA", "kid": "k", name: ["x"]})))


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", 1])
def test_a_token_of_another_type(typ: object) -> None:
    with pytest.raises(NotBelieved):
        parse(raw(json.dumps({"alg": "EdDSA", "kid": "k", "typ": typ})))


@pytest.mark.parametrize("kid", [None, "", 7, "k" * 257])
def test_a_header_that_names_no_key(kid: object) -> None:
    with pytest.raises(NotBelieved):
        parse(raw(json.dumps({"alg": "EdDSA", "kid": kid})))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "é.é.é",
        raw("[]"),
        raw("[" * 20_000),
        raw('{"alg": "EdDSA", "alg": "EdDSA", "kid": "k"}'),
        raw('{"alg": "EdDSA", "kid": "k"}', '{"exp": NaN}'),
        raw('{"alg": "EdDSA", "kid": "k"}') + "=",
        signed(filler="a" * MAX_TOKEN),
        signed() + "é",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(NotBelieved):
        parse(text)


def test_a_keys_name_of_256_characters_is_taken() -> None:
    assert parse(signed(header={"kid": "k" * 256})).kid == "k" * 256


def test_nothing_of_a_token_is_shown() -> None:
    token = parse(signed())
    assert NONCE not in repr(token)
    assert token.text not in repr(token)
