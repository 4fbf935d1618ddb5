"""provider/consent/enabling.py: what a tenant's call means, in a real store, without network or loop."""

from __future__ import annotations

from dataclasses import replace

from eva.consent import Access, Consent, Kind, Principal
from eva.ending import Ending
from eva.wire import Event
from provider.consent.ask import Ask, Enabled, How
from provider.consent.authority import ALIVE_MS, Refusal
from provider.consent.desk import Offer
from provider.consent.disabling import disable_subscription, set_global_state
from provider.consent.enabling import UnderWay, enable
from provider.consent.features import GlobalState
from provider.store.filed import State
from tests.provider_office import NOW, OTHER_VM, VM, Office

ASK = Ask(VM, "tenant")


def enabled(office: Office, ask: Ask = ASK, tried: tuple[str, ...] = ()) -> Enabled | Offer | UnderWay:
    return office.do(lambda desk: enable(desk, ask, 15_000, tried))


def offered(office: Office, ask: Ask = ASK) -> Consent:
    found = enabled(office, ask)
    assert isinstance(found, Offer)
    return found.consent


def accepted(office: Office, consent: Consent) -> Consent:
    pen = office.pen if consent.node == office.pen.name else office.other
    office.receive(pen, pen.receipt(Event.ACCEPTED, consent.jti, uuid="u"))
    office.do(lambda desk: desk.acknowledge(consent.jti))
    return consent


def state(office: Office, jti: str) -> State:
    return office.do(lambda desk: desk.books.consent(jti)).state(office.now)


def test_what_is_left_open_is_everything_for_cloudadmin(office: Office):
    office.alive()
    consent = offered(office)
    assert (consent.kinds, consent.access, sorted(map(str, consent.operators))) == (
        frozenset(Kind),
        Access.KEYBOARD,
        ["group:cloudadmin"],
    )
    assert (consent.cid, consent.expires_at) == (consent.jti, NOW + 28_800)


def test_the_least_loaded_choice_spreads(office: Office):
    office.alive()
    nodes = [office.offer(office.vm(number), None).consent.node for number in range(60)]
    assert nodes.count("AzS-ERCS01") == nodes.count("AzS-ERCS02") == 30


def test_a_consent_that_ended_loads_no_node(office: Office):
    office.alive()
    for number in range(10):
        consent = office.offer(office.vm(number), "AzS-ERCS01").consent
        office.do(lambda desk, jti=consent.jti: desk.take_back(jti))
    assert offered(office).node == "AzS-ERCS01"


def test_a_node_that_was_tried_is_not_asked_again(office: Office):
    office.alive()
    first = enabled(office)
    assert isinstance(first, Offer)
    assert first.others == 1
    office.do(lambda desk: desk.take_back(first.consent.jti))
    second = enabled(office, tried=(first.consent.node,))
    assert isinstance(second, Offer)
    assert (second.consent.node, second.others) == ("AzS-ERCS02", 0)
    assert second.consent.cid != first.consent.cid
    office.do(lambda desk: desk.take_back(second.consent.jti))
    assert office.refusal(lambda: enabled(office, tried=("AzS-ERCS01", "AzS-ERCS02"))) is Refusal.NO_NODE


# a repeat


def test_a_repeat_answers_what_stands_and_extends_nothing(office: Office):
    office.alive()
    consent = accepted(office, offered(office))
    office.now += 1000
    found = enabled(office, replace(ASK, giver="somebody else"))
    assert isinstance(found, Enabled)
    assert (found.consent.jti, found.consent.expires_at, found.uuid, found.how) == (
        consent.jti,
        NOW + 28_800,
        "u",
        How.REPEATED,
    )


def test_a_uuid_that_the_node_did_not_say_is_empty(office: Office):
    office.alive()
    consent = offered(office)
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, consent.jti))
    office.do(lambda desk: desk.acknowledge(consent.jti))
    found = enabled(office)
    assert isinstance(found, Enabled)
    assert found.uuid == ""


def test_a_repeat_with_the_same_scopes_spelled_out_is_one(office: Office):
    office.alive()
    accepted(office, offered(office, replace(ASK, kinds=frozenset({Kind.SERIAL}))))
    assert isinstance(enabled(office, replace(ASK, kinds=frozenset({Kind.SERIAL}), access=Access.KEYBOARD)), Enabled)


def test_a_repeat_with_other_scopes_is_refused(office: Office):
    office.alive()
    accepted(office, offered(office))
    others = (
        replace(ASK, kinds=frozenset({Kind.SERIAL})),
        replace(ASK, access=Access.VIEW),
        replace(ASK, operators=frozenset({Principal(False, "ann")})),
    )
    assert [office.refusal(lambda ask=ask: enabled(office, ask)) for ask in others] == [Refusal.CONFLICT] * 3


def test_another_vm_is_another_matter(office: Office):
    office.alive()
    accepted(office, offered(office))
    assert offered(office, Ask(OTHER_VM, "tenant")).node == "AzS-ERCS02"


def test_what_has_ended_is_not_repeated(office: Office):
    office.alive()
    consent = accepted(office, offered(office))
    office.receive(office.pen, office.pen.receipt(Event.ENDED, consent.jti, reason="vm-gone"))
    assert offered(office).cid != consent.cid


def test_after_a_disable_the_next_is_a_fresh_one(office: Office):
    office.alive()
    consent = accepted(office, offered(office))
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    again = offered(office)
    assert (again.cid == again.jti, again.cid != consent.cid, again.issued_at > consent.issued_at) == (True, True, True)


# two at once


def test_an_offer_under_way_makes_the_second_call_wait(office: Office):
    office.alive()
    consent = offered(office)
    assert enabled(office) == UnderWay(consent.jti)
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, consent.jti))
    # accepted, and its giver not told yet: he may have gone
    assert enabled(office) == UnderWay(consent.jti)
    office.do(lambda desk: desk.acknowledge(consent.jti))
    assert isinstance(enabled(office), Enabled)


def test_an_offer_that_failed_keeps_nobody_waiting(office: Office):
    office.alive()
    consent = offered(office)
    office.receive(office.pen, office.pen.receipt(Event.REFUSED, consent.jti, why="vm-unknown"))
    assert isinstance(enabled(office), Offer)


def test_an_offer_that_nobody_took_up_keeps_nobody_waiting(office: Office):
    office.alive()
    offered(office)
    office.now += 16
    office.alive()
    assert isinstance(enabled(office), Offer)


# renewal


def test_a_renewal_is_a_new_token_of_the_same_consent_at_the_same_node(office: Office):
    office.alive()
    first = accepted(office, offered(office, replace(ASK, kinds=frozenset({Kind.SERIAL}))))
    office.now += 3600
    office.alive()
    found = enabled(office, replace(ASK, renew=True))
    assert isinstance(found, Offer)
    again = found.consent
    assert (again.cid, again.node, found.how, found.others) == (first.cid, first.node, How.RENEWED, 0)
    assert again.jti != first.jti
    assert again.expires_at == office.now + 28_800
    assert again.kinds == first.kinds


def test_a_renewal_may_change_the_scopes(office: Office):
    office.alive()
    accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True, access=Access.VIEW))
    assert again.access is Access.VIEW


def test_a_renewal_in_the_same_second_is_issued_later(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    assert offered(office, replace(ASK, renew=True)).issued_at == first.issued_at + 1


def test_a_renewal_counts_with_its_nodes_word(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True))
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, again.jti, uuid="u"))
    assert [state(office, one.jti) for one in (first, again)] == [State.REPLACED, State.GRANTED]
    found = enabled(office)
    assert isinstance(found, Enabled)
    assert found.consent.jti == again.jti


def test_while_a_renewal_is_under_way_a_repeat_answers_what_stands(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True))
    found = enabled(office)
    assert isinstance(found, Enabled)
    assert found.consent.jti == first.jti
    assert enabled(office, replace(ASK, renew=True)) == UnderWay(again.jti)


def test_a_renewal_that_is_refused_leaves_what_stood(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True))
    office.receive(office.pen, office.pen.receipt(Event.REFUSED, again.jti, why="vm-ambiguous"))
    notice = office.do(lambda desk: desk.take_back(again.jti))
    assert notice is not None
    assert notice.consent == again.jti
    assert state(office, first.jti) is State.GRANTED


def test_a_renewal_without_an_answer_is_not_revoked(office: Office):
    # if its node took it, the old token is gone there, and the new one's revocation would end what the tenant wants
    office.alive()
    first = accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True))
    assert office.do(lambda desk: desk.take_back(again.jti)) is None
    office.now += 16
    assert office.do(lambda desk: desk.sweep()) == []
    assert state(office, first.jti) is State.GRANTED
    # its word may come late
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, again.jti, uuid="u"))
    assert [state(office, one.jti) for one in (first, again)] == [State.REPLACED, State.GRANTED]


def test_an_unanswered_renewal_of_a_crash_is_left_by_the_sweep_once(office: Office):
    office.alive()
    accepted(office, offered(office))
    offered(office, replace(ASK, renew=True))
    office.now += 16
    assert office.do(lambda desk: desk.sweep()) == []
    assert office.do(lambda desk: desk.books.overdue(office.now * 1000, 10)) == []


def test_a_renewal_at_a_silent_node_is_refused(office: Office):
    office.alive()
    accepted(office, offered(office))
    office.now += 10
    office.ask(office.other.request())
    assert office.refusal(lambda: enabled(office, replace(ASK, renew=True))) is Refusal.NODE_SILENT


def test_a_renewal_is_refused_from_the_moment_at_which_its_node_counts_as_silent(office: Office):
    office.alive()
    accepted(office, offered(office))
    office.now += ALIVE_MS // 1000
    office.ask(office.other.request())
    assert office.refusal(lambda: enabled(office, replace(ASK, renew=True))) is Refusal.NODE_SILENT


def test_a_renewal_that_its_node_left_unanswered_is_not_offered_again_by_the_same_call(office: Office):
    office.alive()
    node = accepted(office, offered(office)).node
    assert office.refusal(lambda: enabled(office, replace(ASK, renew=True), tried=(node,))) is Refusal.NODE_SILENT


def test_revoking_a_renewed_consent_by_its_id_revokes_the_token_that_stands(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    again = accepted(office, offered(office, replace(ASK, renew=True)))
    notices = office.do(lambda desk: desk.revoke_consent(first.cid, Ending.CONSENT_REVOKED))
    assert [one.consent for one in notices] == [again.jti]


def test_a_deletion_ends_a_renewal_under_way_too(office: Office):
    office.alive()
    first = accepted(office, offered(office))
    again = offered(office, replace(ASK, renew=True))
    notices = office.receive(office.pen, office.pen.receipt(Event.DELETED, first.jti, account="op")).notices
    assert [one.consent for one in notices] == [first.jti, again.jti]


# the feature


def test_disabling_a_subscription_ends_its_consents_in_that_transaction(office: Office):
    office.alive()
    consent = accepted(office, offered(office))
    (notice,) = office.do(lambda desk: disable_subscription(desk, VM.subscription.upper()))
    revocation = office.revocation(notice.token)
    assert (revocation.reason, revocation.resource_id) == (Ending.FEATURE_DISABLED, VM)
    assert state(office, consent.jti) is State.REVOKED
    assert office.refusal(lambda: enabled(office)) is Refusal.FEATURE_OFF


def test_it_ends_an_offer_under_way_too(office: Office):
    office.alive()
    consent = offered(office)
    assert len(office.do(lambda desk: disable_subscription(desk, VM.subscription))) == 1
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, consent.jti))
    assert office.do(lambda desk: desk.acknowledge(consent.jti)) is None


def test_another_subscription_keeps_its_consents(office: Office):
    office.alive()
    other = office.in_other_subscription()
    mine, theirs = accepted(office, offered(office)), accepted(office, offered(office, Ask(other, "tenant")))
    office.do(lambda desk: disable_subscription(desk, VM.subscription))
    assert [state(office, one.jti) for one in (mine, theirs)] == [State.REVOKED, State.GRANTED]


def test_while_the_feature_is_enabled_for_all_the_list_ends_nothing(office: Office):
    office.alive()
    accepted(office, offered(office))
    assert office.do(lambda desk: set_global_state(desk, GlobalState.ENABLED)) == []
    assert office.do(lambda desk: disable_subscription(desk, VM.subscription)) == []
    (notice,) = office.do(lambda desk: set_global_state(desk, GlobalState.TENANT_SUBSCRIPTION_LEVEL))
    assert office.revocation(notice.token).reason is Ending.FEATURE_DISABLED


def test_disabling_the_feature_ends_every_consent(office: Office):
    office.alive()
    other = office.in_other_subscription()
    for vm in (VM, other):
        accepted(office, offered(office, Ask(vm, "tenant")))
    assert len(office.do(lambda desk: set_global_state(desk, GlobalState.DISABLED))) == 2


def test_to_say_it_again_is_to_wait_again(office: Office):
    """What no node has confirmed yet is not done, whoever asks."""
    office.granted()
    (first,) = office.do(lambda desk: disable_subscription(desk, VM.subscription))
    assert office.do(lambda desk: disable_subscription(desk, VM.subscription)) == [first]
    assert office.do(lambda desk: set_global_state(desk, GlobalState.DISABLED)) == [first]
    office.receive(office.pen, office.pen.receipt(Event.ENDED, first.jti, first.seq, sessions="0", cut_us="1"))
    assert office.do(lambda desk: disable_subscription(desk, VM.subscription)) == []


def test_one_subscriptions_end_waits_for_no_others(office: Office):
    other = office.in_other_subscription()
    office.granted(other)
    office.do(lambda desk: disable_subscription(desk, other.subscription))
    assert office.do(lambda desk: disable_subscription(desk, VM.subscription)) == []


def test_nobody_waits_for_what_has_run_out(office: Office):
    office.granted()
    office.do(lambda desk: disable_subscription(desk, VM.subscription))
    office.now += 3600
    assert office.do(lambda desk: disable_subscription(desk, VM.subscription)) == []
