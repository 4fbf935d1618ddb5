"""provider/consent/watching.py and origin.py: who may watch where, and consents that stand only while somebody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eva.consent import Access, Consent
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import Typ, verify
from eva.watch import Watch
from eva.wire import Event
from provider.consent.ask import Ask, Enabled, How
from provider.consent.authority import Failed, Refusal, verdict
from provider.consent.desk import Offer
from provider.consent.enabling import UnderWay, enable
from provider.consent.loss import move
from provider.consent.watching import Pass, Watchable, admit, mine, watchable
from tests.provider_office import OTHER_VM, VM, Office
from tests.provider_parts import jti

ORIGIN = "https://ercs01-watch.example:8446"
ASK = Ask(VM, "tenant")
WATCHED = replace(ASK, watched=True)


def called(office: Office, ask: Ask = ASK, tried: tuple[str, ...] = ()) -> Enabled | Offer | UnderWay:
    return office.do(lambda desk: enable(desk, ask, 15_000, tried))


def offered(office: Office, ask: Ask = ASK) -> Consent:
    found = called(office, ask)
    assert isinstance(found, Offer)
    return found.consent


def accepts(office: Office, consent: Consent, **facts: str) -> bool:
    """The node's yes; whether the giver has a consent by it."""
    pen = office.pen if consent.node == office.pen.name else office.other
    office.receive(pen, pen.receipt(Event.ACCEPTED, consent.jti, uuid="u", **facts))
    return office.do(lambda desk: desk.acknowledge(consent.jti)) is not None


def granted(office: Office, ask: Ask = ASK, **facts: str) -> Consent:
    office.alive()
    consent = offered(office, ask)
    assert accepts(office, consent, **{"watch": ORIGIN} | facts)
    return consent


def found(office: Office, cid: str) -> Watchable | None:
    return office.do(lambda desk: watchable(desk.records, cid, office.now))


def admitted(office: Office, cid: str, who: str = "tenant") -> Pass:
    return office.do(lambda desk: admit(desk.records, office.signer, cid, lambda giver: giver == who, office.now, jti()))


# where


def test_at_the_node_that_says_so(office: Office):
    consent = granted(office)
    assert found(office, consent.cid) == Watchable(replace(consent, kid=office.signer.key.kid), consent.node, ORIGIN, None)


def test_nowhere_at_a_node_that_says_nothing(office: Office):
    office.alive()
    consent = offered(office)
    assert accepts(office, consent)
    there = found(office, consent.cid)
    assert there is not None
    assert (there.node, there.origin, there.over) == (consent.node, None, None)
    assert office.refusal(there.reached) is Refusal.NOT_WATCHABLE


@pytest.mark.parametrize(
    "said", ["", "http://a.example", "https://a.example/x", "https://a.example; script-src *", "https://A.example"]
)
def test_nowhere_where_what_it_says_is_no_origin(office: Office, said: str):
    assert found(office, granted(office, watch=said).cid).origin is None  # type: ignore[union-attr] - it was granted


def test_another_nodes_word_says_nothing(office: Office):
    office.alive()
    consent = offered(office)
    assert accepts(office, consent)
    office.receive(office.other, office.other.receipt(Event.ACCEPTED, consent.jti, uuid="u", watch=ORIGIN))
    assert found(office, consent.cid).origin is None  # type: ignore[union-attr] - it was granted


def test_an_offer_is_no_consent_yet(office: Office):
    office.alive()
    assert found(office, offered(office).cid) is None


def test_a_renewal_says_it_anew(office: Office):
    first = granted(office)
    second = offered(office, replace(ASK, renew=True))
    assert accepts(office, second, watch="https://new.example")
    there = found(office, first.cid)
    assert there is not None
    assert (there.consent.jti, there.origin) == (second.jti, "https://new.example")


def test_between_two_nodes_it_is_nowhere_yet(office: Office):
    consent = granted(office)
    office.do(lambda desk: desk.books.update_consent(consent.jti, moved_ms=office.now * 1000))
    there = found(office, consent.cid)
    assert there is not None
    assert (there.node, there.over, office.refusal(there.reached)) == (None, None, Refusal.NO_NODE)


@pytest.mark.parametrize("reason", [Ending.CONSENT_REVOKED, Ending.FEATURE_DISABLED])
def test_a_consent_that_was_revoked_says_why(office: Office, reason: Ending):
    consent = granted(office)
    office.do(lambda desk: desk.revoke_vm(VM, reason))
    there = found(office, consent.cid)
    assert there is not None
    assert (there.over, there.origin, office.refusal(there.reached)) == (reason.word, None, Refusal.NO_CONSENT)


def test_one_that_its_node_ended_says_why(office: Office):
    consent = granted(office)
    office.receive(office.pen, office.pen.receipt(Event.ENDED, consent.jti, reason="vm-gone", sessions="0", cut_us="1"))
    assert found(office, consent.cid).over == "vm-gone"  # type: ignore[union-attr] - it was granted


def test_one_that_ran_out_says_so(office: Office):
    consent = granted(office)
    office.now = consent.expires_at
    assert found(office, consent.cid).over == "consent-expired"  # type: ignore[union-attr] - it was granted


# who


def test_the_giver_gets_in_once_within_a_minute(office: Office):
    consent = granted(office)
    given = admitted(office, consent.cid)
    watch = Watch.from_claims(verify(given.token, Typ.WATCH, office.keys, consent.node))
    assert (watch.cid, watch.resource_id, watch.giver, watch.node) == (consent.cid, VM, "tenant", consent.node)
    assert (watch.issued_at, watch.expires_at, given.expires_at) == (office.now, office.now + 60, office.now + 60)
    assert given.url == "wss://ercs01-watch.example:8446/v1/watch"


def test_no_token_outlives_its_consent(office: Office):
    consent = granted(office, replace(ASK, seconds=30))
    assert admitted(office, consent.cid).expires_at == consent.expires_at


def test_nobody_else_gets_in(office: Office):
    consent = granted(office)
    assert office.refusal(lambda: admitted(office, consent.cid, "somebody")) is Refusal.NOT_GIVER


def test_a_renewals_giver_is_the_giver(office: Office):
    consent = granted(office)
    assert accepts(office, offered(office, Ask(VM, "colleague", renew=True)), watch=ORIGIN)
    assert office.refusal(lambda: admitted(office, consent.cid)) is Refusal.NOT_GIVER
    assert admitted(office, consent.cid, "colleague").url


def test_nothing_is_signed_for_what_is_none_or_over(office: Office):
    consent = granted(office)
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert office.refusal(lambda: admitted(office, consent.cid)) is Refusal.NO_CONSENT
    assert office.refusal(lambda: admitted(office, jti())) is Refusal.NO_CONSENT


def newest(office: Office, who: str, vm: ResourceId = VM) -> str:
    with office.store.read() as connection:
        return mine(connection, vm, lambda giver: giver == who, office.now)


def test_of_several_consents_for_a_machine_it_is_the_callers_own(office: Office):
    first = granted(office)
    office.now += 1
    second = office.do(lambda desk: desk.offer(Ask(VM, "colleague", node=office.other.name), 15_000)).consent
    assert accepts(office, second, watch=ORIGIN)
    assert (newest(office, "tenant"), newest(office, "colleague")) == (first.cid, second.cid)


def test_of_ones_own_it_is_the_newest(office: Office):
    granted(office)
    office.now += 1
    second = office.granted()
    assert newest(office, "tenant") == second.cid


def test_where_others_consented_only_there_is_none_for_the_caller(office: Office):
    granted(office)
    assert office.refusal(lambda: newest(office, "somebody")) is Refusal.NOT_GIVER


def test_where_nobody_did_there_is_none(office: Office):
    granted(office)
    assert office.refusal(lambda: newest(office, "tenant", OTHER_VM)) is Refusal.NO_CONSENT


# only while somebody watches


def test_the_wish_is_signed(office: Office):
    assert granted(office, WATCHED).watched
    assert not office.offer(OTHER_VM).consent.watched


def test_what_is_left_out_stays_as_it_stands(office: Office):
    consent = granted(office, WATCHED)
    again = called(office)
    assert isinstance(again, Enabled)
    assert (again.how, again.consent.jti, again.consent.watched) == (How.REPEATED, consent.jti, True)
    assert offered(office, replace(ASK, renew=True)).watched


@pytest.mark.parametrize("watched", [True, False])
def test_another_wish_is_a_conflict(office: Office, watched: bool):
    granted(office, replace(ASK, watched=watched))
    assert office.refusal(lambda: called(office, replace(ASK, watched=not watched))) is Refusal.CONFLICT


@pytest.mark.parametrize("watched", [True, False])
def test_unless_it_renews(office: Office, watched: bool):
    consent = granted(office, replace(ASK, watched=watched))
    renewed = offered(office, replace(ASK, watched=not watched, renew=True))
    assert (renewed.cid, renewed.watched) == (consent.cid, not watched)


def test_a_node_without_a_listener_does_not_have_it(office: Office):
    """Nobody could look, so nothing would ever open, and nobody would know why."""
    office.alive()
    consent = offered(office, WATCHED)
    assert not accepts(office, consent)
    notice = office.do(lambda desk: desk.take_back(consent.jti))
    assert notice is not None
    assert notice.consent == consent.jti
    assert not any(one.stands(office.now) for one in office.do(lambda desk: desk.records.tokens_of(consent.cid)))


def test_what_a_crash_left_of_it_is_swept_away(office: Office):
    office.alive()
    consent = offered(office, WATCHED)
    accepts(office, consent)
    office.now += 16
    assert [one.consent for one in office.do(lambda desk: desk.sweep())] == [consent.jti]


def test_a_renewal_at_such_a_node_is_refused_before_anything_is_lost(office: Office):
    office.alive()
    consent = offered(office)
    assert accepts(office, consent)
    assert office.refusal(lambda: called(office, replace(WATCHED, renew=True))) is Refusal.NOT_WATCHABLE
    assert isinstance(called(office), Enabled)


def test_it_moves_to_a_node_where_its_giver_can_look(office: Office):
    consent = granted(office, WATCHED)
    office.now += 40
    office.ask(office.other.request())

    def moved() -> list[Consent]:
        return [one.consent for one in office.do(lambda desk: move(desk, 0, 15, 15_000)).offers]

    (again,) = moved()
    assert (again.node, again.cid, again.watched) == (office.other.name, consent.cid, True)
    assert not accepts(office, again)  # without a listener
    office.now += 16
    office.ask(office.other.request())
    office.do(lambda desk: desk.sweep())
    assert moved() == []  # nobody is left to ask
    office.ask(office.pen.request())
    (home,) = moved()
    assert home.node == office.pen.name
    assert accepts(office, home, watch=ORIGIN)
    assert found(office, consent.cid).node == office.pen.name  # type: ignore[union-attr] - it was granted


def test_access_is_another_matter(office: Office):
    granted(office, WATCHED)
    assert office.refusal(lambda: called(office, replace(WATCHED, access=Access.VIEW))) is Refusal.CONFLICT


NO_LISTENER = Failed("n1", "not-watchable", "")


def test_what_the_giver_is_told():
    assert verdict([NO_LISTENER]).refusal is Refusal.NOT_WATCHABLE
    assert verdict([NO_LISTENER, Failed("n2", "vm-unknown", "")]).refusal is Refusal.NOT_WATCHABLE
    assert verdict([NO_LISTENER, Failed("n2", "time", "")]).refusal is Refusal.NODE_REFUSED
    assert verdict([NO_LISTENER, Failed("n2", "", "no answer")]).refusal is Refusal.NODE_SILENT
    assert "n1" in verdict([NO_LISTENER, Failed("n2", "vm-unknown", "")]).detail
