"""broker/masks.py: which of an operator's bytes are a masked entry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.masks import MAX_MASKS, Masks, MasksFull


def test_nothing_is_masked_that_was_not_announced() -> None:
    assert list(Masks().split(7, b"abc")) == [(b"abc", False)]


def test_the_announced_bytes_are_masked_and_no_other() -> None:
    masks = Masks()
    masks.add(3, 4, 0)
    assert list(masks.split(0, b"ls secr\r")) == [(b"ls ", False), (b"secr", True), (b"\r", False)]


def test_a_mask_may_come_in_pieces() -> None:
    masks = Masks()
    masks.add(3, 4, 0)
    assert [*masks.split(0, b"ls s"), *masks.split(4, b"ecr\r")] == [
        (b"ls ", False),
        (b"s", True),
        (b"ecr", True),
        (b"\r", False),
    ]


def test_masks_that_have_passed_make_room() -> None:
    masks = Masks()
    for number in range(MAX_MASKS):
        masks.add(number, 1, 0)
    masks.add(99, 1, 1)
    with pytest.raises(MasksFull):
        masks.add(100, 1, 1)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=MAX_MASKS)


@given(spans, st.integers(0, 40), st.binary(min_size=1, max_size=40))
def test_each_byte_is_masked_where_a_mask_covers_it(covered: list[tuple[int, int]], start: int, data: bytes) -> None:
    masks = Masks()
    for low, count in covered:
        masks.add(low, count, 0)
    pieces = list(masks.split(start, data))
    assert b"".join(piece for piece, _ in pieces) == data
    flags = [masked for piece, masked in pieces for _ in piece]
    places = range(start, start + len(data))
    assert flags == [any(low <= at < low + count for low, count in covered) for at in places]
