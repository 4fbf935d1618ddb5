"""provider/rest/throttle.py: buckets that empty, fill and stay bounded."""

from __future__ import annotations

from eva.instant import NS
from provider.rest.throttle import Throttle, Verdict


def test_an_hours_worth_at_once_then_a_pause():
    throttle = Throttle(3)
    assert [throttle.take("me", "s", 0).remaining for _ in range(3)] == [2, 1, 0]
    assert throttle.take("me", "s", 0) == Verdict(0, 1200)


def test_it_fills_steadily():
    throttle = Throttle(3600)
    for _ in range(3600):
        throttle.take("me", "s", 0)
    assert (throttle.take("me", "s", NS // 2).retry_after, throttle.take("me", "s", NS).admitted) == (1, True)


def test_it_never_holds_more_than_an_hours_worth():
    throttle = Throttle(2)
    throttle.take("me", "s", 0)
    assert throttle.take("me", "s", 10_000_000 * NS).remaining == 1


def test_who_waits_as_long_as_told_is_let_through():
    throttle = Throttle(7)
    for _ in range(7):
        throttle.take("me", "s", 0)
    pause = throttle.take("me", "s", 0).retry_after
    assert throttle.take("me", "s", pause * NS).admitted


def test_a_refused_request_costs_nothing():
    throttle = Throttle(1)
    throttle.take("me", "s", 0)
    assert [throttle.take("me", "s", at * NS).retry_after for at in (0, 1800, 3599)] == [3600, 1800, 1]


def test_callers_and_subscriptions_are_apart():
    throttle = Throttle(1)
    assert all(throttle.take(who, where, 0).admitted for who, where in (("me", "a"), ("me", "b"), ("you", "a")))


def test_the_bucket_longest_unused_is_forgotten():
    throttle = Throttle(1, most=2)
    for who in ("a", "b", "a", "c"):  # c pushes b out
        throttle.take(who, "", 0)
    assert [throttle.take(who, "", 0).admitted for who in ("a", "c", "b")] == [False, False, True]
