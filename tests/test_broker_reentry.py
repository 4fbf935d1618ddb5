"""What a sign-in leaves for the next one after a drop."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from broker.accounts import Account
from broker.reentry import AFTER_DROP_SECONDS, MAX_KEPT, MAX_KEPT_EACH, Reentries, key_of
from broker.sessions import DROP_GRACE
from broker.sign_in import Way
from eva.instant import NS, Instant

START = Instant(1_790_000_000 * NS, 5_000 * NS)
HERE, THERE = IPv4Address("10.1.2.3"), IPv4Address("10.1.2.4")
OLIVIA = Account("olivia", frozenset({"cloudadmin"}), None, frozenset())


def later(seconds: float) -> Instant:
    return Instant(START.wall + round(seconds * NS), START.boot + round(seconds * NS))


def given(reentries: Reentries, number: int = 0, account: Account = OLIVIA, now: Instant = START) -> str:
    return reentries.issue(number.to_bytes(32), account, Way.OIDC, HERE, now)


def named(number: int) -> Account:
    return Account(f"olivia{number}", frozenset(), None, frozenset())


def test_it_is_good_once_for_the_same_account_by_the_same_way() -> None:
    reentries = Reentries()
    text = given(reentries)
    found = reentries.redeem(text, HERE, START)
    assert found is not None
    assert (found.account, found.way) == (OLIVIA, Way.OIDC)
    assert reentries.redeem(text, HERE, START) is None


def test_it_is_good_for_as_long_as_its_connection_lives() -> None:
    reentries = Reentries()
    text = given(reentries)
    assert reentries.redeem(text, HERE, later(86_400)) is not None


def test_it_does_not_outlive_the_sign_in_that_it_is_of() -> None:
    for seconds, good in ((99.9, True), (100, False)):
        reentries = Reentries()
        text = reentries.issue(bytes(32), OLIVIA, Way.OIDC, HERE, START, lapses=later(100).boot)
        found = reentries.redeem(text, HERE, later(seconds))
        assert (found is not None) is good
        assert found is None or found.lapses == later(100).boot


def test_it_is_good_until_a_minute_after_the_drop() -> None:
    for seconds, good in ((AFTER_DROP_SECONDS - 0.001, True), (AFTER_DROP_SECONDS, False)):
        reentries = Reentries()
        text = given(reentries)
        reentries.dropped(key_of(text), later(1000))
        assert (reentries.redeem(text, HERE, later(1000 + seconds)) is not None) is good


def test_a_session_waits_for_as_long() -> None:
    assert AFTER_DROP_SECONDS == DROP_GRACE


def test_from_another_address_it_is_void_from_then_on() -> None:
    reentries = Reentries()
    text = given(reentries)
    assert [reentries.redeem(text, where, START) for where in (THERE, HERE)] == [None, None]


def test_one_that_is_void_is_none() -> None:
    reentries = Reentries()
    text = given(reentries)
    reentries.void(key_of(text))
    assert reentries.redeem(text, HERE, START) is None


def test_a_drop_of_one_that_is_used_brings_nothing_back() -> None:
    reentries = Reentries()
    text = given(reentries)
    reentries.redeem(text, HERE, START)
    reentries.dropped(key_of(text), START)
    assert reentries.redeem(text, HERE, START) is None


@pytest.mark.parametrize("text", ["", "x", "é", "A" * 43, "A" * 44, "=" * 43])
def test_what_was_never_issued_is_none(text: str) -> None:
    reentries = Reentries()
    given(reentries, 7)
    assert reentries.redeem(text, HERE, START) is None


def test_one_account_has_so_many_and_pushes_out_only_its_own() -> None:
    reentries = Reentries()
    others = given(reentries, 999, named(1))
    texts = [given(reentries, number) for number in range(MAX_KEPT_EACH + 1)]
    assert len(reentries) == MAX_KEPT_EACH + 1
    assert reentries.redeem(texts[0], HERE, START) is None
    assert all(reentries.redeem(text, HERE, START) for text in (others, *texts[1:]))


def test_there_are_so_many_and_the_oldest_gives_way() -> None:
    reentries = Reentries()
    texts = [given(reentries, number, named(number)) for number in range(MAX_KEPT + 1)]
    assert len(reentries) == MAX_KEPT
    assert [reentries.redeem(text, HERE, START) is None for text in (texts[0], texts[1], texts[-1])] == [True, False, False]


def test_those_whose_time_is_over_are_forgotten() -> None:
    reentries = Reentries()
    for number in range(3):
        reentries.dropped(key_of(given(reentries, number)), START)
    given(reentries, 3, now=later(AFTER_DROP_SECONDS))
    assert len(reentries) == 1


def test_one_whose_time_is_not_over_outlasts_others_sign_ins() -> None:
    reentries = Reentries()
    text = given(reentries)
    reentries.dropped(key_of(text), START)
    given(reentries, 999, named(1), now=later(AFTER_DROP_SECONDS - 1))
    assert reentries.redeem(text, HERE, later(AFTER_DROP_SECONDS - 1)) is not None


def test_it_is_kept_hashed() -> None:
    reentries = Reentries()
    given(reentries, 7)
    assert (7).to_bytes(32) not in reentries._kept
