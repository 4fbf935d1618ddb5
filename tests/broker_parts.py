"""What the broker's tests share: a clock that the test moves, consents signed by a real key."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect

from broker import audit_log, openings, watch_desk
from broker.admission import Wish
from broker.audit_log import AuditLog
from broker.consents import Consents
from broker.journal import Journal
from broker.lease import LeaseState, Limits
from broker.metrics import Metrics
from broker.outbox import Outbox
from broker.session import Operator, Session
from broker.sessions import Sessions
from broker.state import State, StoredReceipt
from broker.testimony import Testimony
from broker.watch_desk import WatchDesk
from broker.watching import Watching
from broker.websocket import OperatorConnection, serve
from eva import control
from eva.audit import Event as AuditEvent
from eva.audit import Record
from eva.consent import CLOUDADMIN, Access, Consent, Kind, Principal, Revocation
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Pin
from eva.members import Json
from eva.resource_id import ResourceId
from eva.token import Keyring, SigningKey, b64, thumbprint, verify
from eva.watch import Watch
from eva.wire import NODES, ROOT, Envelope, KeySet, Lease, Receipt
from hypervisor.dialer import GUEST_BUFFER, DialError, DialFailure, Host, Line
from lab.transcript import PATIENCE_S
from tests.rfb_bytes import VERSION, request, server_init, set_encodings

NODE = "AzS-ERCS01"
START = 1_800_000_000  # Unix seconds at which every test's clock begins
PATIENCE = PATIENCE_S  # for what comes in the end: a busy machine may let a process stand still for a while
TICK = 0.01  # seconds
PIN = Pin("host1", "11111111-2222-4333-8444-555555555555", 1)
_numbers = itertools.count(1)


def vm_id(name: str = "vm1") -> ResourceId:
    return ResourceId("7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "rg1", name)


def jti() -> str:
    """128 bits, another each time."""
    return b64(next(_numbers).to_bytes(16))


class HandClock:
    """Two clocks that go on only when the test says so."""

    def __init__(self) -> None:
        self.wall = START * NS
        self.boot = 1000 * NS

    def now(self) -> Instant:
        return Instant(self.wall, self.boot)

    def run(self, seconds: float) -> Instant:
        """Both clocks go on."""
        self.step(seconds)
        self.boot += round(seconds * NS)
        return self.now()

    def step(self, seconds: float) -> Instant:
        """Somebody sets the wall clock."""
        self.wall += round(seconds * NS)
        return self.now()


def consent(seconds: int = 28_800, issued_at: int = START, vm: str = "vm1", **other: object) -> Consent:
    """A consent of the sort that most tenants give."""
    name = jti()
    facts: dict[str, object] = {
        "jti": name,
        "cid": name,
        "node": NODE,
        "resource_id": vm_id(vm),
        "giver": "tenant1",
        "operators": frozenset({CLOUDADMIN}),
        "kinds": frozenset(Kind),
        "access": Access.KEYBOARD,
        "issued_at": issued_at,
        "expires_at": issued_at + seconds,
        "watched": False,
        "kid": "key1",
    }
    return Consent(**(facts | other))  # type: ignore[arg-type]


def revocation_of(one: Consent, seq: int = 1, reason: Ending = Ending.CONSENT_REVOKED) -> Revocation:
    return Revocation(jti(), one.node, seq, one.issued_at, reason, one.expires_at, consent=one.jti)


def watermark_over(one: Consent, seq: int = 1, issued_by: int | None = None) -> Revocation:
    by = one.issued_at if issued_by is None else issued_by
    return Revocation(jti(), one.node, seq, by, Ending.CONSENT_REVOKED, one.expires_at, resource_id=one.resource_id, issued_by=by)


@dataclass
class Signer:
    """A provider's keys, and what it signs with them."""

    root: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    key: SigningKey = field(default_factory=lambda: SigningKey(Ed25519PrivateKey.generate()))
    version: int = 1

    def key_set(self, *keys: SigningKey) -> str:
        """The current key set, or one of these keys."""
        members = {k.kid: k.private.public_key() for k in keys or (self.key,)}
        claims = KeySet(self.version, members).to_claims()
        assert (claims["iss"], claims["aud"]) == (ROOT, NODES)
        return self.root.sign(KeySet.TYP, claims)

    def sign(self, what: Consent | Revocation | Lease | Watch) -> str:
        return self.key.sign(what.TYP, what.to_claims())

    def letter(self, what: Consent | Revocation | Lease, *revocations: Revocation) -> bytes:
        """What travels over MQTT."""
        return Envelope(self.sign(what), keys=self.key_set(), revocations=tuple(map(self.sign, revocations))).encode()


def principal(text: str) -> Principal:
    return Principal.parse(text)


# -- a node without its daemon: real files, real journal, consoles that are socketpairs -----------------------------------


@dataclass(frozen=True)
class Domain:
    """A running guest with both consoles."""

    host: str = PIN.host
    uuid: str = PIN.uuid
    generation: int = PIN.generation
    running: bool = True
    kinds: frozenset[Kind] = frozenset(Kind)


@dataclass
class Domains:
    """The inventory: what the test says is there."""

    by_id: dict[ResourceId, tuple[Domain, ...]] = field(default_factory=lambda: {vm_id(): (Domain(),)})

    def find(self, resource_id: ResourceId) -> tuple[Domain, ...]:
        return self.by_id.get(resource_id, ())

    def pins(self, resource_id: ResourceId) -> tuple[Pin, ...]:
        return tuple(Pin(d.host, d.uuid, d.generation) for d in self.find(resource_id))


class WatchedLine(Line):
    """A line that tells when it is cut."""

    on_cut: Callable[[], None] = staticmethod(lambda: None)

    def cut(self) -> None:
        self.on_cut()
        super().cut()


@dataclass
class Switchboard:
    """In the dialer's place: hands out one end of a socketpair, and keeps the guest's end for the test."""

    guests: list[socket.socket] = field(default_factory=list)
    lines: list[WatchedLine] = field(default_factory=list)
    chords: list[tuple[int, ...]] = field(default_factory=list)
    failure: Exception | None = None
    dialling: asyncio.Event = field(default_factory=asyncio.Event)  # set when somebody dials
    picked_up: asyncio.Event = field(default_factory=asyncio.Event)  # dials and chords wait for it

    def __post_init__(self) -> None:
        self.picked_up.set()

    async def dial(self, host: Host, uuid: str, kind: Kind) -> Line:
        self.dialling.set()
        await self.picked_up.wait()
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        if kind is Kind.SERIAL:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, GUEST_BUFFER)
        self.guests.append(theirs)
        self.lines.append(WatchedLine(kind, ours, None))
        return self.lines[-1]

    async def send_keys(self, host: Host, uuid: str, chord: Sequence[int], *, wanted: Callable[[], bool] = lambda: True) -> None:
        self.dialling.set()
        await self.picked_up.wait()
        if not wanted():
            raise DialError(DialFailure.UNWANTED, "nobody wants it any more")
        self.chords.append(tuple(chord))

    @property
    def guest(self) -> socket.socket:
        """The guest's end of the console that was dialled last."""
        return self.guests[-1]

    def hang_up(self) -> None:
        for sock in self.guests:
            sock.close()
        for line in self.lines:
            line.sock.close()


def heard(guest: socket.socket, most: int = 1 << 20) -> bytes:
    """What lies at the guest's end now."""
    parts = []
    try:
        while data := guest.recv(most):
            parts.append(data)
    except BlockingIOError:
        pass
    return b"".join(parts)


async def hears(guest: socket.socket, count: int) -> bytes:
    """Waits until the guest has so many bytes, and gives them."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        while len(data) < count:
            data += await asyncio.get_running_loop().sock_recv(guest, count - len(data))
    return data


@dataclass
class News:
    """In the control channel's place: keeps what it is told."""

    told: list[tuple[control.Event, Mapping[str, Json]]] = field(default_factory=list)

    def notify(self, event: control.Event, params: Mapping[str, Json]) -> None:
        self.told.append((event, params))

    def of(self, event: control.Event) -> list[Mapping[str, Json]]:
        return [params for e, params in self.told if e is event]


ALICE = Operator("alice", frozenset({"cloudadmin"}), "127.0.0.1")
BOB = Operator("bob", frozenset({"cloudadmin"}), "127.0.0.1")


class Core:
    """The broker's parts on real files in a directory. `restart` gives the next run on the same files."""

    def __init__(
        self,
        directory: Path,
        signer: Signer | None = None,
        clock: HandClock | None = None,
        boot_id: str = "boot1",
        node_key: SigningKey | None = None,
        most: int = 1000,
    ) -> None:
        self.directory, self.signer, self.clock = directory, signer or Signer(), clock or HandClock()
        self.node_key = node_key or SigningKey(Ed25519PrivateKey.generate())
        self.boot_id = boot_id
        self.state_path, self.audit_path = directory / "state.db", directory / "audit.jsonl"
        if not self.state_path.exists():
            State.create(self.state_path, NODE)
            AuditLog.create(self.audit_path)
        state = State.open(self.state_path, NODE)
        self.loaded = state.load()
        found = audit_log.read(self.audit_path, self.loaded.audit_count, self.loaded.audit_head)
        untold = [r for r in audit_log.of_consents(found.records) if r.count > self.loaded.told]
        self.journal = Journal(state, AuditLog.open(self.audit_path, found), untold)
        self.failures: list[Exception] = []
        self.lease = LeaseState(Limits())
        self.metrics = Metrics()
        self.domains = Domains()
        self.dialer = Switchboard()
        self.outbox = Outbox(NODE, self.node_key, secrets.token_bytes)
        self.consents = Consents(
            NODE,
            self.signer.root.private.public_key(),
            self.clock,
            boot_id,
            self.journal,
            self.outbox,
            self.lease,
            self.metrics,
            self.domains.pins,
        )
        self.watching = Watching(self.loaded.reins)
        self.sessions = Sessions(
            self.clock,
            self.journal,
            self.lease,
            self.metrics,
            self.dialer,  # type: ignore[arg-type]
            {PIN.host: Host.parse(PIN.host, "qemu:///system")},
            self.domains,
            self.consents.ledger.standing,
            self.watching,
            secrets.token_bytes,
            most,
        )
        self.consents.cutter = self.sessions
        self.consents.renewed = self.sessions.wake
        self.consents.begins_paused = self.watching.begin
        self.watch_desk = WatchDesk(
            NODE,
            self.clock,
            self.journal,
            self.sessions,
            self.consents,
            self.domains,
            self.watching,
            self.metrics,
            secrets.token_bytes,
            self.loaded.watches,
        )
        self.published: list[StoredReceipt] = []
        self.consents.publish = self.published.append
        self.told: list[StoredReceipt] = []
        self.testimony = Testimony(self.journal, self.outbox, self.clock, self.told.append)
        self.consents.delivered = self.testimony.go_on
        self.consents.restore(self.loaded)
        now = self.clock.now()
        self.watching.resume([one.consent for one in self.consents.ledger.standing(now)], now)

    def start(self) -> Core:
        self.journal.start(self.failures.append)
        return self

    async def stop(self) -> None:
        self.sessions.end_all(Ending.NODE_STOPPING)
        await self.journal.stop()
        self.dialer.hang_up()

    async def restart(self, boot_id: str | None = None) -> Core:
        """Stops this run, in order, and starts the next one."""
        await self.stop()
        return Core(self.directory, self.signer, self.clock, boot_id or self.boot_id, self.node_key).start()

    # -- what the provider says ---------------------------------------------------------------------------------------

    def grant(self, one: Consent | None = None, **other: object) -> Consent:
        """Takes a consent as it comes over MQTT."""
        one = one or consent(issued_at=self.clock.now().wall_seconds, **other)  # type: ignore[arg-type]
        one = replace(one, kid=self.signer.key.kid)
        self.consents.take_consent(self.signer.letter(one))
        return one

    def renew_consent(self, one: Consent, **other: object) -> Consent:
        """Takes a later consent of the same cid, which lasts 8 hours from now if nothing else is said."""
        return self.grant(
            consent(**({"issued_at": max(one.issued_at + 1, self.clock.now().wall_seconds), "cid": one.cid} | other))
        )  # type: ignore[arg-type]

    def revoke(self, one: Consent, seq: int = 1) -> None:
        self.consents.take_revocation(self.signer.letter(revocation_of(one, seq)))

    def question(self) -> str:
        """Asks for a lease. Gives the nonce."""
        nonce = jti()
        self.lease.ask(nonce, self.clock.now())
        return nonce

    def answer(self, nonce: str, *revocations: Revocation, seq: int | None = None, receipts: int = 0) -> bool:
        """The provider's answer to it."""
        at = self.consents.ledger.seq if seq is None else seq
        lease = Lease(NODE, nonce, at, receipts, self.clock.now().wall_seconds)
        return self.consents.take_lease(self.signer.letter(lease, *revocations))

    async def renew(self, *revocations: Revocation, seq: int | None = None, receipts: int = 0) -> bool:
        """A whole round. Whether the lease is open after it."""
        self.answer(self.question(), *revocations, seq=seq, receipts=receipts)
        await self.settle()
        return self.lease.is_open(self.clock.now())

    async def settle(self) -> None:
        """Returns when all that was posted is on disk and told."""
        await self.journal.write()
        await asyncio.sleep(0)

    # -- what can be seen ---------------------------------------------------------------------------------------------

    def standing(self) -> set[str]:
        return {a.consent.jti for a in self.consents.ledger.standing(self.clock.now())}

    def receipts(self) -> list[Receipt]:
        """What was published, verified, but for records."""
        return self._verified(self.published)

    def testimonies(self) -> list[Receipt]:
        """The records that were published, verified."""
        return self._verified(self.told)

    def _verified(self, stored: Iterable[StoredReceipt]) -> list[Receipt]:
        public = self.node_key.private.public_key()
        keys: Keyring = {thumbprint(public): public}
        return [Receipt.from_claims(verify(r.token, Receipt.TYP, keys, "eva-provider")) for r in stored]

    def records(self, *events: AuditEvent) -> list[Record]:
        """The audit on disk, verified."""
        found = audit_log.read(self.audit_path, 0, "").records
        return [r for r in found if not events or r.event in events]

    # -- operators ----------------------------------------------------------------------------------------------------

    async def open(
        self, kind: Kind = Kind.SERIAL, operator: Operator = ALICE, access: Access | None = None, vm: str = "vm1"
    ) -> Session:
        return await self.sessions.open(Wish(vm_id(vm), kind, access), operator, News())

    def live(self, session: Session):
        return self.sessions.roster.lives[session.id]

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[Edge]:
        """A port whose connections are attached to the session that their path names."""
        sock = socket.create_server(("127.0.0.1", 0))

        def judge(connection: OperatorConnection, request: object) -> None:
            connection.reserve()

        async def show(connection: OperatorConnection) -> None:
            assert connection.request is not None
            edge.shown.append(connection)
            if not self.sessions.attach(connection.request.path[1:], connection):
                connection.end(4000, "no")
            await connection.wait_closed()

        edge = Edge(sock.getsockname()[1])
        server = await serve(show, sock=sock, tls=None, process_request=judge)
        try:
            yield edge
        finally:
            for client in edge.clients:
                client.transport.abort()
            server.close()
            await server.wait_closed()


@dataclass
class Edge:
    """Where operators' consoles connect."""

    port: int
    clients: list[ClientConnection] = field(default_factory=list)
    shown: list[OperatorConnection] = field(default_factory=list)

    async def connect(self, session: Session) -> ClientConnection:
        client = await connect(
            f"ws://127.0.0.1:{self.port}/{session.id}", compression=None, ping_interval=None, max_queue=None, close_timeout=1
        )
        self.clients.append(client)
        return client


@asynccontextmanager
async def core(directory: Path, **other: object) -> AsyncIterator[Core]:
    """A node with a fresh lease."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (openings, watch_desk):
            patch.setattr(module, "START_TIMEOUT", PATIENCE)  # what the disk takes on a busy machine is no test's affair
        one = Core(directory, **other).start()  # type: ignore[arg-type]
        try:
            assert await one.renew()
            yield one
        finally:
            await one.stop()


async def console_bytes(client: ClientConnection, count: int) -> bytes:
    """Waits for so many console bytes; notices are passed over."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        while len(data) < count:
            frame = await client.recv()
            data += frame if isinstance(frame, bytes) else b""
    return data


async def notice(client: ClientConnection, mark: control.Mark) -> Mapping[str, Json]:
    """Waits for that notice; all else is passed over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            frame = await client.recv()
            if isinstance(frame, str):
                found, members = control.decode_mark(frame)
                if found is mark:
                    return members._body


@asynccontextmanager
async def awake() -> AsyncIterator[Callable[[], float]]:
    """Tells the seconds since then, without those in which this process waited for a processor."""
    spent, last = 0.0, (time.monotonic(), time.thread_time())

    def seconds() -> float:
        nonlocal spent, last
        now = (time.monotonic(), time.thread_time())
        spent += min(now[0] - last[0], max(2 * TICK, now[1] - last[1]))
        last = now
        return spent

    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK)
            seconds()

    ticking = asyncio.ensure_future(tick())
    try:
        yield seconds
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


async def refusal(node: Core, *args: object, **other: object) -> control.Refusal:
    with pytest.raises(control.Refused) as caught:
        await node.open(*args, **other)  # type: ignore[arg-type]
    return caught.value.refusal


def hold_disk(node: Core) -> threading.Event:
    """The audit waits until the event is set."""
    gate, append = threading.Event(), node.journal._audit.append
    node.journal._audit.append = lambda entries: (gate.wait(PATIENCE), append(entries))  # type: ignore[method-assign]
    return gate


async def pass_time(node: Core, seconds: float) -> None:
    """Lets both clocks go on while leases keep coming."""
    while seconds > 0:
        node.clock.run(min(seconds, 5))
        seconds -= 5
        await node.renew()
        node.sessions.tick(node.clock.now())


def ends_of(node: Core, session: Session) -> list[str]:
    return [str(r.facts["reason"]) for r in node.records(AuditEvent.SESSION_END) if r.facts["session"] == session.id]


async def shake_hands(client, guest: socket.socket) -> None:
    """RFC 6143 7.1 to 7.3, through the filter."""
    guest.send(VERSION)
    await console_bytes(client, len(VERSION))
    await client.send(VERSION)
    await hears(guest, len(VERSION))
    guest.send(b"\x01\x01")
    await console_bytes(client, 2)
    await client.send(b"\x01")
    await hears(guest, 1)
    guest.send(bytes(4))
    await console_bytes(client, 4)
    await client.send(b"\x01")
    await hears(guest, 1)
    guest.send(server_init())
    await console_bytes(client, 24)
    await client.send(set_encodings(0) + request())
    await hears(guest, 8 + 10)
