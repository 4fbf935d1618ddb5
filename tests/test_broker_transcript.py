"""broker/transcript.py: what is typed is told in bundles, to the end, as the session's that typed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker import echo
from broker.echo import Hidden, Text
from broker.session import Session
from broker.transcript import Parts, Transcript
from eva.consent import Access, Kind
from eva.ledger import Accepted, Term
from tests.broker_parts import ALICE, BOB, PATIENCE, PIN, HandClock, consent


def session(number: int = 1) -> Session:
    clock = HandClock()
    operator = ALICE if number == 1 else BOB
    accepted = Accepted(consent(), PIN, Term(0, 0))
    return Session(str(number), operator, accepted, Kind.SERIAL, Access.KEYBOARD, clock.now())


class Ear:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Parts]] = []
        self.spoken = asyncio.Event()

    def __call__(self, whose: Session, parts: Parts) -> None:
        self.told.append((whose.id, parts))
        self.spoken.set()

    async def next(self) -> tuple[str, Parts]:
        async with asyncio.timeout(PATIENCE):
            while not self.told:
                self.spoken.clear()
                await self.spoken.wait()
        return self.told.pop(0)


@pytest.fixture
async def ear() -> Ear:
    return Ear()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An echo is in time, however long this process stands still before it."""
    monkeypatch.setattr(echo, "ECHO_WITHIN", PATIENCE)


@pytest.fixture
async def transcript(ear: Ear) -> AsyncIterator[Transcript]:
    one = Transcript(ear)
    yield one
    one.close()


async def test_what_is_echoed_is_told(transcript: Transcript, ear: Ear):
    transcript.typed(session(), b"ls", masked=False)
    transcript.guest(b"ls")
    assert await ear.next() == ("1", [Text("ls")])


async def test_what_is_not_echoed_is_told_when_its_time_is_up(transcript: Transcript, ear: Ear, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(echo, "ECHO_WITHIN", 0.2)
    began = asyncio.get_running_loop().time()
    transcript.typed(session(), b"secret", masked=False)
    assert await ear.next() == ("1", [Hidden(6)])
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_many_keys_make_few_notices(transcript: Transcript, ear: Ear):
    one = session()
    for key in b"uname -a":
        transcript.typed(one, bytes([key]), masked=False)
        transcript.guest(bytes([key]))
    transcript.typed(one, b"\r", masked=False)
    transcript.guest(b"\r\nLinux\r\n")
    assert await ear.next() == ("1", [Text("uname -a"), Text("Enter", is_key=True)])


async def test_each_part_belongs_to_who_typed_it(transcript: Transcript, ear: Ear):
    transcript.typed(session(1), b"se", masked=False)
    transcript.typed(session(2), b"ls", masked=False)
    assert await ear.next() == ("1", [Hidden(2)])
    transcript.guest(b"ls")
    assert await ear.next() == ("2", [Text("ls")])


async def test_a_masked_entry_is_a_count(transcript: Transcript, ear: Ear):
    transcript.typed(session(), b"hunter2", masked=True)
    transcript.guest(b"hunter2")
    assert await ear.next() == ("1", [Hidden(7)])


async def test_at_its_end_it_tells_what_there_is(ear: Ear):
    transcript = Transcript(ear)
    transcript.typed(session(), b"ls", masked=False)
    transcript.close()
    assert ear.told == [("1", [Hidden(2)])]
    transcript.close()
    assert len(ear.told) == 1


async def test_with_nothing_typed_nothing_is_told(transcript: Transcript, ear: Ear):
    transcript.guest(b"login: ")
    transcript.flush()
    assert ear.told == []
