"""provider/consent/intake.py: what nodes send, taken in a real store, without network or loop."""

from __future__ import annotations

import pytest

from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, Typ
from eva.whereabouts import Query
from eva.wire import MAX_REVOCATIONS, Envelope, Event
from provider.consent.authority import RecentNonces, Refusal
from provider.consent.desk import replace
from provider.consent.intake import Ahead, Intake, Numbers
from provider.store.filed import Enrolled, State
from tests.provider_office import NOW, OTHER_VM, VM, Office
from tests.provider_parts import Pen, jti

# offers that somebody waits for


def test_an_acceptance_that_is_awaited_here_is_granted_in_the_same_transaction(office: Office):
    jti = office.offer().consent.jti
    envelope = Envelope(office.pen.receipt(Event.ACCEPTED, jti, uuid="u"))
    office.do(lambda desk: Intake(desk, {jti}).take_receipt(envelope, office.pen.name))
    filed = office.do(lambda desk: desk.books.consent(jti))
    assert filed is not None
    assert filed.stands(NOW)


def test_an_acceptance_that_nobody_awaits_here_stands_only_once_its_giver_is_told(office: Office):
    jti, other = office.offer().consent.jti, office.offer(OTHER_VM).consent.jti
    envelope = Envelope(office.pen.receipt(Event.ACCEPTED, jti, uuid="u"))
    office.do(lambda desk: Intake(desk, {other}).take_receipt(envelope, office.pen.name))
    filed = office.do(lambda desk: desk.books.consent(jti))
    assert filed is not None
    assert not filed.stands(NOW)
    assert office.do(lambda desk: desk.acknowledge(jti)) is not None


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


def test_a_node_is_answered_on_its_own_topic(office: Office):
    assert office.ask(office.pen.request(), spoken_as="AzS-ERCS01").node == "AzS-ERCS01"


def test_a_node_ahead_of_the_store_gets_no_lease(office: Office):
    office.pen.seq = 1
    assert office.refusal(lambda: office.ask(office.pen.request())) is Refusal.AHEAD


def test_a_replaced_key_counts_for_nothing_at_once(office: Office):
    old, new = office.pen, Pen("AzS-ERCS01")
    office.do(lambda desk: replace(desk, new.name, new.public))
    with pytest.raises(BadToken):
        office.ask(old.request())
    assert office.ask(new.request()).node == "AzS-ERCS01"


def test_a_lease_request_replayed_is_answered_and_counts_as_no_sign_of_life(office: Office):
    token = office.pen.request()
    office.ask(token)
    office.now += 100
    office.ask(token)
    assert office.do(lambda desk: desk.books.node("AzS-ERCS01")).asked_ms == NOW * 1000


# a node whose state is an old one


def told(office: Office) -> list[str]:
    """What the node told, in order: two words in one second, and one in the next."""
    pen, words = office.pen, []
    for count, clock in [(5, 1), (7, 1), (9, 2)]:
        pen.clock = NOW + clock - 1
        words.append(pen.request(audit_count=count, audit_head=f"{count}"))
    return words


def node(office: Office) -> Enrolled:
    found = office.do(lambda desk: desk.books.node("AzS-ERCS01"))
    assert found is not None
    return found


def put_back(office: Office, count: int = 5, head: str = "5") -> str:
    """What the node says next after its disk was put back to what it was at the first word."""
    return office.pen.request(audit_count=count, audit_head=head)


def test_the_newest_iat_is_kept(office: Office):
    for word in told(office):
        office.ask(word)
    office.pen.clock = NOW - 100
    office.ask(office.pen.request(audit_count=9, audit_head="9"))
    assert node(office).asked_at == NOW + 2


def test_a_shorter_audit_in_a_newer_word_is_refused_for_good(office: Office):
    for word in told(office):
        office.ask(word)
    assert office.refusal(lambda: office.ask(put_back(office))) is Refusal.ROLLED_BACK
    assert (node(office).behind_ms, node(office).conflict_ms) == (NOW * 1000, None)
    # also once it has grown past what it told
    assert office.refusal(lambda: office.ask(office.pen.request(audit_count=99, audit_head="99"))) is Refusal.ROLLED_BACK


def test_another_head_for_a_count_is_refused_for_good_whatever_its_iat(office: Office):
    for word in told(office):
        office.ask(word)
    office.pen.clock = NOW - 100
    assert office.refusal(lambda: office.ask(put_back(office, 7, "SEVEN"))) is Refusal.ROLLED_BACK
    assert (node(office).conflict_ms, node(office).conflict_count) == (NOW * 1000, 7)
    assert office.refusal(lambda: office.ask(office.pen.request(audit_count=99, audit_head="99"))) is Refusal.ROLLED_BACK


def test_another_head_for_the_newest_count_is_refused(office: Office):
    for word in told(office):
        office.ask(word)
    assert office.refusal(lambda: office.ask(put_back(office, 9, "NINE"))) is Refusal.ROLLED_BACK


def test_a_word_brought_again_or_overtaken_is_not_answered_and_blames_nobody(office: Office):
    first, second, third = told(office)
    office.ask(first)
    office.ask(third)
    for word in (first, second, first):
        office.nonces = RecentNonces()  # another provider reads it
        assert office.refusal(lambda late=word: office.ask(late)) is Refusal.LATE
    assert not node(office).rolled_back
    assert office.ask(third).node == "AzS-ERCS01"


def test_a_word_overtaken_within_its_second_blames_nobody(office: Office):
    first, second, third = told(office)
    office.ask(second)
    assert office.refusal(lambda: office.ask(first)) is Refusal.LATE
    assert office.ask(third).node == "AzS-ERCS01"


def test_the_newest_word_on_both_ways_is_answered_twice(office: Office):
    word = told(office)[0]
    assert office.lease(office.ask(word))[0].nonce == office.lease(office.ask(word))[0].nonce


def test_a_clock_set_back_is_no_old_state(office: Office):
    for word in told(office):
        office.ask(word)
    office.pen.clock = NOW - 3600
    assert office.ask(office.pen.request(audit_count=10, audit_head="10")).node == "AzS-ERCS01"


def test_an_old_state_with_an_old_clock_gets_no_lease(office: Office):
    for word in told(office):
        office.ask(word)
    office.pen.clock = NOW - 3600
    assert office.refusal(lambda: office.ask(put_back(office))) is Refusal.LATE
    office.pen.clock = NOW + 3600
    assert office.refusal(lambda: office.ask(put_back(office))) is Refusal.ROLLED_BACK


def test_a_store_brought_back_from_an_old_copy_takes_the_longer_chain(office: Office):
    first, _, third = told(office)
    office.ask(first)
    office.ask(third)
    assert node(office).audit_count == 9


def test_no_receipt_of_a_node_with_an_old_state_is_taken(office: Office):
    for word in told(office):
        office.ask(word)
    receipt = office.pen.receipt(Event.ENDED, jti(), reason="vm-gone")
    assert office.refusal(lambda: office.ask(put_back(office), (receipt,))) is Refusal.ROLLED_BACK
    assert office.refusal(lambda: office.receive(office.pen, receipt)) is Refusal.ROLLED_BACK
    assert node(office).receipts == 0


def test_a_node_with_an_old_state_is_offered_nothing_and_counts_as_silent(office: Office):
    office.alive()
    asked = node(office).asked_ms
    office.now += 1
    assert office.refusal(lambda: office.ask(put_back(office, 1, "another"))) is Refusal.ROLLED_BACK
    assert node(office).asked_ms == asked
    assert office.do(lambda desk: desk.nodes_for(())) == ["AzS-ERCS02"]


def test_another_key_begins_anew(office: Office):
    for word in told(office):
        office.ask(word)
    assert office.refusal(lambda: office.ask(put_back(office))) is Refusal.ROLLED_BACK
    new = Pen("AzS-ERCS01", clock=NOW - 3600)
    office.do(lambda desk: replace(desk, new.name, new.public))
    assert office.ask(new.request()).node == "AzS-ERCS01"
    assert not node(office).rolled_back


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


def test_a_receipt_on_the_topic_of_nobody_who_is_enrolled_is_refused(office: Office):
    stranger = Pen("AzS-ERCS09")
    assert office.refusal(lambda: office.receive(stranger, stranger.receipt(Event.ENDED, jti()))) is Refusal.UNKNOWN_NODE


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


def test_a_node_ahead_that_sends_no_receipts_is_as_far_as_this_store_knows(office: Office):
    office.receive(office.pen, *(office.pen.receipt(Event.ENDED, jti(), reason="vm-gone") for _ in range(2)))
    office.pen.seq = 17
    with pytest.raises(Ahead) as caught:
        office.ask(office.pen.request())
    assert caught.value.numbers == Numbers("AzS-ERCS01", 17, 2)


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


def test_nobody_who_is_not_enrolled_is_repaired(office: Office):
    assert (
        office.refusal(lambda: office.do(lambda desk: Intake(desk).repair(Numbers("AzS-ERCS09", 1, 1)))) is Refusal.UNKNOWN_NODE
    )


# what another provider took


def test_receipts_that_are_filed_are_told_again_to_whoever_waits_here(office: Office):
    token = office.pen.receipt(Event.ENDED, jti(), reason="vm-gone")
    assert office.receive(office.pen, token).known == ()
    came = office.receive(office.pen, token)
    assert ([one.number for one in came.known], came.receipts) == ([1], ())
