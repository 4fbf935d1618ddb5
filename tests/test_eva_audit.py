"""eva/audit.py: a record that is edited, left out, moved or made up is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.audit import GENESIS, BadChain, Chains, Event, verify, verify_chain

JTI = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER = "BBBBBBBBBBBBBBBBBBBBBA"


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


def test_one_consents_records_verify_alone():
    chains = Chains()
    records = [chains.check(line) for line in lines()]
    mine = [record for record in records if record.chain == JTI]
    assert verify_chain(mine) == mine[-1].digest


def test_a_gap_in_one_consents_records_is_found():
    chains = Chains()
    mine = [record for record in map(chains.check, lines()) if record.chain == JTI]
    with pytest.raises(BadChain):
        verify_chain([mine[0], mine[2]])


def test_a_record_over_the_longest_line_is_refused():
    with pytest.raises(ValueError, match="bytes"):
        Chains().next("", Event.NODE_START, {"x": "y" * 9000}, 1).line()
