"""broker/consents.py with a real journal: what is signed counts, what ends stays ended, whatever the order, clock or restart."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import testimony
from eva import audit
from eva.consent import MAX_SECONDS
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import KEEP_SECONDS, Ended, Reject
from eva.token import SigningKey
from eva.wire import MAX_REVOCATIONS, Envelope, Event, Lease
from tests.broker_parts import (
    NODE,
    PATIENCE,
    START,
    Core,
    Domain,
    Signer,
    consent,
    core,
    jti,
    revocation_of,
    vm_id,
    watermark_over,
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


@pytest.fixture
def records_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is told meanwhile: its receipt, 20 ms after the disk has it, takes a number between those that are counted."""
    monkeypatch.setattr(testimony, "GATHER", 3600.0)


def refused_tokens(node: Core) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["typ"], sample.labels["fault"]): sample.value
        for family in node.metrics.tokens.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


# -- acceptance ---------------------------------------------------------------------------------------------------------


async def test_a_consent_stands(node: Core):
    one = node.grant()
    assert node.standing() == {one.jti}


async def test_its_receipt_says_which_domain(node: Core):
    one = node.grant()
    await node.settle()
    (receipt,) = node.receipts()
    assert (receipt.event, receipt.about, receipt.fact("uuid")) == (Event.ACCEPTED, one.jti, Domain().uuid)


async def test_no_receipt_leaves_before_the_disk_has_it(node: Core):
    node.grant()
    assert node.published == []
    await node.settle()
    assert len(node.published) == 1


async def test_twice_is_once(node: Core):
    one = node.grant()
    node.grant(one)
    await node.settle()
    assert len(node.receipts()) == 1


async def test_it_is_recorded(node: Core):
    one = node.grant()
    await node.settle()
    (record,) = node.records(audit.Event.CONSENT_ACCEPTED)
    assert (record.chain, record.facts["consent"], record.facts["giver"]) == (one.cid, one.jti, one.giver)


async def test_it_stands_after_a_restart(node: Core):
    one = node.grant()
    after = await node.restart()
    assert after.standing() == {one.jti}
    await after.stop()


@pytest.mark.parametrize(
    ("domains", "reject"), [((), Reject.VM_UNKNOWN), ((Domain(), Domain(uuid="2" * 36)), Reject.VM_AMBIGUOUS)]
)
async def test_a_vm_that_is_not_one_is_refused(node: Core, domains: tuple[Domain, ...], reject: Reject):
    node.domains.by_id[vm_id()] = domains
    node.grant()
    await node.settle()
    (receipt,) = node.receipts()
    assert (receipt.event, receipt.fact("why")) == (Event.REFUSED, str(reject))
    assert node.metrics.registry.get_sample_value("eva_consents_refused_total", {"why": str(reject)}) == 1


async def test_one_that_has_run_out_is_refused_for_that_whatever_became_of_its_vm(node: Core):
    node.domains.by_id.clear()
    node.grant(consent(seconds=60, issued_at=START - 60))
    await node.settle()
    (receipt,) = node.receipts()
    assert (receipt.event, receipt.fact("why")) == (Event.REFUSED, str(Reject.TIME))


async def test_what_was_refused_stays_refused_with_one_receipt(node: Core):
    node.domains.by_id.clear()
    one = node.grant()
    node.domains.by_id[vm_id()] = (Domain(),)
    node.grant(one)
    after = await node.restart()
    after.grant(one)
    await after.settle()
    assert (after.standing(), len(node.receipts()), after.published) == (set(), 1, [])
    await after.stop()


async def test_one_that_is_too_far_ahead_is_refused(node: Core):
    node.grant(consent(issued_at=START + 31))
    assert node.standing() == set()


# -- what is not signed for us ------------------------------------------------------------------------------------------


async def test_a_stranger_signs_nothing_here(node: Core):
    stranger = Signer()
    one = replace(consent(), kid=stranger.key.kid)
    node.consents.take_consent(Envelope(stranger.sign(one)).encode())
    assert (node.standing(), refused_tokens(node)) == (set(), {("eva-consent+jwt", "key"): 1})


async def test_a_strangers_key_set_brings_no_key(node: Core):
    stranger = Signer(version=9)
    node.consents.take_consent(stranger.letter(replace(consent(), kid=stranger.key.kid)))
    assert (node.standing(), node.consents.keys_version) == (set(), 1)


async def test_a_consent_for_another_node(node: Core):
    node.grant(consent(node="AzS-ERCS02"))
    assert (node.standing(), refused_tokens(node)) == (set(), {("eva-consent+jwt", "audience"): 1})


async def test_a_revocation_is_no_consent(node: Core):
    node.consents.take_consent(node.signer.letter(revocation_of(consent())))
    assert refused_tokens(node) == {("eva-consent+jwt", "header"): 1}


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 9000, b'{"token": 1}', b"\xff", b'{"token":"a.b.c","keys":"x"}'])
async def test_rubbish_is_counted_and_harms_nothing(node: Core, raw: bytes):
    one = node.grant()
    node.consents.take_consent(raw)
    node.consents.take_revocation(raw)
    assert not node.consents.take_lease(raw)
    assert (node.standing(), sum(refused_tokens(node).values())) == ({one.jti}, 3)


# -- revocation ---------------------------------------------------------------------------------------------------------


async def test_a_revocation_ends_it_before_the_call_returns(node: Core):
    one = node.grant()
    node.revoke(one)
    assert node.standing() == set()


async def test_it_is_receipted_with_its_number_and_reason(node: Core):
    one = node.grant()
    node.revoke(one, seq=1)
    await node.settle()
    ended = node.receipts()[-1]
    assert (ended.event, ended.about, ended.seq, ended.fact("reason")) == (Event.ENDED, one.jti, 1, "consent-revoked")


async def test_twice_has_one_receipt(node: Core):
    one = node.grant()
    node.revoke(one)
    node.revoke(one)
    await node.settle()
    assert [r.event for r in node.receipts()] == [Event.ACCEPTED, Event.ENDED]


async def test_before_its_grant(node: Core):
    one = replace(consent(), kid=node.signer.key.kid)
    node.revoke(one)
    node.grant(one)
    assert node.standing() == set()


async def test_a_replayed_grant_revives_nothing_after_a_restart(node: Core):
    one = node.grant()
    node.revoke(one)
    after = await node.restart("boot2")
    after.grant(one)
    assert after.standing() == set()
    await after.stop()


async def test_before_its_grant_and_a_restart_between(node: Core):
    one = replace(consent(), kid=node.signer.key.kid)
    node.revoke(one)
    after = await node.restart()
    after.grant(one)
    assert after.standing() == set()
    await after.stop()


async def test_a_watermark_ends_what_was_issued_by_then_and_no_more(node: Core):
    old = node.grant()
    node.clock.run(1)
    new = node.grant()
    node.consents.take_revocation(node.signer.letter(watermark_over(old)))
    assert node.standing() == {new.jti}


async def test_a_watermark_stands_after_a_restart(node: Core):
    old = node.grant()
    node.consents.take_revocation(node.signer.letter(watermark_over(old)))
    after = await node.restart()
    after.grant(old)
    assert after.standing() == set()
    await after.stop()


async def test_a_key_that_no_longer_stands_may_still_revoke(node: Core):
    one = node.grant()
    old = node.signer.key
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    other = node.grant()
    node.consents.take_revocation(Envelope(old.sign("eva-revocation+jwt", revocation_of(other).to_claims())).encode())
    assert node.standing() == set()
    assert one.jti not in node.standing()


@pytest.mark.parametrize("seconds", [-3600, -86_400 * 3])
async def test_no_backward_clock_revives_what_was_forgotten(node: Core, seconds: float):
    """The ending is pruned a day after; the clock is set back before the token's end; the node is started again."""
    one = node.grant()
    node.revoke(one)
    now = node.clock.run(MAX_SECONDS + KEEP_SECONDS + 1)
    node.consents.tick(now)
    node.consents.note_time(now)
    now = node.clock.step(seconds)
    node.consents.tick(now)
    node.consents.note_time(now)
    after = await node.restart()
    assert after.loaded.wall_seen >= (START + MAX_SECONDS + KEEP_SECONDS) * NS
    after.grant(one)
    assert after.standing() == set()
    await after.stop()


# -- renewal ------------------------------------------------------------------------------------------------------------


async def test_a_renewal_takes_the_place_of_what_it_renews(node: Core):
    one = node.grant()
    again = node.renew_consent(one)
    assert node.standing() == {again.jti}


async def test_it_has_one_receipt_and_what_it_renews_has_none(node: Core):
    one = node.grant()
    again = node.renew_consent(one)
    await node.settle()
    assert [(r.event, r.about) for r in node.receipts()] == [(Event.ACCEPTED, one.jti), (Event.ACCEPTED, again.jti)]


async def test_it_is_recorded_in_the_same_chain(node: Core):
    one = node.grant()
    again = node.renew_consent(one)
    await node.settle()
    first, second = node.records(audit.Event.CONSENT_ACCEPTED)
    assert (first.chain, second.chain, second.index) == (one.cid, one.cid, 2)
    assert (second.facts["consent"], second.facts["renews"]) == (again.jti, one.jti)


@pytest.mark.parametrize("boot_id", ["boot1", "boot2"])
async def test_what_was_renewed_comes_back_by_no_replay_and_no_restart(node: Core, boot_id: str):
    one = node.grant()
    again = node.renew_consent(one)
    node.grant(one)
    after = await node.restart(boot_id)
    after.grant(one)
    assert after.standing() == {again.jti}
    await after.stop()


async def test_nor_when_the_renewal_is_over(node: Core):
    one = node.grant()
    node.renew_consent(one, seconds=60)
    node.consents.tick(node.clock.run(60))
    after = await node.restart()
    after.grant(one)
    assert after.standing() == set()
    await after.stop()


async def test_nor_when_its_ending_is_lost_from_the_state(node: Core):
    """SQLite keeps no checksums; the renewal's row alone holds the older one down."""
    one = node.grant()
    again = node.renew_consent(one)
    await node.stop()
    with sqlite3.connect(node.state_path) as file:
        file.execute("DELETE FROM ended")
    file.close()
    after = Core(node.directory, node.signer, node.clock, node_key=node.node_key).start()
    after.grant(one)
    assert after.standing() == {again.jti}
    await after.stop()


async def test_a_crash_before_the_renewal_is_on_disk_leaves_what_was(node: Core, tmp_path_factory: pytest.TempPathFactory):
    one = node.grant()
    await node.settle()
    elsewhere = tmp_path_factory.mktemp("copy")
    for path in (node.state_path, node.audit_path):
        shutil.copy(path, elsewhere)
    wal = node.state_path.with_name("state.db-wal")
    if wal.exists():
        shutil.copy(wal, elsewhere)
    node.renew_consent(one)
    crashed = Core(elsewhere, node.signer, node.clock, node_key=node.node_key).start()
    assert crashed.standing() == {one.jti}
    await crashed.stop()


async def test_a_renewal_that_only_the_audit_knows_ends_what_it_renewed_and_the_provider_hears_it(node: Core):
    one = node.grant()
    await node.settle()
    over = [Ended(one.jti, Ending.CONSENT_REVOKED, one.expires_at + KEEP_SECONDS)]  # by the renewal's record
    await node.stop()
    after = Core(node.directory, node.signer, node.clock, node_key=node.node_key)
    after.consents.restore(after.loaded, over)
    after.start().consents.begin(after.clock.now())
    await after.settle()
    assert after.standing() == set()
    assert [(r.event, r.about) for r in after.receipts()] == [(Event.ENDED, one.jti)]
    await after.stop()


async def test_one_that_comes_late_is_refused_with_a_receipt(node: Core):
    one = node.grant(consent(issued_at=START - 10))
    late = node.grant(consent(issued_at=START - 20, cid=one.cid))
    await node.settle()
    refused = node.receipts()[-1]
    assert (refused.event, refused.about, refused.fact("why")) == (Event.REFUSED, late.jti, "revoked")


async def test_what_has_run_out_is_not_renewed_but_over(node: Core):
    one = node.grant(seconds=60)
    node.clock.run(60)
    again = node.renew_consent(one)
    await node.settle()
    assert [(r.event, r.about) for r in node.receipts()][1:] == [(Event.ENDED, one.jti), (Event.ACCEPTED, again.jti)]


async def test_a_revocation_of_what_was_renewed_harms_nothing(node: Core):
    one = node.grant()
    again = node.renew_consent(one)
    node.revoke(one)
    assert node.standing() == {again.jti}


async def test_a_consent_under_another_key_renews_too(node: Core):
    one, old = node.grant(), node.signer.key
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    both = node.signer.key_set(old, node.signer.key)
    again = replace(consent(issued_at=START + 1, cid=one.cid), kid=node.signer.key.kid)
    node.consents.take_consent(Envelope(node.signer.sign(again), keys=both).encode())
    assert node.standing() == {again.jti}


# -- keys ---------------------------------------------------------------------------------------------------------------


async def test_a_withdrawn_key_ends_its_consents(node: Core):
    one = node.grant()
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    other = node.grant()
    assert node.standing() == {other.jti}
    await node.settle()
    assert (Event.ENDED, one.jti) in [(r.event, r.about) for r in node.receipts()]


async def test_it_stays_withdrawn_after_a_restart(node: Core):
    node.grant()
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    other = node.grant()
    after = await node.restart()
    assert after.standing() == {other.jti}
    await after.stop()


async def test_an_older_key_set_brings_no_key_back(node: Core):
    old, letter = node.signer.key, node.signer.key_set()
    one = node.grant()
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    node.grant()
    again = replace(consent(), kid=old.kid)
    node.consents.take_consent(Envelope(old.sign("eva-consent+jwt", again.to_claims()), keys=letter).encode())
    assert not {one.jti, again.jti} & node.standing()


# -- time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["wall", "boot"])
async def test_it_runs_out_on_either_clock(node: Core, clock: str):
    one = node.grant(seconds=60)
    setattr(node.clock, clock, getattr(node.clock, clock) + 60 * NS)
    node.consents.tick(node.clock.now())
    await node.settle()
    assert node.standing() == set()
    assert (Event.ENDED, one.jti, "consent-expired") in [(r.event, r.about, r.fact("reason")) for r in node.receipts()]


async def test_a_restart_in_the_same_boot_lengthens_nothing(node: Core):
    one = node.grant(seconds=3600)
    node.clock.boot += 1800 * NS  # the wall clock was set back half an hour meanwhile
    after = await node.restart()
    assert after.consents.ledger.get(one.jti).term.remaining(node.clock.now()) == 1800
    await after.stop()


async def test_a_reboot_lengthens_nothing(node: Core):
    one = node.grant(seconds=3600)
    node.clock.run(1800)
    node.clock.boot = 5 * NS
    after = await node.restart("boot2")
    assert after.consents.ledger.get(one.jti).term.remaining(node.clock.now()) == 1800
    await after.stop()


@pytest.mark.parametrize("column", ["term_wall", "term_boot"])
async def test_a_term_that_was_tampered_with_lengthens_nothing(node: Core, column: str):
    one = node.grant(seconds=3600)
    await node.stop()
    with sqlite3.connect(node.state_path) as file:
        file.execute(f"UPDATE consent SET {column} = {column} + {1 << 60}")  # noqa: S608
    file.close()
    after = Core(node.directory, node.signer, node.clock, node_key=node.node_key).start()
    assert after.consents.ledger.get(one.jti).term.remaining(node.clock.now()) == 3600
    await after.stop()


# -- leases -------------------------------------------------------------------------------------------------------------


async def test_a_lease_counts_once(node: Core):
    node.clock.run(10)
    nonce = node.question()
    assert node.answer(nonce)
    assert not node.answer(nonce)


async def test_a_nonce_that_nobody_asked_with(node: Core):
    node.clock.run(10)
    assert not node.answer(jti())
    assert not node.lease.is_open(node.clock.now())


async def test_another_nodes_lease(node: Core):
    node.clock.run(10)
    lease = Lease("AzS-ERCS02", node.question(), 0, 0, START)
    assert not node.consents.take_lease(node.signer.letter(lease))


async def test_a_withdrawn_keys_lease(node: Core):
    old = node.signer.key
    node.signer.key, node.signer.version = SigningKey(Ed25519PrivateKey.generate()), 2
    assert await node.renew()
    node.clock.run(10)
    lease = Lease(NODE, node.question(), 0, 0, START)
    assert not node.consents.take_lease(Envelope(old.sign("eva-lease+jwt", lease.to_claims())).encode())


async def test_a_lease_applies_what_it_carries(node: Core):
    one = node.grant()
    assert await node.renew(revocation_of(one, 1), seq=1)
    assert node.standing() == set()


async def test_a_lease_does_not_count_while_what_it_carries_is_not_on_disk(node: Core):
    node.clock.run(10)
    assert node.answer(node.question(), revocation_of(consent(), 1), seq=1)
    assert not node.lease.is_open(node.clock.now())
    await node.settle()
    assert node.lease.is_open(node.clock.now())


async def test_a_lease_does_not_count_when_a_revocation_came_first_and_waits_for_the_disk(node: Core):
    node.clock.run(10)
    node.revoke(consent(), seq=1)
    assert node.answer(node.question(), seq=1)
    assert not node.lease.is_open(node.clock.now())


async def test_a_lease_ahead_of_what_is_known_does_not_count(node: Core):
    node.clock.run(10)
    assert not await node.renew(revocation_of(consent(), 1), seq=3)


async def test_more_revocations_than_one_answer_carries_come_in_pages(node: Core):
    hurried: list[bool] = []
    node.consents.behind = lambda: hurried.append(True)
    node.clock.run(10)
    many = [revocation_of(consent(), seq) for seq in range(1, 2 * MAX_REVOCATIONS + 1)]
    assert not await node.renew(*many[:MAX_REVOCATIONS], seq=len(many))
    assert (hurried, node.consents.seq_on_disk) == ([True], MAX_REVOCATIONS)
    assert await node.renew(*many[MAX_REVOCATIONS:], seq=len(many))
    assert hurried == [True]


async def test_a_lease_that_brings_nothing_new_is_not_asked_for_again_at_once(node: Core):
    hurried: list[bool] = []
    node.consents.behind = lambda: hurried.append(True)
    node.clock.run(10)
    assert not await node.renew(seq=1)
    assert hurried == []


async def test_whoever_waits_for_a_lease_is_told_when_it_counts(node: Core):
    told: list[bool] = []
    node.consents.renewed = lambda: told.append(node.lease.is_open(node.clock.now()))
    node.clock.run(10)
    assert not node.answer(jti())
    assert await node.renew()
    assert told == [True]


async def test_a_lease_with_one_bad_revocation_does_not_count(node: Core):
    node.clock.run(10)
    nonce, stranger = node.question(), Signer()
    lease = Envelope(
        node.signer.sign(Lease(NODE, nonce, 2, 0, START)),
        revocations=(node.signer.sign(revocation_of(consent(), 1)), stranger.sign(revocation_of(consent(), 2))),
    )
    assert node.consents.take_lease(lease.encode())
    await node.settle()
    assert (node.consents.seq_on_disk, node.lease.is_open(node.clock.now())) == (1, False)


async def test_the_count_of_revocations_outlives_a_restart(node: Core):
    node.revoke(consent(), seq=1)
    after = await node.restart()
    assert (after.consents.ledger.seq, after.consents.seq_on_disk) == (1, 1)
    await after.stop()


async def test_a_gap_in_the_numbers_is_not_counted_over_at_a_restart(node: Core):
    node.revoke(consent(), seq=1)
    node.revoke(consent(), seq=3)
    after = await node.restart()
    assert after.consents.ledger.seq == 1
    await after.stop()


# -- receipts and deletion ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("records_wait")
async def test_receipts_are_numbered_without_gaps_over_restarts(node: Core):
    node.revoke(node.grant(), seq=1)
    await node.settle()
    after = await node.restart()
    after.grant()
    await after.settle()
    assert [r.number for r in node.receipts() + after.receipts()] == [1, 2, 3]
    await after.stop()


@pytest.mark.usefixtures("records_wait")
async def test_what_the_provider_has_is_told_once(node: Core):
    delivered: list[int] = []
    node.consents.delivered = lambda: delivered.append(len(node.outbox.oldest()))
    node.grant()
    for receipts in (0, 1, 1):
        await node.renew(receipts=receipts)
    assert delivered == [0]


@pytest.mark.usefixtures("records_wait")
async def test_receipts_are_sent_again_until_the_provider_has_them(node: Core):
    node.grant()
    assert len(node.outbox.oldest()) == 1
    after = await node.restart()
    assert len(after.outbox.oldest()) == 1
    await after.renew(receipts=1)
    assert after.outbox.oldest() == ()
    last = await after.restart()
    assert last.outbox.oldest() == ()
    await last.stop()


async def test_a_deletion_ends_it_here_and_now(node: Core):
    one = node.grant()
    node.consents.delete([node.consents.ledger.get(one.jti)], "alice")
    assert node.standing() == set()
    after = await node.restart()
    after.grant(one)
    assert after.standing() == set()
    await after.stop()


@pytest.mark.usefixtures("records_wait")
async def test_a_deletions_receipt_stays_until_the_provider_revokes_too(node: Core):
    one = node.grant()
    node.consents.delete([node.consents.ledger.get(one.jti)], "alice")
    await node.renew(receipts=2)
    assert len(node.outbox.oldest()) == 1
    after = await node.restart()
    assert len(after.outbox.oldest()) == 1
    await after.renew(revocation_of(one, 1), seq=1, receipts=2)
    assert [*after.outbox._waiting] == [3]  # the revocation's own
    await after.stop()


@pytest.mark.usefixtures("records_wait")
async def test_a_watermark_answers_a_deletion(node: Core):
    one = node.grant()
    node.consents.delete([node.consents.ledger.get(one.jti)], "alice")
    await node.renew(watermark_over(one, 1), seq=1, receipts=2)
    assert [*node.outbox._waiting] == [3]


async def test_a_domain_that_is_gone_ends_its_consents(node: Core):
    one = node.grant()
    node.consents.end_missing(lambda pin: False)
    await node.settle()
    assert node.standing() == set()
    assert (node.receipts()[-1].about, node.receipts()[-1].fact("reason")) == (one.jti, Ending.VM_GONE.word)


async def test_after_the_disk_failed_no_receipt_leaves(node: Core):
    def refuse(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    node.journal._state.write = refuse  # type: ignore[method-assign]
    node.grant()
    async with asyncio.timeout(PATIENCE):
        while not node.failures:
            await asyncio.sleep(0)
    assert node.published == []


# -- watching ------------------------------------------------------------------------------------------------------------


async def test_where_tenants_can_watch_is_told_when_a_consent_is_accepted(node: Core):
    node.grant()
    node.consents.watch_origin = "https://watch.example:8446"
    node.grant(giver="tenant2")
    await node.settle()
    assert [r.fact("watch") for r in node.receipts()] == ["", "https://watch.example:8446"]


async def test_the_audit_says_whether_its_giver_has_to_watch(node: Core):
    node.grant(watched=True)
    await node.settle()
    (record,) = node.records(audit.Event.CONSENT_ACCEPTED)
    assert record.facts["watched"] is True
