"""broker/session.py: the table, every cell of it."""

from __future__ import annotations

import itertools

import pytest

from broker.session import TRANSITIONS, IllegalEvent, Operator, Session, State, Step
from eva.consent import Access, Kind
from eva.ending import Ending
from eva.ledger import Accepted, Term
from tests.broker_parts import PIN, HandClock, consent

LEGAL = {
    (State.NEW, Step.ADMIT): State.OPENING,
    (State.NEW, Step.END): State.ENDED,
    (State.OPENING, Step.OPENED): State.DETACHED,
    (State.OPENING, Step.END): State.ENDED,
    (State.DETACHED, Step.ATTACH): State.LIVE,
    (State.DETACHED, Step.END): State.ENDED,
    (State.LIVE, Step.DETACH): State.DETACHED,
    (State.LIVE, Step.END): State.ENDED,
}


def session(state: State = State.NEW) -> Session:
    clock = HandClock()
    accepted = Accepted(consent(), PIN, Term(0, 0))
    made = Session("s", Operator("alice", frozenset(), "127.0.0.1"), accepted, Kind.SERIAL, Access.VIEW, clock.now())
    made.state = state
    return made


def test_the_table_has_no_other_cell():
    assert {(s, e): after for s, row in TRANSITIONS.items() for e, after in row.items()} == LEGAL


@pytest.mark.parametrize(("state", "step"), list(itertools.product(State, Step)))
def test_every_event_in_every_state(state: State, step: Step):
    one = session(state)
    ending = Ending.OPERATOR_LEFT if step is Step.END else None
    if (state, step) in LEGAL:
        one.take(step, ending)
        assert (one.state, one.ending) == (LEGAL[state, step], ending)
    else:
        with pytest.raises(IllegalEvent):
            one.take(step, ending)
        assert (one.state, one.ending) == (state, None)


def test_an_end_needs_its_reason():
    one = session()
    with pytest.raises(IllegalEvent):
        one.take(Step.END)
    assert one.state is State.NEW


def test_nothing_but_an_end_has_a_reason():
    with pytest.raises(IllegalEvent):
        session().take(Step.ADMIT, Ending.OPERATOR_LEFT)


def test_only_a_detached_session_waits():
    one = session(State.LIVE)
    one.wait_until(7)
    assert one.deadline is None
    one.take(Step.DETACH)
    one.wait_until(7)
    assert one.deadline == 7


def test_one_who_is_back_waits_no_more():
    one = session(State.DETACHED)
    one.wait_until(7)
    one.take(Step.ATTACH)
    assert one.deadline is None
