"""The broker's own consoles between a port and a console's socket.

    python -m benchmarks.broker_relay graphics|serial PORT SOCKET [PEM]

Gate, lease, both clocks, filters, allowance, keyboard, scrollback and metrics are the broker's, wired as broker/sessions.py
wires them. Left out is what a session costs once and no byte pays again: sign-in, ticket, audit records, dial.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import sys
from pathlib import Path

import uvloop

from broker.clock import SystemClock
from broker.gate import Gate
from broker.graphics_console import GraphicsViewer
from broker.keyboard import Keyboard
from broker.lease import LeaseState, Limits
from broker.listener import server_tls
from broker.metrics import Metrics
from broker.serial_console import SerialConsole, SerialViewer
from broker.session import Operator, Session
from broker.settings import OperatorListener
from broker.watching import Rein
from broker.websocket import CLOSE_GRACE, Departure, OperatorConnection, serve
from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Consent, Kind
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import Accepted, Pin, Term
from eva.resource_id import ResourceId
from eva.token import b64
from eva.wire import Lease
from hypervisor.dialer import GUEST_BUFFER, Line

NODE = "AzS-ERCS01"
VM = ResourceId("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "rg1", "bench")  # the title: as long as the stand-in's own name
LEASE_EVERY = 2.0  # seconds, as in config/broker.yaml


class Desk:
    """Opens consoles for whoever connects, and ends them: in the place of broker.sessions.Sessions."""

    def __init__(self, kind: Kind, console_path: str) -> None:
        self._kind = kind
        self._path = console_path
        self._clock = SystemClock()
        self._lease = LeaseState(Limits())
        self._metrics = Metrics()
        self._numbers = itertools.count(1)
        self._viewers: dict[str, GraphicsViewer | SerialViewer] = {}

    def renew(self) -> None:
        """Asks for a lease and is answered at once."""
        nonce = b64(secrets.token_bytes(16))
        now = self._clock.now()
        self._lease.ask(nonce, now)
        self._lease.count(Lease(NODE, nonce, 0, 0, now.wall_seconds), 0)
        for viewer in self._viewers.values():
            viewer.wake()

    async def keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_EVERY)
            self.renew()

    def admit(self, connection: OperatorConnection) -> None:
        """A session with a console of its own, shown on this connection."""
        now = self._clock.now()
        issued = now.wall_seconds
        operators, kinds = frozenset({CLOUDADMIN}), frozenset(Kind)
        jti = b64(secrets.token_bytes(16))
        consent = Consent(jti, jti, NODE, VM, "tenant", operators, kinds, Access.KEYBOARD, issued, issued + MAX_SECONDS, False)
        term = Term(consent.expires_at * NS, now.boot + MAX_SECONDS * NS)
        accepted = Accepted(consent, Pin("host1", f"vm-{next(self._numbers)}", 1), term)
        operator = Operator("alice", frozenset({"cloudadmin"}), "127.0.0.1")
        session = Session(secrets.token_hex(16), operator, accepted, self._kind, Access.KEYBOARD, now)
        gate, keyboard = Gate(self._clock, term, self._lease, Rein(jti, watched=False)), Keyboard()
        viewer: GraphicsViewer | SerialViewer
        if self._kind is Kind.GRAPHICS:
            viewer = GraphicsViewer(session, gate, self._dial(), keyboard, self._metrics, self)
        else:
            viewer = SerialConsole(self._dial(), keyboard, self._clock, self._metrics, self).admit(session, gate)
        keyboard.claim_free(session.id)
        self._viewers[session.id] = viewer
        viewer.attach(connection)

    def _dial(self) -> Line:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        if self._kind is Kind.SERIAL:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, GUEST_BUFFER)
        sock.connect(self._path)
        return Line(self._kind, sock, None)

    # -- the consoles' owner -------------------------------------------------------------------------------------

    def departed(self, session: Session, _departure: Departure) -> None:
        self.end(session, Ending.OPERATOR_LEFT)

    def end(self, session: Session, ending: Ending) -> None:
        viewer = self._viewers.pop(session.id, None)
        if viewer is not None and viewer.gate.shut(ending):
            viewer.release_keys()
            viewer.close(ending, CLOSE_GRACE)

    def line_lost(self, sessions: list[Session]) -> None:
        for session in sessions:
            self.end(session, Ending.CONSOLE_LOST)


async def relay(kind: Kind, port: int, console_path: str, pem: Path | None) -> None:
    desk = Desk(kind, console_path)
    desk.renew()

    def reserve(connection: OperatorConnection, _request: object) -> None:
        connection.reserve()

    async def show(connection: OperatorConnection) -> None:
        desk.admit(connection)
        await connection.wait_closed()

    tls = None
    if pem is not None:
        nobody: frozenset[str] = frozenset()
        tls = server_tls(OperatorListener("127.0.0.1", port, pem, pem, None, nobody, nobody))
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.keep_lease())
        server = await serve(show, sock=listener, tls=tls, process_request=reserve)
        print("ready", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    certificate = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    uvloop.run(relay(Kind(sys.argv[1]), int(sys.argv[2]), sys.argv[3], certificate))
