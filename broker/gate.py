"""The gate: one synchronous check in front of every write towards a guest.

Nothing else in the broker sends on a console's socket. A cut shuts the gate before it does anything else, so whatever
hangs later (a peer, libvirtd, a guest that is paused), no operator byte passes.
"""

from __future__ import annotations

import socket

from broker.clock import Clock
from broker.lease import LeaseState
from broker.watching import Rein
from eva.ending import Ending
from eva.ledger import Term


class Gate:
    """One session's gate. `ending` is None until it is shut; it never opens again. `term` may be renewed.

    `rein`: what the consent's giver says about input.
    """

    __slots__ = ("_clock", "_lease", "_released", "ending", "passed", "paused", "rein", "term")

    def __init__(self, clock: Clock, term: Term, lease: LeaseState, rein: Rein) -> None:
        self._clock = clock
        self.term = term
        self._lease = lease
        self.rein = rein
        self._released = False
        self.ending: Ending | None = None
        self.paused = True  # no operator is attached
        self.passed = 0  # bytes written towards the guest

    def shut(self, ending: Ending) -> bool:
        """Shuts it for good. False if it was shut already: the first reason stays."""
        if self.ending is not None:
            return False
        self.ending = ending
        return True

    def open(self, *, is_input: bool = True) -> bool:
        """Whether an operator's byte may pass now. Expiry is found here, at the byte, however late any timer is.

        What is no input changes nothing in the guest, and the giver's rein does not hold it.
        """
        if self.ending is not None or self.paused or (is_input and self.rein.held):
            return False
        now = self._clock.now()
        return not self.term.over(now) and self._lease.is_open(now)

    @property
    def held_by(self) -> str:
        """Who holds input that waits here, as operators are told it: "tenant", "lease", or nobody."""
        if self.rein.held:
            return "tenant"
        return "" if self._lease.is_open(self._clock.now()) else "lease"

    def send(self, sock: socket.socket, data: bytes | bytearray | memoryview, *, is_input: bool = True) -> int:
        """Writes what the socket takes of `data` now if the gate is open. Gives the count of bytes written.

        Raises OSError where the console is gone.
        """
        if not self.open(is_input=is_input):
            return 0
        try:
            count = sock.send(data)
        except BlockingIOError:
            return 0
        self.passed += count
        return count

    def release(self, sock: socket.socket, keys_up: bytes) -> None:
        """The broker's own release of keys that are down: once, without waiting, also when the gate is shut."""
        if self._released or not keys_up:
            return
        self._released = True
        try:
            sock.send(keys_up)
        except OSError:
            return  # a console that takes nothing now, or is gone, has no more to be told
