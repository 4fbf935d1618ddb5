"""broker/watching.py: what a giver's word and a giver's absence do to operators' input."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.watching import (
    MOST_STEPS,
    MOST_WATCHES,
    STEP_SECONDS,
    WATCH_GRACE,
    Rein,
    StoredRein,
    TooManyWatch,
    Watching,
)
from eva.consent import Consent
from eva.control import Refusal
from tests.broker_parts import HandClock, consent


class Desk:
    """The reins of a node, a clock, and one consent."""

    def __init__(self, *, watched: bool = False, stored: tuple[StoredRein, ...] = ()) -> None:
        self.clock = HandClock()
        self.watching = Watching(stored)
        self.consent: Consent = consent(watched=watched)
        self.rein: Rein = self.watching.rein(self.consent)

    def come(self, watch: str = "w1") -> Desk:
        self.watching.come(self.rein, watch)
        return self

    def go(self, watch: str = "w1") -> Desk:
        self.watching.go(self.rein, watch, self.clock.now())
        return self

    def left_after(self, seconds: float) -> list[str]:
        return self.watching.left(self.clock.run(seconds))


# -- what holds input --------------------------------------------------------------------------------------------------


def test_of_itself_nothing_is_held():
    assert not Desk().rein.held


def test_a_pause_holds():
    desk = Desk()
    desk.rein.paused = True
    assert (desk.rein.held, desk.rein.refusal) == (True, Refusal.PAUSED)


def test_a_watched_consent_holds_while_nobody_watches():
    desk = Desk(watched=True)
    assert (desk.rein.held, desk.rein.refusal) == (True, Refusal.NOT_WATCHED)


def test_it_does_not_while_somebody_does():
    desk = Desk(watched=True).come()
    assert (desk.rein.held, desk.rein.refusal) == (False, None)


def test_a_pause_holds_also_while_somebody_watches():
    desk = Desk(watched=True).come()
    desk.rein.paused = True
    assert desk.rein.held


def test_the_last_to_leave_counts():
    desk = Desk(watched=True).come("w1").come("w2").go("w1")
    assert not desk.rein.held
    assert desk.go("w2").rein.held


def test_all_gates_of_a_consent_have_one_rein():
    desk = Desk()
    assert desk.watching.rein(consent(cid=desk.consent.cid, issued_at=desk.consent.issued_at + 1)) is desk.rein


def test_another_consent_has_its_own():
    desk = Desk()
    assert desk.watching.rein(consent()) is not desk.rein


@pytest.mark.parametrize(("watched", "watches", "attended"), [(False, 0, True), (True, 0, False), (True, 1, True)])
def test_operators_may_open_where_nobody_has_to_watch_or_somebody_does(watched: bool, watches: int, attended: bool):
    desk = Desk(watched=watched)
    for number in range(watches):
        desk.come(str(number))
    assert desk.watching.attended(desk.consent) is attended


def test_so_many_may_watch_and_no_more():
    desk = Desk()
    for number in range(MOST_WATCHES):
        desk.come(str(number))
    with pytest.raises(TooManyWatch):
        desk.come("more")


# -- who leaves --------------------------------------------------------------------------------------------------------


def test_a_giver_who_leaves_a_watched_consent_ends_it_after_a_minute():
    desk = Desk(watched=True).come().go()
    assert desk.left_after(WATCH_GRACE - 1) == []
    assert desk.left_after(1) == [desk.consent.cid]


def test_once():
    desk = Desk(watched=True).come().go()
    desk.left_after(WATCH_GRACE)
    assert desk.left_after(WATCH_GRACE) == []


def test_one_who_comes_back_in_time_ends_nothing():
    desk = Desk(watched=True).come().go()
    desk.clock.run(WATCH_GRACE - 1)
    assert desk.come("w2").left_after(WATCH_GRACE) == []


def test_one_who_never_came_ends_nothing():
    assert Desk(watched=True).left_after(WATCH_GRACE) == []


def test_who_need_not_watch_may_leave():
    assert Desk().come().go().left_after(WATCH_GRACE) == []


def test_a_connection_that_was_none_does_not_leave():
    assert Desk(watched=True).come("w1").go("w2").left_after(WATCH_GRACE) == []


# -- renewal -----------------------------------------------------------------------------------------------------------


def test_a_renewal_that_wants_to_be_watched_waits_a_minute_for_its_giver():
    desk = Desk()
    desk.rein.want(watched=True, now=desk.clock.now())
    assert desk.rein.held
    assert desk.left_after(WATCH_GRACE) == [desk.consent.cid]


def test_a_renewal_that_need_not_be_watched_lets_go():
    desk = Desk(watched=True).come().go()
    desk.rein.want(watched=False, now=desk.clock.now())
    assert not desk.rein.held
    assert desk.left_after(WATCH_GRACE) == []


def test_a_renewal_keeps_a_pause():
    desk = Desk()
    desk.rein.paused = True
    desk.rein.want(watched=False, now=desk.clock.now())
    assert desk.rein.held


# -- restart -----------------------------------------------------------------------------------------------------------


def test_a_consent_that_was_paused_where_it_came_from_begins_held():
    desk = Desk()
    moved = replace(desk.consent, cid="another-node", paused=True)
    rein = Watching().rein(moved)
    assert rein.held
    assert rein.refusal is Refusal.PAUSED


def test_what_was_resumed_here_stays_so():
    desk = Desk()
    moved = replace(desk.consent, paused=True)
    resumed = StoredRein(moved.cid, paused=False, begun=True)
    assert not Watching((resumed,)).rein(moved).held


def again(desk: Desk, stored: StoredRein) -> Desk:
    """The next run, which has the consent from disk."""
    after = Desk()
    after.consent = desk.consent
    after.watching = Watching((stored,))
    after.watching.resume([desk.consent], after.clock.now())
    after.rein = after.watching.rein(desk.consent)
    return after


def test_a_pause_outlives_a_restart():
    desk = Desk()
    assert again(desk, StoredRein(desk.consent.cid, paused=True, begun=False)).rein.held


def test_after_a_restart_who_watched_has_a_minute():
    desk = Desk(watched=True)
    after = again(desk, StoredRein(desk.consent.cid, paused=False, begun=True))
    assert after.left_after(WATCH_GRACE - 1) == []
    assert after.left_after(1) == [desk.consent.cid]


def test_after_a_restart_a_giver_who_never_came_ends_nothing():
    desk = Desk(watched=True)
    after = again(desk, StoredRein(desk.consent.cid, paused=True, begun=False))
    assert after.left_after(WATCH_GRACE) == []


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_what_is_recorded_has_a_bound():
    desk = Desk()
    assert [desk.rein.may_step(desk.clock.now()) for _ in range(MOST_STEPS + 1)] == [True] * MOST_STEPS + [False]
    assert desk.rein.may_step(desk.clock.run(STEP_SECONDS))


def test_reins_of_what_is_over_are_forgotten():
    desk = Desk(stored=(StoredRein("old", paused=True, begun=False),))
    assert desk.watching.keep([desk.consent.cid]) == ["old"]
    assert desk.watching.keep([]) == [desk.consent.cid]
    assert desk.watching.rein(desk.consent) is not desk.rein


# -- a consent that comes (again) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "elsewhere", "held"), [(0, 0, False), (0, 1, True), (1, 0, True), (1, 1, True)])
def test_a_consent_begins_with_what_was_said_of_it_anywhere(here: int, elsewhere: int, held: bool):
    watching = Watching([StoredRein("c", bool(here), begun=True)])
    one = consent(cid="c", paused=bool(elsewhere))
    assert watching.begin(one) is held
    assert (watching.rein(one).paused, watching.rein(one).begun) == (held, False)


def test_one_that_was_met_already_begins_anew():
    watching = Watching()
    rein = watching.rein(consent(cid="c"))
    rein.paused = True
    assert watching.begin(consent(cid="c"))
    assert watching.rein(consent(cid="c")) is not rein


def test_one_that_began_and_was_never_asked_for_is_forgotten():
    watching = Watching()
    watching.begin(consent(cid="c"))
    assert watching.keep(set()) == ["c"]


# -- a renewal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "here", "away"), [(0, 1, 0, 1), (0, 1, 1, 0), (1, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)]
)
def test_who_wants_to_watch_from_now_on_and_is_not_here_has_left(before: int, after: int, here: int, away: int):
    clock, watching = HandClock(), Watching()
    rein = watching.rein(consent(watched=bool(before)))
    rein.watches |= {"w"} if here else set()
    rein.want(watched=bool(after), now=clock.now())
    assert (rein.watched, rein.left_at, rein.begun) == (bool(after), clock.now().boot if away else None, bool(away))


def test_after_a_restart_nobody_is_missed_who_never_came():
    clock, watching = HandClock(), Watching()
    watching.resume([consent(watched=True)], clock.now())
    assert watching.left(clock.run(WATCH_GRACE)) == []
