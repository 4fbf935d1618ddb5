"""What the provider's tests stand on: a node written by hand, and settings on free ports."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from eva.audit import Record
from eva.consent import Consent, Revocation
from eva.token import SigningKey, Typ, b64, thumbprint, verify
from eva.wire import (
    NODES,
    Envelope,
    Event,
    KeySet,
    Lease,
    LeaseRequest,
    Receipt,
    consent_topic,
    lease_request_topic,
    lease_topic,
    receipt_topic,
    revocation_topic,
)
from lab.certificates import Authority, KeyPair
from lab.mosquitto import PLAIN, Mosquitto
from lab.ports import free_port
from lab.process import Program
from lab.transcript import PATIENCE_S
from provider.command import cli
from provider.keys import read_public, write_public

ASKS = 2.0  # seconds from one lease request of a node to its next
BEAT = b"beat"

# How long a call waits for a node's word is read anew by each, so that a test of silence need not wait as long as the others may.
DAEMON = """
import sys
from pathlib import Path
from provider.command import main
from provider.settings import Limits
file = Path(sys.argv[-1]).with_name("patience")
Limits.receipt_seconds = property(lambda _: int(file.read_text()), lambda *_: None)
main()
"""
CALLS = 30  # seconds that a call waits for a node's word

SUBSCRIPTION = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"


def resource_id(vm: str = "vm1") -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{vm}"


def jti() -> str:
    return b64(secrets.token_bytes(16))


def now() -> int:
    return int(time.time())


def signing_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@dataclass
class Pen:
    """A node's key and the counters of what it signs."""

    name: str
    key: SigningKey = field(default_factory=signing_key)
    number: int = 0
    seq: int = 0
    keys_version: int = 0
    audit_count: int = 1
    audit_head: str = "head-1"
    clock: int = field(default_factory=now)  # of its last request

    @property
    def public(self) -> Ed25519PublicKey:
        return self.key.private.public_key()

    def request(self, nonce: str | None = None, **changed: object) -> str:
        self.clock += 1
        claims = LeaseRequest(
            node=self.name,
            nonce=nonce or jti(),
            issued_at=self.clock,
            boot_id="boot-1",
            seq=self.seq,
            keys_version=self.keys_version,
            audit_count=self.audit_count,
            audit_head=self.audit_head,
        ).to_claims()
        return self.key.sign(Typ.LEASE_REQUEST, claims | changed)

    def receipt(self, event: Event, about: str, seq: int = 0, number: int | None = None, **facts: str) -> str:
        if number is None:
            self.number += 1
            number = self.number
        receipt = Receipt(self.name, jti(), number, event, about, int(time.time() * 1000), seq, tuple(facts.items()))
        return self.key.sign(Typ.RECEIPT, receipt.to_claims())

    def recorded(self, record: Record) -> str:
        """The receipt that tells a record of a consent's chain."""
        self.number += 1
        receipt = Receipt(self.name, jti(), self.number, Event.RECORDED, record.chain, record.at_ms, record=record.told)
        return self.key.sign(Typ.RECEIPT, receipt.to_claims())


@dataclass
class Node:
    """A node on MQTT that accepts each consent and confirms each revocation, unless told otherwise."""

    pen: Pen
    root: Ed25519PublicKey
    client: aiomqtt.Client
    accepts: bool | None = True  # None: says nothing
    confirms: bool = True
    watch: str | None = None  # where tenants watch
    consents: list[Consent] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    leases: asyncio.Queue[tuple[Lease, Envelope, bytes | None]] = field(default_factory=asyncio.Queue)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    keys: dict[str, Ed25519PublicKey] = field(default_factory=dict)

    async def run(self, ready: asyncio.Event) -> None:
        name = self.pen.name
        await self.client.subscribe([(topic(name), 1) for topic in (consent_topic, revocation_topic, lease_topic)])
        ready.set()
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            envelope = Envelope.decode(message.payload)
            self.learn(envelope)
            kind = message.topic.value.rsplit("/", 1)[1]
            if kind == "lease":
                correlation = getattr(message.properties, "CorrelationData", None)
                if correlation != BEAT:
                    self.leases.put_nowait((self.lease(envelope), envelope, correlation))
            elif kind == "consent":
                await self.take_consent(envelope)
            else:
                await self.take_revocation(envelope.token)

    def learn(self, envelope: Envelope) -> None:
        if envelope.keys is not None:
            claims = verify(envelope.keys, Typ.KEYS, {thumbprint(self.root): self.root}, NODES)
            self.keys = KeySet.from_claims(claims).keys

    def lease(self, envelope: Envelope) -> Lease:
        return Lease.from_claims(verify(envelope.token, Typ.LEASE, self.keys, self.pen.name))

    async def take_consent(self, envelope: Envelope) -> None:
        consent = Consent.from_claims(verify(envelope.token, Typ.CONSENT, self.keys, self.pen.name))
        self.consents.append(consent)  # before its word goes out: whoever the provider tells of it finds it here
        if self.accepts is True:
            more = {} if self.watch is None else {"watch": self.watch}
            await self.send(self.pen.receipt(Event.ACCEPTED, consent.jti, uuid="uuid-1", generation="1", host="h", **more))
        elif self.accepts is False:
            await self.send(self.pen.receipt(Event.REFUSED, consent.jti, why="vm-unknown"))
        async with self.heard:
            self.heard.notify_all()

    async def take_revocation(self, token: str) -> None:
        revocation = Revocation.from_claims(verify(token, Typ.REVOCATION, self.keys, self.pen.name))
        known = revocation.seq in [one.seq for one in self.revocations]
        self.revocations.append(revocation)
        if not known and self.confirms:
            about = revocation.consent or revocation.jti
            facts = {"reason": revocation.reason.word, "sessions": "1", "cut_us": "37400"}
            await self.send(self.pen.receipt(Event.ENDED, about, revocation.seq, **facts))
        async with self.heard:
            self.heard.notify_all()

    async def send(self, token: str) -> None:
        await self.client.publish(receipt_topic(self.pen.name), Envelope(token).encode(), qos=1)

    async def ask(self, token: str | None = None, receipts: tuple[str, ...] = ()) -> tuple[Lease, Envelope, bytes | None]:
        """One lease over MQTT."""
        await self.request(Envelope(token or self.pen.request(), receipts=receipts), b"correlate")
        return await asyncio.wait_for(self.leases.get(), PATIENCE_S)

    async def asks_on(self) -> None:
        """For ever, as a node does that counts as alive; nobody is told the answers."""
        while True:
            await asyncio.sleep(ASKS)
            await self.request(Envelope(self.pen.request()), BEAT)

    async def request(self, envelope: Envelope, correlation: bytes) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = lease_topic(self.pen.name)
        properties.CorrelationData = correlation
        await self.client.publish(lease_request_topic(self.pen.name), envelope.encode(), qos=1, properties=properties)

    async def has_revocation(self, seq: int) -> Revocation:
        async with asyncio.timeout(PATIENCE_S), self.heard:
            await self.heard.wait_for(lambda: any(one.seq == seq for one in self.revocations))
        return next(one for one in self.revocations if one.seq == seq)

    async def has_consents(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self.heard:
            await self.heard.wait_for(lambda: len(self.consents) >= count)


def mqtt_client(port: int, name: str, tls: ssl.SSLContext | None = None) -> aiomqtt.Client:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    return aiomqtt.Client(
        "127.0.0.1",
        port,
        identifier=name,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=properties,
        tls_context=tls,
        timeout=PATIENCE_S,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )


@dataclass(frozen=True)
class Place:
    """A provider's directory and ports."""

    directory: Path
    config: Path
    lease_port: int
    metrics_port: int
    ca: Path

    @property
    def root_public(self) -> Path:
        return self.directory / "keys" / "root.pub"

    @property
    def store(self) -> Path:
        return self.directory / "state" / "provider.db"


def settings_text(place_directory: Path, mqtt: str, lease_port: int, metrics_port: int, pair: KeyPair) -> str:
    return f"""
store: {place_directory}/state/provider.db
keys: {{root: {place_directory}/keys/root.pem, root_public: {place_directory}/keys/root.pub, signing: {place_directory}/keys}}
mqtt: {mqtt}
lease: {{address: 127.0.0.1, port: {lease_port}, certificate: {pair.certificate}, key: {pair.key}}}
metrics: {{port: {metrics_port}}}
admin: {{socket: {place_directory}/admin.sock}}
limits: {{cut_seconds: 15, receipt_seconds: {CALLS}}}
"""


def make_place(directory: Path, authority: Authority, mqtt: str) -> Place:
    for name in ("state", "keys"):
        (directory / name).mkdir(mode=0o700)
    lease_port, metrics_port = free_port(), free_port()
    config = directory / "provider.yaml"
    config.write_text(settings_text(directory, mqtt, lease_port, metrics_port, authority.server()))
    return Place(directory, config, lease_port, metrics_port, authority.ca)


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Cloud:
    """A provider's keys and settings, its daemon and a mosquitto once started, and what is needed to be its node.

    `pen` and `vm` are a node and a virtual machine of the test's own: fresh() gives new ones.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.mosquitto = Mosquitto(PLAIN + "set_tcp_nodelay true\n")
        self.mosquitto.start()
        self.place = make_place(directory, authority, f"{{host: 127.0.0.1, port: {self.mosquitto.port}}}")
        self._patience = directory / "patience"
        self._patience.write_text(str(CALLS))
        self.argv = [sys.executable, "-c", DAEMON, "--config", str(self.place.config)]
        self.daemon = Program(self.argv, directory / "provider.log", notify=True)
        self._names = 0
        for words in (("keys", "init"), ("feature", "enable-subscription", SUBSCRIPTION)):
            ran = self.run(*words)
            assert ran.code == 0, ran.err
        self.fresh()

    def fresh(self) -> None:
        self._names += 1
        self.vm = f"vm{self._names}"
        self.pen = Pen(f"AzS-ERCS{self._names:02}")
        self.enrol(self.pen)

    @property
    def resource_id(self) -> str:
        return resource_id(self.vm)

    def run(self, *arguments: str) -> Ran:
        """A command, in this process."""
        found = CliRunner().invoke(cli, ["--config", str(self.place.config), *arguments])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return Ran(found.exit_code, found.stdout, found.stderr)

    async def eva_provider(self, *arguments: str) -> Ran:
        """The same, while the loop goes on."""
        return await asyncio.to_thread(self.run, *arguments)

    def enrol(self, pen: Pen) -> None:
        path = self.place.directory / f"{pen.key.kid}.pub"
        write_public(path, pen.public)
        ran = self.run("nodes", "add", pen.name, "--key", str(path), "--replace")
        assert ran.code == 0, ran.err

    def start(self) -> None:
        """The daemon, up and on MQTT."""
        assert self.daemon.notify is not None
        self.daemon.notify.heard.clear()
        self.daemon.start()
        self.daemon.wait_notified()
        # ready does not wait for MQTT; a test does
        until(lambda: self.healthz()["mqtt"])

    @contextmanager
    def hurried(self, seconds: int = 1) -> Iterator[None]:
        """Calls wait so long for a node, for a silent one: what a node is to answer is done before or after."""
        self._patience.write_text(str(seconds))
        yield
        self._patience.write_text(str(CALLS))

    def close(self) -> None:
        self.daemon.close()
        self.mosquitto.close()

    def healthz(self) -> dict[str, bool]:
        return httpx.get(f"http://127.0.0.1:{self.place.metrics_port}/healthz", timeout=PATIENCE_S).json()

    def metric(self, line: str) -> float:
        """The value of the sample whose line begins so; 0 where there is none yet."""
        text = httpx.get(f"http://127.0.0.1:{self.place.metrics_port}/metrics", timeout=PATIENCE_S).text
        return sum(float(found.rsplit(" ", 1)[1]) for found in text.splitlines() if found.startswith(line + " "))

    def states(self) -> list[str]:
        """Those of this node's consents, newest first."""
        rows = json.loads(self.run("consent", "list", "--json").out)
        return [row["state"] for row in rows if row["node"] == self.pen.name]

    @asynccontextmanager
    async def node(self, pen: Pen | None = None, **ways: Any) -> AsyncIterator[Node]:
        pen = pen or self.pen
        async with mqtt_client(self.mosquitto.port, pen.name) as client:
            node = Node(pen, read_public(self.place.root_public), client, **ways)
            ready = asyncio.Event()
            running = asyncio.create_task(node.run(ready))
            try:
                await ready.wait()
                yield node
                if running.done():
                    running.result()
            finally:
                running.cancel()

    def grant_arguments(self, *more: str) -> tuple[str, ...]:
        first = ("consent", "grant", "--resource-id", self.resource_id, "--kind", "serial", "--giver", "tenant@example.org")
        return (*first, "--node", self.pen.name, *more)

    async def granted(self, *more: str) -> dict[str, Any]:
        ran = await self.eva_provider(*self.grant_arguments("--json", *more))
        assert ran.code == 0, ran.err
        return json.loads(ran.out)


def until(reached: Callable[[], bool]) -> None:
    """What another process shows on a page cannot be awaited."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running_cloud(directory: Path, authority: Authority) -> Iterator[Cloud]:
    """Keys made, one node enrolled, the daemon up and on MQTT."""
    cloud = Cloud(directory, authority)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.close()
