"""provider/watch/session.py: what is kept in a watching tenant's cookies, and how the cookies are written and read."""

from __future__ import annotations

import json

import pytest

from oidc.relying_party import Pending
from provider.rest.caller import Caller
from provider.watch.seal import Purpose, seal
from provider.watch.session import (
    MAX_COOKIE,
    MAX_GROUPS,
    SESSION_COOKIE,
    SIGN_IN_COOKIE,
    Outcome,
    Session,
    SignIn,
    Verdict,
    cookies,
    session_cookie,
    sign_in_cookie,
)
from tests.provider_parts import signing_key

CID = "AAAAAAAAAAAAAAAAAAAAAA"
CALLER = Caller("https://login.example/x", "olivia", "Olivia Ö", frozenset({"ops", "dev"}), False)
SESSION = Session(CID, CALLER, 1_800_000_000)
SIGN_IN = SignIn(CID, Pending("s" * 43, "n" * 43, "v" * 43))
OUTCOME = Outcome(CID, Verdict.NOT_GIVER, "Nora")


def test_a_session_reads_back():
    assert Session.from_json(SESSION.to_json()) == SESSION


def test_one_without_groups_or_name_reads_back():
    bare = Session(CID, Caller("https://login.example", "olivia", "", frozenset(), True), 1)
    assert Session.from_json(bare.to_json()) == bare


def test_a_sign_in_reads_back():
    assert SignIn.from_json(SIGN_IN.to_json()) == SIGN_IN


@pytest.mark.parametrize("verdict", Verdict)
def test_an_outcome_reads_back(verdict: Verdict):
    assert Outcome.from_json(Outcome(CID, verdict, "").to_json()) == Outcome(CID, verdict, "")


@pytest.mark.parametrize("kind", [Session, SignIn, Outcome])
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cid": 1}', '{"cid": "x", "cid": "y"}'])
def test_what_is_none(kind: type[Session | SignIn | Outcome], text: str):
    with pytest.raises(ValueError, match=r"."):
        kind.from_json(text)


@pytest.mark.parametrize("one", [SESSION, SIGN_IN, OUTCOME])
def test_what_says_more_is_none(one: Session | SignIn | Outcome):
    more = json.dumps(json.loads(one.to_json()) | {"more": 1})
    with pytest.raises(ValueError, match=r"unknown"):
        type(one).from_json(more)


def test_the_longest_session_is_kept_by_a_browser():
    groups = frozenset(f"{number}{'g' * 127}" for number in range(MAX_GROUPS))
    longest = Session(CID, Caller("https://" + "i" * 247, "p" * 128, "Ö" * 96, groups, False), 1 << 40)
    text = session_cookie(CID, seal(signing_key(), Purpose.SESSION, longest.to_json(), 1), 28_800)
    assert len(text.partition(";")[0]) <= MAX_COOKIE


def test_a_sessions_cookie_goes_to_its_own_page_only():
    name, _, attributes = session_cookie(CID, "x", 60).partition("; ")
    assert name == f"{SESSION_COOKIE}=x"
    assert attributes == f"Path=/watch/{CID}; Max-Age=60; Secure; HttpOnly; SameSite=Strict"


def test_a_sign_ins_cookie_is_this_hosts_alone():
    """RFC 6265bis 4.1.3.2: Secure, Path=/ and no Domain, or a browser does not take the name."""
    name, _, attributes = sign_in_cookie("x").partition("; ")
    assert name == f"{SIGN_IN_COOKIE}=x"
    assert attributes == "Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"


READ: list[tuple[list[str], list[str]]] = [
    (["a=1; b=2"], ["1"]),
    (["b=2;a=1"], ["1"]),
    (["a=1=="], ["1=="]),
    (["a=1; a=2"], ["1", "2"]),
    (["a=1", "a=2"], ["1", "2"]),
    (["aa=1; xa=2; A=3; a"], []),
    (["a=" + "x" * 4097], []),
    (["; ".join(f"a={number}" for number in range(9))], ["0", "1", "2", "3"]),
    ([], []),
    ([""], []),
]


@pytest.mark.parametrize(("headers", "values"), READ)
def test_a_requests_cookies(headers: list[str], values: list[str]):
    assert cookies(headers, "a") == values
