"""The node's authority, which is a lease and no message. Pure.

The node asks every few seconds with a fresh nonce. An answer counts from the moment the node *asked*, and only once every
revocation that it carries is applied and on disk. Its age on CLOCK_BOOTTIME decides: open, then input held, then all cut.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from eva.instant import NS, Instant
from eva.wire import Lease

MAX_ASKED = 16  # nonces that may still be answered


class Hold(Enum):
    """What the lease's age allows."""

    OPEN = "open"
    HELD = "held"  # input waits, nothing new opens
    LOST = "lost"  # every session is cut


@dataclass(frozen=True, slots=True)
class Limits:
    """Ages in seconds, 5 to 60, never infinite: up to `open_s` all is open, past `cut_s` every session is cut."""

    open_s: float = 6.0
    cut_s: float = 15.0


class LeaseState:
    """What this node was answered. Starts lost: nothing opens before the first lease."""

    def __init__(self, limits: Limits) -> None:
        self._open = round(limits.open_s * NS)
        self._cut = round(limits.cut_s * NS)
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._since: int | None = None  # boot ns at which the newest lease that counts was asked for
        self._open_until = -1
        self._cut_at = -1

    def ask(self, nonce: str, now: Instant) -> None:
        """Notes that a request with this nonce leaves now."""
        self._asked[nonce] = now.boot
        while len(self._asked) > MAX_ASKED:
            self._asked.popitem(last=False)

    def expects(self, lease: Lease) -> bool:
        """Whether this lease answers a question of ours that no other has answered."""
        return lease.nonce in self._asked

    def count(self, lease: Lease, seq_on_disk: int) -> bool:
        """Takes the lease if it answers a question of ours and all that it carries is on disk. True if it counted."""
        if lease.nonce not in self._asked or lease.seq > seq_on_disk:
            return False
        asked = self._asked.pop(lease.nonce)
        if self._since is None or asked > self._since:
            self._since = asked
            self._open_until = asked + self._open
            self._cut_at = asked + self._cut
        return True

    def drop(self) -> None:
        """Gives the lease up: a state that cannot be kept on disk is no state to serve from."""
        self._asked.clear()
        self._since, self._open_until, self._cut_at = None, -1, -1

    def is_open(self, now: Instant) -> bool:
        return now.boot <= self._open_until

    def hold(self, now: Instant) -> Hold:
        if now.boot <= self._open_until:
            return Hold.OPEN
        return Hold.HELD if now.boot <= self._cut_at else Hold.LOST

    def age(self, now: Instant) -> float | None:
        """Seconds since the newest lease that counts was asked for, or None if there was none."""
        return None if self._since is None else (now.boot - self._since) / NS
