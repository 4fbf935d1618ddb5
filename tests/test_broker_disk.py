"""broker/disk.py: what a start finds, and what it makes of state and audit that do not say the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from broker import audit_log
from broker.disk import Unfinished, ended_by
from eva.audit import Chains, Event
from eva.consent import MAX_SECONDS
from eva.ending import Ending
from eva.ledger import Ended
from eva.wire import Event as Told
from tests.broker_parts import START, Core, core, jti


def test_a_session_without_an_end_is_found():
    chains = Chains()
    records = [
        chains.next("c", Event.SESSION_START, {"session": "one"}, 1),
        chains.next("c", Event.SESSION_START, {"session": "two"}, 2),
        chains.next("c", Event.SESSION_END, {"session": "one"}, 3),
    ]
    sessions = Unfinished()
    for record in records:
        sessions.take(record)
    assert [record.facts["session"] for record in sessions.starts] == ["two"]


def test_what_the_audit_says_is_over_is_over():
    chains, over, refused, stands = Chains(), jti(), jti(), jti()
    records = [
        chains.next("c", Event.CONSENT_ENDED, {"consent": over, "reason": "feature-disabled", "by": "provider"}, 1),
        chains.next("c", Event.CONSENT_REFUSED, {"consent": refused, "why": "vm-unknown"}, 2),
        chains.next("c", Event.CONSENT_ACCEPTED, {"consent": stands}, 3),
    ]
    over_by = [one for record in records if (one := ended_by(record)) is not None]
    assert {one.jti: one.ending for one in over_by} == {over: Ending.FEATURE_DISABLED, refused: Ending.CONSENT_REVOKED}


def test_what_the_audit_says_was_renewed_is_over():
    record = Chains().next("c", Event.CONSENT_ACCEPTED, {"consent": jti(), "renews": (before := jti())}, 1)
    one = ended_by(record)
    assert one is not None
    assert one.jti == before


async def test_a_row_that_the_state_lost_brings_no_consent_back(tmp_path: Path):
    async with core(tmp_path) as node:
        one = node.grant()
        assert node.standing() == {one.jti}
        node.consents.delete([node.consents.ledger.get(one.jti)], "alice")
        await node.journal.write()
    with sqlite3.connect(tmp_path / "state.db") as damage:
        damage.execute("DELETE FROM ended")
    again = Core(tmp_path, node.signer, node.clock, node_key=node.node_key)
    found = audit_log.read(again.audit_path, again.loaded.audit_count, again.loaded.audit_head)
    again.consents.restore(again.loaded, [one for record in found.records if (one := ended_by(record)) is not None])
    assert again.standing() == set()


async def test_the_provider_hears_of_an_end_that_only_the_audit_knows(tmp_path: Path):
    """A crash came after the audit's write and before the state's."""
    async with core(tmp_path) as node:
        one = node.grant()
        await node.settle()
    again = Core(tmp_path, node.signer, node.clock, node_key=node.node_key)
    again.consents.restore(again.loaded, [Ended(one.jti, Ending.VM_GONE, START + MAX_SECONDS)])
    again.start().consents.begin(again.clock.now())
    await again.settle()
    (receipt,) = again.receipts()
    assert (receipt.event, receipt.about, receipt.fact("reason"), again.standing()) == (Told.ENDED, one.jti, "vm-gone", set())
    await again.stop()
