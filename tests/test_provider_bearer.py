"""provider/rest/bearer.py: what of a token is believed, and each way in which one is not."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc.key_set import Algorithm
from provider.rest.bearer import MAX_BYTES, BadBearer, Fault, bearer, parse, verify
from provider.rest.caller import Caller
from tests.bearer_parts import AUDIENCE, EDWARDS, ISSUER, NOW, OID, P256, PRIVATE, RSA, Pen, issuer, jwk, segment

PEN = Pen()
HEADER = {"kid": "key-1", "typ": "JWT"}


def read(token: str, key: Any = None, now: int = NOW, **settings: Any) -> Caller:
    unverified = parse(token, {ISSUER: issuer(**settings)})
    return verify(unverified, key or EDWARDS.public_key(), (AUDIENCE,), now)


def fault(token: str, key: Any = None, now: int = NOW, **settings: Any) -> Fault:
    with pytest.raises(BadBearer) as caught:
        read(token, key, now, **settings)
    return caught.value.fault


def test_who_calls():
    token = PEN.token(groups=["ops", "dev"], preferred_username="alice@example")
    assert read(token) == Caller(ISSUER, OID, "alice@example", frozenset({"ops", "dev"}), home=True)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_each_algorithm(algorithm: str):
    assert read(Pen(algorithm).token(), PRIVATE[algorithm].public_key()).id == OID


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_types_of_access_tokens(typ: str | None):
    assert read(PEN.token({"typ": typ})).id == OID


@pytest.mark.parametrize("typ", ["eva-consent+jwt", "eva-receipt+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", 1, ["JWT"]])
def test_another_type_is_refused(typ: object):
    assert fault(PEN.token({"typ": typ})) is Fault.INVALID


@pytest.mark.parametrize("audience", [[AUDIENCE], ["other", AUDIENCE]])
def test_one_audience_of_several(audience: list[str]):
    assert read(PEN.token(aud=audience)).id == OID


OTHER_AUDIENCES = [
    None,
    "",
    [],
    "other",
    AUDIENCE + "/",
    AUDIENCE.upper(),
    f" {AUDIENCE}",
    [[AUDIENCE]],
    {AUDIENCE: 1},
    1,
    [1, None],
]


@pytest.mark.parametrize("audience", OTHER_AUDIENCES)
def test_another_audience_is_refused(audience: object):
    assert fault(PEN.token(aud=audience)) is Fault.AUDIENCE


@pytest.mark.parametrize("name", ["https://evil.example", ISSUER + "/", ISSUER.upper(), "", None, [ISSUER], 1])
def test_another_issuer_is_refused(name: object):
    assert fault(PEN.token(iss=name)) is Fault.INVALID


# times


@pytest.mark.parametrize("late", [0, 59])
def test_within_the_skew_it_has_not_ended(late: int):
    assert read(PEN.token(exp=NOW), now=NOW + late).id == OID


def test_past_the_skew_it_has():
    assert fault(PEN.token(exp=NOW), now=NOW + 60) is Fault.EXPIRED


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_from_the_future(name: str):
    assert read(PEN.token(**{name: NOW + 60})).id == OID
    assert fault(PEN.token(**{name: NOW + 61})) is Fault.INVALID


def test_without_an_end_it_is_refused():
    assert fault(PEN.token(exp=None)) is Fault.INVALID


def test_without_a_beginning_it_has_begun():
    assert read(PEN.token(nbf=None, iat=None)).id == OID


@pytest.mark.parametrize("time", ["1800000000", 1.8e9, True, -1, 1 << 60, [NOW + 1]])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_what_is_no_time(name: str, time: object):
    assert fault(PEN.token(**{name: time})) is Fault.INVALID


# keys and signatures


def test_another_key_does_not_fit():
    assert fault(PEN.token(), jwt.PyJWK(jwk("EdDSA") | {"x": segment(b"\1" * 32)}).key) is Fault.INVALID


def test_an_algorithm_that_is_not_the_issuers_is_refused():
    assert fault(Pen("RS256").token(), RSA.public_key(), algorithms=frozenset({Algorithm.EDDSA})) is Fault.INVALID


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS512", "PS256", "", None, 1, ["EdDSA"], {"EdDSA": 1}])
def test_no_other_algorithm_is_taken(algorithm: object):
    head = segment({"alg": algorithm, **HEADER})
    assert fault(f"{head}.{segment(PEN.claims)}.{segment(b'x' * 32)}") is Fault.INVALID


def test_a_public_key_is_no_secret():
    """RFC 8725 2.1: an RSA public key taken for an HMAC secret."""
    head = segment({"alg": "HS256", **HEADER})
    assert fault(f"{head}.{segment(PEN.claims)}.{segment(b'x' * 32)}", RSA.public_key()) is Fault.INVALID


def test_a_key_of_another_kind_does_not_verify():
    assert fault(Pen("RS256").token(), P256.public_key()) is Fault.INVALID


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit"])
def test_a_header_with_a_key_of_its_own_is_refused(name: str):
    assert fault(PEN.token({name: jwk()})) is Fault.INVALID


@pytest.mark.parametrize("kid", [None, "", 1, "k" * 257])
def test_it_says_which_key_signed_it(kid: object):
    assert fault(PEN.token({"kid": kid})) is Fault.INVALID


def test_the_longest_name_of_a_key():
    assert read(PEN.token({"kid": "k" * 256})).id == OID


def test_a_claim_changed_under_the_signature():
    head, body, signature = PEN.token().split(".")
    changed = segment(PEN.claims | {"oid": "somebody-else"})
    assert (body != changed, fault(f"{head}.{changed}.{signature}")) == (True, Fault.INVALID)


# shapes


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"{", b"\xff", b'{"exp":NaN}', b"[" * 100_000, b""])
def test_a_body_that_is_no_object(body: bytes):
    assert fault(PEN.raw(body, HEADER)) is Fault.INVALID


def test_a_claim_twice_is_refused():
    text = json.dumps(PEN.claims)[:-1] + f', "oid": "{OID}"}}'
    assert fault(PEN.raw(text.encode(), HEADER)) is Fault.INVALID


SHAPES = ["", ".", "..", "...", "a.b", "a.b.c.d", "\u0430.b.c", "e30.e30.e30"]


@pytest.mark.parametrize("token", SHAPES)
def test_what_is_no_token(token: str):
    assert fault(token) is Fault.INVALID


def test_padding_is_refused():
    head, body, signature = PEN.token().split(".")
    assert fault(f"{head}.{body}.{signature}==") is Fault.INVALID


def test_too_long():
    assert fault(PEN.token(more="x" * MAX_BYTES)) is Fault.INVALID


def test_the_longest():
    found = (PEN.token(more="x" * more) for more in range(MAX_BYTES * 3 // 4 - 600, MAX_BYTES * 3 // 4))
    token = next(one for one in found if len(one) == MAX_BYTES)
    assert read(token).id == OID


@pytest.mark.parametrize("identifier", [None, "", "group:ops", f"{ISSUER}#alice", "a b", 42, ["x"]])
def test_an_id_that_names_nobody_or_somebody_else(identifier: object):
    assert fault(PEN.token(oid=identifier)) is Fault.INVALID


def test_the_settings_name_the_claim():
    assert read(PEN.token(oid=None, sub="alice"), principal_claim="sub").id == "alice"


@pytest.mark.parametrize("groups", [None, "ops", {"ops": 1}, ["a"] * 257, [1, None, "a b", "x#y"]])
def test_groups_that_are_no_list_of_ids_give_nothing(groups: object):
    assert read(PEN.token(groups=groups)).groups == frozenset()


@pytest.mark.parametrize("name", ["a\nb", "x" * 97, 7, "\u202ealice"])
def test_a_name_that_is_none_is_left_out(name: object):
    assert read(PEN.token(preferred_username=name)).name == ""


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: f"{segment(raw)}.{segment(raw)}.{segment(raw)}"))
def test_whatever_comes_is_refused_and_nothing_else(token: str):
    with pytest.raises(BadBearer):
        read(token)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_whatever_the_header_holds(header: dict[str, Any]):
    try:
        read(f"{segment(header)}.{segment(PEN.claims)}.{segment(b'x')}")
    except BadBearer:
        return
    raise AssertionError("an unsigned token was believed")


# the header of the request


@pytest.mark.parametrize("text", ["Bearer t", "bearer t", "BEARER  t "])
def test_the_token_of_a_request(text: str):
    assert bearer([text]) == "t"


@pytest.mark.parametrize(
    "found", [[], [""], ["Bearer"], ["Bearer "], ["Basic t"], ["t"], ["Bearer a b"], ["Bearer a", "Bearer a"]]
)
def test_no_token_or_two(found: list[str]):
    with pytest.raises(BadBearer) as caught:
        bearer(found)
    assert caught.value.fault is Fault.MISSING


def test_an_error_quotes_no_token():
    token = PEN.token(exp=NOW - 7200)
    with pytest.raises(BadBearer) as caught:
        read(token)
    assert not any(part in str(caught.value) for part in token.split("."))
