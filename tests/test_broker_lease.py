"""broker/lease.py: authority counts from the question, only once, only when it is on disk, never for long."""

from __future__ import annotations

import pytest

from broker.lease import MAX_ASKED, Hold, LeaseState, Limits
from eva.instant import NS
from eva.wire import Lease
from tests.broker_parts import NODE, START, HandClock, jti


def answer(nonce: str, seq: int = 0) -> Lease:
    return Lease(NODE, nonce, seq, 0, START)


def leased(clock: HandClock) -> LeaseState:
    state, nonce = LeaseState(Limits()), jti()
    state.ask(nonce, clock.now())
    assert state.count(answer(nonce), 0)
    return state


def test_it_starts_lost():
    assert LeaseState(Limits()).hold(HandClock().now()) is Hold.LOST


@pytest.mark.parametrize(
    ("age_ns", "hold"),
    [(0, Hold.OPEN), (6 * NS, Hold.OPEN), (6 * NS + 1, Hold.HELD), (15 * NS, Hold.HELD), (15 * NS + 1, Hold.LOST)],
)
def test_the_ages(age_ns: int, hold: Hold):
    clock = HandClock()
    state = leased(clock)
    clock.boot += age_ns
    assert state.hold(clock.now()) is hold
    assert state.is_open(clock.now()) is (hold is Hold.OPEN)


def test_the_wall_clock_has_no_say():
    clock = HandClock()
    state = leased(clock)
    assert state.hold(clock.step(-86_400)) is Hold.OPEN
    clock.boot += 16 * NS
    assert state.hold(clock.now()) is Hold.LOST


def test_it_counts_from_the_question_not_the_answer():
    clock, state, nonce = HandClock(), LeaseState(Limits()), jti()
    state.ask(nonce, clock.now())
    clock.run(5)
    state.count(answer(nonce), 0)
    assert state.age(clock.now()) == 5
    assert state.hold(clock.run(2)) is Hold.HELD


def test_a_nonce_that_was_not_asked_counts_for_nothing():
    state = LeaseState(Limits())
    assert not state.count(answer(jti()), 0)


def test_an_answer_counts_once():
    clock, state, nonce = HandClock(), LeaseState(Limits()), jti()
    state.ask(nonce, clock.now())
    state.count(answer(nonce), 0)
    assert not state.count(answer(nonce), 0)


def test_an_old_answer_does_not_make_it_older():
    clock, state, old, new = HandClock(), LeaseState(Limits()), jti(), jti()
    state.ask(old, clock.now())
    state.ask(new, clock.run(2))
    state.count(answer(new), 0)
    state.count(answer(old), 0)
    assert state.age(clock.now()) == 0


def test_what_it_carries_must_be_on_disk():
    clock, state, nonce = HandClock(), LeaseState(Limits()), jti()
    state.ask(nonce, clock.now())
    assert not state.count(answer(nonce, seq=7), 6)
    assert state.hold(clock.now()) is Hold.LOST
    assert state.count(answer(nonce, seq=7), 7)


def test_old_questions_are_forgotten():
    clock, state = HandClock(), LeaseState(Limits())
    nonces = [jti() for _ in range(MAX_ASKED + 1)]
    for nonce in nonces:
        state.ask(nonce, clock.now())
    assert [state.expects(answer(n)) for n in (nonces[0], nonces[1])] == [False, True]


def test_dropped_it_is_lost_and_no_answer_brings_it_back():
    clock, nonce = HandClock(), jti()
    state = leased(clock)
    state.ask(nonce, clock.now())
    state.drop()
    assert not state.count(answer(nonce), 0)
    assert state.hold(clock.now()) is Hold.LOST
