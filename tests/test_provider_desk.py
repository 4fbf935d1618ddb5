"""provider/desk.py: decisions in a real store, without network or loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from eva.consent import CLOUDADMIN, Access, Consent, Kind, Revocation
from eva.ending import Ending
from eva.resource_id import ResourceId
from eva.token import BadToken, Typ, verify
from eva.wire import MAX_REVOCATIONS, Envelope, Event, Lease
from provider.authority import AnchorVerdict, RecentNonces, Refusal, Refused
from provider.books import Books, State
from provider.desk import Answered, Desk, Offer, Wish, enrol
from provider.keys import Signer, sign_key_set
from provider.store import Store
from tests.provider_parts import Pen, jti, resource_id, signing_key

T = TypeVar("T")
NOW = 1_800_000_000
VM = ResourceId.parse(resource_id("vm1"))
OTHER_VM = ResourceId.parse(resource_id("vm2"))


class Office:
    """A store, a signer, two enrolled nodes and a clock that the test sets."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, create=True)
        key = signing_key()
        self.keys = {key.kid: key.private.public_key()}
        self.signer = Signer(key, sign_key_set(signing_key(), 1, self.keys.values()), 1)
        self.now = NOW
        self.pen, self.other = Pen("AzS-ERCS01"), Pen("AzS-ERCS02")
        self.nonces = RecentNonces()
        with self.store.write() as connection:
            for pen in (self.pen, self.other):
                enrol(Books(connection), pen.name, pen.public, NOW * 1000, replace=False)

    def do(self, decide: Callable[[Desk], T]) -> T:
        with self.store.write() as connection:
            return decide(Desk(connection, self.signer, self.now * 1000, jti))

    def offer(self, vm: ResourceId = VM, node: str | None = "AzS-ERCS01", seconds: int = 3600) -> Offer:
        wish = Wish(vm, "tenant", frozenset({CLOUDADMIN}), frozenset({Kind.SERIAL}), Access.VIEW, seconds, "why", node)
        return self.do(lambda desk: desk.offer(wish, 15_000))

    def granted(self, vm: ResourceId = VM, pen: Pen | None = None) -> Consent:
        pen = pen or self.pen
        consent = self.offer(vm, pen.name).consent
        self.receive(pen, pen.receipt(Event.ACCEPTED, consent.jti, uuid="u"))
        assert self.do(lambda desk: desk.acknowledge(consent.jti)) is not None
        return consent

    def receive(self, pen: Pen, *tokens: str):
        return self.do(lambda desk: desk.take_receipt(Envelope(tokens[0], receipts=tokens[1:]), pen.name))

    def ask(self, token: str, receipts: tuple[str, ...] = (), spoken_as: str | None = None) -> Answered:
        return self.do(lambda desk: desk.answer_lease(Envelope(token, receipts=receipts), spoken_as, self.nonces))

    def revocation(self, token: str, node: str = "AzS-ERCS01") -> Revocation:
        return Revocation.from_claims(verify(token, Typ.REVOCATION, self.keys, node))

    def lease(self, answer: Answered) -> tuple[Lease, list[int]]:
        """The lease, and the numbers of the revocations that came with it."""
        envelope = Envelope.decode(answer.payload)
        lease = Lease.from_claims(verify(envelope.token, Typ.LEASE, self.keys, answer.node))
        return lease, [self.revocation(token, answer.node).seq for token in envelope.revocations]

    def refusal(self, decide: Callable[[], object]) -> Refusal:
        with pytest.raises(Refused) as caught:
            decide()
        return caught.value.refusal


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "provider.db")
    yield office
    office.store.close()


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
    notice = office.do(lambda desk: desk.revoke_consent(consent.jti, Ending.CONSENT_REVOKED))
    assert office.revocation(notice.token).consent == consent.jti
    assert office.do(lambda desk: desk.books.consent(other.jti)).state(NOW) is State.GRANTED


def test_what_is_not_there_cannot_be_revoked(office: Office):
    assert office.refusal(lambda: office.do(lambda d: d.revoke_vm(VM, Ending.CONSENT_REVOKED))) is Refusal.NO_CONSENT
    assert office.refusal(lambda: office.do(lambda d: d.revoke_consent(jti(), Ending.CONSENT_REVOKED))) is Refusal.NO_CONSENT


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
    assert office.ask(office.pen.request(audit_count=5, audit_head="five")).verdict is AnchorVerdict.BEHIND
    assert office.ask(office.pen.request(audit_count=5, audit_head="FIVE")).verdict is AnchorVerdict.CONFLICT
    node = office.do(lambda desk: desk.books.node("AzS-ERCS01"))
    assert (node.audit_count, node.audit_head, node.conflict_count, node.behind_ms) == (9, "nine", 5, NOW * 1000)


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
    notice = office.do(lambda desk: desk.revoke_consent(consent.jti, Ending.CONSENT_REVOKED))
    token = office.pen.receipt(Event.ENDED, consent.jti, notice.seq, cut_us="37400", sessions="2")
    (confirmed,) = office.receive(office.pen, token).confirmed
    assert (confirmed.cut_us, confirmed.sessions) == (37400, 2)
    assert confirmed.confirmed_ms is not None


def test_a_number_that_no_store_holds_is_left_out(office: Office):
    consent = office.granted()
    notice = office.do(lambda desk: desk.revoke_consent(consent.jti, Ending.CONSENT_REVOKED))
    token = office.pen.receipt(Event.ENDED, consent.jti, notice.seq, cut_us="9" * 40, sessions="-1")
    (confirmed,) = office.receive(office.pen, token).confirmed
    assert (confirmed.cut_us, confirmed.sessions) == (None, None)


def test_another_node_confirms_nothing(office: Office):
    consent = office.granted()
    notice = office.do(lambda desk: desk.revoke_consent(consent.jti, Ending.CONSENT_REVOKED))
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


# enrolment


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "-a"])
def test_a_name_that_is_no_host_name_is_refused(office: Office, name: str):
    add = lambda: office.do(lambda desk: enrol(desk.books, name, Pen("x").public, NOW, replace=False))  # noqa: E731 - one line twice
    assert office.refusal(add) is Refusal.BAD_NAME


def test_a_name_or_key_is_enrolled_once(office: Office):
    for name, key in [("azs-ercs01", Pen("x").public), ("AzS-ERCS03", office.pen.public)]:
        add = lambda n=name, k=key: office.do(lambda desk: enrol(desk.books, n, k, NOW, replace=False))  # noqa: E731 - as above
        assert office.refusal(add) is Refusal.ENROLLED


def test_one_key_never_serves_two_nodes(office: Office):
    add = lambda: office.do(lambda desk: enrol(desk.books, "AzS-ERCS01", office.other.public, NOW, replace=True))  # noqa: E731 - as above
    assert office.refusal(add) is Refusal.ENROLLED
