"""broker/testimony.py on real files: the provider is told each record of a consent's chain, in order, and none is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.audit_log import Entry
from broker.journal import MAX_UNTOLD
from broker.testimony import WINDOW
from eva import audit
from eva.audit import verify_records
from eva.consent import Kind
from eva.control import Refusal, Refused
from eva.wire import Event
from tests.broker_parts import PATIENCE, Core, core


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


async def until_told(node: Core, count: int) -> None:
    """Waits until so many records have left."""
    async with asyncio.timeout(PATIENCE):
        while len(node.told) < count:
            await asyncio.sleep(0.005)


def records(count: int, chain: str) -> list[Entry]:
    return [Entry(chain, audit.Event.KEYBOARD, {"session": "s", "n": n}, n) for n in range(count)]


async def test_a_consents_story_is_told_as_it_is_recorded(node: Core):
    one = node.grant()
    await node.open()
    node.revoke(one)
    await until_told(node, 4)
    story = verify_records(one.cid, [receipt.record for receipt in node.testimonies()])
    # the cut comes first, and its record before the consent's
    assert [told.event for told in story.records] == [
        audit.Event.CONSENT_ACCEPTED,
        audit.Event.SESSION_START,
        audit.Event.SESSION_END,
        audit.Event.CONSENT_ENDED,
    ]
    assert {(r.event, r.about) for r in node.testimonies()} == {(Event.RECORDED, one.cid)}


async def test_a_renewed_consents_story_is_one(node: Core):
    one = node.grant()
    node.renew_consent(one)
    await until_told(node, 2)
    assert len(verify_records(one.cid, [receipt.record for receipt in node.testimonies()]).records) == 2


async def test_each_consent_has_its_own(node: Core):
    one, other = node.grant(), node.grant()
    node.revoke(one)
    await until_told(node, 3)
    for consent, count in ((one, 2), (other, 1)):
        texts = [receipt.record for receipt in node.testimonies() if receipt.about == consent.cid]
        assert len(verify_records(consent.cid, texts).records) == count


async def test_what_is_told_hashes_to_the_record_on_disk(node: Core):
    node.grant()
    await until_told(node, 1)
    (record,) = node.records(audit.Event.CONSENT_ACCEPTED)
    assert json.loads(node.testimonies()[0].record)["facts"] == record.facts
    assert verify_records(record.chain, [node.testimonies()[0].record]).head == record.digest


async def test_the_nodes_own_affairs_are_not_told(node: Core):
    await node.journal.write(None, Entry("", audit.Event.WORKSTATION, {"account": "alice"}, 1))
    node.grant()
    await until_told(node, 1)
    assert [json.loads(r.record)["event"] for r in node.testimonies()] == ["consent-accepted"]


async def test_a_record_is_on_disk_before_it_is_told(node: Core):
    node.grant()
    await until_told(node, 1)
    assert node.journal.anchor[0] >= 1
    node.told.clear()
    after = await node.restart()
    assert [r.event for r in after.loaded.receipts] == [Event.ACCEPTED, Event.RECORDED]
    await after.stop()


async def test_what_a_crash_left_untold_is_told_by_the_next_run(node: Core):
    one = node.grant()
    await node.settle()  # on disk, and its receipt not yet signed
    after = await node.restart()
    already = len(node.told)
    after.testimony.go_on()
    await until_told(after, 1 - already)
    told = node.testimonies() + after.testimonies()
    assert len(verify_records(one.cid, [receipt.record for receipt in told]).records) == 1
    await after.stop()


async def test_over_restarts_each_is_told_once_and_numbers_have_no_gap(node: Core):
    one, runs = node.grant(), [node]
    for number in range(4):
        await runs[-1].journal.write(None, *records(3, one.cid))
        if number % 2:
            await until_told(runs[-1], 1)
        runs.append(await runs[-1].restart())
        runs[-1].testimony.go_on()
    async with asyncio.timeout(PATIENCE):
        while sum(len(run.told) for run in runs) < 13:
            await asyncio.sleep(0.005)
    numbers = sorted(r.number for run in runs for r in (*run.testimonies(), *run.receipts()))
    assert numbers == list(range(1, 15))
    await runs[-1].stop()


async def test_few_are_under_way_at_once(node: Core):
    one = node.grant()
    await node.journal.write(None, *records(3 * WINDOW, one.cid))
    await until_told(node, WINDOW)
    await asyncio.sleep(0.1)
    assert (len(node.told), node.outbox.telling, len(node.journal.untold)) == (WINDOW, WINDOW, 2 * WINDOW + 1)


async def test_the_provider_is_asked_for_room_only_once_there_is_none(node: Core):
    one = node.grant()
    # what is gathered for the next write needs no lease to go
    assert not node.testimony.is_held
    await node.journal.write(None, *records(2 * WINDOW, one.cid))
    await until_told(node, WINDOW)
    assert node.testimony.is_held
    node.answer(node.question(), receipts=max(r.number for r in node.testimonies()))
    assert not node.testimony.is_held  # until it has told as many again


async def test_a_revocations_receipt_waits_behind_no_more_than_those(node: Core):
    one, other = node.grant(), node.grant()
    await node.journal.write(None, *records(4 * WINDOW, one.cid))
    await until_told(node, WINDOW)
    node.revoke(other)
    await node.settle()
    assert node.receipts()[-1].number <= WINDOW + 3  # two acceptances, the window, and this


async def test_what_the_provider_has_makes_room(node: Core):
    one = node.grant()
    await node.journal.write(None, *records(3 * WINDOW, one.cid))
    for told in (WINDOW, 2 * WINDOW, 3 * WINDOW, 3 * WINDOW + 1):
        await until_told(node, told)
        await node.renew(receipts=max(r.number for r in node.testimonies()))
    assert node.outbox.oldest() == ()
    assert [json.loads(r.record)["index"] for r in node.testimonies()] == list(range(1, 3 * WINDOW + 2))


async def test_while_too_much_is_untold_operators_add_nothing(node: Core):
    one = node.grant()
    session = await node.open(Kind.SERIAL)
    live = node.live(session)
    for _ in range(4):
        await node.journal.write(None, *records(MAX_UNTOLD // 4 + WINDOW, one.cid))
    await until_told(node, WINDOW)
    for attempt in (
        node.open,
        lambda: node.sessions.hands.send_chord(live, (29,)),
    ):
        with pytest.raises(Refused) as caught:
            await attempt()
        assert caught.value.refusal is Refusal.AUDIT_FAILED
    for act in (lambda: node.sessions.hands.move_keyboard(live, live.id), lambda: node.sessions.hands.release_input(live)):
        with pytest.raises(Refused) as caught:
            act()
        assert caught.value.refusal is Refusal.AUDIT_FAILED
    node.revoke(one)
    await node.settle()
    assert node.records(audit.Event.SESSION_END)


# -- what the provider has -----------------------------------------------------------------------------------------------


async def test_one_who_waits_hears_that_the_provider_has_it(node: Core):
    node.grant()
    await node.settle()
    hurried = asyncio.Event()
    node.testimony.hurry = hurried.set
    waiting = asyncio.ensure_future(node.testimony.is_had(PATIENCE))
    async with asyncio.timeout(PATIENCE):
        await hurried.wait()  # it is asked at once, or once the receipt is on disk
    await until_told(node, 1)
    assert not waiting.done()
    node.answer(node.question(), receipts=node.told[-1].number)
    assert await waiting


async def test_it_is_asked_at_once_also_where_the_receipt_has_left_already(node: Core):
    node.grant()
    await until_told(node, 1)
    hurried = asyncio.Event()
    node.testimony.hurry = hurried.set
    assert not await node.testimony.is_had(0.05)
    assert hurried.is_set()


async def test_with_nothing_to_tell_nobody_waits(node: Core):
    assert await node.testimony.is_had(0)


async def test_what_comes_later_is_not_waited_for(node: Core):
    node.grant()
    await until_told(node, 1)
    waiting = asyncio.ensure_future(node.testimony.is_had(PATIENCE))
    await asyncio.sleep(0)
    node.grant()
    await until_told(node, 2)
    node.answer(node.question(), receipts=node.told[0].number)
    assert await waiting


async def test_the_last_but_one_is_not_enough(node: Core):
    node.grant()
    node.grant()
    await until_told(node, 2)
    node.answer(node.question(), receipts=node.told[0].number)
    await node.settle()
    assert not await node.testimony.is_had(0.05)


async def test_what_an_earlier_run_told_and_the_provider_does_not_have_is_waited_for(node: Core):
    node.grant()
    await until_told(node, 1)
    await node.settle()
    again = await node.restart()
    try:
        assert not await again.testimony.is_had(0.05)
        again.answer(again.question(), receipts=node.told[-1].number)
        await again.settle()
        assert await again.testimony.is_had(PATIENCE)
    finally:
        await again.stop()
