"""What the audit of each consent says, on its way to the provider: every record, in order, as a receipt.

The audit itself is the queue: what it has on disk and no receipt tells yet is told, also after a crash, for the number of
the last record told is written together with the receipt. Few of these receipts are under way at a time, so that the
receipt of a revocation, whose number comes after theirs, never waits behind the records of a thousand sessions.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from broker.clock import Clock
from broker.journal import Journal
from broker.outbox import Outbox
from broker.state import Change, StoredReceipt
from eva.wire import Event

WINDOW: Final = 128  # receipts of records that the provider is not known to have
TOGETHER: Final = 16  # signed in one turn of the loop: 1 ms
GATHER: Final = 0.02  # seconds in which records are gathered into one write


class Testimony:
    """`publish` sends a receipt that is on disk."""

    def __init__(self, journal: Journal, outbox: Outbox, clock: Clock, publish: Callable[[StoredReceipt], None]) -> None:
        self._journal = journal
        self._outbox = outbox
        self._clock = clock
        self._publish = publish
        self._due: asyncio.TimerHandle | None = None
        self._told: deque[tuple[int, StoredReceipt]] = deque()  # of these records the provider is not known to have the receipts
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []  # up to which record
        self.hurry: Callable[[], None] = lambda: None  # ask at once what the provider has
        journal.on_untold = self.go_on

    def go_on(self) -> None:
        """Tells soon what there is room for. Call it when there is more to tell, or the provider has more."""
        self._settle()
        if self._due is None and self._journal.untold and self._room > 0:
            self._due = asyncio.get_running_loop().call_later(GATHER, self._tell)

    async def is_had(self, within: float) -> bool:
        """Whether the provider has all records that are on disk now, or has them in so many seconds."""
        had: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((self._journal.anchor[0], had))
        self._settle()
        if not had.done() and not self._journal.untold:
            self.hurry()
        try:
            async with asyncio.timeout(within):
                await had
        except TimeoutError:
            return False
        finally:
            self._awaited = [one for one in self._awaited if one[1] is not had]
        return True

    def _settle(self) -> None:
        while self._told and not self._outbox.holds(self._told[0][1]):
            self._told.popleft()
        for count, had in self._awaited:
            if count < self._first and not had.done():
                had.set_result(None)

    @property
    def _first(self) -> float:
        """The first record that the provider is not known to have."""
        if self._outbox.telling > len(self._told):
            return 0  # of an earlier run's
        if self._told:
            return self._told[0][0]
        return self._journal.untold[0].count if self._journal.untold else math.inf

    @property
    def is_held(self) -> bool:
        """Whether there is more to tell, and no room until the provider says what it has."""
        return bool(self._journal.untold) and self._room <= 0

    @property
    def _room(self) -> int:
        return WINDOW - self._outbox.telling

    def _tell(self) -> None:
        self._due = None
        now, change, last = self._clock.now(), Change(), 0
        receipts: list[StoredReceipt] = []
        while self._journal.untold and self._room > 0 and len(receipts) < TOGETHER:
            record = self._journal.untold.popleft()
            last = record.count
            receipts.append(self._outbox.add(change, Event.RECORDED, record.chain, now, record=record.told))
            self._told.append((last, receipts[-1]))
        if not receipts:
            return

        def on_disk() -> None:
            for receipt in receipts:
                self._publish(receipt)
            if self._awaited:
                self.hurry()

        self._journal.post(change.meta("told", last), then=on_disk)
        if self._journal.untold and self._room > 0:
            self._due = asyncio.get_running_loop().call_later(0, self._tell)
