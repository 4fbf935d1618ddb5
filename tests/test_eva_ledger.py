"""eva/ledger.py: whatever the order, revocation wins; whatever the clocks do, nothing lasts longer or comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import MAX_AHEAD, MAX_SECONDS, Consent
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import KEEP_SECONDS, Accepted, Ended, Ledger, Reject, Rejected, Term, Watermark
from tests.broker_parts import PIN, START, HandClock, consent, revocation_of, watermark_over


def ledger() -> Ledger:
    made = Ledger()
    made.use_keys({"key1"})
    return made


def standing(of: Ledger, now: Instant) -> set[str]:
    return {one.consent.jti for one in of.standing(now)}


def test_an_accepted_consent_stands():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    assert standing(books, clock.now()) == {one.jti}


def test_it_ends_with_the_wall_clock():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    assert standing(books, clock.step(MAX_SECONDS)) == set()


def test_it_ends_with_the_boot_clock_though_the_wall_clock_stands():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    clock.boot += MAX_SECONDS * NS
    assert standing(books, clock.now()) == set()


def test_a_wall_clock_set_back_lengthens_nothing():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    clock.step(-3600)
    assert standing(books, clock.run(MAX_SECONDS)) == set()


def test_a_signer_whose_clock_is_ahead_gives_no_more_than_it_signed():
    clock, books = HandClock(), ledger()
    one = consent(60, issued_at=START + 30)
    assert books.accept(one, PIN, clock.now()).term.boot == clock.boot + 60 * NS


def test_one_that_ran_out_does_not_come_back_with_the_clock():
    clock, one, books = HandClock(), consent(60), ledger()
    books.accept(one, PIN, clock.now())
    assert [a.consent.jti for a in books.tick(clock.step(60))] == [one.jti]
    assert standing(books, clock.step(-60)) == set()


def test_one_that_ran_out_is_told_once():
    clock, one, books = HandClock(), consent(60), ledger()
    books.accept(one, PIN, clock.now())
    books.tick(clock.run(60))
    assert books.tick(clock.run(1)) == []


@pytest.mark.parametrize("ahead", [0, 30])
def test_the_signers_clock_may_be_a_little_ahead(ahead: int):
    books, one = ledger(), consent(issued_at=START + ahead)
    books.check(one, HandClock().now())


def test_the_signers_clock_may_not_be_far_ahead():
    with pytest.raises(Rejected) as caught:
        ledger().check(consent(issued_at=START + 31), HandClock().now())
    assert caught.value.reject is Reject.TIME


def test_an_expired_one_is_not_accepted():
    with pytest.raises(Rejected) as caught:
        ledger().accept(consent(60), PIN, HandClock().run(60))
    assert caught.value.reject is Reject.TIME


def test_an_expired_one_is_not_accepted_after_the_clock_was_set_back():
    clock, books = HandClock(), ledger()
    books.tick(clock.step(60))
    with pytest.raises(Rejected) as caught:
        books.accept(consent(60), PIN, clock.step(-60))
    assert caught.value.reject is Reject.TIME


def test_a_key_that_does_not_stand():
    with pytest.raises(Rejected) as caught:
        ledger().accept(consent(kid="key2"), PIN, HandClock().now())
    assert caught.value.reject is Reject.KEY


def test_a_withdrawn_key_ends_its_consents():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    assert [a.consent.jti for a in books.use_keys({"key2"})] == [one.jti]
    assert standing(books, clock.now()) == set()


def test_a_revocation_gives_what_it_ended():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    assert [a.consent for a in books.revoke(revocation_of(one))] == [one]


def test_a_revocation_again_ends_nothing_more():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    books.revoke(revocation_of(one))
    assert books.revoke(revocation_of(one)) == []


def test_a_revocation_before_its_grant():
    clock, one, books = HandClock(), consent(), ledger()
    books.revoke(revocation_of(one))
    with pytest.raises(Rejected) as caught:
        books.accept(one, PIN, clock.now())
    assert caught.value.reject is Reject.REVOKED


def test_the_first_reason_stays():
    one, books = consent(), ledger()
    books.revoke(revocation_of(one, reason=Ending.FEATURE_DISABLED))
    books.end([Ended(one.jti, Ending.CONSENT_REVOKED, START)])
    assert books.why_ended(one) is Ending.FEATURE_DISABLED


def test_a_watermark_ends_what_was_issued_by_then():
    clock, old, new, books = HandClock(), consent(), consent(issued_at=START + 1), ledger()
    books.accept(old, PIN, clock.now())
    books.accept(new, PIN, clock.now())
    assert [a.consent for a in books.revoke(watermark_over(old))] == [old]
    assert standing(books, clock.now()) == {new.jti}


def test_a_watermark_is_for_its_own_vm():
    clock, one, other, books = HandClock(), consent(), consent(vm="vm2"), ledger()
    books.accept(other, PIN, clock.now())
    books.revoke(watermark_over(one))
    assert standing(books, clock.now()) == {other.jti}


def test_a_watermark_knows_no_case():
    clock, one, books = HandClock(), consent(vm="VM1"), ledger()
    books.accept(one, PIN, clock.now())
    books.revoke(watermark_over(consent(vm="vm1")))
    assert standing(books, clock.now()) == set()


def test_a_lower_watermark_does_not_lower_it():
    one, books = consent(), ledger()
    books.revoke(watermark_over(one, seq=1, issued_by=START + 10))
    books.revoke(watermark_over(one, seq=2, issued_by=START - 10))
    assert books.why_ended(one) is Ending.CONSENT_REVOKED


def test_revocations_are_counted_without_gaps():
    one, books = consent(), ledger()
    for seq, expected in ((3, 0), (1, 1), (1, 1), (2, 3)):
        books.revoke(revocation_of(one, seq))
        assert books.seq == expected


def test_what_is_forgotten_cannot_come_back():
    clock, one, books = HandClock(), consent(60), ledger()
    books.accept(one, PIN, clock.now())
    books.revoke(revocation_of(one))
    assert books.prune(clock.run(60 + KEEP_SECONDS + 1)) == [one.jti]
    clock.step(-(60 + KEEP_SECONDS))
    # the latest time seen is a moment's tick away from being known
    books.tick(clock.run(60 + KEEP_SECONDS))
    with pytest.raises(Rejected):
        books.accept(one, PIN, clock.step(-(60 + KEEP_SECONDS)))


def test_a_watermark_outlives_all_that_it_covers():
    clock, books = HandClock(), ledger()
    covered = consent(MAX_SECONDS)
    books.revoke(watermark_over(consent(1)))
    books.prune(clock.run(MAX_SECONDS - 1))
    assert books.why_ended(covered) is Ending.CONSENT_REVOKED


# Renewal: a later consent of the same cid


def renewal(one: Consent, later: int = 1, seconds: int = MAX_SECONDS, **other: object) -> Consent:
    """Signed `later` seconds after it."""
    return consent(seconds, issued_at=one.issued_at + later, **({"cid": one.cid} | other))  # type: ignore[arg-type]


def test_a_renewal_stands_in_the_place_of_what_it_renews():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    again = renewal(one)
    assert books.renewed_by(again).consent == one
    books.accept(again, PIN, clock.run(1))
    assert standing(books, clock.now()) == {again.jti}


def test_it_ends_when_the_renewal_does_though_that_is_sooner():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    books.accept(renewal(one, seconds=60), PIN, clock.run(1))
    assert standing(books, clock.run(60)) == set()


def test_what_was_renewed_never_comes_back():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    again = renewal(one)
    books.accept(again, PIN, clock.run(1))
    books.revoke(revocation_of(again))
    with pytest.raises(Rejected) as caught:
        books.accept(one, PIN, clock.now())
    assert (caught.value.reject, standing(books, clock.now())) == (Reject.REVOKED, set())


def test_a_renewal_renews_itself_not_again():
    clock, one, books = HandClock(), consent(), ledger()
    again = renewal(one)
    books.accept(one, PIN, clock.now())
    books.accept(again, PIN, clock.run(1))
    assert books.renewed_by(again) is None
    books.accept(again, PIN, clock.now())
    assert standing(books, clock.now()) == {again.jti}


@pytest.mark.parametrize("later", [0, -1])
def test_what_was_issued_no_later_renews_nothing(later: int):
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    with pytest.raises(Rejected) as caught:
        books.accept(renewal(one, later), PIN, clock.now())
    assert (caught.value.reject, standing(books, clock.now())) == (Reject.REVOKED, {one.jti})


def test_a_renewal_that_was_revoked_before_it_came_renews_nothing():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    again = renewal(one)
    books.revoke(revocation_of(again))
    with pytest.raises(Rejected):
        books.accept(again, PIN, clock.run(1))
    assert standing(books, clock.now()) == {one.jti}


def test_a_cid_means_one_vm():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    with pytest.raises(Rejected):
        books.accept(renewal(one, vm="vm2"), PIN, clock.run(1))
    assert standing(books, clock.now()) == {one.jti}


def test_the_same_tenants_other_consent_is_none_of_it():
    clock, one, books = HandClock(), consent(), ledger()
    other = consent(issued_at=START + 1)
    books.accept(one, PIN, clock.now())
    books.accept(other, PIN, clock.run(1))
    assert standing(books, clock.now()) == {one.jti, other.jti}


def test_from_disk_the_order_is_nothing_though_the_ending_was_lost():
    clock, one = HandClock(), consent()
    again = renewal(one)
    for order in ((one, again), (again, one)):
        books = ledger()
        for each in order:
            books.restore(Accepted(each, PIN, Term(each.expires_at * NS, clock.boot + MAX_SECONDS * NS)))
        assert standing(books, clock.now()) == {again.jti}


def test_a_watermark_under_a_renewal_leaves_it():
    clock, one, books = HandClock(), consent(), ledger()
    again = renewal(one)
    books.accept(one, PIN, clock.now())
    books.accept(again, PIN, clock.run(1))
    assert (books.revoke(watermark_over(one)), standing(books, clock.now())) == ([], {again.jti})


def test_what_is_long_over_is_forgotten_with_its_cid():
    clock, one, books = HandClock(), consent(60), ledger()
    books.accept(one, PIN, clock.now())
    books.accept(renewal(one, seconds=60), PIN, clock.run(1))
    assert len(books.prune(clock.run(120 + KEEP_SECONDS))) == 2
    assert books._latest == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["accept", "revoke"]), st.integers(0, 4)),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_in_whatever_order_the_latest_of_a_cid_stands(facts, random):
    first = consent(600)
    line = [first, *(renewal(first, later, 600) for later in range(1, 5))]
    random.shuffle(facts)
    stands = play([(what, line[which]) for what, which in facts])
    revoked = {line[which].jti for what, which in facts if what == "revoke"}
    latest = max((which for what, which in facts if what == "accept"), default=None)
    assert len(stands) <= 1
    assert not stands & revoked
    if latest is not None and line[latest].jti not in revoked:
        assert stands == {line[latest].jti}


CONSENTS = [consent(600 + n, issued_at=START + n % 3, vm=f"vm{n % 2}") for n in range(4)]
FACTS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.sampled_from(CONSENTS)),
        st.tuples(st.just("revoke"), st.sampled_from(CONSENTS)),
        st.tuples(st.just("watermark"), st.sampled_from(CONSENTS)),
    ),
    max_size=12,
)


def play(facts: list[tuple[str, Consent]]) -> set[str]:
    clock, books = HandClock(), ledger()
    for what, one in facts:
        if what == "revoke":
            books.revoke(revocation_of(one))
        elif what == "watermark":
            books.revoke(watermark_over(one))
        else:
            try:
                books.accept(one, PIN, clock.now())
            except Rejected as error:
                assert error.reject is Reject.REVOKED  # noqa: PT017 - it is allowed not to be raised
    return standing(books, clock.now())


@given(FACTS, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(facts, random):
    shuffled = facts * 2
    random.shuffle(shuffled)
    ended = {c.jti for what, c in facts if what == "revoke"}
    marks = {(c.resource_id, c.issued_at) for what, c in facts if what == "watermark"}
    expected = {
        c.jti
        for what, c in facts
        if what == "accept" and c.jti not in ended and not any(c.resource_id == r and c.issued_at <= t for r, t in marks)
    }
    assert play(facts) == play(shuffled) == expected


# What stands by its cid


def test_by_its_cid_the_latest_is_found():
    clock, one, books = HandClock(), consent(), ledger()
    books.accept(one, PIN, clock.now())
    again = consent(issued_at=one.issued_at + 1, cid=one.cid)
    books.accept(again, PIN, clock.now())
    found = books.standing_as(one.cid, clock.now())
    assert found is not None
    assert found.consent == again


@pytest.mark.parametrize("how", ["unknown", "ended", "expired", "key"])
def test_what_does_not_stand_is_not_found_by_its_cid(how: str):
    clock, one, books = HandClock(), consent(60), ledger()
    if how != "unknown":
        books.accept(one, PIN, clock.now())
    if how == "ended":
        books.end([Ended(one.jti, Ending.CONSENT_REVOKED, one.expires_at)])
    elif how == "expired":
        clock.run(60)
    elif how == "key":
        books.use_keys({"other"})
    assert books.standing_as(one.cid, clock.now()) is None


def test_at_most_another_is_the_earlier_end_on_each_clock():
    assert Term(5, 2).at_most(Term(3, 4)) == Term(3, 4).at_most(Term(5, 2)) == Term(3, 2)


def test_nothing_stands_again_by_a_clock_set_back_behind_what_was_noted():
    clock, one, books = HandClock(), consent(60), ledger()
    books.accept(one, PIN, clock.now())
    books.prune(clock.step(60))
    clock.step(-30)
    assert (standing(books, clock.now()), books.standing_as(one.cid, clock.now())) == (set(), None)


def test_one_that_comes_late_has_no_more_on_the_boot_clock_than_is_left():
    clock, one, books = HandClock(), consent(60), ledger()
    clock.run(20)
    assert books.accept(one, PIN, clock.now()).term.boot == clock.boot + 40 * NS


def test_a_watermark_is_kept_as_long_as_what_it_covers_could_last():
    books, one = ledger(), consent(60)
    books.revoke(watermark_over(one))
    mark = books.watermark_of(one.resource_id)
    assert mark.keep_until == one.issued_at + MAX_SECONDS + MAX_AHEAD + KEEP_SECONDS


def test_a_watermark_never_falls_by_a_second():
    books, one = ledger(), consent(60)
    books.revoke(watermark_over(one))
    assert books.revoke(watermark_over(one, 2, one.issued_at - 1)) == []
    assert books.watermark_of(one.resource_id).issued_by == one.issued_at


@pytest.mark.parametrize(("seconds", "forgotten"), [(0, False), (1, True)])
def test_what_is_over_is_forgotten_a_day_after_its_end_and_not_before(seconds: int, forgotten: bool):
    clock, one, other, books = HandClock(), consent(60), consent(60, vm="vm2"), ledger()
    books.accept(one, PIN, clock.now())
    books.accept(other, PIN, clock.now())
    books.end([Ended(one.jti, Ending.CONSENT_REVOKED, one.expires_at + KEEP_SECONDS)])
    books.raise_watermark(Watermark(other.resource_id, START, Ending.CONSENT_REVOKED, one.expires_at + KEEP_SECONDS))
    gone = books.prune(clock.step(60 + KEEP_SECONDS + seconds))
    assert set(gone) == ({one.jti, other.jti} if forgotten else set())
    assert (books.get(one.jti) is None, books.get(other.jti) is None) == (forgotten, forgotten)
    assert (books.why_ended(other) is None) == forgotten
