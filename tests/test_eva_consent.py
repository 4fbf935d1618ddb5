"""eva/consent.py: what a consent and a revocation say, whom they admit, and when they are in time."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import (
    CLOUDADMIN,
    MAX_AHEAD,
    MAX_OPERATORS,
    MAX_SECONDS,
    PROVIDER,
    Access,
    Consent,
    Kind,
    Principal,
    Revocation,
    is_node_name,
)
from eva.ending import REVOKING, Ending
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Claims, Fault, b64

NOW = 1_790_000_000
JTI = b64(bytes(range(16)))
RID = ResourceId("0b1c9f6e-3a5d-4c8e-9f10-2a3b4c5d6e7f", "rg", "vm-01")
CONSENT = Consent(
    jti=JTI,
    cid=JTI,
    node="AzS-ERCS01",
    resource_id=RID,
    giver="tenant@example.com",
    operators=frozenset({CLOUDADMIN, Principal(False, "alice")}),
    kinds=frozenset({Kind.SERIAL}),
    access=Access.KEYBOARD,
    issued_at=NOW,
    expires_at=NOW + MAX_SECONDS,
    watched=True,
    reason="cannot sign in",
    kid="k",
)
SINGLE = Revocation(JTI, "AzS-ERCS01", 7, NOW, Ending.CONSENT_REVOKED, NOW + 60, consent=b64(bytes(16)))
WATERMARK = Revocation(JTI, "AzS-ERCS01", 8, NOW, Ending.FEATURE_DISABLED, NOW + 60, resource_id=RID, issued_by=NOW)

jtis = st.binary(min_size=16, max_size=16).map(b64)
names = st.from_regex(r"[A-Za-z0-9._@+-]{1,64}", fullmatch=True).filter(str.isascii)
principals = st.builds(Principal, st.booleans(), names)
printable = st.text().filter(str.isprintable)
moments = st.integers(0, 1 << 40)


def consent(changes: dict[str, Json] | None = None, without: str = "") -> Consent:
    claims = CONSENT.to_claims() | (changes or {})
    claims.pop(without, None)
    return Consent.from_claims(Claims(claims, "k"))


def revocation(base: Revocation, changes: dict[str, Json] | None = None, without: str = "") -> Revocation:
    claims = base.to_claims() | (changes or {})
    claims.pop(without, None)
    return Revocation.from_claims(Claims(claims, "k"))


# Principals


@pytest.mark.parametrize("text", ["group:cloudadmin", "account:alice", "account:alice@cloud.example", "group:a+b-c_d.e"])
def test_a_principal_is_written_as_it_is_read(text: str) -> None:
    assert str(Principal.parse(text)) == text


@given(principals)
def test_every_principal_reads_back(principal: Principal) -> None:
    assert Principal.parse(str(principal)) == principal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "account:",
        "group:",
        ":alice",
        "Account:alice",
        "user:alice",
        "account:a b",
        "account:a:b",
        "account:a\n",
        " account:a",
        "account:\u212a",
        "account:\uff41",
        "account:" + "x" * 65,
        "account:a\0",
        "account:*",
        "group:,",
    ],
)
def test_what_is_no_principal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not account:NAME or group:NAME"):
        Principal.parse(text)


def test_a_group_is_no_account_of_the_same_name() -> None:
    assert Principal(True, "x") != Principal(False, "x")


@pytest.mark.parametrize("name", ["AzS-ERCS01", "a", "0", "x" * 63])
def test_node_names(name: str) -> None:
    assert is_node_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a+", "#", "a.b", "a b", "x" * 64, "a\n", "\u212a", "$SYS", "a\0"])
def test_what_is_no_node_name_would_be_unsafe_in_a_topic(name: str) -> None:
    assert not is_node_name(name)


# Whom a consent admits


@pytest.mark.parametrize(
    ("account", "groups", "admitted"),
    [
        ("alice", set(), True),
        ("bob", {"cloudadmin"}, True),
        ("bob", {"x", "cloudadmin"}, True),
        ("bob", set(), False),
        ("bob", {"x"}, False),
        ("Alice", set(), False),
        ("bob", {"CloudAdmin"}, False),
        ("cloudadmin", set(), False),  # an account named like the group
        ("bob", {"alice"}, False),  # a group named like the account
        ("account:alice", set(), False),
        ("", set(), False),
    ],
)
def test_only_those_named_are_admitted(account: str, groups: set[str], admitted: bool) -> None:
    assert CONSENT.admits(account, frozenset(groups)) is admitted


# Its times


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        (NOW, None),
        (NOW - MAX_AHEAD, None),
        (NOW - MAX_AHEAD - 1, Fault.TIME),
        (NOW + MAX_SECONDS - 1, None),
        (NOW + MAX_SECONDS, Fault.TIME),
        (NOW + MAX_SECONDS + 1, Fault.TIME),
        (0, Fault.TIME),
    ],
)
def test_it_is_in_time_from_thirty_seconds_before_its_issue_to_its_end(at: int, fault: Fault | None) -> None:
    assert CONSENT.time_fault(at) is fault


@pytest.mark.parametrize("seconds", [1, 60, MAX_SECONDS])
def test_a_length_of_up_to_eight_hours_is_taken(seconds: int) -> None:
    assert consent({"exp": NOW + seconds}).expires_at == NOW + seconds


@pytest.mark.parametrize("seconds", [0, -1, MAX_SECONDS + 1, 10**9])
def test_another_length_is_refused(seconds: int) -> None:
    with pytest.raises(BadToken) as caught:
        consent({"exp": NOW + seconds})
    assert caught.value.fault is Fault.TIME


# Its claims


@given(
    st.builds(
        Consent,
        jti=jtis,
        cid=jtis,
        node=printable.filter(lambda t: len(t) <= 512),
        resource_id=st.just(RID),
        giver=printable.filter(lambda t: 0 < len(t) <= 128),
        operators=st.frozensets(principals, min_size=1, max_size=MAX_OPERATORS),
        kinds=st.frozensets(st.sampled_from(Kind), min_size=1),
        access=st.sampled_from(Access),
        issued_at=moments,
        expires_at=st.just(0),
        watched=st.booleans(),
        paused=st.booleans(),
        reason=printable.filter(lambda t: len(t) <= 256),
        kid=st.just("k"),
    ),
    st.integers(1, MAX_SECONDS),
)
def test_every_consent_reads_back(made: Consent, seconds: int) -> None:
    made = dataclasses.replace(made, expires_at=made.issued_at + seconds)
    assert Consent.from_claims(Claims(made.to_claims(), "k")) == made


@pytest.mark.parametrize("name", sorted(CONSENT.to_claims()))
def test_a_consent_without_one_of_its_claims_is_refused(name: str) -> None:
    with pytest.raises(BadToken):
        consent(without=name)


@pytest.mark.parametrize("name", sorted(CONSENT.to_claims()))
@pytest.mark.parametrize("value", [None, 1.0, [], {}, [[]], -1, 1 << 64, "\0", "\u202e", "\ud800", ["a"], {"a": 1}], ids=ascii)
def test_a_claim_of_another_sort_is_refused(name: str, value: Json) -> None:
    with pytest.raises(BadToken):
        consent({name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"nbf": NOW},
        {"iss": "eva-node"},
        {"iss": "EVA-PROVIDER"},
        {"jti": JTI[:-1]},
        {"jti": JTI + "A"},
        {"jti": JTI[:-1] + "x"},  # stray bits
        {"jti": JTI + "=="},
        {"cid": JTI[:-1]},
        {"cid": JTI + "=="},
        {"cid": ""},
        {"sub": ""},
        {"sub": "x" * 129},
        {"reason": "x" * 257},
        {"reason": "a\nb"},
        {"operators": ["group:cloudadmin", "group:cloudadmin"]},
        {"operators": ["*"]},
        {"operators": [f"account:a{i}" for i in range(MAX_OPERATORS + 1)]},
        {"operators": "group:cloudadmin"},
        {"kinds": ["serial", "serial"]},
        {"kinds": ["Serial"]},
        {"kinds": ["power"]},
        {"access": "root"},
        {"access": "KEYBOARD"},
        *({name: True} for name in CONSENT.to_claims() if name not in ("watched", "paused")),
        {"watched": 1},
        {"paused": 1},
        {"watched": "true"},
        {"iat": str(NOW)},
        {"resource_id": str(RID) + "/"},
    ],
    ids=ascii,
)
def test_a_claim_that_means_nothing_is_refused(changes: dict[str, Json]) -> None:
    with pytest.raises(BadToken):
        consent(changes)


def test_the_refusal_quotes_no_value() -> None:
    with pytest.raises(BadToken) as caught:
        consent({"access": "SECRET-VALUE"})
    assert "SECRET-VALUE" not in str(caught.value)


# Revocations


@pytest.mark.parametrize("base", [SINGLE, WATERMARK], ids=["single", "watermark"])
def test_a_revocation_reads_back(base: Revocation) -> None:
    assert revocation(base) == base


@pytest.mark.parametrize("base", [SINGLE, WATERMARK], ids=["single", "watermark"])
def test_a_revocation_without_one_of_its_claims_is_refused(base: Revocation) -> None:
    for name in base.to_claims():
        with pytest.raises(BadToken):
            revocation(base, without=name)


@pytest.mark.parametrize("base", [SINGLE, WATERMARK], ids=["single", "watermark"])
@pytest.mark.parametrize("value", [None, True, 1.0, [], {}, -1, 1 << 64, "\0", "\ud800"], ids=ascii)
def test_a_revocations_claim_of_another_sort_is_refused(base: Revocation, value: Json) -> None:
    for name in base.to_claims():
        with pytest.raises(BadToken):
            revocation(base, {name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"resource_id": str(RID)},
        {"issued_by": NOW},
        {"resource_id": str(RID), "issued_by": NOW},
        {"seq": 0},
        {"iss": "AzS-ERCS01"},
        {"more": 1},
        {"consent": "*"},
    ],
    ids=ascii,
)
def test_a_revocation_of_two_sorts_or_none_is_refused(changes: dict[str, Json]) -> None:
    with pytest.raises(BadToken):
        revocation(SINGLE, changes)


@pytest.mark.parametrize("ending", Ending)
def test_only_some_endings_are_the_providers_to_give(ending: Ending) -> None:
    if ending in REVOKING:
        assert revocation(SINGLE, {"reason": ending.word}).reason is ending
    else:
        with pytest.raises(BadToken):
            revocation(SINGLE, {"reason": ending.word})


def test_both_are_signed_by_the_provider_for_one_node() -> None:
    for claims in (CONSENT.to_claims(), SINGLE.to_claims(), WATERMARK.to_claims()):
        assert (claims["iss"], claims["aud"]) == (PROVIDER, "AzS-ERCS01")
