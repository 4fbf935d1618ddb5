"""provider/consent/loss.py: when a node is lost, and where its consents go."""

from __future__ import annotations

import pytest

from eva.audit import Chains
from eva.audit import Event as Audited
from eva.consent import Access, Consent, Kind
from eva.ending import Ending
from eva.wire import Event
from provider.consent.ask import Ask, Enabled, How
from provider.consent.authority import Refusal
from provider.consent.desk import Offer
from provider.consent.disabling import disable_subscription
from provider.consent.enabling import enable
from provider.consent.loss import MARGIN_MS, MOVED, Hearing, Moves, is_lost, is_work, move
from provider.consent.standing import standing
from provider.store.filed import State
from tests.provider_office import NOW, VM, Office

CUT = 15
LONG_AGO = NOW * 1000 - 3_600_000


# the rule


@pytest.mark.parametrize(("silent_ms", "lost"), [(0, False), (30_000, False), (30_001, True)])
def test_a_node_is_lost_after_the_largest_cut_limit_and_the_margin(silent_ms: int, lost: bool):
    assert is_lost(NOW * 1000 - silent_ms, LONG_AGO, NOW * 1000, CUT) is lost


def test_the_time_in_which_it_could_not_be_heard_does_not_count():
    assert not is_lost(LONG_AGO, NOW * 1000 - 30_000, NOW * 1000, CUT)


def heard(hearing: Hearing, asked: list[int], *at_ms: int) -> int:
    return [hearing.look(asked or [at], at) for at in at_ms][-1]


def test_after_a_start_every_node_has_its_full_time():
    assert Hearing().look([LONG_AGO, NOW * 1000], NOW * 1000) == NOW * 1000


def test_while_nodes_are_heard_the_time_runs_on():
    assert heard(Hearing(), [], 1_000_000, 1_001_000, 1_006_000) == 1_000_000


def test_a_stall_of_its_own_begins_anew():
    assert heard(Hearing(), [], 1_000_000, 1_006_000) == 1_006_000


def test_a_clock_set_back_begins_anew():
    assert heard(Hearing(), [], 1_000_000, 999_000) == 999_000


def test_when_no_node_at_all_is_heard_it_is_not_the_nodes():
    hearing = Hearing()
    assert heard(hearing, [1_000_000], 1_000_000, 1_005_000) == 1_000_000
    assert heard(hearing, [1_000_000], 1_006_000) == 1_006_000


# the move


class Cloud:
    """The office, as the watch over nodes sees it."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.alive()

    def alive(self) -> None:
        self.office.alive()

    def granted(self) -> Consent:
        return self.office.granted(VM, self.office.pen)

    def later(self, seconds: int) -> None:
        """The other node asks on, the first is silent."""
        self.office.now += seconds
        self.office.ask(self.office.other.request())

    def move(self, after: str = "") -> Moves:
        return self.office.do(lambda desk: move(desk, 0, CUT, 15_000, after))

    def lose(self) -> Moves:
        self.later(31)
        return self.move()

    def state(self, jti: str) -> State:
        return self.office.do(lambda desk: desk.books.consent(jti)).state(self.office.now)

    def says(self, event: Event, jti: str, **facts: str) -> None:
        self.office.receive(self.office.other, self.office.other.receipt(event, jti, **facts))

    def shown(self):
        return self.office.do(lambda desk: standing(desk.records, desk.visits, desk.features, VM, self.office.now))


@pytest.fixture
def cloud(office: Office) -> Cloud:
    return Cloud(office)


def moved(moves: Moves) -> Consent:
    (offer,) = moves.offers
    return offer.consent


def test_before_its_time_nothing_moves(cloud: Cloud):
    consent = cloud.granted()
    cloud.later(30)
    assert cloud.move() == Moves()
    assert cloud.state(consent.jti) is State.GRANTED


def test_the_consent_of_a_lost_node_is_signed_for_another_and_revoked_there(cloud: Cloud):
    consent = cloud.granted()
    moves = cloud.lose()
    again = moved(moves)
    assert (again.cid, again.node, again.expires_at) == (consent.cid, "AzS-ERCS02", consent.expires_at)
    assert (again.operators, again.kinds, again.access, again.giver) == (
        consent.operators,
        consent.kinds,
        consent.access,
        consent.giver,
    )
    (notice,) = moves.notices
    assert (notice.node, notice.consent) == ("AzS-ERCS01", consent.jti)


@pytest.mark.parametrize(
    ("words", "paused"),
    [
        ((), False),
        ((Audited.INPUT_PAUSED,), True),
        ((Audited.INPUT_PAUSED, Audited.INPUT_RESUMED), False),
        ((Audited.INPUT_PAUSED, Audited.INPUT_RESUMED, Audited.INPUT_PAUSED, Audited.WATCH_END), True),
    ],
)
def test_a_pause_goes_along(cloud: Cloud, words: tuple[Audited, ...], paused: bool):
    consent = cloud.granted()
    chains = Chains()
    for at_ms, word in enumerate(words, cloud.office.now * 1000):
        record = chains.next(consent.cid, word, {"by": "tenant:lessee", "watch": "1"}, at_ms)
        cloud.office.receive(cloud.office.pen, cloud.office.pen.recorded(record))
    assert moved(cloud.lose()).paused is paused


def test_its_arrival_is_shown(cloud: Cloud):
    consent = cloud.granted()
    again = moved(cloud.lose())
    assert cloud.shown().current.state is State.MOVING
    cloud.says(Event.ACCEPTED, again.jti, uuid="u2")
    current = cloud.shown().current
    assert (current.consent_id, current.state, current.node, current.uuid) == (
        consent.cid,
        State.GRANTED,
        "AzS-ERCS02",
        "u2",
    )
    assert [(stay.node, stay.state) for stay in current.stays] == [
        ("AzS-ERCS01", State.MOVED),
        ("AzS-ERCS02", State.GRANTED),
    ]


def test_a_second_provider_moves_nothing_twice(cloud: Cloud):
    cloud.granted()
    again = moved(cloud.lose())
    assert cloud.move() == Moves()
    cloud.says(Event.ACCEPTED, again.jti)
    assert cloud.move() == Moves()


def test_the_old_node_gets_the_revocation_with_its_first_lease(cloud: Cloud):
    consent = cloud.granted()
    cloud.lose()
    answer = cloud.office.ask(cloud.office.pen.request())
    lease, carried = cloud.office.lease(answer)
    assert (lease.seq, carried) == (1, [1])
    assert cloud.state(consent.jti) is State.MOVING


def test_with_nobody_alive_it_stays_where_it_is(cloud: Cloud):
    consent = cloud.granted()
    cloud.office.now += 31
    assert cloud.move() == Moves()
    assert cloud.state(consent.jti) is State.GRANTED


def test_a_node_that_does_not_answer_is_tried_again_after_its_time(cloud: Cloud):
    cloud.granted()
    first = moved(cloud.lose())
    cloud.later(14)
    assert cloud.move() == Moves()
    cloud.later(2)
    (notice,) = cloud.office.do(lambda desk: desk.sweep())
    assert (notice.node, notice.consent) == ("AzS-ERCS02", first.jti)
    assert moved(cloud.move()).jti != first.jti


def test_a_node_that_does_not_know_the_vm_is_asked_once_and_the_old_one_when_it_is_back(cloud: Cloud):
    consent = cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    assert cloud.move() == Moves()
    assert cloud.shown().current.state is State.MOVING
    cloud.alive()
    again = moved(cloud.move())
    assert (again.node, again.cid) == ("AzS-ERCS01", consent.cid)


def test_what_was_disabled_meanwhile_moves_no_more(cloud: Cloud):
    cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    cloud.office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    cloud.alive()
    assert cloud.move() == Moves()
    assert (cloud.shown().current, cloud.shown().earlier[0].state) == (None, State.ENDED)


def test_what_is_on_its_way_when_it_is_disabled_never_arrives(cloud: Cloud):
    cloud.granted()
    again = moved(cloud.lose())
    cloud.office.do(lambda desk: disable_subscription(desk, VM.subscription))
    cloud.says(Event.ACCEPTED, again.jti)
    assert cloud.state(again.jti) is State.REVOKED
    assert cloud.move() == Moves()


def test_what_runs_out_on_the_way_is_over(cloud: Cloud):
    cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    cloud.later(3600)
    cloud.alive()
    assert cloud.move() == Moves()
    assert cloud.shown().current is None


def test_a_deletion_at_the_lost_node_ends_it_at_the_other(cloud: Cloud):
    consent = cloud.granted()
    again = moved(cloud.lose())
    cloud.says(Event.ACCEPTED, again.jti)
    pen = cloud.office.pen
    (notice,) = cloud.office.receive(pen, pen.receipt(Event.DELETED, consent.jti, account="op")).notices
    assert (notice.node, notice.consent) == ("AzS-ERCS02", again.jti)


def test_a_call_places_what_has_no_node_at_once(cloud: Cloud):
    consent = cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    ask = Ask(VM, "tenant")
    found = cloud.office.do(lambda desk: enable(desk, ask, 15_000, ()))
    assert isinstance(found, Offer)
    assert (found.consent.cid, found.consent.expires_at) == (consent.cid, consent.expires_at)
    cloud.says(Event.ACCEPTED, found.consent.jti, uuid="u")
    assert isinstance(cloud.office.do(lambda desk: enable(desk, ask, 15_000, ())), Enabled)
    assert cloud.move() == Moves()


def test_such_a_call_is_the_consent_as_it_was_or_is_refused(cloud: Cloud):
    consent = cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    calls = (Ask(VM, "tenant", access=Access.KEYBOARD), Ask(VM, "tenant", kinds=frozenset(Kind)))
    refusals = [
        cloud.office.refusal(lambda ask=ask: cloud.office.do(lambda desk: enable(desk, ask, 15_000, ()))) for ask in calls
    ]
    assert refusals == [Refusal.CONFLICT] * 2
    found = cloud.office.do(lambda desk: enable(desk, Ask(VM, "somebody else"), 15_000, ()))
    assert isinstance(found, Offer)
    assert (found.how, found.consent.giver, found.consent.access) == (How.REPEATED, consent.giver, consent.access)


def test_such_a_call_may_renew_it(cloud: Cloud):
    consent = cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    ask = Ask(VM, "tenant", access=Access.KEYBOARD, seconds=7200, renew=True)
    found = cloud.office.do(lambda desk: enable(desk, ask, 15_000, ()))
    assert isinstance(found, Offer)
    assert (found.how, found.consent.cid, found.consent.access) == (How.RENEWED, consent.cid, Access.KEYBOARD)
    assert (found.consent.kinds, found.consent.expires_at) == (consent.kinds, cloud.office.now + 7200)


def test_such_a_call_is_refused_when_nobody_is_left(cloud: Cloud):
    cloud.granted()
    cloud.says(Event.REFUSED, moved(cloud.lose()).jti, why="vm-unknown")
    ask = Ask(VM, "tenant")
    refusal = cloud.office.refusal(lambda: cloud.office.do(lambda desk: enable(desk, ask, 15_000, ("AzS-ERCS02",))))
    assert refusal is Refusal.NO_NODE


def test_what_nobody_will_have_keeps_none_waiting(cloud: Cloud):
    office = cloud.office
    for number in range(MOVED + 3):
        office.granted(office.vm(number))
    cloud.later(31)
    placed: set[str] = set()
    after = ""
    for _ in range(4):
        moves = cloud.move(after)
        after = moves.last
        for offer in moves.offers:
            placed.add(offer.consent.cid)
            cloud.says(Event.REFUSED, offer.consent.jti, why="vm-unknown")
    assert len(placed) == MOVED + 3


def test_without_lost_nodes_there_is_nothing_to_do(cloud: Cloud):
    cloud.granted()
    assert not cloud.office.do(lambda desk: is_work(desk.records, [], NOW))
    assert cloud.office.do(lambda desk: is_work(desk.records, ["AzS-ERCS01"], NOW))
    assert MARGIN_MS == 15_000


def test_a_clock_set_back_since_the_consent_moves_it_when_it_is_right_again(cloud: Cloud):
    """A token of the future would be refused: what cannot be signed now must not stop the watch over nodes."""
    consent = cloud.granted()
    cloud.lose()
    cloud.says(Event.REFUSED, cloud.office.do(lambda desk: desk.records.tokens_of(consent.cid))[-1].jti, why="vm-unknown")
    cloud.office.do(lambda desk: desk.books.update_node("AzS-ERCS01", asked_ms=0))
    cloud.office.now = NOW - 60
    cloud.alive()
    assert cloud.move().offers == ()
    cloud.office.now = NOW + 120
    cloud.alive()
    assert moved(cloud.move()).cid == consent.cid


def test_a_node_that_has_not_the_consent_lifts_no_pause(cloud: Cloud):
    consent = cloud.granted()
    office = cloud.office
    for pen, word, at in ((office.pen, Audited.INPUT_PAUSED, 1), (office.other, Audited.INPUT_RESUMED, 2)):
        record = Chains().next(consent.cid, word, {"by": "tenant:lessee", "watch": "1"}, (NOW + at) * 1000)
        office.receive(pen, pen.recorded(record))
    assert moved(cloud.lose()).paused


def test_a_word_of_the_future_is_one_of_when_it_came(cloud: Cloud):
    """A node whose clock is wrong, or who lies, has not the last word for ever."""
    consent = cloud.granted()
    office = cloud.office
    record = Chains().next(consent.cid, Audited.INPUT_RESUMED, {"by": "tenant:lessee", "watch": "1"}, (NOW + 10_000) * 1000)
    office.receive(office.pen, office.pen.recorded(record))
    again = moved(cloud.lose())
    cloud.says(Event.ACCEPTED, again.jti)
    record = Chains().next(consent.cid, Audited.INPUT_PAUSED, {"by": "tenant:lessee", "watch": "1"}, office.now * 1000)
    office.receive(office.other, office.other.recorded(record))
    office.now += 31
    office.ask(office.pen.request(seq=1))
    assert moved(cloud.move()).paused
