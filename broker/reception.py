"""Who is let in at the operators' port before anybody has signed in: by address, by seat, by the Host and Origin of a request.

A seat in the lobby is held by each connection that has not signed in and wants something. A browser that has its answer keeps
its connection and no seat, as long as few do. Where somebody is signed in, connections come without a seat, and are bounded too.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker import knock
from broker.control_channel import Desk
from broker.lobby import UNSIGNED, Lobby, Seat
from broker.pages import Pages, PlainRequest, Reply
from broker.safelist import Address, BadAddress, parse_address
from broker.settings import OperatorListener
from broker.sign_in_pages import SignInPages
from broker.visitor import Visitor
from broker.websocket import OperatorConnection

MAX_IDLE: Final = 96  # browsers' connections that are kept: six to a browser
MAX_UNFINISHED: Final = 128  # connections of one address, with a seat or without, that are not yet what they will be

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Arrival:
    """A connection without an operator yet. `seat`: its place in the lobby; `session`: whose ticket it redeemed."""

    address: Address
    abort: Callable[[], None]
    seat: Seat | None = None
    session: str | None = None

    def leave(self) -> None:
        if self.seat is not None:
            self.seat.leave()
            self.seat = None


class Reception:
    """See the module. It is the visitors' Porter."""

    def __init__(self, settings: OperatorListener, desk: Desk, pages: Pages, sign_in: SignInPages) -> None:
        self._settings = settings
        self._desk = desk
        self._pages = pages
        self._sign_in = sign_in
        self.lobby = Lobby(UNSIGNED, desk.metrics.refused.labels("lobby").inc)
        self._visitors: dict[Visitor, Arrival] = {}
        self._idle: dict[Visitor, None] = {}  # the one that has been so for longest first
        # what is known of a websocket until its handler takes it over
        self.arrivals: dict[OperatorConnection, Arrival] = {}

    # -- for visitors --------------------------------------------------------------------------------------------

    def enter(self, visitor: Visitor) -> bool:
        peer = visitor.transport.get_extra_info("peername")
        try:
            address = parse_address(peer[0] if peer else "")
        except BadAddress as error:
            log.info("refused a connection: %s", error)
            return False
        if self.unfinished(address) >= MAX_UNFINISHED:
            self._desk.metrics.refused.labels("lobby").inc()
            return False
        arrival = self._visitors[visitor] = Arrival(address, visitor.transport.abort)
        # consoles come many at once, from where their operator is signed in already: those take no seat until they ask for one
        return self._desk.is_signed_in_from(address) or self.seat(arrival)

    def admit(self, visitor: Visitor, connection: OperatorConnection) -> None:
        arrival = self._visitors.pop(visitor)
        self.arrivals[connection] = arrival

        def forget(_: object) -> None:
            self.arrivals.pop(connection, None)
            arrival.leave()

        connection.connection_lost_waiter.add_done_callback(forget)

    def answer(self, visitor: Visitor, request: PlainRequest) -> Reply | Coroutine[Any, Any, Reply]:
        self._idle.pop(visitor, None)
        arrival = self._visitors[visitor]
        found = self._pages.answer(request)
        ours = self._sign_in.serves(request.target)
        if (found is None and not ours) or request.all("upgrade"):
            return self._refuse(arrival, "path")
        why = self.fault(request.all("host"), request.all("origin"))
        if why is not None:
            return self._refuse(arrival, why)
        if not self.seat(arrival):
            return Reply.plain(http.HTTPStatus.SERVICE_UNAVAILABLE, last=True)
        return self._sign_in.answer(request, arrival.address) if found is None else found

    def rest(self, visitor: Visitor) -> None:
        self._visitors[visitor].leave()
        self._idle[visitor] = None
        if len(self._idle) > MAX_IDLE:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()

    def leave(self, visitor: Visitor) -> None:
        self._idle.pop(visitor, None)
        arrival = self._visitors.pop(visitor, None)
        if arrival is not None:
            arrival.leave()

    def close(self) -> None:
        """Ends every visit."""
        for visitor in list(self._visitors):
            visitor.transport.abort()

    def unfinished(self, address: Address) -> int:
        """How many of this address' connections have neither their answer nor their websocket."""
        visitors = sum(x.address == address for visitor, x in self._visitors.items() if visitor not in self._idle)
        return visitors + sum(x.address == address for x in self.arrivals.values())

    # -- for all -------------------------------------------------------------------------------------------------

    def is_familiar(self, address: Address) -> bool:
        """Whether somebody has signed in from this address of late, or is now."""
        return self._desk.attempts.is_familiar(address, self._desk.clock.now())

    def seat(self, arrival: Arrival) -> bool:
        """Sees to it that it has a seat. False if there is none."""
        if arrival.seat is None:
            arrival.seat = self.lobby.enter(arrival.address, arrival.abort, familiar=self.is_familiar(arrival.address))
        return arrival.seat is not None

    def fault(self, hosts: Sequence[str], origins: Sequence[str]) -> str | None:
        """What is wrong with a request's Host and Origin, as a metric's label. No header can say who the peer is; these say what
        it came for."""
        ours = {f"https://{host.lower()}" for host in hosts}
        return knock.fault(hosts, origins, self._settings.names, ours | self._settings.origins)

    def _refuse(self, arrival: Arrival, why: str) -> Reply:
        self._desk.metrics.refused.labels(why).inc()
        log.info("refused a request from %s: %s", arrival.address, why)
        return Reply.plain(http.HTTPStatus.NOT_FOUND if why == "path" else http.HTTPStatus.FORBIDDEN)
