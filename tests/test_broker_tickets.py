"""broker/tickets.py: a ticket opens one session, once, within 30 s, from one address."""

from __future__ import annotations

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from random import Random
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.tickets import MAX_TICKETS, TICKET_SECONDS, Claim, Tickets, TicketsFull
from eva.control import TICKET_PREFIX
from eva.instant import NS, Instant

NOW = Instant(1_790_000_000 * NS, 5_000 * NS)
DESK = IPv4Address("10.1.2.3")
RANDOM = Random(7)


def fresh() -> bytes:
    return RANDOM.randbytes(32)


def after(seconds: float, wall: float | None = None) -> Instant:
    return Instant(NOW.wall + round((seconds if wall is None else wall) * NS), NOW.boot + round(seconds * NS))


@pytest.fixture
def tickets() -> Tickets:
    return Tickets()


@pytest.fixture
def ticket(tickets: Tickets) -> str:
    return tickets.issue(fresh(), "s1", "alice", DESK, NOW)


def test_a_ticket_gives_its_session_and_account(tickets: Tickets, ticket: str) -> None:
    assert tickets.redeem(ticket, DESK, NOW) == Claim("s1", "alice")


def test_a_second_use_gives_nothing(tickets: Tickets, ticket: str) -> None:
    tickets.redeem(ticket, DESK, NOW)
    assert tickets.redeem(ticket, DESK, NOW) is None


def test_of_a_hundred_uses_at_once_one_succeeds(tickets: Tickets) -> None:
    together = Barrier(100)

    def use(ticket: str) -> Claim | None:
        together.wait()
        return tickets.redeem(ticket, DESK, NOW)

    with ThreadPoolExecutor(100) as pool:
        for round_ in range(5):
            ticket = tickets.issue(fresh(), f"s{round_}", "alice", DESK, NOW)
            found = Counter(pool.map(use, [ticket] * 100))
            assert found == {None: 99, Claim(f"s{round_}", "alice"): 1}


@pytest.mark.parametrize(
    ("seconds", "valid"),
    [(0, True), (TICKET_SECONDS - 1e-9, True), (TICKET_SECONDS, False), (TICKET_SECONDS + 1, False)],
)
def test_it_lives_thirty_seconds(tickets: Tickets, ticket: str, seconds: float, valid: bool) -> None:
    assert (tickets.redeem(ticket, DESK, after(seconds)) is not None) is valid


def test_the_wall_clock_put_back_lengthens_nothing(tickets: Tickets, ticket: str) -> None:
    assert tickets.redeem(ticket, DESK, after(TICKET_SECONDS, wall=-3600)) is None


def test_another_address_gets_nothing_and_burns_it(tickets: Tickets, ticket: str) -> None:
    assert tickets.redeem(ticket, DESK + 1, NOW) is None
    assert tickets.redeem(ticket, DESK, NOW) is None


def test_a_new_ticket_voids_the_sessions_one_before(tickets: Tickets, ticket: str) -> None:
    second = tickets.issue(fresh(), "s1", "alice", DESK, NOW)
    assert tickets.redeem(ticket, DESK, NOW) is None
    assert tickets.redeem(second, DESK, NOW) == Claim("s1", "alice")


def test_a_session_that_ended_has_no_ticket(tickets: Tickets, ticket: str) -> None:
    tickets.void("s1")
    assert tickets.redeem(ticket, DESK, NOW) is None


def test_voiding_a_session_leaves_its_neighbour(tickets: Tickets, ticket: str) -> None:
    tickets.void("s2")
    assert tickets.redeem(ticket, DESK, NOW) is not None


def test_a_restart_knows_no_ticket(ticket: str) -> None:
    assert Tickets().redeem(ticket, DESK, NOW) is None


def mutants(ticket: str) -> list[str]:
    return [
        "",
        ticket[:-1],
        ticket + "=",
        ticket + "A",
        " " + ticket,
        ticket + "\n",
        ticket.swapcase(),
        ticket[:-1] + chr(ord(ticket[-1]) + 1),  # the same 32 bytes, but for two bits that canonical base64url keeps at 0
        TICKET_PREFIX + ticket,
        "\ud800" * 43,
        "\u212a" * 43,
        "/" * 43,
        "A" * 100_000,
    ]


@pytest.mark.parametrize("which", range(13))
def test_what_is_not_the_ticket_opens_nothing_and_does_not_burn_it(tickets: Tickets, ticket: str, which: int) -> None:
    assert tickets.redeem(mutants(ticket)[which], DESK, NOW) is None
    assert tickets.redeem(ticket, DESK, NOW) is not None


@given(st.binary(min_size=32, max_size=32), st.integers(0, 42), st.sampled_from("AQgw09_-zZ"))
def test_no_other_character_anywhere_opens_it(random: bytes, place: int, letter: str) -> None:
    tickets = Tickets()
    ticket = tickets.issue(random, "s1", "alice", DESK, NOW)
    changed = ticket[:place] + letter + ticket[place + 1 :]
    assert (tickets.redeem(changed, DESK, NOW) is not None) is (changed == ticket)


@pytest.mark.parametrize("count", [0, 16, 31, 33])
def test_too_little_randomness_is_refused(tickets: Tickets, count: int) -> None:
    with pytest.raises(ValueError, match="random bytes"):
        tickets.issue(bytes(count), "s1", "alice", DESK, NOW)


def test_a_ticket_fits_a_websocket_subprotocol(ticket: str) -> None:
    """RFC 6455 4.1: a subprotocol is a token of RFC 2616, so no separators."""
    assert len(ticket) == 43
    assert set(ticket) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_neither_the_ticket_nor_its_bytes_are_kept(tickets: Tickets) -> None:
    random = fresh()
    ticket = tickets.issue(random, "s1", "alice", DESK, NOW)
    kept = pickle.dumps(tickets)
    assert random not in kept
    assert ticket.encode() not in kept


def test_the_number_out_is_bounded(tickets: Tickets) -> None:
    for i in range(MAX_TICKETS):
        tickets.issue(fresh(), f"s{i}", "alice", DESK, NOW)
    with pytest.raises(TicketsFull):
        tickets.issue(fresh(), "one more", "alice", DESK, after(TICKET_SECONDS - 1))


def test_a_full_table_still_renews_a_session_of_its_own(tickets: Tickets) -> None:
    for i in range(MAX_TICKETS):
        tickets.issue(fresh(), f"s{i}", "alice", DESK, NOW)
    assert tickets.redeem(tickets.issue(fresh(), "s7", "alice", DESK, NOW), DESK, NOW) == Claim("s7", "alice")


def test_lapsed_ones_take_no_room(tickets: Tickets) -> None:
    for i in range(MAX_TICKETS):
        tickets.issue(fresh(), f"s{i}", "alice", DESK, NOW)
    tickets.issue(fresh(), "late", "alice", DESK, after(TICKET_SECONDS))
    assert len(tickets) == 1


def test_sweeping_keeps_what_still_lives(tickets: Tickets, ticket: str) -> None:
    second = tickets.issue(fresh(), "s2", "alice", DESK, after(10))
    tickets.sweep(after(TICKET_SECONDS))
    assert tickets.redeem(second, DESK, after(TICKET_SECONDS)) == Claim("s2", "alice")


def test_a_lapsed_ticket_takes_no_later_one_of_its_session_with_it(tickets: Tickets, ticket: str) -> None:
    second = tickets.issue(fresh(), "s1", "alice", DESK, after(20))
    tickets.sweep(after(TICKET_SECONDS + 5))
    assert tickets.redeem(second, DESK, after(TICKET_SECONDS + 5)) is not None


def test_nothing_is_kept_of_what_was_used_or_lapsed(tickets: Tickets, ticket: str) -> None:
    tickets.issue(fresh(), "s2", "alice", DESK, NOW)
    tickets.redeem(ticket, DESK, NOW)
    tickets.sweep(after(TICKET_SECONDS))
    assert [len(kept) for kept in vars(tickets).values()] == [0, 0]
