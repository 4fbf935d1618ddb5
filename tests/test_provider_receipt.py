"""provider/consent/receipt.py: what a tenant's receipt shows, and that nothing can be changed in it unseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eva.audit import Chains
from eva.audit import Event as Audited
from eva.consent import Consent
from eva.ending import Ending
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import thumbprint
from eva.wire import Event
from provider.consent.authority import Refusal
from provider.consent.receipt import PAGE, BadReceipt, Proof, document, verify_receipt
from provider.store.records import Mark
from tests.provider_office import NOW, OTHER_VM, VM, Office
from tests.provider_parts import Pen, jti, resource_id

PEN, OTHER = Pen("AzS-ERCS01"), Pen("AzS-ERCS02")
KEYS = {thumbprint(pen.public): pen.public for pen in (PEN, OTHER)}
CID = jti()
EXPIRES = NOW + 3600
LATER = (EXPIRES + 3600) * 1000

ACCEPTED: Mapping[str, Json] = {"resource_id": str(VM), "consent": CID, "expires_at": EXPIRES, "giver": "tenant"}
STARTED: Mapping[str, Json] = {"session": "s1", "account": "ann", "address": "::1", "kind": "serial", "access": "view"}


class Chain:
    """One node's records of one consent, each signed."""

    def __init__(self, pen: Pen = PEN, cid: str = CID) -> None:
        self.pen = Pen(pen.name, pen.key)
        self.cid = cid
        self._chains = Chains()
        self.tokens: list[str] = []

    def add(self, event: Audited, facts: Mapping[str, Json]) -> Chain:
        at_ms = (NOW + len(self.tokens)) * 1000
        self.tokens.append(self.pen.recorded(self._chains.next(self.cid, event, facts, at_ms)))
        return self

    def whole(self) -> Chain:
        self.add(Audited.CONSENT_ACCEPTED, ACCEPTED).add(Audited.SESSION_START, STARTED)
        self.add(Audited.KEYBOARD, {"session": "s1", "by": "ann"})
        self.add(Audited.SESSION_END, {"session": "s1", "reason": "consent-revoked"})
        return self.add(Audited.CONSENT_ENDED, {"consent": CID, "reason": "consent-revoked", "by": "provider"})


def paper(tokens: list[str], **changed: Any) -> bytes:
    body = {"eva_receipt": 1, "consent_id": CID, "resource_id": str(VM), "made_at_ms": NOW * 1000, "tokens": tokens}
    return json.dumps(body | changed).encode()


def proof(raw: bytes, now_ms: int = LATER) -> Proof:
    return verify_receipt([raw], KEYS, now_ms)


def why(raw: bytes) -> str:
    with pytest.raises(BadReceipt) as caught:
        proof(raw)
    return str(caught.value)


def test_a_whole_chain_is_proved_and_told():
    found = proof(paper(Chain().whole().tokens))
    assert (found.whole, found.consent_id, found.resource_id) == (True, CID, VM)
    assert "5 records" in found.lines[0]
    assert "session-start access=view account=ann address=::1 kind=serial session=s1" in found.lines[2]


def test_two_nodes_that_had_the_consent_are_both_told():
    second = Chain(OTHER).add(Audited.CONSENT_ACCEPTED, ACCEPTED).add(Audited.CONSENT_ENDED, {"reason": "consent-expired"})
    found = proof(paper(Chain().whole().tokens + second.tokens))
    assert found.whole
    assert [line for line in found.lines if line.startswith("AzS-ERCS02")]


# what was changed


@pytest.mark.parametrize("place", range(4))
def test_a_record_left_out_is_found(place: int):
    tokens = Chain().whole().tokens
    del tokens[place]
    assert "does not follow" in why(paper(tokens)) or "first record" in why(paper(tokens))


@pytest.mark.parametrize("place", range(4))
def test_two_records_exchanged_are_found(place: int):
    tokens = Chain().whole().tokens
    tokens[place], tokens[place + 1] = tokens[place + 1], tokens[place]
    assert "stands after" in why(paper(tokens))


@pytest.mark.parametrize("place", range(5))
def test_a_record_twice_is_found(place: int):
    tokens = Chain().whole().tokens
    tokens.insert(place, tokens[place])
    assert "stands after" in why(paper(tokens))


WHOLE = Chain().whole().tokens


@given(st.integers(0, 4), st.integers(0, 10_000), st.sampled_from("Az09-_."))
def test_no_character_of_a_token_can_be_changed(place: int, at: int, letter: str):
    tokens = list(WHOLE)
    token = tokens[place]
    at %= len(token)
    assume(token[at] != letter)
    tokens[place] = token[:at] + letter + token[at + 1 :]
    assert why(paper(tokens))


def test_a_record_signed_anew_by_another_key_is_found():
    forger = Chain(Pen(PEN.name)).whole()
    assert "not signed by any of the given nodes' keys" in why(paper(forger.tokens))


def test_a_record_of_another_consent_is_found():
    chain = Chain().whole()
    foreign = Chain(cid=jti()).add(Audited.CONSENT_ACCEPTED, ACCEPTED)
    foreign.pen.number = chain.pen.number
    foreign.add(Audited.CONSENT_ENDED, {})
    assert "tells of another consent" in why(paper([*chain.tokens, foreign.tokens[1]]))


def test_a_node_that_itself_edits_its_chain_is_found():
    first, second = Chain().whole(), Chain()
    second.add(Audited.CONSENT_ACCEPTED, ACCEPTED).add(Audited.SESSION_START, STARTED | {"account": "nobody"})
    assert "does not follow" in why(paper([first.tokens[0], second.tokens[1], *first.tokens[2:]]))


def test_a_session_that_ends_without_a_start_is_found():
    chain = Chain().add(Audited.CONSENT_ACCEPTED, ACCEPTED)
    chain.add(Audited.SESSION_END, {"session": "s1", "reason": "operator-left"})
    assert "never started" in why(paper(chain.tokens))


def test_records_of_another_vm_are_found():
    assert "another virtual machine" in why(paper(Chain().whole().tokens, resource_id=str(OTHER_VM)))


def test_another_consents_id_is_found():
    assert "another consent" in why(paper(Chain().whole().tokens, consent_id=jti()))


def test_one_key_for_two_nodes_is_found():
    other = Pen("AzS-ERCS09", PEN.key, number=9)
    token = other.receipt(Event.ENDED, CID, reason="x")
    assert "two nodes" in why(paper([*Chain().whole().tokens, token]))


# what is missing at the end


def test_without_its_last_records_it_is_not_whole():
    tokens = Chain().whole().tokens
    assert [proof(paper(tokens[:count])).whole for count in (5, 4, 3, 2, 1)] == [True, False, False, False, False]


def test_while_the_consent_runs_it_is_not_whole_and_says_why():
    found = proof(paper(Chain().whole().tokens[:1]), NOW * 1000)
    assert (found.whole, "had not ended" in found.lines[-1]) == (False, True)


def test_a_session_left_open_is_told():
    assert "1 sessions open" in proof(paper(Chain().whole().tokens[:3])).lines[-1]


def test_no_token_at_all_shows_nothing():
    assert not proof(paper([])).whole


# what is no receipt


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        paper([], eva_receipt=2),
        paper([], consent_id="x"),
        paper([], resource_id="/x"),
        paper([], more=1),
        paper([1]),  # type: ignore[list-item]  # the very fault
        paper([]).replace(b"[]", b"7"),
        paper(["a.b.c"]),
        paper([])[:-1] + b',"tokens":[]}',
    ],
)
def test_what_is_no_receipt_is_refused(raw: bytes):
    assert why(raw)


@given(st.binary(max_size=200))
def test_no_bytes_bring_it_down(raw: bytes):
    with pytest.raises(BadReceipt):
        proof(raw)


# the document


def filed(office: Office) -> tuple[Consent, Mapping[str, Any]]:
    """A consent that had a session and was withdrawn, as the store has it."""
    consent = office.granted()
    chains = Chains()
    for event, facts in (
        (Audited.CONSENT_ACCEPTED, ACCEPTED),
        (Audited.SESSION_START, STARTED),
        (Audited.SESSION_END, {"session": "s1", "reason": "consent-revoked"}),
        (Audited.CONSENT_ENDED, {"reason": "consent-revoked"}),
    ):
        office.receive(office.pen, office.pen.recorded(chains.next(consent.cid, event, facts, NOW * 1000)))
    (notice,) = office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.receive(office.pen, office.pen.receipt(Event.ENDED, notice.jti, notice.seq, cut_us="900", sessions="1"))
    raw = office.do(lambda desk: document(desk.records, VM, None, NOW * 1000))
    return consent, json.loads(raw)


def checked(office: Office, body: Mapping[str, Any]) -> Proof:
    keys = {thumbprint(pen.public): pen.public for pen in (office.pen, office.other)}
    return verify_receipt([json.dumps(body).encode()], keys, LATER)


def test_the_document_of_a_consent_proves_it(office: Office):
    consent, body = filed(office)
    found = checked(office, body)
    assert (found.whole, found.consent_id) == (True, consent.cid)
    assert any("cut_us=900" in line for line in found.lines)


def test_it_holds_nothing_of_another_consent(office: Office):
    other = office.granted(OTHER_VM)
    record = Chains().next(other.cid, Audited.CONSENT_ACCEPTED, {}, NOW)
    office.receive(office.pen, office.pen.recorded(record))
    _, body = filed(office)
    assert checked(office, body).whole


def refusal_of(office: Office) -> Callable[[ResourceId, str | None], Refusal]:
    return lambda vm, cid: office.refusal(lambda: office.do(lambda desk: document(desk.records, vm, cid, NOW)))


def test_anothers_consent_is_not_given_out_for_ones_own_vm(office: Office):
    consent, _ = filed(office)
    refusal = refusal_of(office)
    assert refusal(OTHER_VM, consent.cid) is Refusal.NO_CONSENT
    assert refusal(ResourceId.parse(resource_id("vm9")), None) is Refusal.NO_CONSENT
    assert refusal(VM, jti()) is Refusal.NO_CONSENT


# pages


def pages_of(office: Office, most: int) -> list[bytes]:
    filed(office)
    pages: list[bytes] = []
    after: Mark | None = None
    while after is not None or not pages:
        found = office.do(lambda desk, after=after: document(desk.records, VM, None, NOW * 1000, after, most))  # type: ignore[misc]
        pages.append(found)
        following = json.loads(found).get("next")
        after = None if following is None else Mark.parse(following)
    return pages


def proof_of(office: Office, pages: list[bytes]) -> Proof:
    keys = {thumbprint(pen.public): pen.public for pen in (office.pen, office.other)}
    return verify_receipt(pages, keys, LATER)


@pytest.mark.parametrize(("most", "count"), [(1, 6), (2, 3), (4, 2), (5, 2), (6, 1)])
def test_pages_in_their_order_are_the_whole(office: Office, most: int, count: int):
    pages = pages_of(office, most)
    assert (len(pages), max(len(json.loads(page)["tokens"]) for page in pages)) == (count, most)
    assert proof_of(office, pages).whole


def test_the_last_page_left_out_is_told(office: Office):
    found = proof_of(office, pages_of(office, 2)[:-1])
    assert not found.whole
    assert "a page follows that is not here" in found.lines[-1]


@pytest.mark.parametrize("order", [(1, 2), (0, 2), (0, 2, 1), (0, 1, 1, 2), (0, 0, 1, 2), (0, 1, 2, 2)])
def test_pages_in_another_order_or_not_all_are_found(office: Office, order: tuple[int, ...]):
    pages = pages_of(office, 2)
    with pytest.raises(BadReceipt):
        proof_of(office, [pages[place] for place in order])


def test_a_page_of_another_consent_is_found(office: Office):
    pages = pages_of(office, 3)
    pages[1] = json.dumps(json.loads(pages[1]) | {"consent_id": jti()}).encode()
    with pytest.raises(BadReceipt, match="another consent"):
        proof_of(office, pages)


KID = "k" * 22  # the same in every process that collects these tests


@pytest.mark.parametrize("mark", ["", "x.1", f"{KID}.", f"{KID}.x", f"{KID}.1.1", f"{KID}.-1", f"{KID}.{10**15}", 7, None])
def test_what_is_no_mark_is_refused(mark: object):
    assert "no receipt" in why(paper(WHOLE, next=mark))


def test_an_answer_is_bounded(office: Office):
    consent, _ = filed(office)
    facts = {"session": "s1", "by": "ann"}
    chain = Chains()
    records = [chain.next(consent.cid, Audited.KEYBOARD, facts, NOW * 1000) for _ in range(PAGE)]
    for record in records:
        office.receive(office.pen, office.pen.recorded(record))
    body = json.loads(office.do(lambda desk: document(desk.records, VM, None, NOW * 1000)))
    assert len(body["tokens"]) == PAGE
    assert body["next"] == f"{office.pen.key.kid}.{PAGE}"


def test_a_node_that_never_had_the_consent_has_no_word_in_its_receipt(office: Office):
    consent = office.granted()
    record = Chains().next(consent.cid, Audited.SESSION_START, STARTED, NOW * 1000)
    told = office.other.recorded(record)
    office.receive(office.other, told)
    body = json.loads(office.do(lambda desk: document(desk.records, VM, consent.cid, NOW * 1000)))
    assert len(body["tokens"]) == 1
    assert told not in body["tokens"]


def test_the_newest_is_the_one_given_last_however_long_it_lasts(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.now += 10
    short = office.offer(seconds=60).consent
    body = json.loads(office.do(lambda desk: document(desk.records, VM, None, NOW * 1000)))
    assert body["consent_id"] == short.cid
