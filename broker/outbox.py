"""The node's receipts: numbered without gaps, signed, on disk before they leave, sent until the provider says it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from broker.state import Change, StoredReceipt
from eva.instant import Instant
from eva.token import SigningKey, b64
from eva.wire import MAX_RECEIPTS, Event, Receipt


class Outbox:
    """Receipts not known to be delivered, oldest first. `randomness(n)` gives n random bytes."""

    def __init__(self, node: str, key: SigningKey, randomness: Callable[[int], bytes]) -> None:
        self._node = node
        self._key = key
        self._randomness = randomness
        self._last = 0
        self._waiting: dict[int, StoredReceipt] = {}
        self.telling = 0  # how many of them tell a record of the audit

    def restore(self, receipts: Iterable[StoredReceipt], last: int) -> None:
        """Takes up what the state file holds."""
        self._waiting = {receipt.number: receipt for receipt in receipts}
        self.telling = sum(receipt.event is Event.RECORDED for receipt in self._waiting.values())
        self._last = last

    def add(
        self,
        change: Change,
        event: Event,
        about: str,
        now: Instant,
        seq: int = 0,
        facts: Mapping[str, str] | None = None,
        record: str = "",
    ) -> StoredReceipt:
        """Signs the next receipt into `change`. It may be sent once that change is on disk."""
        self._last += 1
        receipt = Receipt(
            node=self._node,
            jti=b64(self._randomness(16)),
            number=self._last,
            event=event,
            about=about,
            at_ms=now.wall // 1_000_000,
            seq=seq,
            facts=tuple(sorted((facts or {}).items())),
            record=record,
        )
        token = self._key.sign(Receipt.TYP, receipt.to_claims())
        change.receipt(receipt, token)
        stored = StoredReceipt(self._last, token, event, about)
        self._waiting[stored.number] = stored
        self.telling += event is Event.RECORDED
        return stored

    def holds(self, receipt: StoredReceipt) -> bool:
        """Whether it is not known to be delivered."""
        return receipt.number in self._waiting

    def oldest(self) -> tuple[str, ...]:
        """The tokens to send again with a lease request."""
        numbers = sorted(self._waiting)[:MAX_RECEIPTS]
        return tuple(self._waiting[number].token for number in numbers)

    def answered(self, change: Change, about: str) -> None:
        """The provider has revoked this consent by itself: a deletion of it is like any other receipt from now on."""
        for receipt in list(self._waiting.values()):
            if receipt.about == about and receipt.event is Event.DELETED:
                self._waiting[receipt.number] = replace(receipt, event=Event.ENDED)
                change.deletion_answered(receipt.number)

    def delivered(self, up_to: int) -> list[int]:
        """The provider has all receipts up to this number. Gives those that need not be sent again.

        A deletion stays until the provider has answered it with a revocation of its own.
        """
        done = [r.number for r in self._waiting.values() if r.number <= up_to and r.event is not Event.DELETED]
        for number in done:
            self.telling -= self._waiting.pop(number).event is Event.RECORDED
        return done
