"""The operators' port: TLS, who may knock, and which of the two websockets it is.

Refused before anything is parsed of us: another path, a Host or Origin that is not in the settings (so that no page and no
rebound name reaches the node), an address that names no workstation, too many that have not signed in.
"""

from __future__ import annotations

import http
import logging
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.asyncio.server import Server
from websockets.datastructures import MultipleValuesError
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from broker.attempts import Lobby, Seat
from broker.certificates import load_authority, load_pair
from broker.control_channel import ControlChannel, Desk
from broker.pages import Pages
from broker.safelist import Address, BadAddress, parse_address
from broker.settings import OperatorListener
from broker.websocket import OperatorConnection, serve
from eva.control import CONSOLE_PATH, CONSOLE_SUBPROTOCOLS, CONTROL_PATH, SUBPROTOCOL, TICKET_PREFIX
from eva.ending import Ending

log = logging.getLogger(__name__)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.ASCII)


def server_tls(settings: OperatorListener) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError. Client certificates are asked for where `client_ca` is set, never demanded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Nothing is resumed: a resumed session would bring back a client certificate that has run out, or that client_ca no longer
    # vouches for. Without tickets TLS 1.3 cannot (RFC 8446 2.2); OpenSSL resumes TLS 1.2 by session ID, and `ssl` has no way to
    # switch that off.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    load_pair(context, settings.certificate, settings.key)
    if settings.client_ca is not None:
        load_authority(context, settings.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


@dataclass(slots=True)
class Arrival:
    """A connection without an operator yet. `seat`: its place in the lobby; `session`: whose ticket it redeemed."""

    address: Address
    seat: Seat | None
    session: str | None = None

    def leave(self) -> None:
        if self.seat is not None:
            self.seat.leave()


class Listener:
    """One open port."""

    def __init__(self, settings: OperatorListener, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        self._lobby = Lobby()
        self._pages = Pages()
        self._tls = server_tls(settings)
        self._server: Server | None = None
        # what is known of a connection until its handler takes it over
        self._arrivals: dict[OperatorConnection, Arrival] = {}

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        family = socket.AF_INET6 if ":" in self._settings.address else socket.AF_INET
        sock = socket.create_server((self._settings.address, self._settings.port), family=family, backlog=1024)
        self._server = await serve(
            self._serve,
            sock=sock,
            tls=self._tls,
            process_request=self._judge,
            select_subprotocol=self._choose,
            arrived=self._arrive,
        )

    def reload_certificate(self) -> None:
        """Takes the certificate that is in the files now, for new connections. Raises OSError, ssl.SSLError."""
        server_tls(self._settings)  # a bad pair must not leave the context with half of it
        load_pair(self._tls, self._settings.certificate, self._settings.key)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    # -- the handshake -------------------------------------------------------------------------------------------

    def _arrive(self, connection: OperatorConnection) -> bool:
        """Gives the connection a seat in the lobby. False: there is none, or its address names no workstation."""
        peer = connection.remote_address
        try:
            address = parse_address(peer[0] if peer else "")
        except BadAddress as error:
            log.info("refused a connection: %s", error)
            return False
        arrival = Arrival(address, None)
        # consoles come many at once, from where their operator is signed in already: those take no seat until they ask for one
        if not self._desk.is_signed_in_from(address) and not self._seat(arrival):
            return False
        self._arrivals[connection] = arrival

        def forget(_: object) -> None:
            self._arrivals.pop(connection, None)
            arrival.leave()

        connection.connection_lost_waiter.add_done_callback(forget)
        return True

    def _seat(self, arrival: Arrival) -> bool:
        """Sees to it that it has a seat. False if there is none."""
        if arrival.seat is None:
            familiar = self._desk.attempts.is_familiar(arrival.address, self._desk.clock.now())
            arrival.seat = self._lobby.enter(arrival.address, familiar=familiar)
        if arrival.seat is None:
            self._desk.metrics.refused.labels("lobby").inc()
        return arrival.seat is not None

    def _judge(self, connection: OperatorConnection, request: Request) -> Response | None:
        why = self._fault(request)
        if why is not None:
            self._desk.metrics.refused.labels(why).inc()
            log.info("refused a handshake from %s: %s", connection.remote_address, why)
            status = http.HTTPStatus.NOT_FOUND if why == "path" else http.HTTPStatus.FORBIDDEN
            return connection.respond(status, "\n")
        asset = self._pages.find(request.path)
        if asset is not None:
            return self._pages.answer(request, asset)
        arrival = self._arrivals.get(connection)
        if arrival is None:  # it is gone already
            return connection.respond(http.HTTPStatus.FORBIDDEN, "\n")
        if request.path == CONSOLE_PATH:
            arrival.session = self._redeem(request, arrival.address)
            if arrival.session is None:
                self._desk.metrics.refused.labels("ticket").inc()
                return connection.respond(http.HTTPStatus.FORBIDDEN, "\n")
            connection.reserve()
            arrival.leave()
        elif not self._seat(arrival):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "\n")
        return None

    def _fault(self, request: Request) -> str | None:
        """What is wrong with the request, as a metric's label. No header can say who the peer is; these say what it came for."""
        if request.path not in (CONTROL_PATH, CONSOLE_PATH) and self._pages.find(request.path) is None:
            return "path"
        try:
            host, origin = request.headers["Host"], request.headers.get("Origin")
        except (KeyError, MultipleValuesError):
            return "host"
        match = _HOST.fullmatch(host.lower())
        if match is None or match[1].strip("[]") not in self._settings.names:
            return "host"
        # a program sends no Origin; a page's must be one of ours, and "null" is nobody's
        if origin is not None and origin not in self._settings.origins:
            return "origin"
        return None

    def _offered(self, request: Request) -> list[str]:
        return [name.strip() for header in request.headers.get_all("Sec-WebSocket-Protocol") for name in header.split(",")]

    def _redeem(self, request: Request, address: Address) -> str | None:
        """The session whose ticket is offered, if it is of the kind that is asked for. The ticket is used up."""
        offered = self._offered(request)
        if len(offered) != 2 or not offered[1].startswith(TICKET_PREFIX):
            return None
        claim = self._desk.tickets.redeem(offered[1].removeprefix(TICKET_PREFIX), address, self._desk.clock.now())
        if claim is None:
            return None
        kind = self._desk.sessions.kind_of(claim.session)
        return claim.session if kind is not None and offered[0] == CONSOLE_SUBPROTOCOLS[kind] else None

    def _choose(self, connection: OperatorConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        if connection.request is not None and connection.request.path == CONTROL_PATH:
            return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
        return offered[0]

    # -- the connection ------------------------------------------------------------------------------------------

    async def _serve(self, connection: OperatorConnection) -> None:
        arrival = self._arrivals.pop(connection)
        if arrival.session is not None:
            if not self._desk.sessions.attach(arrival.session, connection):
                connection.end(Ending.OPERATOR_LEFT.code, Ending.OPERATOR_LEFT.text)
        elif arrival.seat is None or connection.subprotocol != SUBPROTOCOL:
            connection.end(CloseCode.PROTOCOL_ERROR, f"offer {SUBPROTOCOL}")
        else:
            await ControlChannel(self._desk, connection, arrival.address, arrival.seat).run()
        await connection.wait_closed()
