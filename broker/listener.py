"""The operators' port: TLS, and which of the two websockets it is, if it is not a browser's plain request.

Refused before anything is parsed of us: another path, a Host or Origin that is not ours (so that no page and no rebound name
reaches the node), an address that names no workstation, too many that have not signed in.
"""

from __future__ import annotations

import http
import logging
import ssl
from collections.abc import Sequence

from websockets.asyncio.server import Server
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from broker import knock
from broker.certificates import load_authority
from broker.control_channel import ControlChannel, Desk
from broker.pages import Pages
from broker.reception import Reception
from broker.safelist import Address
from broker.settings import OperatorListener
from broker.sign_in_pages import OidcSignIn, SignInPages
from broker.threshold import Threshold
from broker.visitor import Visitor
from broker.websocket import OperatorConnection, serve
from eva.control import CONSOLE_PATH, CONSOLE_SUBPROTOCOLS, CONTROL_PATH, SUBPROTOCOL, TICKET_PREFIX
from eva.ending import Ending

log = logging.getLogger(__name__)


def server_tls(settings: OperatorListener) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError. Client certificates are asked for where `client_ca` is set, never demanded."""
    context = knock.server_tls(settings.certificate, settings.key)
    if settings.client_ca is not None:
        load_authority(context, settings.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Listener:
    """One open port."""

    def __init__(self, settings: OperatorListener, desk: Desk) -> None:
        """Raises OSError, ssl.SSLError, BadSettings, MissingAssets."""
        self._settings = settings
        self._desk = desk
        oidc = OidcSignIn(settings.oidc, desk) if settings.oidc is not None else None
        sign_in = SignInPages(oidc, desk, certificate=settings.client_ca is not None)
        self.reception = Reception(settings, desk, Pages(), sign_in)
        self.threshold = Threshold(server_tls(settings), desk.metrics, self.reception.is_familiar)
        self._server: Server | None = None

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        self._server = await serve(
            self._serve,
            sock=knock.bound(self._settings.address, self._settings.port),
            tls=None,  # the threshold's
            process_request=self._judge,
            select_subprotocol=self._choose,
            fronts=(self.threshold.front, lambda connection: Visitor(self.reception, connection)),
        )

    def reload_tls(self) -> None:
        """Takes what is in the files now, for new connections. Raises OSError, ssl.SSLError."""
        self.threshold.tls = server_tls(self._settings)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.threshold.close()
            self.reception.close()
            await self._server.wait_closed()

    # -- the handshake -------------------------------------------------------------------------------------------

    def _judge(self, connection: OperatorConnection, request: Request) -> Response | None:
        why = self._fault(request)
        if why is not None:
            self._desk.metrics.refused.labels(why).inc()
            log.info("refused a handshake from %s: %s", connection.remote_address, why)
            status = http.HTTPStatus.NOT_FOUND if why == "path" else http.HTTPStatus.FORBIDDEN
            return connection.respond(status, "\n")
        arrival = self.reception.arrivals.get(connection)
        if arrival is None:  # it is gone already
            return connection.respond(http.HTTPStatus.FORBIDDEN, "\n")
        if request.path == CONSOLE_PATH:
            arrival.session = self._redeem(request, arrival.address)
            if arrival.session is None:
                self._desk.metrics.refused.labels("ticket").inc()
                return connection.respond(http.HTTPStatus.FORBIDDEN, "\n")
            connection.reserve()
            arrival.leave()
        elif not self.reception.seat(arrival):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "\n")
        return None

    def _fault(self, request: Request) -> str | None:
        """What is wrong with the request, as a metric's label."""
        if request.path not in (CONTROL_PATH, CONSOLE_PATH):
            return "path"
        return self.reception.fault(request.headers.get_all("Host"), request.headers.get_all("Origin"))

    def _redeem(self, request: Request, address: Address) -> str | None:
        """The session whose ticket is offered, if it is of the kind that is asked for. The ticket is used up."""
        offered = knock.offered(request)
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
        arrival = self.reception.arrivals.pop(connection)
        if arrival.session is not None:
            if not self._desk.sessions.attach(arrival.session, connection):
                connection.end(Ending.OPERATOR_LEFT.code, Ending.OPERATOR_LEFT.text)
        elif arrival.seat is None or connection.subprotocol != SUBPROTOCOL:
            connection.end(CloseCode.PROTOCOL_ERROR, f"offer {SUBPROTOCOL}")
        else:
            await ControlChannel(self._desk, connection, arrival.address, arrival.seat).run()
        await connection.wait_closed()
