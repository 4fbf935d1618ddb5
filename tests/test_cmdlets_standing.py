"""cmdlets/standing.py: what a person is told, and when."""

from __future__ import annotations

import pytest

from cmdlets.standing import Standing
from eva.consent import Access, Kind
from eva.control import Event, Opened
from eva.ending import Ending
from eva.members import BadMember, Json, Members
from tests.scripted_node import VM


def standing(*, keyboard: bool = True, access: Access = Access.KEYBOARD, remaining_s: int = 3600, reason: str = "") -> Standing:
    opened = Opened(
        session="s1",
        ticket="t",
        kind=Kind.SERIAL,
        access=access,
        keyboard=keyboard,
        consent="c",
        resource_id=VM,
        node="AzS-ERCS01",
        giver="tenant@example.org",
        reason=reason,
        expires_at=1_800_000_000,
        remaining_s=remaining_s,
    )
    return Standing(opened, 1000.0)


def viewers(keyboard: str | None, *sessions: str) -> Members:
    listed = [{"session": s, "account": f"of-{s}", "access": "keyboard"} for s in sessions]
    return Members({"session": "s1", "viewers": listed, "keyboard": keyboard})


def held(count: int, why: str = "no-echo") -> Members:
    return Members({"session": "s1", "held": count, "why": why})


def countdown(seconds: int) -> Members:
    return Members({"session": "s1", "remaining_s": seconds})


def test_the_title_says_vm_node_time_and_keyboard():
    assert standing().title(1000.0) == "web-01 at AzS-ERCS01: 1 h 00 min left, the keyboard is yours"


@pytest.mark.parametrize(("left_s", "text"), [(28_800, "8 h 00 min"), (3599, "59 min"), (119, "119 s"), (0, "0 s"), (-5, "0 s")])
def test_time_left_has_a_fitting_unit(left_s: int, text: str):
    assert f": {text} left" in standing(remaining_s=28_800).title(1000.0 + 28_800 - left_s)


def test_the_title_counts_viewers():
    one = standing()
    one.apply(Event.VIEWERS, viewers("s1", "s1", "s2"), 1000.0)
    assert "2 viewers" in one.title(1000.0)


def test_the_opening_tells_the_tenants_reason():
    assert standing(reason="no network").opening(1000.0)[-1] == "Reason: no network"


@pytest.mark.parametrize(
    ("seconds", "text"), [(900, "15 minutes"), (899, "15 minutes"), (300, "5 minutes"), (60, "60 seconds"), (1, "1 second ")]
)
def test_the_count_down_is_told(seconds: int, text: str):
    assert standing().apply(Event.COUNTDOWN, countdown(seconds), 1000.0)[0].startswith(text)


def test_a_renewal_is_told_and_moves_the_end():
    one = standing(remaining_s=60)
    (line,) = one.apply(Event.RENEWED, Members({"session": "s1", "expires_at": 1_800_003_600, "remaining_s": 3600}), 1030.0)
    assert line.startswith("The tenant has renewed the consent: until ")
    assert "1 h 00 min left" in one.title(1030.0)


def test_a_keyboard_taken_away_is_told_with_the_name():
    one = standing()
    one.apply(Event.VIEWERS, viewers("s1", "s1", "s2"), 1000.0)
    assert one.apply(Event.VIEWERS, viewers("s2", "s1", "s2"), 1000.0) == ["Now of-s2 has the keyboard (~k takes it)."]
    assert not one.has_keyboard


def test_a_keyboard_taken_before_the_first_list_of_viewers_is_told():
    assert standing().apply(Event.VIEWERS, viewers("s2", "s1", "s2"), 1000.0)


def test_a_keyboard_that_comes_is_told():
    one = standing(keyboard=False)
    one.apply(Event.VIEWERS, viewers(None, "s1"), 1000.0)
    assert one.apply(Event.VIEWERS, viewers("s1", "s1"), 1000.0) == ["The keyboard is yours."]
    assert one.has_keyboard


def test_another_viewer_is_no_event():
    one = standing()
    one.apply(Event.VIEWERS, viewers("s1", "s1"), 1000.0)
    assert one.apply(Event.VIEWERS, viewers("s1", "s1", "s2"), 1000.0) == []


def test_held_input_is_told_once_with_what_to_do():
    one = standing()
    assert "~s" in one.apply(Event.HELD, held(10), 1000.0)[0]
    assert one.apply(Event.HELD, held(20), 1000.0) == []


def test_input_that_the_tenant_holds_says_so():
    (line,) = standing().apply(Event.HELD, held(10, "tenant"), 1000.0)
    assert line == "10 bytes of your input wait: the tenant has paused it, or has to watch and does not."


def test_held_input_that_went_is_told():
    one = standing()
    one.apply(Event.HELD, held(10), 1000.0)
    assert one.apply(Event.HELD, held(0), 1000.0) == ["No input waits any more."]


def test_another_reason_for_holding_is_told():
    one = standing()
    one.apply(Event.HELD, held(10), 1000.0)
    assert one.apply(Event.HELD, held(10, "lease"), 1000.0)


def test_the_end_is_kept():
    one = standing()
    one.apply(
        Event.ENDED, Members({"session": "s1", "reason": "consent-revoked", "text": "x", "at_ms": 1_700_000_000_000}), 1000.0
    )
    assert one.ended is not None
    assert one.ended.ending is Ending.CONSENT_REVOKED
    assert one.ended.text.startswith("The consent was withdrawn. (")


@pytest.mark.parametrize("account", ["\x1b]0;x\x07", "a\nb", "\u202eabc", ""])
def test_a_name_that_could_write_to_the_terminal_is_refused(account: str):
    listed: Json = [{"session": "s2", "account": account, "access": "view"}]
    with pytest.raises(BadMember):
        standing().apply(Event.VIEWERS, Members({"session": "s1", "viewers": listed, "keyboard": None}), 1000.0)


def test_status_lists_who_looks():
    one = standing()
    one.apply(Event.VIEWERS, viewers("s1", "s1", "s2"), 1000.0)
    assert one.status(1000.0)[1:] == ["  of-s1 has the keyboard", "  of-s2 may type"]


def test_a_pause_is_told_once_and_so_is_its_end():
    one = standing()
    told = [
        one.apply(Event.PAUSED, Members({"session": "s1", "paused": paused}), 1000.0) for paused in (False, True, True, False)
    ]
    assert told == [[], ["The tenant has paused input: what you type waits."], [], ["The tenant lets your input pass again."]]
