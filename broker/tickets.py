"""Console tickets: the word by which a console's websocket shows that its session was granted on the control channel. Pure.

A ticket is 256 random bits, works once, within 30 s, from one address, and is kept only as its SHA-256, in memory: after a
restart none is known. Looking the hash up in a dict betrays nothing by its time: whoever does not hold the ticket cannot
choose a text whose hash shares a prefix with it. Errors:

    TicketsFull     as many tickets are out as may be
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from broker.safelist import Address
from eva.instant import NS, Instant
from eva.token import b64, unb64

TICKET_SECONDS: Final = 30
TICKET_BYTES: Final = 32
MAX_TICKETS: Final = 4096


class TicketsFull(Exception):
    """`out`: how many tickets are out."""

    def __init__(self, out: int) -> None:
        self.out = out
        super().__init__(f"{out} tickets are out")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a redeemed ticket stands for: the session, and the account that it was issued to."""

    session: str
    account: str


@dataclass(frozen=True, slots=True)
class _Issued:
    claim: Claim
    address: Address
    until_boot: int


class Tickets:
    """The tickets that are out. At most one for each session: a new one voids the one before."""

    def __init__(self) -> None:
        # in order of issue, which is the order of lapse too: all live as long, and the boot clock never goes back
        self._issued: dict[bytes, _Issued] = {}
        self._by_session: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, random: bytes, session: str, account: str, address: Address, now: Instant) -> str:
        """A ticket made of `random`, 32 bytes from the system's generator. Raises TicketsFull."""
        if len(random) != TICKET_BYTES:
            raise ValueError(f"{len(random)} random bytes, not {TICKET_BYTES}")
        self.sweep(now)
        self.void(session)
        if len(self._issued) >= MAX_TICKETS:
            raise TicketsFull(len(self._issued))
        key = hashlib.sha256(random).digest()
        self._issued[key] = _Issued(Claim(session, account), address, now.boot + TICKET_SECONDS * NS)
        self._by_session[session] = key
        return b64(random)

    def redeem(self, ticket: str, address: Address, now: Instant) -> Claim | None:
        """What the ticket stands for, once. Shown late or from another address it is void from then on: it has leaked."""
        try:
            key = hashlib.sha256(unb64(ticket)).digest()
        except ValueError:
            return None
        # taken out before anything is asked of it: two who come at once cannot both find it
        found = self._issued.pop(key, None)
        if found is None:
            return None
        self._by_session.pop(found.claim.session, None)
        if found.address != address or now.boot >= found.until_boot:
            return None
        return found.claim

    def void(self, session: str) -> None:
        """Ends the ticket of this session, if one is out."""
        key = self._by_session.pop(session, None)
        if key is not None:
            self._issued.pop(key, None)

    def sweep(self, now: Instant) -> None:
        """Forgets what has lapsed."""
        while self._issued:
            key, oldest = next(iter(self._issued.items()))
            if now.boot < oldest.until_boot:
                return
            del self._issued[key]
            self._by_session.pop(oldest.claim.session, None)
