"""provider/store/visits.py: what is kept of nodes' records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eva.audit import Event as Audited
from eva.audit import Told
from eva.consent import Consent
from provider.store.visits import Visit
from tests.provider_office import NOW, Office
from tests.provider_parts import jti

NODE, OTHER = "AzS-ERCS01", "AzS-ERCS02"
STARTED = {"session": "s1", "account": "ann", "address": "::1", "kind": "serial", "access": "view"}


def told(consent: Consent, event: Audited, at: int = 0, **facts: str | int) -> Told:
    return Told(consent.cid, 0, (NOW + at) * 1000, event, facts, "", "")


def also_at(office: Office, consent: Consent, node: str) -> None:
    """Another node was offered the consent too."""
    token = office.offer(office.vm(9)).token
    office.do(lambda desk: desk.books.file_consent(replace(consent, jti=jti(), node=node), token, 0))


def files(office: Office, consent: Consent, *records: Told, node: str = NODE) -> list[Visit]:
    """What is known of the consent's sessions once its node has told these."""
    for one in records:
        office.do(lambda desk, one=one: desk.visits.file(consent.cid, node, one, desk.now_ms))
    return office.do(lambda desk: desk.visits.newest(consent.cid, 10))


def paused(office: Office, consent: Consent) -> bool:
    return office.do(lambda desk: desk.visits.is_paused(consent.cid))


def test_a_session_from_its_start_to_its_end(office: Office):
    consent = office.granted()
    start = told(consent, Audited.SESSION_START, **STARTED)
    visit = Visit("s1", "ann", "::1", "serial", "view", NODE, NOW * 1000, None, None)
    assert files(office, consent, start) == [visit]
    end = told(consent, Audited.SESSION_END, 5, session="s1", reason="operator-left")
    assert files(office, consent, end) == [replace(visit, ended_ms=(NOW + 5) * 1000, ending="operator-left")]


def test_an_end_without_a_start_is_none(office: Office):
    consent = office.granted()
    assert files(office, consent, told(consent, Audited.SESSION_END, session="s1", reason="operator-left")) == []


def test_a_start_told_twice_stays_the_first(office: Office):
    consent = office.granted()
    first, second = (told(consent, Audited.SESSION_START, at, **STARTED | {"account": f"op{at}"}) for at in (0, 1))
    assert [one.account for one in files(office, consent, first, second)] == ["op0"]


def test_one_nodes_end_ends_no_session_of_anothers(office: Office):
    consent = office.granted()
    also_at(office, consent, OTHER)
    files(office, consent, told(consent, Audited.SESSION_START, **STARTED))
    (visit,) = files(office, consent, told(consent, Audited.SESSION_END, session="s1", reason="x"), node=OTHER)
    assert visit.ended_ms is None


def test_a_record_of_another_chain_than_its_receipt_says_counts_for_nothing(office: Office):
    consent, other = office.granted(), office.granted(office.vm(1))
    assert files(office, consent, told(other, Audited.SESSION_START, **STARTED)) == []


def test_what_is_no_text_is_empty(office: Office):
    consent = office.granted()
    (visit,) = files(office, consent, told(consent, Audited.SESSION_START, session="s1", account=7))
    assert (visit.account, visit.address) == ("", "")


def test_they_are_given_in_the_order_in_which_they_began(office: Office):
    consent = office.granted()
    starts = [told(consent, Audited.SESSION_START, at, **STARTED | {"session": f"s{at}"}) for at in (2, 1, 3)]
    assert [one.session for one in files(office, consent, *starts)] == ["s1", "s2", "s3"]
    assert [one.session for one in office.do(lambda desk: desk.visits.newest(consent.cid, 2))] == ["s2", "s3"]


def test_nobody_has_paused_of_whom_nothing_is_told(office: Office):
    assert not paused(office, office.granted())


def test_the_last_word_counts(office: Office):
    consent = office.granted()
    files(office, consent, told(consent, Audited.INPUT_PAUSED))
    assert paused(office, consent)
    files(office, consent, told(consent, Audited.INPUT_RESUMED))
    assert not paused(office, consent)


def test_of_two_nodes_words_the_later_counts_whenever_it_comes(office: Office):
    consent = office.granted()
    also_at(office, consent, OTHER)
    office.now += 10
    files(office, consent, told(consent, Audited.INPUT_RESUMED, 5), node=OTHER)
    files(office, consent, told(consent, Audited.INPUT_PAUSED, 4))
    assert not paused(office, consent)


@pytest.mark.parametrize("node", [NODE, OTHER])
def test_of_two_nodes_words_at_one_time_the_pause_counts(office: Office, node: str):
    consent = office.granted()
    also_at(office, consent, OTHER)
    for each in (NODE, OTHER):
        files(office, consent, told(consent, Audited.INPUT_PAUSED if each == node else Audited.INPUT_RESUMED), node=each)
    assert paused(office, consent)
