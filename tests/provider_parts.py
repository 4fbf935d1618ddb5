"""What the provider's tests stand on: a node written by hand, and settings on free ports."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import ssl
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

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
from lab.mosquitto import Mosquitto
from lab.ports import free_port
from lab.process import Program
from provider.keys import read_public, write_public

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

    @property
    def public(self) -> Ed25519PublicKey:
        return self.key.private.public_key()

    def request(self, nonce: str | None = None, **changed: object) -> str:
        claims = LeaseRequest(
            node=self.name,
            nonce=nonce or jti(),
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


@dataclass
class Node:
    """A node on MQTT that accepts each consent and confirms each revocation, unless told otherwise."""

    pen: Pen
    root: Ed25519PublicKey
    client: aiomqtt.Client
    accepts: bool | None = True  # None: says nothing
    confirms: bool = True
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
        if self.accepts is True:
            await self.send(self.pen.receipt(Event.ACCEPTED, consent.jti, uuid="uuid-1", generation="1", host="h"))
        elif self.accepts is False:
            await self.send(self.pen.receipt(Event.REFUSED, consent.jti, why="vm-unknown"))
        async with self.heard:
            self.consents.append(consent)
            self.heard.notify_all()

    async def take_revocation(self, token: str) -> None:
        revocation = Revocation.from_claims(verify(token, Typ.REVOCATION, self.keys, self.pen.name))
        if revocation.seq not in [one.seq for one in self.revocations] and self.confirms:
            about = revocation.consent or revocation.jti
            facts = {"reason": revocation.reason.word, "sessions": "1", "cut_us": "37400"}
            await self.send(self.pen.receipt(Event.ENDED, about, revocation.seq, **facts))
        async with self.heard:
            self.revocations.append(revocation)
            self.heard.notify_all()

    async def send(self, token: str) -> None:
        await self.client.publish(receipt_topic(self.pen.name), Envelope(token).encode(), qos=1)

    async def ask(self, token: str | None = None, receipts: tuple[str, ...] = ()) -> tuple[Lease, Envelope, bytes | None]:
        """One lease over MQTT."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = lease_topic(self.pen.name)
        properties.CorrelationData = b"correlate"
        payload = Envelope(token or self.pen.request(), receipts=receipts).encode()
        await self.client.publish(lease_request_topic(self.pen.name), payload, qos=1, properties=properties)
        return await asyncio.wait_for(self.leases.get(), 10)

    async def has_revocation(self, seq: int) -> Revocation:
        async with asyncio.timeout(10), self.heard:
            await self.heard.wait_for(lambda: any(one.seq == seq for one in self.revocations))
        return next(one for one in self.revocations if one.seq == seq)

    async def has_consents(self, count: int) -> None:
        async with asyncio.timeout(10), self.heard:
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


def settings_text(
    place_directory: Path, mqtt: str, lease_port: int, metrics_port: int, pair: KeyPair, receipt_seconds: int
) -> str:
    return f"""
store: {place_directory}/state/provider.db
keys: {{root: {place_directory}/keys/root.pem, root_public: {place_directory}/keys/root.pub, signing: {place_directory}/keys}}
mqtt: {mqtt}
lease: {{address: 127.0.0.1, port: {lease_port}, certificate: {pair.certificate}, key: {pair.key}}}
metrics: {{port: {metrics_port}}}
admin: {{socket: {place_directory}/admin.sock}}
limits: {{cut_seconds: 15, receipt_seconds: {receipt_seconds}}}
"""


def make_place(directory: Path, authority: Authority, mqtt: str, receipt_seconds: int = 3) -> Place:
    for name in ("state", "keys"):
        (directory / name).mkdir(mode=0o700)
    lease_port, metrics_port = free_port(), free_port()
    config = directory / "provider.yaml"
    config.write_text(settings_text(directory, mqtt, lease_port, metrics_port, authority.server(), receipt_seconds))
    return Place(directory, config, lease_port, metrics_port, authority.ca)


@dataclass
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Cloud:
    """A mosquitto, a provider's daemon, and what is needed to be its node."""

    def __init__(self, directory: Path, authority: Authority, receipt_seconds: int = 3) -> None:
        self.mosquitto = Mosquitto()
        self.mosquitto.start()
        self.place = make_place(directory, authority, f"{{host: 127.0.0.1, port: {self.mosquitto.port}}}", receipt_seconds)
        self.pen = Pen("AzS-ERCS01")
        self.argv = [sys.executable, "-m", "provider.command", "--config", str(self.place.config)]
        self.daemon = Program(self.argv, directory / "provider.log", notify=True)

    async def eva_provider(self, *arguments: str) -> Ran:
        process = await asyncio.create_subprocess_exec(*self.argv, *arguments, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def enrol(self, pen: Pen) -> None:
        path = self.place.directory / f"{pen.name}-{pen.key.kid}.pub"
        write_public(path, pen.public)
        ran = await self.eva_provider("nodes", "add", pen.name, "--key", str(path), "--replace")
        assert ran.code == 0, ran.err

    async def start(self) -> None:
        self.daemon.start()
        await self.daemon.notified()
        # ready does not wait for MQTT; a test does
        async with asyncio.timeout(10):
            while not self.healthz()["mqtt"]:
                await asyncio.sleep(0.02)

    def healthz(self) -> dict[str, bool]:
        return httpx.get(f"http://127.0.0.1:{self.place.metrics_port}/healthz", timeout=5).json()

    def metric(self, line: str) -> float:
        """The value of the sample whose line begins so; 0 where there is none yet."""
        text = httpx.get(f"http://127.0.0.1:{self.place.metrics_port}/metrics", timeout=5).text
        return sum(float(found.rsplit(" ", 1)[1]) for found in text.splitlines() if found.startswith(line + " "))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the store, read beside the daemon."""
        with closing(sqlite3.connect(self.place.store)) as connection:
            return connection.execute(sql).fetchall()

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

    def grant_arguments(self, *more: str, vm: str = "vm1") -> tuple[str, ...]:
        first = ("consent", "grant", "--resource-id", resource_id(vm), "--kind", "serial", "--giver", "tenant@example.org")
        return (*first, "--node", self.pen.name, *more)

    async def granted(self, *more: str, vm: str = "vm1") -> dict[str, Any]:
        ran = await self.eva_provider(*self.grant_arguments("--json", *more, vm=vm))
        assert ran.code == 0, ran.err
        return json.loads(ran.out)


@asynccontextmanager
async def running_cloud(directory: Path, authority: Authority, receipt_seconds: int = 3) -> AsyncIterator[Cloud]:
    """Keys made, one node enrolled, the daemon up and on MQTT."""
    cloud = Cloud(directory, authority, receipt_seconds)
    try:
        ran = await cloud.eva_provider("keys", "init")
        assert ran.code == 0, ran.err
        await cloud.enrol(cloud.pen)
        await cloud.start()
        yield cloud
    finally:
        cloud.daemon.close()
        cloud.mosquitto.close()
