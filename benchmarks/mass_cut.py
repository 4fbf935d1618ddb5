"""A thousand sessions cut at once:  python -m benchmarks.mass_cut COUNT FOLDER      prints one line of JSON

Sessions, journal, state and audit are the broker's own, on disk; half the sessions are serial, half graphics, each with a
console (a socketpair) and an operator on a websocket who takes nothing more and never answers the close frame.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

import broker.openings
from broker import audit_log
from broker.admission import Wish
from broker.audit_log import AuditLog
from broker.clock import SystemClock
from broker.gate import Gate
from broker.journal import Journal
from broker.lease import LeaseState, Limits
from broker.metrics import Metrics
from broker.session import Operator
from broker.sessions import Sessions
from broker.state import State
from broker.watching import Watching
from broker.websocket import OperatorConnection, serve
from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Consent, Kind
from eva.control import Event
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import Accepted, Pin, Term
from eva.resource_id import ResourceId
from eva.token import b64
from eva.wire import Lease
from hypervisor.dialer import Dialer, Host, Line

NODE = "AzS-ERCS01"
HOST = Host.parse("host1", "qemu:///system")
ALICE = Operator("alice", frozenset({"cloudadmin"}), "127.0.0.1")
AT_ONCE = 64  # sessions being opened
UPGRADE = (
    "GET /{} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class WitnessGate(Gate):
    """A gate that notes when it was shut."""

    __slots__ = ()
    last_shut = 0.0

    def shut(self, ending: Ending) -> bool:
        done = super().shut(ending)
        WitnessGate.last_shut = time.perf_counter()
        return done


class WitnessLine(Line):
    """A line that notes when it was cut."""

    last_cut = 0.0

    def cut(self) -> None:
        super().cut()
        WitnessLine.last_cut = time.perf_counter()


class Switchboard(Dialer):
    """Dials socketpairs, and keeps the guests' ends."""

    def __init__(self) -> None:
        super().__init__()
        self.guests: list[socket.socket] = []

    async def dial(self, host: Host, uuid: str, kind: Kind, timeout: float = 5.0) -> Line:  # noqa: ARG002  # Dialer's own
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.guests.append(theirs)
        return WitnessLine(kind, ours, None)


@dataclass(frozen=True)
class Domain:
    """A running guest with both consoles."""

    uuid: str
    host: str = HOST.name
    generation: int = 1
    running: bool = True
    kinds: frozenset[Kind] = frozenset(Kind)


class Domains:
    """The inventory."""

    def __init__(self, names: Sequence[ResourceId]) -> None:
        self._by_id = {name: (Domain(f"uuid-{name.vm}"),) for name in names}

    def find(self, resource_id: ResourceId) -> tuple[Domain, ...]:
        return self._by_id[resource_id]


class Deaf:
    """A control channel to which nobody listens."""

    def notify(self, event: Event, params: object) -> None:
        """Forgets it."""


def consented(name: ResourceId, clock: SystemClock) -> Accepted:
    now = clock.now()
    issued = now.wall_seconds
    jti = b64(secrets.token_bytes(16))
    operators, kinds = frozenset({CLOUDADMIN}), frozenset(Kind)
    consent = Consent(jti, jti, NODE, name, "tenant", operators, kinds, Access.KEYBOARD, issued, issued + MAX_SECONDS, False)
    term = Term(consent.expires_at * NS, now.boot + MAX_SECONDS * NS)
    return Accepted(consent, Pin(HOST.name, f"uuid-{name.vm}", 1), term)


def opened_journal(folder: Path) -> Journal:
    """A new node's, in an empty folder."""
    state_path, audit_path = folder / "state.db", folder / "audit.jsonl"
    State.create(state_path, NODE)
    AuditLog.create(audit_path)
    state = State.open(state_path, NODE)
    return Journal(state, AuditLog.open(audit_path, audit_log.read(audit_path, 0, "")))


def fresh_lease(clock: SystemClock) -> LeaseState:
    lease, now, nonce = LeaseState(Limits(60, 60)), clock.now(), b64(secrets.token_bytes(16))
    lease.ask(nonce, now)
    lease.count(Lease(NODE, nonce, 0, 0, now.wall_seconds), 0)
    return lease


async def connect(port: int, session: str) -> socket.socket:
    """An operator who is shown the console and then does nothing any more."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, UPGRADE.format(session).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = await loop.sock_recv(sock, 1024)
        assert part
        head += part
    return sock


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # quicker, and its own descriptor counts each time alike


async def cut(count: int, folder: Path) -> dict[str, float]:
    """Milliseconds from the call until every gate is shut, every line is cut, every descriptor is closed."""
    setattr(broker.openings, "Gate", WitnessGate)  # noqa: B010  # the one seam: when a gate is shut shows nowhere else
    clock, switchboard = SystemClock(), Switchboard()
    names = [ResourceId("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "rg1", f"vm{n}") for n in range(count // 2)]
    standing = [consented(name, clock) for name in names]
    journal, lease, hosts = opened_journal(folder), fresh_lease(clock), {HOST.name: HOST}
    sessions = Sessions(
        clock,
        journal,
        lease,
        Metrics(),
        switchboard,
        hosts,
        Domains(names),
        lambda _: standing,
        Watching(),
        secrets.token_bytes,
        count,
    )
    journal.start(lambda error: sys.exit(str(error)))
    connections: list[OperatorConnection] = []

    async def show(connection: OperatorConnection) -> None:
        assert connection.request is not None
        assert sessions.attach(connection.request.path[1:], connection)
        connections.append(connection)
        await connection.wait_closed()

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = await serve(show, sock=listener, tls=None, process_request=lambda connection, _: connection.reserve())
    slots = asyncio.Semaphore(AT_ONCE)

    async def come(name: ResourceId, kind: Kind) -> socket.socket:
        async with slots:
            session = await sessions.open(Wish(name, kind), ALICE, Deaf())
            return await connect(listener.getsockname()[1], session.id)

    before = descriptors()
    operators = await asyncio.gather(*(come(name, kind) for name in names for kind in Kind))
    while len(connections) < len(operators):
        await asyncio.sleep(0.01)
    start = time.perf_counter()
    ended = sessions.end_all(Ending.CONSENT_REVOKED)
    await asyncio.gather(*(connection.wait_closed() for connection in connections))
    closed = time.perf_counter()
    assert ended == len(operators)
    assert descriptors() == before + len(operators) + len(switchboard.guests)
    for sock in (*operators, *switchboard.guests):
        sock.close()
    server.close()
    await server.wait_closed()
    await journal.stop()
    moments = {"cut-gates": WitnessGate.last_shut, "cut-lines": WitnessLine.last_cut, "cut-closed": closed}
    return {name: (moment - start) * 1000 for name, moment in moments.items()}


def killed_relay(command: Sequence[str], load: Sequence[str]) -> float:
    """Milliseconds from SIGKILL of a raw relay, with idle connections from `load`, until the kernel has closed all it had."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as relay:
        assert relay.stdout is not None
        relay.stdout.readline()
        with subprocess.Popen(load, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as operators:
            assert operators.stdout is not None
            opened = operators.stdout.readline()
            start = time.perf_counter()
            relay.send_signal(signal.SIGKILL)
            relay.wait()  # exit(2): a process is waited for only when its descriptors are closed
            took = (time.perf_counter() - start) * 1000
            operators.kill()
    assert opened
    return took


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as scratch:
        print(json.dumps(uvloop.run(cut(int(sys.argv[1]), Path(scratch)))))
