"""provider/consent/authority.py: each rule by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.wire import Event, LeaseRequest, Receipt
from provider.consent.authority import (
    AnchorVerdict,
    Candidate,
    Failed,
    RecentNonces,
    Refusal,
    Refused,
    at_latest,
    check_span,
    confirms,
    expiry,
    issue_time,
    judge_anchor,
    ranked,
    taken,
    verdict,
    watermark_time,
)

NOW = 1_800_000_000


def receipt(number: int, event: Event = Event.ENDED, about: str = "c", seq: int = 0) -> Receipt:
    return Receipt("n", "j", number, event, about, 0, seq)


def request(count: int, head: str, issued_at: int = NOW) -> LeaseRequest:
    return LeaseRequest("n", "nonce", issued_at, "boot", 0, 0, count, head)


def test_without_watermark_a_consent_is_issued_now():
    assert issue_time(NOW, None) == NOW


def test_a_consent_is_issued_past_its_vms_watermark():
    assert issue_time(NOW, NOW) == NOW + 1


def test_an_old_watermark_changes_nothing():
    assert issue_time(NOW, NOW - 100) == NOW


def test_a_watermark_far_ahead_refuses():
    with pytest.raises(Refused) as caught:
        issue_time(NOW, NOW + 30)
    assert caught.value.refusal is Refusal.TOO_SOON


@given(st.lists(st.integers(NOW - 9, NOW + 9)), st.integers(NOW - 9, NOW + 9))
def test_no_watermark_covers_what_is_issued_after_it(issued: list[int], now: int):
    watermark = watermark_time(now, issued)
    assert all(one <= watermark for one in issued)
    assert issue_time(now, watermark) > watermark


def test_eight_hours_end_eight_hours_from_now():
    assert expiry(NOW, 28_800) == NOW + 28_800


@pytest.mark.parametrize("seconds", [0, -1, 28_801])
def test_other_spans_are_refused(seconds: int):
    with pytest.raises(Refused):
        expiry(NOW, seconds)


def test_a_consent_that_ends_before_it_begins_is_refused():
    with pytest.raises(Refused):
        check_span(NOW + 2, NOW + 2)


def test_at_latest_is_the_cut_limit_and_the_cut():
    assert at_latest(NOW * 1000, 15) == (NOW + 16) * 1000


def test_receipts_are_taken_in_order_without_a_gap():
    assert [one.number for one in taken(3, map(receipt, [5, 4, 7, 2, 3]))] == [4, 5]


def test_receipts_after_a_gap_wait():
    assert taken(3, [receipt(5)]) == []


def test_a_revocation_is_confirmed_about_its_consent_or_itself():
    assert confirms(receipt(1, about="c", seq=7), 7, "c", "r")
    assert confirms(receipt(1, about="r", seq=7), 7, None, "r")


def test_a_watermark_is_not_confirmed_by_one_of_its_consents():
    assert not confirms(receipt(1, about="c", seq=7), 7, None, "r")


def test_another_seq_or_event_confirms_nothing():
    assert not confirms(receipt(1, about="c", seq=6), 7, "c", "r")
    assert not confirms(receipt(1, Event.DELETED, "c", seq=7), 7, "c", "r")


@pytest.mark.parametrize("newest", [None, NOW - 1, NOW, NOW + 1])
@pytest.mark.parametrize(
    ("told", "held", "then", "verdict"),
    [
        ((1, "a"), (0, ""), None, AnchorVerdict.FORWARD),
        ((0, "genesis"), (0, ""), None, AnchorVerdict.FORWARD),
        ((6, "b"), (5, "a"), None, AnchorVerdict.FORWARD),
        ((5, "a"), (5, "a"), "a", AnchorVerdict.SAME),
        ((5, "a"), (5, "a"), None, AnchorVerdict.SAME),
        ((5, "x"), (5, "a"), "a", AnchorVerdict.CONFLICT),
        ((5, "x"), (5, "a"), None, AnchorVerdict.CONFLICT),
        ((4, "z"), (5, "a"), "y", AnchorVerdict.CONFLICT),
        ((0, ""), (0, ""), None, AnchorVerdict.SAME),
    ],
)
def test_anchors_that_no_clock_decides(
    told: tuple[int, str], held: tuple[int, str], then: str | None, verdict: AnchorVerdict, newest: int | None
):
    assert judge_anchor(request(*told), *held, then, newest) is verdict


@pytest.mark.parametrize("then", ["z", None], ids=["told once", "never told"])
@pytest.mark.parametrize(
    ("newest", "verdict"),
    [
        (None, AnchorVerdict.BEHIND),
        (NOW - 1, AnchorVerdict.BEHIND),
        (NOW, AnchorVerdict.LATE),
        (NOW + 1, AnchorVerdict.LATE),
    ],
)
def test_a_shorter_chain_is_late_unless_it_is_the_newest_word(then: str | None, newest: int | None, verdict: AnchorVerdict):
    assert judge_anchor(request(4, "z"), 5, "a", then, newest) is verdict


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.data())
def test_no_order_of_an_honest_nodes_words_is_held_against_it(steps: list[int], data: st.DataObject):
    """Each may be lost, read late, and read again, by one provider or another: they share what was told."""
    said = [request(sum(steps[: n + 1]), f"head {sum(steps[: n + 1])}", NOW + n // 2) for n in range(len(steps))]
    heads: dict[int, str] = {}
    count, head, newest = 0, "", None
    for one in data.draw(st.lists(st.sampled_from(said), max_size=20)):
        verdict = judge_anchor(one, count, head, heads.get(one.audit_count), newest)
        assert verdict in (AnchorVerdict.FORWARD, AnchorVerdict.SAME, AnchorVerdict.LATE)
        if verdict is AnchorVerdict.FORWARD:
            count, head = one.audit_count, one.audit_head
            heads[count] = head
        if verdict is not AnchorVerdict.LATE:
            newest = max(one.issued_at, newest or 0)


def test_the_least_loaded_node_alive_is_chosen():
    nodes = [Candidate("a", NOW, 2), Candidate("b", NOW, 1), Candidate("c", NOW - 6_000, 0)]
    assert ranked(nodes, NOW) == ["b", "a"]


def test_no_node_alive_refuses():
    with pytest.raises(Refused) as caught:
        ranked([Candidate("a", NOW - 6_000, 0)], NOW)
    assert caught.value.refusal is Refusal.NO_NODE


def test_a_nonce_counts_once_for_each_node():
    nonces = RecentNonces(most=2)
    assert [nonces.first_time("k", "1"), nonces.first_time("k", "1"), nonces.first_time("other", "1")] == [True, False, True]


def test_nonces_are_bounded():
    nonces = RecentNonces(most=2)
    for nonce in "123":
        nonces.first_time("k", nonce)
    assert nonces.first_time("k", "1")


def test_a_vm_that_every_node_refused_is_unknown():
    found = verdict([Failed("a", "vm-unknown", ""), Failed("b", "vm-unknown", "")])
    assert (found.refusal, "a refused: vm-unknown; b refused: vm-unknown" in found.detail) == (Refusal.UNKNOWN_VM, True)


def test_one_silent_node_leaves_it_open_whether_the_vm_is_known():
    found = verdict([Failed("a", "vm-unknown", ""), Failed("b", "", "no answer")])
    assert (found.refusal, "b: no answer" in found.detail) == (Refusal.NODE_SILENT, True)


def test_another_reason_is_told():
    assert verdict([Failed("a", "vm-unknown", ""), Failed("b", "time", "")]).refusal is Refusal.NODE_REFUSED
