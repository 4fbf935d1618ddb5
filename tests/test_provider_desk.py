"""provider/consent/desk.py: decisions in a real store, without network or loop."""

from __future__ import annotations

from contextlib import suppress

import pytest

from eva.consent import Consent, Revocation
from eva.ending import Ending
from eva.token import Typ, verify
from eva.wire import Envelope, Event
from provider.consent.ask import Ask
from provider.consent.authority import Refusal, Refused
from provider.consent.desk import enrol, replace
from provider.store.filed import Filed, Notice, State
from tests.provider_office import NOW, OTHER_VM, VM, Office
from tests.provider_parts import Pen, jti

# offers


def test_an_offer_is_a_consent_that_its_node_can_verify(office: Office):
    offer = office.offer()
    read = Consent.from_claims(verify(offer.token, Typ.CONSENT, office.keys, "AzS-ERCS01"))
    assert (read.jti, read.resource_id, read.expires_at) == (offer.consent.jti, VM, NOW + 3600)


def test_a_node_is_named_without_regard_to_case(office: Office):
    assert office.offer(node="azs-ercs01").consent.node == "AzS-ERCS01"


def test_an_offer_to_an_unknown_node_is_refused(office: Office):
    assert office.refusal(lambda: office.offer(node="AzS-ERCS09")) is Refusal.UNKNOWN_NODE


def test_without_a_name_the_least_loaded_living_node_is_taken(office: Office):
    assert office.refusal(lambda: office.offer(node=None)) is Refusal.NO_NODE
    office.ask(office.pen.request())
    office.ask(office.other.request())
    assert [office.offer(vm, None).consent.node for vm in (VM, OTHER_VM)] == ["AzS-ERCS01", "AzS-ERCS02"]


def test_a_grant_is_acknowledged_only_after_acceptance(office: Office):
    offer = office.offer()
    assert office.do(lambda desk: desk.acknowledge(offer.consent.jti)) is None
    office.receive(office.pen, office.pen.receipt(Event.REFUSED, offer.consent.jti, why="vm-unknown"))
    assert office.do(lambda desk: desk.acknowledge(offer.consent.jti)) is None


def test_a_revoked_offer_is_never_acknowledged(office: Office):
    offer = office.offer()
    office.do(lambda desk: desk.revoke_consent(offer.consent.jti, Ending.CONSENT_REVOKED))
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, offer.consent.jti))
    assert office.do(lambda desk: desk.acknowledge(offer.consent.jti)) is None


def test_another_nodes_acceptance_counts_for_nothing(office: Office):
    offer = office.offer()
    office.receive(office.other, office.other.receipt(Event.ACCEPTED, offer.consent.jti))
    assert office.do(lambda desk: desk.acknowledge(offer.consent.jti)) is None


def test_the_sweep_takes_back_an_offer_nobody_was_told_of(office: Office):
    offer = office.offer()
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, offer.consent.jti))
    kept = office.granted(OTHER_VM)
    assert office.do(lambda desk: desk.sweep()) == []
    office.now += 16
    (notice,) = office.do(lambda desk: desk.sweep())
    assert notice.consent == offer.consent.jti
    assert office.do(lambda desk: desk.sweep()) == []
    assert office.do(lambda desk: desk.books.consent(kept.jti)).state(office.now) is State.GRANTED


# revocations


def test_revoking_a_vm_is_one_watermark_for_each_node_that_has_consents(office: Office):
    office.granted()
    office.granted()
    office.granted(pen=office.other)
    notices = office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert [(notice.node, notice.seq) for notice in notices] == [("AzS-ERCS01", 1), ("AzS-ERCS02", 1)]
    revocation = office.revocation(notices[0].token)
    assert (revocation.resource_id, revocation.issued_by, revocation.consent_expires_at) == (VM, NOW, NOW + 3600)


def test_another_vms_consent_stays(office: Office):
    office.granted()
    other = office.granted(OTHER_VM)
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert office.do(lambda desk: desk.books.consent(other.jti)).state(NOW) is State.GRANTED


def test_a_new_consent_is_issued_past_the_watermark_in_the_same_second(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert office.offer().consent.issued_at == NOW + 1


def test_a_watermark_covers_a_consent_issued_ahead_of_the_clock(office: Office):
    for ahead in range(1, 4):
        office.granted()
        (notice,) = office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
        assert office.revocation(notice.token).issued_by == NOW + ahead - 1
    assert office.offer().consent.issued_at == NOW + 3


def test_too_many_rounds_in_one_second_are_refused(office: Office):
    for _ in range(31):
        office.offer()
        office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert office.refusal(office.offer) is Refusal.TOO_SOON


def test_revoking_again_gives_the_notice_of_then(office: Office):
    office.granted()
    first = office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.now += 5
    assert office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED)) == first


def test_revoking_one_consent_names_it(office: Office):
    consent, other = office.granted(), office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_consent(consent.cid, Ending.CONSENT_REVOKED))
    assert office.revocation(notice.token).consent == consent.jti
    assert office.do(lambda desk: desk.books.consent(other.jti)).state(NOW) is State.GRANTED


def test_what_is_not_there_cannot_be_revoked(office: Office):
    assert office.refusal(lambda: office.do(lambda d: d.revoke_vm(VM, Ending.CONSENT_REVOKED))) is Refusal.NO_CONSENT
    assert office.refusal(lambda: office.do(lambda d: d.revoke_consent(jti(), Ending.CONSENT_REVOKED))) is Refusal.NO_CONSENT


# enrolment


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "-a"])
def test_a_name_that_is_no_host_name_is_refused(office: Office, name: str):
    add = lambda: office.do(lambda desk: enrol(desk.books, name, Pen("x").public, NOW))  # noqa: E731 - one line twice
    assert office.refusal(add) is Refusal.BAD_NAME


def test_a_name_or_key_is_enrolled_once(office: Office):
    for name, key in [("azs-ercs01", Pen("x").public), ("AzS-ERCS03", office.pen.public)]:
        add = lambda n=name, k=key: office.do(lambda desk: enrol(desk.books, n, k, NOW))  # noqa: E731 - as above
        assert office.refusal(add) is Refusal.ENROLLED


def test_one_key_never_serves_two_nodes(office: Office):
    add = lambda: office.do(lambda desk: replace(desk, "AzS-ERCS01", office.other.public))  # noqa: E731 - as above
    assert office.refusal(add) is Refusal.ENROLLED


def replaced(office: Office) -> tuple[int, list[Revocation]]:
    """How many consents it said to have ended, and what the node with the new key gets."""
    new = Pen("AzS-ERCS01")
    ended = office.do(lambda desk: replace(desk, "azs-ercs01", new.public))
    answer = office.ask(new.request())
    return ended, [office.revocation(token) for token in Envelope.decode(answer.payload).revocations]


def state(office: Office, consent: Consent) -> State:
    return office.do(lambda desk: desk.books.consent(consent.jti)).state(NOW)


def test_another_key_ends_what_stood_at_the_old_one(office: Office):
    consents = [office.granted(), office.granted(OTHER_VM)]
    elsewhere = office.granted(office.vm(1), office.other)
    ended, revocations = replaced(office)
    assert ended == 2
    assert {one.consent for one in revocations} == {one.jti for one in consents}
    assert [one.seq for one in revocations] == [1, 2]
    assert [state(office, one) for one in (*consents, elsewhere)] == [State.REVOKED, State.REVOKED, State.GRANTED]
    assert office.do(lambda desk: desk.books.loads(NOW)).get("AzS-ERCS01", 0) == 0


def test_the_node_with_another_key_learns_of_all_that_was_signed_for_the_old_one(office: Office):
    """Whoever carries messages may bring it an offer, or a consent that the old node ended by itself."""
    ended, offered = office.granted(), office.offer(OTHER_VM).consent
    office.receive(office.pen, office.pen.receipt(Event.ENDED, ended.jti, reason="vm-gone"))
    count, revocations = replaced(office)
    assert (count, {one.consent for one in revocations}) == (0, {ended.jti, offered.jti})
    assert state(office, ended) is State.ENDED


def test_what_was_revoked_is_not_revoked_again_for_another_key(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    assert [one.seq for one in replaced(office)[1]] == [1]
    assert [one.seq for one in replaced(office)[1]] == [1]


def test_a_key_for_a_name_that_is_not_enrolled_replaces_nothing(office: Office):
    assert office.refusal(lambda: office.do(lambda desk: replace(desk, "AzS-ERCS09", Pen("x").public))) is Refusal.UNKNOWN_NODE


def test_what_its_node_has_ended_is_never_acknowledged(office: Office):
    offer = office.offer()
    jti = offer.consent.jti
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, jti), office.pen.receipt(Event.ENDED, jti, reason="vm-gone"))
    assert office.do(lambda desk: desk.acknowledge(jti)) is None


def test_an_offer_that_was_accepted_at_the_last_moment_is_granted(office: Office):
    offer = office.offer()
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, offer.consent.jti))
    assert isinstance(office.do(lambda desk: desk.settle(offer.consent.jti)), Filed)
    assert office.do(lambda desk: desk.books.consent(offer.consent.jti)).state(office.now) is State.GRANTED


def test_one_that_was_not_is_taken_back(office: Office):
    offer = office.offer()
    assert isinstance(office.do(lambda desk: desk.settle(offer.consent.jti)), Notice)
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, offer.consent.jti))
    assert office.do(lambda desk: desk.settle(offer.consent.jti)).consent == offer.consent.jti


LONG = Ask(VM, "tenant", reason="\N{GRINNING FACE}" * 256)


def test_what_no_token_could_hold_is_refused(office: Office):
    office.alive()
    assert office.refusal(lambda: office.do(lambda desk: desk.offer(LONG, 15_000))) is Refusal.TOO_BIG


def test_what_one_node_could_be_given_and_another_could_not_is_refused(office: Office):
    """A consent that cannot follow its VM when its node is lost was never one."""
    office.alive()
    enrolled = Pen("a" * 63)
    office.do(lambda desk: enrol(desk.books, enrolled.name, enrolled.public, NOW * 1000))
    office.ask(enrolled.request())

    def offered(length: int, node: str) -> bool:
        ask = Ask(VM, "tenant", reason="\N{GRINNING FACE}" * length, node=node)
        with suppress(Refused):
            office.do(lambda desk: desk.offer(ask, 15_000))
            return True
        return False

    takes = [[offered(length, name) for length in range(150, 256)] for name in ("AzS-ERCS01", enrolled.name)]
    assert takes[0] == takes[1]
    assert {True, False} <= set(takes[0])
