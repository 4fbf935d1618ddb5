"""eva/audit.py: a record that is edited, left out, moved or made up is found."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from eva.audit import GENESIS, MAX_RECORD, BadChain, Chains, Event, Record, verify, verify_records
from eva.consent import PROVIDER
from eva.token import MAX_BYTES, SigningKey, Typ
from eva.wire import Event as Told
from eva.wire import Receipt

JTI = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER = "BBBBBBBBBBBBBBBBBBBBBA"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def lines() -> list[bytes]:
    chains, made = Chains(), []
    for number, chain in enumerate(["", JTI, OTHER, JTI, OTHER, JTI]):
        made.append(chains.next(chain, Event.SESSION_START, {"n": number}, 1000 + number).line().rstrip(b"\n"))
    return made


def test_a_whole_log_verifies():
    assert verify(lines()).count == 6


def test_an_empty_log_has_the_genesis_as_head():
    assert verify([]).head == GENESIS


@pytest.mark.parametrize("place", range(6))
def test_a_record_left_out_is_found(place: int):
    log = lines()
    if place < 5:
        with pytest.raises(BadChain) as caught:
            verify(log[:place] + log[place + 1 :])
        assert caught.value.line == place + 1


@pytest.mark.parametrize("place", range(5))
def test_two_swapped_are_found(place: int):
    log = lines()
    log[place], log[place + 1] = log[place + 1], log[place]
    with pytest.raises(BadChain):
        verify(log)


def test_a_record_twice_is_found():
    log = lines()
    with pytest.raises(BadChain):
        verify([*log, log[-1]])


@given(st.integers(0, 5), st.sampled_from(["chain", "index", "at_ms", "event", "facts", "previous", "count", "node_previous"]))
def test_an_edited_member_is_found(place, member):
    log = lines()
    record = json.loads(log[place])
    change = {"chain": "x", "event": "node-stop", "facts": {"n": 99}, "previous": "1" * 64, "node_previous": "1" * 64}
    record[member] = change.get(member, record[member] + 1 if isinstance(record[member], int) else None)
    log[place] = json.dumps(record).encode()
    with pytest.raises(BadChain) as caught:
        verify(log)
    assert caught.value.line == place + 1


@given(st.integers(0, 5), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_found(place, at, change):
    log = lines()
    raw = bytearray(log[place])
    raw[at % len(raw)] ^= change
    log[place] = bytes(raw)
    with pytest.raises(BadChain):
        verify(log)


def test_an_edit_with_its_digests_made_anew_breaks_the_next_link():
    log = lines()
    chains = verify(log[:1])
    log[1] = chains.next(JTI, Event.SESSION_START, {"n": 99}, 1001).line().rstrip(b"\n")
    with pytest.raises(BadChain) as caught:
        verify(log)
    assert caught.value.line == 3


# One consent's records, as its receipts tell them


def story(*events: tuple[Event, str]) -> list[str]:
    """What is told of a consent whose node has other consents too. Each event with its session, if it has one."""
    chains, told = Chains(), []
    for number, (event, session) in enumerate(((Event.CONSENT_ACCEPTED, ""), *events)):
        chains.next(OTHER, Event.CONSENT_ACCEPTED, {"n": number}, 1000 + number)
        facts = {"session": session, "n": number} if session else {"n": number}
        told.append(chains.next(JTI, event, facts, 1000 + number).told)
    return told


A_DAY = story(
    (Event.SESSION_START, "s1"),
    (Event.SESSION_START, "s2"),
    (Event.KEYBOARD, "s2"),
    (Event.SESSION_END, "s1"),
    (Event.CONSENT_ACCEPTED, ""),  # renewed
    (Event.SESSION_RESUMED, "s2"),
    (Event.SESSION_END, "s2"),
    (Event.CONSENT_ENDED, ""),
)


def broken_at(told: list[str]) -> int:
    with pytest.raises(BadChain) as caught:
        verify_records(JTI, told)
    return caught.value.line


def test_one_consents_records_verify_alone():
    assert [told.event for told in verify_records(JTI, A_DAY).records][::8] == [Event.CONSENT_ACCEPTED, Event.CONSENT_ENDED]


def test_the_head_is_the_last_records_digest():
    record = Chains().next(JTI, Event.CONSENT_REFUSED, {}, 1)
    assert verify_records(JTI, [record.told]).head == record.digest


def test_whoever_has_not_ended_is_running():
    assert verify_records(JTI, A_DAY[:5]).running == {"s2"}


@pytest.mark.parametrize("place", range(len(A_DAY) - 1))
def test_a_record_missing_from_a_story_is_found(place: int):
    assert broken_at(A_DAY[:place] + A_DAY[place + 1 :]) == place + 1


@pytest.mark.parametrize("place", range(len(A_DAY) - 1))
def test_two_records_of_a_story_swapped_are_found(place: int):
    assert broken_at([*A_DAY[:place], A_DAY[place + 1], A_DAY[place], *A_DAY[place + 2 :]]) == place + 1


@given(st.integers(0, len(A_DAY) - 2), st.integers(0, 400), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_changed_character_of_a_story_is_found(place, at, letter):
    text = A_DAY[place]
    at %= len(text)
    if text[at] != letter:
        assert broken_at([*A_DAY[:place], text[:at] + letter + text[at + 1 :], *A_DAY[place + 1 :]]) in (place + 1, place + 2)


def test_another_consents_story_is_none_of_this_one():
    with pytest.raises(BadChain):
        verify_records(OTHER, A_DAY)


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([(Event.SESSION_END, "s1")], 2),
        ([(Event.KEYS_SENT, "s1")], 2),
        ([(Event.SESSION_START, "s1"), (Event.SESSION_START, "s1")], 3),
        ([(Event.SESSION_START, "s1"), (Event.SESSION_END, "s1"), (Event.SESSION_END, "s1")], 4),
        ([(Event.SESSION_START, "s1"), (Event.SESSION_END, "s1"), (Event.SESSION_START, "s1")], 4),
        ([(Event.SESSION_START, "")], 2),
    ],
)
def test_a_session_has_one_start_and_one_end(events: list[tuple[Event, str]], line: int):
    assert broken_at(story(*events)) == line


def test_a_story_begins_with_the_nodes_answer():
    assert broken_at([Chains().next(JTI, Event.SESSION_START, {"session": "s"}, 1).told]) == 1


def test_no_records_are_a_story_too():
    assert verify_records(JTI, []).head == GENESIS


# What a record has room for

TEXTS = st.one_of(st.text(max_size=600), st.lists(st.text(max_size=70), max_size=16))


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=12), TEXTS, max_size=12))
def test_whatever_the_facts_a_record_fits_into_a_receipt(facts):
    told = Chains().next(JTI, Event.CONSENT_ACCEPTED, facts, (1 << 53) - 1).told
    assert len(json.dumps(told)) <= MAX_RECORD
    receipt = Receipt("n" * 63, JTI, 1 << 53, Told.RECORDED, JTI, 1 << 53, record=told)
    assert receipt.to_claims()["aud"] == PROVIDER
    assert len(KEY.sign(Typ.RECEIPT, receipt.to_claims())) <= MAX_BYTES


def test_a_fact_that_is_too_long_stands_as_its_hash():
    facts = Chains().next(JTI, Event.CONSENT_ACCEPTED, {"giver": "x" * 2000, "kinds": ["serial"]}, 1).facts
    expected = hashlib.sha256(json.dumps("x" * 2000).encode()).hexdigest()
    assert facts == {"giver": f"sha256:{expected}", "kinds": ["serial"]}


def test_short_facts_stand_as_they_are():
    assert Chains().next(JTI, Event.SESSION_END, {"n": 1}, 1).facts == {"n": 1}


def test_a_record_over_the_longest_line_is_refused():
    with pytest.raises(ValueError, match="bytes"):
        Record("", 1, 1, Event.NODE_START, {"x": "y" * 9000}, GENESIS, GENESIS, 1, GENESIS, GENESIS).line()
