"""cmdlets/stream.py: nothing lost, nothing doubled, nothing unbounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdlets.stream import LIMIT, Inbound, Outbound, OutOfStep


def attached(offset: int = 0) -> Inbound:
    inbound = Inbound()
    inbound.attach(offset)
    return inbound


def test_the_first_attachment_may_start_anywhere():
    assert Inbound().attach(5000) == 0


def test_bytes_count_from_the_attachment_on():
    inbound = attached(100)
    inbound.feed(b"abc")
    assert inbound.received == 103


def test_what_was_had_before_is_skipped():
    inbound = attached()
    inbound.feed(b"abcdef")
    inbound.attach(2)
    assert (inbound.feed(b"cd"), inbound.feed(b"efgh"), inbound.received) == (b"", b"gh", 8)


def test_a_gap_is_counted():
    inbound = attached()
    inbound.feed(b"abc")
    assert (inbound.attach(10), inbound.received) == (7, 10)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=20))
def test_any_drops_and_rewinds_give_the_stream_once(stream: bytes, drops: list[tuple[int, int]]):
    inbound, got = Inbound(), b""
    for length, rewind in [*drops, (len(stream), 0)]:
        start = max(0, inbound.received - rewind)
        assert inbound.attach(start) == 0
        got += inbound.feed(stream[start : start + length])
    assert got == stream[: len(got)]
    assert len(got) == inbound.received


def test_input_goes_out_in_order_and_once():
    outbound = Outbound()
    outbound.add(b"abc")
    outbound.add(b"def")
    assert (outbound.next(4), outbound.next(4), outbound.next(4)) == (b"abcd", b"ef", b"")


def test_untaken_input_is_sent_again_after_a_drop():
    outbound = Outbound()
    outbound.add(b"abcdef")
    outbound.next(6)
    outbound.attach(2)
    assert outbound.next(10) == b"cdef"


def test_taken_input_makes_room():
    outbound = Outbound()
    outbound.add(bytes(LIMIT))
    outbound.next(LIMIT)
    outbound.taken(1000)
    assert outbound.room == 1000


def test_no_more_than_the_limit_is_kept():
    outbound = Outbound()
    outbound.add(bytes(LIMIT))
    with pytest.raises(ValueError, match="1 bytes into 0"):
        outbound.add(b"x")


@pytest.mark.parametrize("count", [1, 4])
def test_a_count_that_cannot_be_is_refused(count: int):
    outbound = Outbound()
    outbound.add(b"abcdef")
    outbound.next(3)
    outbound.taken(2)
    with pytest.raises(OutOfStep):
        outbound.taken(count)


def test_unsent_input_can_be_forgotten():
    outbound = Outbound()
    outbound.add(b"abcdef")
    outbound.next(2)
    assert (outbound.forget_unsent(), outbound.next(9), outbound.untaken) == (4, b"", 2)


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)), max_size=30))
def test_any_drops_bring_every_byte_to_the_node_once(typed: bytes, drops: list[tuple[int, float]]):
    outbound, node = Outbound(), b""
    outbound.add(typed)
    for most, part in drops:
        chunk = outbound.next(most)
        node += chunk[: int(len(chunk) * part)]
        outbound.attach(len(node))
    assert node + outbound.next(len(typed)) == typed
