"""provider/intake.py: what nodes send, taken in a real store, without network or loop."""

from __future__ import annotations

import pytest

from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, Typ
from eva.whereabouts import Query
from eva.wire import MAX_REVOCATIONS, Envelope, Event
from provider.authority import LATELY_MS, AnchorVerdict, Refusal
from provider.books import State
from provider.desk import enrol
from provider.intake import Ahead, Intake, Numbers
from tests.provider_office import NOW, OTHER_VM, VM, Office
from tests.provider_parts import Pen, jti

# leases


def test_a_lease_echoes_the_nonce_and_says_the_highest_seq(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    nonce = jti()
    lease, carried = office.lease(office.ask(office.pen.request(nonce)))
    assert (lease.nonce, lease.seq, lease.receipts, carried) == (nonce, 1, 1, [1])


def test_two_hundred_revocations_come_in_pages(office: Office):
    for _ in range(200):
        consent = office.offer().consent
        office.do(lambda desk, one=consent: desk.revoke_consent(one.jti, Ending.CONSENT_REVOKED))
    pages = []
    while office.pen.seq < 200:
        lease, carried = office.lease(office.ask(office.pen.request()))
        assert lease.seq == 200
        pages.append(len(carried))
        assert carried == list(range(office.pen.seq + 1, office.pen.seq + 1 + len(carried)))
        office.pen.seq = carried[-1]
    assert pages == [MAX_REVOCATIONS] * 3 + [8]


def test_a_node_hears_of_its_own_revocations_only(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    lease, carried = office.lease(office.ask(office.other.request()))
    assert (lease.seq, carried) == (0, [])


def test_the_key_set_comes_to_a_node_that_holds_an_older_one(office: Office):
    assert Envelope.decode(office.ask(office.pen.request()).payload).keys == office.signer.key_set
    office.pen.keys_version = 1
    assert Envelope.decode(office.ask(office.pen.request()).payload).keys is None


def test_a_key_that_is_not_enrolled_gets_no_answer(office: Office):
    with pytest.raises(BadToken, match="does not stand"):
        office.ask(Pen("AzS-ERCS01").request())


def test_one_node_cannot_speak_for_another(office: Office):
    office.other.name = "AzS-ERCS01"
    assert office.refusal(lambda: office.ask(office.other.request())) is Refusal.WRONG_NODE


def test_one_node_cannot_speak_on_anothers_topic(office: Office):
    assert office.refusal(lambda: office.ask(office.pen.request(), spoken_as="AzS-ERCS02")) is Refusal.WRONG_NODE


def test_a_node_ahead_of_the_store_gets_no_lease(office: Office):
    office.pen.seq = 1
    assert office.refusal(lambda: office.ask(office.pen.request())) is Refusal.AHEAD


def test_a_replaced_key_counts_for_nothing_at_once(office: Office):
    old, new = office.pen, Pen("AzS-ERCS01")
    office.do(lambda desk: enrol(desk.books, new.name, new.public, NOW, replace=True))
    with pytest.raises(BadToken):
        office.ask(old.request())
    assert office.ask(new.request()).node == "AzS-ERCS01"


def test_a_lease_request_replayed_is_answered_and_counts_as_no_sign_of_life(office: Office):
    token = office.pen.request()
    office.ask(token)
    office.now += 100
    office.ask(token)
    assert office.do(lambda desk: desk.books.node("AzS-ERCS01")).asked_ms == NOW * 1000


def test_a_changed_audit_chain_is_kept_as_evidence(office: Office):
    office.ask(office.pen.request(audit_count=5, audit_head="five"))
    office.ask(office.pen.request(audit_count=9, audit_head="nine"))
    # what the other of two providers reads a little late is no evidence
    assert office.ask(office.pen.request(audit_count=5, audit_head="five")).verdict is AnchorVerdict.SAME
    office.now += LATELY_MS // 1000
    assert office.ask(office.pen.request(audit_count=5, audit_head="five")).verdict is AnchorVerdict.BEHIND
    assert office.ask(office.pen.request(audit_count=5, audit_head="FIVE")).verdict is AnchorVerdict.CONFLICT
    node = office.do(lambda desk: desk.books.node("AzS-ERCS01"))
    assert (node.audit_count, node.audit_head, node.conflict_count, node.behind_ms) == (9, "nine", 5, office.now * 1000)


# receipts


def test_receipts_are_taken_without_a_gap_and_once(office: Office):
    one, two, three = (office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(3))
    assert [r.number for r in office.receive(office.pen, three).receipts] == []
    assert [r.number for r in office.receive(office.pen, two, one).receipts] == [1, 2]
    assert [r.number for r in office.receive(office.pen, one, two, three).receipts] == [3]
    assert office.lease(office.ask(office.pen.request()))[0].receipts == 3


def test_receipts_with_a_lease_request_count_in_its_answer(office: Office):
    tokens = tuple(office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(3))
    assert office.lease(office.ask(office.pen.request(), tokens))[0].receipts == 3


def test_a_receipt_of_another_node_is_not_taken(office: Office):
    forged = office.other.receipt(Event.ENDED, jti())
    assert office.receive(office.pen, forged).bad == 1
    office.other.name = office.pen.name
    assert office.receive(office.pen, office.other.receipt(Event.ENDED, jti(), number=1)).bad == 1
    name, office.pen.name = office.pen.name, "AzS-ERCS02"
    in_anothers_name = office.pen.receipt(Event.ENDED, jti(), number=1)
    office.pen.name = name
    assert office.receive(office.pen, in_anothers_name).bad == 1


def test_a_bad_receipt_keeps_no_lease_back(office: Office):
    answer = office.ask(office.pen.request(), ("no.token.atall", office.pen.receipt(Event.ENDED, jti())))
    assert (office.lease(answer)[0].receipts, answer.taken.bad) == (1, 1)


def test_two_receipts_with_one_number_are_a_conflict(office: Office):
    first = office.pen.receipt(Event.ENDED, jti())
    assert office.receive(office.pen, first).conflicts == 0
    assert office.receive(office.pen, first).conflicts == 0
    assert office.receive(office.pen, office.pen.receipt(Event.ENDED, jti(), number=1)).conflicts == 1


def test_a_revocation_is_confirmed_by_its_nodes_receipt(office: Office):
    consent = office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_consent(consent.cid, Ending.CONSENT_REVOKED))
    token = office.pen.receipt(Event.ENDED, consent.jti, notice.seq, cut_us="37400", sessions="2")
    (confirmed,) = office.receive(office.pen, token).confirmed
    assert (confirmed.cut_us, confirmed.sessions) == (37400, 2)
    assert confirmed.confirmed_ms is not None


def test_a_number_that_no_store_holds_is_left_out(office: Office):
    consent = office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_consent(consent.cid, Ending.CONSENT_REVOKED))
    token = office.pen.receipt(Event.ENDED, consent.jti, notice.seq, cut_us="9" * 40, sessions="-1")
    (confirmed,) = office.receive(office.pen, token).confirmed
    assert (confirmed.cut_us, confirmed.sessions) == (None, None)


def test_another_node_confirms_nothing(office: Office):
    consent = office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_consent(consent.cid, Ending.CONSENT_REVOKED))
    office.granted(OTHER_VM, office.other)
    office.receive(office.other, office.other.receipt(Event.ENDED, consent.jti, notice.seq))
    assert office.do(lambda desk: desk.books.revocation("AzS-ERCS01", 1)).confirmed_ms is None


def test_a_deletion_is_answered_by_a_revocation_of_our_own_once(office: Office):
    consent = office.granted()
    (notice,) = office.receive(office.pen, office.pen.receipt(Event.DELETED, consent.jti, account="op")).notices
    revocation = office.revocation(notice.token)
    assert (revocation.consent, revocation.reason, revocation.seq) == (consent.jti, Ending.CONSENT_REVOKED, 1)
    assert office.receive(office.pen, office.pen.receipt(Event.DELETED, consent.jti)).notices == ()
    assert office.do(lambda desk: desk.books.consent(consent.jti)).state(NOW) is State.REVOKED


def test_a_deletion_under_a_watermark_still_gets_its_own_answer(office: Office):
    consent = office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    (notice,) = office.receive(office.pen, office.pen.receipt(Event.DELETED, consent.jti)).notices
    assert notice.seq == 2


def test_a_deletion_that_comes_with_a_lease_request_is_answered_in_the_lease(office: Office):
    consent = office.granted()
    token = office.pen.receipt(Event.DELETED, consent.jti)
    lease, carried = office.lease(office.ask(office.pen.request(), (token,)))
    assert (lease.seq, carried) == (1, [1])


def test_a_node_cannot_end_another_nodes_consent(office: Office):
    consent = office.granted()
    office.receive(office.other, office.other.receipt(Event.DELETED, consent.jti))
    assert office.do(lambda desk: desk.books.consent(consent.jti)).state(NOW) is State.GRANTED
    assert office.do(lambda desk: desk.books.node("AzS-ERCS01")).seq == 0


def test_a_consent_that_ended_by_itself_is_shown_so(office: Office):
    consent = office.granted()
    office.receive(office.pen, office.pen.receipt(Event.ENDED, consent.jti, reason="vm-gone"))
    filed = office.do(lambda desk: desk.books.consent(consent.jti))
    assert (filed.state(NOW), filed.ended_reason) == (State.ENDED, "vm-gone")


# where a consent is


def whereabouts(office: Office, vm: ResourceId, pen: Pen | None = None, issued_at: int = NOW) -> str | None:
    pen = pen or office.other
    token = pen.key.sign(Typ.QUERY, Query(pen.name, jti(), issued_at, vm).to_claims())
    return office.do(lambda desk: Intake(desk).whereabouts(Envelope(token)))


def test_a_node_is_told_who_has_the_consent(office: Office):
    assert whereabouts(office, VM) is None
    office.granted()
    assert whereabouts(office, ResourceId.parse(str(VM).upper())) == "AzS-ERCS01"
    assert whereabouts(office, OTHER_VM) is None


def test_an_offer_or_an_ended_consent_is_nowhere(office: Office):
    office.offer()
    assert whereabouts(office, VM) is None
    office.granted(OTHER_VM)
    office.do(lambda desk: desk.revoke_vm(OTHER_VM, Ending.CONSENT_REVOKED))
    assert whereabouts(office, OTHER_VM) is None


@pytest.mark.parametrize("ahead", [-61, 61])
def test_a_query_of_another_minute_is_refused(office: Office, ahead: int):
    with pytest.raises(BadToken):
        whereabouts(office, VM, issued_at=NOW + ahead)


def test_a_query_in_anothers_name_is_refused(office: Office):
    office.other.name = "AzS-ERCS01"
    assert office.refusal(lambda: whereabouts(office, VM)) is Refusal.WRONG_NODE
    with pytest.raises(BadToken):
        whereabouts(office, VM, Pen("AzS-ERCS02"))


# a store that was brought back from an old copy


def test_a_node_ahead_says_how_far_it_is(office: Office):
    office.pen.seq, office.pen.number = 17, 40
    receipts = tuple(office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(2))
    with pytest.raises(Ahead) as caught:
        office.ask(office.pen.request(), receipts)
    assert caught.value.numbers == Numbers("AzS-ERCS01", 17, 40)
    office.do(lambda desk: Intake(desk).repair(caught.value.numbers))
    lease, carried = office.lease(office.ask(office.pen.request(), receipts))
    assert (lease.seq, lease.receipts, carried) == (17, 42, [])


def test_receipts_that_only_a_lost_store_had_are_noticed(office: Office):
    office.pen.number = 40
    receipts = tuple(office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(2))
    answer = office.ask(office.pen.request(), receipts)
    assert (office.lease(answer)[0].receipts, answer.lost) == (0, Numbers("AzS-ERCS01", 0, 40))
    office.do(lambda desk: Intake(desk).repair(answer.lost))
    answer = office.ask(office.pen.request(), receipts)
    assert (office.lease(answer)[0].receipts, answer.lost) == (42, None)


def test_receipts_sent_again_are_no_gap(office: Office):
    receipts = tuple(office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(2))
    assert [office.ask(office.pen.request(), receipts).lost for _ in range(2)] == [None, None]


def test_a_repair_takes_nothing_back(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.do(lambda desk: Intake(desk).repair(Numbers("AzS-ERCS01", 0, 0)))
    node = office.do(lambda desk: desk.books.node("AzS-ERCS01"))
    assert (node.seq, node.receipts) == (1, 1)


# what another provider took


def test_receipts_that_are_filed_are_told_again_to_whoever_waits_here(office: Office):
    token = office.pen.receipt(Event.ENDED, jti(), reason="vm-gone")
    assert office.receive(office.pen, token).known == ()
    came = office.receive(office.pen, token)
    assert ([one.number for one in came.known], came.receipts) == ([1], ())
