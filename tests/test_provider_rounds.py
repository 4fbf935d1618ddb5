"""provider/consent/rounds.py: what goes on by itself goes on."""

from __future__ import annotations

import asyncio

import pytest

from eva.ending import Ending
from lab.transcript import PATIENCE_S
from provider.consent import rounds
from provider.consent.loss import MOVED, Hearing, Moves
from provider.consent.rounds import move_for_ever, sweep_for_ever
from provider.store.store import StoreDown
from tests.provider_office import VM, Office


class Turns:
    """A registrar whose turns a test gives; it is done with the last."""

    def __init__(self, *moves: Moves) -> None:
        self.swept = 0
        self.after: list[str] = []
        self._moves = list(moves)
        self.over = asyncio.Event()

    async def sweep(self) -> None:
        self.swept += 1
        if self.swept == 3:
            self.over.set()
        raise StoreDown("locked")

    async def move_lost(self, _: Hearing, after: str = "") -> Moves:
        self.after.append(after)
        if not self._moves:
            self.over.set()
            return Moves()
        return self._moves.pop(0)


async def test_a_store_that_does_not_answer_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rounds, "SWEEP_SECONDS", 0.001)
    turns = Turns()
    running = asyncio.create_task(sweep_for_ever(turns))  # type: ignore[arg-type]  # a part of it is enough
    async with asyncio.timeout(PATIENCE_S):
        await turns.over.wait()
    running.cancel()


async def test_a_full_transaction_is_followed_by_the_next_at_once(office: Office):
    office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    full = Moves((notice,) * MOVED, (), "a")
    turns = Turns(full, full, Moves((), (), "b"))
    running = asyncio.create_task(move_for_ever(turns))  # type: ignore[arg-type]  # a part of it is enough
    async with asyncio.timeout(PATIENCE_S):
        await turns.over.wait()
    running.cancel()
    assert turns.after == ["", "a", "a", "b"]
