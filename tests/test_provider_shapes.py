"""provider/rest/shapes.py: how what nodes say is answered."""

from __future__ import annotations

import pytest

from eva.members import MAX_INTEGER
from provider.rest.shapes import CutShape, when
from provider.store.filed import Notice


def test_a_time_is_utc_with_milliseconds():
    assert when(1_800_000_000_123) == "2027-01-15T08:00:00.123Z"


@pytest.mark.parametrize("ms", [253_402_300_800_000, MAX_INTEGER])
def test_a_time_past_all_calendars_is_their_last(ms: int):
    """A node signs what it likes: its tenants are answered all the same."""
    assert when(ms) == "9999-12-31T23:59:59.999Z"


def test_a_cut_at_no_time_is_a_cut():
    notice = Notice("AzS-ERCS01", 1, "j", None, 0, "t", MAX_INTEGER, 900, 1)
    assert CutShape.of(notice).confirmed_at == "9999-12-31T23:59:59.999Z"
