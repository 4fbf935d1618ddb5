"""broker/attempts.py: a guesser is slow, the operator at a familiar place never notices, and the state is small."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.attempts import (
    BY_ACCOUNT,
    BY_ADDRESS,
    BY_FAMILIAR,
    BY_NODE,
    FAMILIAR_SECONDS,
    MAX_BUCKETS,
    MAX_FAMILIAR,
    Attempts,
    Buckets,
    Rate,
)
from broker.safelist import Address
from eva.instant import NS, Instant

START = Instant(1_790_000_000 * NS, 5_000 * NS)
HOME = IPv4Address("10.1.2.3")
EVIL = IPv4Address("203.0.113.0")


def tries(attempts: Attempts, address: Address, account: str, count: int, now: Instant = START) -> int:
    """How many of `count` tries at once are admitted."""
    return sum(attempts.admit(address, account, now) is not None for _ in range(count))


def sign_in(attempts: Attempts, address: Address, account: str, now: Instant = START) -> bool:
    """A try with the right password."""
    attempt = attempts.admit(address, account, now)
    if attempt is not None:
        attempts.succeeded(attempt, now, account)
    return attempt is not None


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


# Strangers


def test_one_address_has_five_tries(attempts: Attempts) -> None:
    assert tries(attempts, EVIL, "alice", 100) == BY_ADDRESS.burst == 5


def test_it_has_no_more_under_other_names(attempts: Attempts) -> None:
    assert sum(tries(attempts, EVIL, f"a{i}", 1) for i in range(100)) == 5


def test_a_try_comes_back_after_twelve_seconds(attempts: Attempts) -> None:
    tries(attempts, EVIL, "alice", 5)
    assert tries(attempts, EVIL, "alice", 1, START.later(11.9)) == 0
    assert tries(attempts, EVIL, "alice", 2, START.later(12)) == 1


def test_an_hour_of_trying_is_three_hundred_and_five(attempts: Attempts) -> None:
    assert sum(tries(attempts, EVIL, "alice", 1, START.later(s)) for s in range(3601)) == 305


def test_refused_tries_are_not_held_against_it(attempts: Attempts) -> None:
    tries(attempts, EVIL, "alice", 1000)
    assert tries(attempts, EVIL, "alice", 100, START.later(60)) == 5


def test_a_wall_clock_put_forward_gives_nothing_back(attempts: Attempts) -> None:
    tries(attempts, EVIL, "alice", 5)
    assert tries(attempts, EVIL, "alice", 1, Instant(START.wall + 3600 * NS, START.boot)) == 0


def test_many_addresses_share_the_accounts_twenty(attempts: Attempts) -> None:
    assert sum(tries(attempts, EVIL + i, "alice", 5) for i in range(50)) == BY_ACCOUNT.burst == 20


def test_many_addresses_and_names_share_the_nodes_sixty(attempts: Attempts) -> None:
    assert sum(tries(attempts, EVIL + i, f"a{i}", 5) for i in range(100)) == BY_NODE.burst == 60


def test_one_address_cannot_empty_an_accounts_bucket_with_refused_tries(attempts: Attempts) -> None:
    tries(attempts, EVIL, "alice", 10_000)
    assert sum(tries(attempts, EVIL + i, "alice", 5) for i in range(1, 50)) == 15


def test_an_ipv6_network_of_64_bits_counts_as_one_address(attempts: Attempts) -> None:
    network = int(IPv6Address("2001:db8:1:2::"))
    assert sum(tries(attempts, IPv6Address(network + i * 0xFFFF_FFFF), f"a{i}", 1) for i in range(100)) == 5


def test_the_next_ipv6_network_is_another(attempts: Attempts) -> None:
    tries(attempts, IPv6Address("2001:db8:1:2::1"), "alice", 5)
    assert tries(attempts, IPv6Address("2001:db8:1:3::1"), "alice", 5) == 5


def test_ipv4_and_ipv6_share_no_bucket(attempts: Attempts) -> None:
    tries(attempts, IPv4Address(1), "alice", 5)
    assert tries(attempts, IPv6Address(1 << 64), "alice", 5) == 5


# A sign-in over an issuer, which names no account before it succeeds


def over_an_issuer(attempts: Attempts, address: Address, count: int, now: Instant = START) -> int:
    return sum(attempts.admit(address, None, now) is not None for _ in range(count))


def test_it_spends_from_the_address_and_the_node(attempts: Attempts) -> None:
    assert over_an_issuer(attempts, EVIL, 100) == BY_ADDRESS.burst
    assert tries(attempts, EVIL, "alice", 1) == 0
    assert sum(over_an_issuer(attempts, EVIL + i, 5) for i in range(1, 100)) == BY_NODE.burst - BY_ADDRESS.burst


def test_many_addresses_empty_no_accounts_bucket_by_it(attempts: Attempts) -> None:
    assert sum(over_an_issuer(attempts, EVIL + i, 1) for i in range(2 * BY_ACCOUNT.burst)) == 2 * BY_ACCOUNT.burst
    assert tries(attempts, HOME, "alice", 1) == 1


def test_one_that_succeeds_makes_the_address_familiar_for_its_account(attempts: Attempts) -> None:
    attempt = attempts.admit(HOME, None, START)
    assert attempt is not None
    attempts.succeeded(attempt, START, "olivia")
    assert attempts.is_familiar(HOME, START)
    for i in range(100):
        over_an_issuer(attempts, EVIL + i, 5)
    assert over_an_issuer(attempts, HOME, 1) == 1


# Operators


def test_right_passwords_are_never_limited(attempts: Attempts) -> None:
    assert all(sign_in(attempts, HOME, "alice") for _ in range(1000))


def test_wrong_ones_before_the_right_one_are_still_spent(attempts: Attempts) -> None:
    tries(attempts, HOME, "alice", 4)
    assert sign_in(attempts, HOME, "alice")
    assert tries(attempts, HOME, "bob", 5) == 1


def test_a_siege_of_the_account_from_everywhere_does_not_touch_a_familiar_address(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    for second in range(600):
        now = START.later(second)
        for i in range(40):
            attempts.admit(EVIL + i, "alice", now)
        assert sign_in(attempts, HOME, "alice", now)


def test_a_siege_from_the_operators_own_address_under_other_names_does_not_either(attempts: Attempts) -> None:
    """A jump host or a NAT is shared."""
    sign_in(attempts, HOME, "alice")
    for i in range(1000):
        attempts.admit(HOME, f"a{i}", START)
    assert sign_in(attempts, HOME, "alice")


def test_a_siege_of_the_whole_node_does_not_either(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    for i in range(1000):
        attempts.admit(EVIL + i, f"a{i}", START)
    assert sign_in(attempts, HOME, "alice")


def test_after_a_siege_a_strange_address_waits_three_seconds(attempts: Attempts) -> None:
    for i in range(40):
        tries(attempts, EVIL + i, "alice", 5)
    assert not sign_in(attempts, HOME, "alice")
    assert sign_in(attempts, HOME, "alice", START.later(3))


def test_guesses_from_a_familiar_address_are_limited_too(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    assert sum(tries(attempts, HOME, "alice", 1, START.later(s)) for s in range(3601)) == BY_FAMILIAR.burst + 300


def test_an_address_is_familiar_for_one_account_only(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    assert tries(attempts, HOME, "bob", 100) == BY_ADDRESS.burst


def test_an_address_is_familiar_for_a_week(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    assert attempts.is_familiar(HOME, START.later(FAMILIAR_SECONDS - 1))
    assert not attempts.is_familiar(HOME, START.later(FAMILIAR_SECONDS))
    assert tries(attempts, HOME, "alice", 100, START.later(FAMILIAR_SECONDS)) == BY_ADDRESS.burst


def test_a_failed_try_makes_nothing_familiar(attempts: Attempts) -> None:
    tries(attempts, HOME, "alice", 5)
    assert not attempts.is_familiar(HOME, START)


def test_what_is_remembered_at_start_is_familiar(attempts: Attempts) -> None:
    attempts.remember(HOME, "alice", START)
    assert attempts.is_familiar(HOME, START)
    assert tries(attempts, HOME, "alice", 100) == BY_FAMILIAR.burst


def test_twenty_consoles_opened_at_once_by_a_script_all_sign_in(attempts: Attempts) -> None:
    sign_in(attempts, HOME, "alice")
    admitted = [attempts.admit(HOME, "alice", START) for _ in range(20)]
    assert None not in admitted


# The state is small, and its bound forgets nothing


def test_familiar_places_are_bounded_and_the_oldest_goes(attempts: Attempts) -> None:
    for i in range(MAX_FAMILIAR):
        attempts.remember(HOME + i, "alice", START.later(i))
    late = START.later(MAX_FAMILIAR)
    assert not attempts.is_familiar(HOME, late)
    assert sum(attempts.is_familiar(HOME + i, late) for i in range(MAX_FAMILIAR)) == MAX_FAMILIAR // 2


def test_buckets_are_bounded() -> None:
    buckets = Buckets(BY_ADDRESS)
    for i in range(3 * MAX_BUCKETS):
        buckets.spend(i, START)
    assert len(buckets) == MAX_BUCKETS


def test_a_flood_of_strange_names_does_not_push_an_empty_bucket_out(attempts: Attempts) -> None:
    """The node admits one stranger each half second: MAX_BUCKETS of them outlast every bucket's return to full."""
    assert (MAX_BUCKETS - BY_NODE.burst) * BY_NODE.every > max(r.burst * r.every for r in (BY_ADDRESS, BY_ACCOUNT))
    for i in range(4):
        tries(attempts, EVIL + i, "alice", 5)
    for i in range(100_000):
        attempts.admit(EVIL + 1000 + i, f"a{i}", START.later(1))
    assert tries(attempts, EVIL + 200, "alice", 5, START.later(1)) == 0


@given(
    st.integers(1, 8),
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60),
)
def test_no_bucket_gives_more_than_its_rate(burst: int, every: int, steps: list[tuple[int, bool]]) -> None:
    """Against the plain definition: a count of tokens that grows with time up to `burst`."""
    buckets, now, tokens = Buckets(Rate(burst, every)), START, float(burst)
    for wait, back in steps:
        now = now.later(wait)
        tokens = min(float(burst), tokens + wait / every)
        if back:
            buckets.give_back("k", now)
            tokens = min(float(burst), tokens + 1)
        assert buckets.has_token("k", now) is (tokens > 1 - 1e-9)
        if buckets.has_token("k", now):
            buckets.spend("k", now)
            tokens -= 1
