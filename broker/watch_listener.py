"""The tenants' port: watch connections, by a token of the provider's, and the consoles that are shown there. View only.

It is apart from the operators' port, so that tenants need not reach that: nobody signs in here, no control channel is served,
and a ticket of the one port is none of the other's.
"""

from __future__ import annotations

import http
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.asyncio.server import Server
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from broker import knock
from broker.lobby import UNSIGNED, Lobby, Seat
from broker.safelist import Address, BadAddress, parse_address
from broker.settings import WatchListener as Settings
from broker.threshold import Threshold
from broker.watch_channel import WatchChannel
from broker.watch_desk import Admission, WatchDesk
from broker.websocket import OperatorConnection, serve
from eva.control import CONSOLE_PATH, CONSOLE_SUBPROTOCOLS, TICKET_PREFIX
from eva.ending import Ending
from eva.watch import TOKEN_PREFIX, WATCH_PATH, WATCH_SUBPROTOCOL

PING_SECONDS = 5.0  # a giver who is gone without a word is missed within two of them

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Arrival:
    """A connection that has shown nothing yet, or what it has shown. `session`: whose ticket it redeemed."""

    address: Address
    seat: Seat
    admission: Admission | None = None
    session: str | None = None


class WatchListener:
    """One open port."""

    def __init__(self, settings: Settings, desk: WatchDesk) -> None:
        """Raises OSError, ssl.SSLError."""
        self._settings = settings
        self._desk = desk
        self._lobby = Lobby(UNSIGNED, desk.metrics.refused.labels("lobby").inc)
        self._threshold = Threshold(self._context(), desk.metrics, lambda _: False)
        self._server: Server | None = None
        self._arrivals: dict[OperatorConnection, Arrival] = {}

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        self._server = await serve(
            self._serve,
            sock=knock.bound(self._settings.address, self._settings.port),
            tls=None,  # the threshold's
            process_request=self._judge,
            select_subprotocol=self._choose,
            arrived=self._arrive,
            fronts=(self._threshold.front,),
        )

    def reload_tls(self) -> None:
        """Takes what is in the files now, for new connections. Raises OSError, ssl.SSLError."""
        self._threshold.tls = self._context()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._threshold.close()
            await self._server.wait_closed()

    def _context(self) -> ssl.SSLContext:
        return knock.server_tls(self._settings.certificate, self._settings.key)

    # -- the handshake -------------------------------------------------------------------------------------------

    def _arrive(self, connection: OperatorConnection) -> bool:
        """Gives the connection a seat in the lobby, which it leaves with its handshake. False: there is none."""
        peer = connection.remote_address
        try:
            address = parse_address(peer[0] if peer else "")
        except BadAddress as error:
            log.info("refused a connection: %s", error)
            return False
        seat = self._lobby.enter(address, connection.transport.abort)
        if seat is None:
            return False
        self._arrivals[connection] = Arrival(address, seat)
        connection.ping_seconds = PING_SECONDS

        def forget(_: object) -> None:
            self._arrivals.pop(connection, None)
            seat.leave()

        connection.connection_lost_waiter.add_done_callback(forget)
        return True

    def _judge(self, connection: OperatorConnection, request: Request) -> Response | None:
        arrival = self._arrivals.get(connection)
        why = "lobby" if arrival is None else self._fault(connection, arrival, request)
        if why is None:
            return None
        self._desk.metrics.refused.labels(why).inc()
        log.info("refused a handshake from %s: %s", connection.remote_address, why)
        return connection.respond(http.HTTPStatus.NOT_FOUND if why == "path" else http.HTTPStatus.FORBIDDEN, "\n")

    def _fault(self, connection: OperatorConnection, arrival: Arrival, request: Request) -> str | None:
        """What is wrong with the request, as a metric's label. If nothing is, its token or ticket is used up."""
        if request.path not in (WATCH_PATH, CONSOLE_PATH):
            return "path"
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        why = knock.fault(hosts, origins, self._settings.names, self._settings.origins)
        if why is not None:
            return why
        offered = knock.offered(request)
        if request.path == WATCH_PATH:
            arrival.admission = self._admit(offered)
            connection.vouched = arrival.admission is not None
            return None if arrival.admission is not None else "token"
        arrival.session = self._redeem(offered, arrival.address)
        if arrival.session is None:
            return "ticket"
        connection.reserve()
        return None

    def _admit(self, offered: Sequence[str]) -> Admission | None:
        if len(offered) != 2 or offered[0] != WATCH_SUBPROTOCOL or not offered[1].startswith(TOKEN_PREFIX):
            return None
        return self._desk.admit(offered[1].removeprefix(TOKEN_PREFIX))

    def _redeem(self, offered: Sequence[str], address: Address) -> str | None:
        """The session whose ticket is offered, if it is of the kind that is asked for. The ticket is used up."""
        if len(offered) != 2 or not offered[1].startswith(TICKET_PREFIX):
            return None
        claim = self._desk.tickets.redeem(offered[1].removeprefix(TICKET_PREFIX), address, self._desk.clock.now())
        if claim is None:
            return None
        kind = self._desk.sessions.kind_of(claim.session)
        return claim.session if kind is not None and offered[0] == CONSOLE_SUBPROTOCOLS[kind] else None

    @staticmethod
    def _choose(_: OperatorConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return offered[0]  # the second carries the token or ticket

    # -- the connection ------------------------------------------------------------------------------------------

    async def _serve(self, connection: OperatorConnection) -> None:
        arrival = self._arrivals.pop(connection)
        arrival.seat.leave()
        if arrival.session is not None:
            if not self._desk.sessions.attach(arrival.session, connection):
                connection.end(Ending.OPERATOR_LEFT.code, Ending.OPERATOR_LEFT.text)
        elif arrival.admission is not None:
            await WatchChannel(self._desk, connection, arrival.address, arrival.admission).run()
        await connection.wait_closed()
