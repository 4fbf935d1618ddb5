"""broker/allowance.py: never more than LIMIT bytes without a sign that the guest took them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.allowance import LIMIT, EchoAllowance, QueueAllowance


def test_output_of_the_guest_gives_all_back():
    allowance = EchoAllowance()
    allowance.wrote(200)
    allowance.guest_spoke()
    assert (allowance.room, allowance.stale) == (LIMIT, 0)


def test_send_anyway_gives_room_and_forgets_nothing():
    allowance = EchoAllowance()
    allowance.wrote(LIMIT)
    allowance.release()
    allowance.wrote(LIMIT)
    assert (allowance.room, allowance.stale) == (0, 2 * LIMIT)


@given(st.lists(st.one_of(st.integers(1, 1000), st.just(0))))
def test_no_more_than_the_limit_is_ever_unanswered(wishes):
    allowance = EchoAllowance()
    for wish in wishes:
        if wish == 0:
            allowance.guest_spoke()
        else:
            allowance.wrote(min(wish, allowance.room))
        assert 0 <= allowance.stale <= LIMIT


def test_a_queue_that_is_not_empty_keeps_the_count():
    allowance = QueueAllowance()
    allowance.wrote(100)
    assert allowance.room(queued=1) == LIMIT - 100


def test_an_empty_queue_gives_all_back():
    allowance = QueueAllowance()
    allowance.wrote(100)
    assert allowance.room(queued=0) == LIMIT


@given(st.lists(st.integers(1, 300)))
def test_what_fits_without_asking_never_passes_the_limit(sizes):
    allowance = QueueAllowance()
    for size in sizes:
        if allowance.fits(size):
            allowance.wrote(size)
        assert allowance.stale <= LIMIT
