"""broker/scrollback.py against a plain bytes object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.scrollback import CAPACITY, FIRST, GROWTH, Scrollback


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 16))
def test_it_holds_the_last_bytes(pieces, capacity):
    ring, whole = Scrollback(capacity), b""
    for piece in pieces:
        ring.append(piece)
        whole += piece
        assert ring.end == len(whole)
        assert ring.read(ring.start, capacity) == whole[ring.start :]


@given(st.binary(max_size=100), st.integers(0, 100), st.integers(0, 50))
def test_any_part_can_be_read(data, offset, most):
    ring = Scrollback(64)
    ring.append(data)
    if ring.start <= offset <= ring.end:
        assert ring.read(offset, most) == data[offset : offset + most]


@pytest.mark.parametrize("offset", [3, 17])
def test_what_is_not_held_is_not_made_up(offset: int):
    ring = Scrollback(8)
    ring.append(b"0123456789abcdef"[:12])
    with pytest.raises(ValueError, match="outside"):
        ring.read(offset, 1)


def test_wiped_it_shows_nothing_of_before():
    ring = Scrollback(8)
    ring.append(b"secret")
    ring.wipe()
    assert ring.read(0, 8) == bytes(6)


@pytest.mark.parametrize(("held", "place"), [(b"1m\nabc", 2), (b"1m\x1b[0mx", 2), (b"\nab", 0), (b"abcdef", 0)])
def test_one_who_joins_late_begins_between_sequences(held: bytes, place: int):
    ring = Scrollback(len(held))
    ring.append(b"\x1b[" + held)
    assert ring.first_whole() == ring.start + place


def test_room_is_made_as_output_comes():
    ring = Scrollback()
    assert len(ring._ring) == FIRST
    ring.append(b"x" * (FIRST + 1))
    assert len(ring._ring) == FIRST * GROWTH
    ring.append(b"y" * CAPACITY)
    assert len(ring._ring) == CAPACITY
    assert ring.read(ring.start, CAPACITY) == b"y" * CAPACITY


def test_what_had_less_room_is_wiped_where_it_was():
    ring = Scrollback()
    ring.append(b"secret")
    before = ring._ring
    ring.append(bytes(FIRST))
    assert before == bytes(FIRST)
    assert ring.read(0, 6) == b"secret"


@given(st.lists(st.binary(max_size=3000), max_size=12))
def test_it_holds_the_same_while_it_grows(pieces):
    ring, whole = Scrollback(3 * FIRST), b""
    for piece in pieces:
        ring.append(piece)
        whole += piece
        assert ring.read(ring.start, CAPACITY) == whole[ring.start :]
