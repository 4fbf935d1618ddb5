"""provider/consent/letters.py: revocations seen through, with a post that a test plays and the words of nodes in a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from eva.ending import Ending
from eva.wire import Envelope, Event
from lab.transcript import PATIENCE_S
from provider.consent.letters import AT_ONCE, Letters, Undelivered
from provider.consent.waits import Waits
from provider.keys import Signers
from provider.meters import Meters
from provider.settings import KeyFiles
from provider.store.filed import Notice
from provider.store.records import Records
from tests.provider_office import VM, Office

T = TypeVar("T")


@dataclass
class Post:
    """Takes letters, `down`: none of them; `full`: the most that were under way at once."""

    down: bool = False
    sent: list[tuple[str, bytes, int | None]] = field(default_factory=list)
    under_way: int = 0
    full: int = 0

    async def send(self, topic: str, payload: bytes, *, expires: int | None, patience: float) -> None:
        self.under_way += 1
        self.full = max(self.full, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.down:
            raise Undelivered("down")
        self.sent.append((topic, payload, expires))


class Desk:
    """The office with letters that leave it."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.post, self.waits, self.meters = Post(), Waits(), Meters()
        signers = Signers(KeyFiles(*[Path("/none")] * 3), office.signer)
        self.letters = Letters(self.post, signers, self.waits, self.meters, cut_seconds=15)

    async def look(self, look: Callable[[Records], T]) -> T:
        return self.office.do(lambda desk: look(desk.records))

    def revoked(self, count: int = 1) -> list[Notice]:
        for number in range(count):
            self.office.granted(self.office.vm(number))
        notices: list[Notice] = []
        for number in range(count):
            vm = self.office.vm(number)
            notices += self.office.do(lambda desk, vm=vm: desk.revoke_vm(vm, Ending.CONSENT_REVOKED))
        return notices

    def confirm(self, notice: Notice) -> None:
        pen = self.office.pen
        self.office.receive(pen, pen.receipt(Event.ENDED, notice.jti, notice.seq, cut_us="5", sessions="0"))
        self.waits.wake(notice.jti)


@pytest.fixture
def desk(office: Office) -> Desk:
    return Desk(office)


async def test_an_offer_expires_with_the_time_to_answer_it(desk: Desk):
    offer = desk.office.offer(VM)
    await desk.letters.send_offer(offer, 2.7)
    ((topic, payload, expires),) = desk.post.sent
    assert (topic, expires) == ("eva/v1/node/AzS-ERCS01/consent", 3)
    assert Envelope.decode(payload) == Envelope(offer.token, keys=desk.office.signer.key_set)


async def test_revocations_are_sent_at_once_and_seen_through(desk: Desk):
    notices = desk.revoked(3)
    seeing = asyncio.create_task(desk.letters.see_through(notices, desk.look, PATIENCE_S))
    while len(desk.post.sent) < 3:
        await asyncio.sleep(0)
    for notice in notices:
        desk.confirm(notice)
    assert [cut.confirmed for cut in await seeing] == [True] * 3


async def test_one_that_is_confirmed_already_is_not_sent_again(desk: Desk):
    notices = desk.revoked(1)
    desk.confirm(notices[0])
    seen = await desk.letters.see_through(
        await desk.look(lambda records: records.notices([("AzS-ERCS01", 1)])), desk.look, PATIENCE_S
    )
    assert (seen[0].confirmed, desk.post.sent) == (True, [])


async def test_with_mqtt_down_the_wait_goes_on(desk: Desk):
    desk.post.down = True
    notices = desk.revoked(1)
    seeing = asyncio.create_task(desk.letters.see_through(notices, desk.look, PATIENCE_S))
    await asyncio.sleep(0)
    desk.confirm(notices[0])  # it came with a lease
    assert [cut.confirmed for cut in await seeing] == [True]


async def test_without_the_nodes_word_it_says_when_at_latest(desk: Desk):
    notices = desk.revoked(2)
    desk.confirm(notices[0])
    seen = await desk.letters.see_through(notices, desk.look, 0.1)
    assert [cut.confirmed for cut in seen] == [True, False]
    assert seen[1].at_latest_ms == notices[1].made_ms + 16_000


async def test_a_flood_of_letters_is_bounded(desk: Desk):
    await desk.letters.hint(desk.revoked(AT_ONCE + 8))
    assert (len(desk.post.sent), desk.post.full) == (AT_ONCE + 8, AT_ONCE)
