"""What is kept of a sign-in at an issuer, and whom the issuer's word makes."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from broker.accounts import Account, Accounts
from broker.settings import Oidc
from broker.sign_in import (
    BEGUN_SECONDS,
    MAX_PASSES,
    MAX_USED,
    PASS_SECONDS,
    Begun,
    NotAdmitted,
    Passes,
    admitted,
    cookies,
    set_cookie,
)
from eva.instant import NS, Instant
from oidc.relying_party import Pending
from oidc.settings import Client, Registration

START = Instant(1_790_000_000 * NS, 5_000 * NS)
HERE, THERE = IPv4Address("10.1.2.3"), IPv4Address("10.1.2.4")
OLIVIA = Account("olivia", frozenset({"cloudadmin"}), None, frozenset())
PENDING = Pending("s" * 43, "n" * 43, "v" * 43)
OIDC = Oidc(
    "Corp",
    "https://ercs01.example:8443",
    Registration(Client("https://id.example", "console"), None),
    "preferred_username",
    "groups",
    {"corp-ops": "cloudadmin", "/night shift": "night", "corp-ops-2": "cloudadmin"},
    8,
)
LAPSES = START.boot + 8 * 3600 * NS
LOCAL = Accounts((Account("alice", frozenset(), "phc", frozenset()),))


def later(seconds: float) -> Instant:
    return Instant(START.wall + round(seconds * NS), START.boot + round(seconds * NS))


# whom the issuer's word makes


def made(**claims: Any) -> Account:
    return admitted({"preferred_username": "olivia", "groups": ["corp-ops"], **claims}, OIDC, LOCAL)


def test_an_account() -> None:
    assert made() == OLIVIA


def test_only_the_groups_that_are_mapped() -> None:
    assert made(groups=["corp-ops", "cloudadmin", "corp-ops-2", "/night shift", "x"]).groups == {"cloudadmin", "night"}


def test_it_has_no_password_and_no_certificate() -> None:
    assert (made().password, made().certificates) == (None, frozenset())


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": []},
        {"groups": ["staff"]},
        {"groups": ["cloudadmin"]},  # the issuer's group of that name is not ours
        {"groups": "corp-ops"},
        {"groups": {"corp-ops": 1}},
        {"groups": [["corp-ops"]]},
        {"groups": None},
        {"groups": ["corp-ops"] * 1001},
        {"preferred_username": None},
        {"preferred_username": ["olivia"]},
        {"preferred_username": ""},
        {"preferred_username": "olivia smith"},
        {"preferred_username": "olivia\n"},
        {"preferred_username": "ólivia"},
        {"preferred_username": "tenant:olivia"},
        {"preferred_username": "o" * 65},
        {"preferred_username": "alice"},  # of the users file
        {"preferred_username": "Alice"},
    ],
    ids=lambda claims: str(claims)[:60],
)
def test_nobody(claims: dict[str, Any]) -> None:
    with pytest.raises(NotAdmitted):
        made(**claims)


# what a browser has to bring back


@pytest.fixture
def begun() -> Begun:
    return Begun(b"k" * 32)


def test_it_is_brought_back(begun: Begun) -> None:
    assert begun.open(begun.seal(PENDING, START), later(1)) == PENDING


def test_nothing_of_it_can_be_read(begun: Begun) -> None:
    assert "nnnn" not in begun.seal(PENDING, START)


def test_late(begun: Begun) -> None:
    sealed = begun.seal(PENDING, START)
    assert begun.open(sealed, later(BEGUN_SECONDS)) == PENDING
    assert begun.open(sealed, later(BEGUN_SECONDS + 1)) is None


def test_after_a_restart(begun: Begun) -> None:
    assert Begun(b"l" * 32).open(begun.seal(PENDING, START), START) is None


@pytest.mark.parametrize("sealed", [None, "", "x", "gAAAA" + "A" * 100, "é", "x" * 5000])
def test_what_nobody_sealed(begun: Begun, sealed: str | None) -> None:
    assert begun.open(sealed, START) is None


def test_it_is_used_once(begun: Begun) -> None:
    sealed = begun.seal(PENDING, START)
    begun.use(PENDING, START)
    assert begun.open(sealed, later(BEGUN_SECONDS)) is None


def test_what_was_used_is_forgotten_only_when_it_has_lapsed(begun: Begun) -> None:
    for number in range(MAX_USED - 1):
        begun.use(Pending(str(number), "n", "v"), later(number / 100))
    begun.use(PENDING, later(BEGUN_SECONDS))
    assert begun.open(begun.seal(PENDING, later(BEGUN_SECONDS)), later(BEGUN_SECONDS)) is None
    assert len(begun._used) == MAX_USED
    begun.use(Pending("x", "n", "v"), later(3 * BEGUN_SECONDS))
    assert len(begun._used) == 1


# passes


def given(passes: Passes, number: int = 0, now: Instant = START) -> str:
    return passes.issue(number.to_bytes(32), OLIVIA, HERE, now, LAPSES)


def test_a_pass_works_once() -> None:
    passes = Passes()
    text = given(passes)
    assert passes.stands(text, HERE, START)
    found = passes.redeem(text, HERE, START)
    assert found is not None
    assert (found.account, found.lapses) == (OLIVIA, LAPSES)
    assert passes.redeem(text, HERE, START) is None


def test_it_lapses() -> None:
    passes = Passes()
    text = given(passes)
    assert not passes.stands(text, HERE, later(PASS_SECONDS))
    assert passes.redeem(text, HERE, later(PASS_SECONDS)) is None


def test_it_is_for_its_address_and_void_once_shown_elsewhere() -> None:
    passes = Passes()
    text = given(passes)
    assert not passes.stands(text, THERE, START)
    assert passes.redeem(text, THERE, START) is None
    assert passes.redeem(text, HERE, START) is None


@pytest.mark.parametrize("text", [None, "", "x", "=", "é", "A" * 43])
def test_no_pass(text: str | None) -> None:
    passes = Passes()
    given(passes, 7)
    assert passes.redeem(text, HERE, START) is None


def test_there_are_not_more_than_so_many() -> None:
    passes = Passes()
    texts = [given(passes, number) for number in range(MAX_PASSES + 1)]
    assert len(passes) == MAX_PASSES
    assert [passes.stands(text, HERE, START) for text in (texts[0], texts[1], texts[-1])] == [False, True, True]


def test_it_is_kept_as_a_hash() -> None:
    passes = Passes()
    given(passes, 7)
    assert (7).to_bytes(32) not in passes._issued


# cookies


def test_cookies_are_read() -> None:
    assert cookies(["a=1; b=2", "c=x=y"]) == {"a": "1", "b": "2", "c": "x=y"}


def test_one_that_is_there_twice_is_none() -> None:
    assert cookies(["a=1; b=2; a=1"]) == {"b": "2"}


def test_a_cookie_is_for_this_host_by_tls_and_not_for_scripts() -> None:
    assert set_cookie("__Host-x", "t", 60, strict=True) == "__Host-x=t; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Strict"
    assert set_cookie("__Host-x", "t", 60, strict=False).endswith("SameSite=Lax")
