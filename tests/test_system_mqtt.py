"""The MQTT broker is trusted to deliver and for nothing else: who may say what there, and what a forged letter does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiomqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.settings import ClientTls
from broker.uplink import client_tls
from eva.consent import CLOUDADMIN, Access, Consent, Kind
from eva.control import Refusal, Refused
from eva.resource_id import ResourceId
from eva.token import SigningKey, Typ, b64
from eva.wire import (
    Envelope,
    consent_topic,
    lease_request_topic,
    lease_topic,
    receipt_topic,
    revocation_topic,
    status_topic,
)
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.conftest import resource_id_of
from tests.system_parts import LOOK, NODE, measured, signed_in, well

OTHER = "AzS-ERCS02"
STRANGER = "AzS-ERCS66"


@contextlib.asynccontextmanager
async def speaking(cloud: Cloud, identity: str) -> AsyncIterator[aiomqtt.Client]:
    """A client with that identity's certificate."""
    pair = cloud.authority.client(identity)
    tls = client_tls(ClientTls(cloud.authority.ca, pair.certificate, pair.key))
    async with aiomqtt.Client(
        "localhost", cloud.mosquitto.port, identifier=identity, protocol=aiomqtt.ProtocolVersion.V5, tls_context=tls
    ) as client:
        yield client


TOPICS = (consent_topic, revocation_topic, lease_topic, lease_request_topic, receipt_topic, status_topic)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.__name__)
async def test_another_nodes_certificate_writes_none_of_this_nodes_topics(cloud: Cloud, topic) -> None:
    async with speaking(cloud, STRANGER) as client:
        # MQTT 5 3.4.2.1: 0x87 Not authorized
        with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authorized"):
            await client.publish(topic(NODE), b"x", qos=1)


async def test_another_nodes_certificate_reads_none_of_this_nodes_topics(cloud: Cloud, shared_guest: Guest) -> None:
    """mosquitto grants a subscription and then delivers nothing on it: so listen while there is much to hear."""
    heard: list[str] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            heard.append(str(message.topic))  # noqa: PERF401 - looked at while it grows

    async with speaking(cloud, STRANGER) as client:
        for name in ("#", "eva/v1/#", *(topic(NODE) for topic in TOPICS)):
            with contextlib.suppress(aiomqtt.MqttError):  # refused at once is as good
                await client.subscribe(name, qos=1)
        await client.subscribe(lease_topic(STRANGER), qos=1)
        listening = asyncio.create_task(listen(client))
        asked = await measured(cloud, "eva_lease_requests_total")
        while await measured(cloud, "eva_lease_requests_total") < asked + 2:
            await asyncio.sleep(LOOK)
        # this one it may hear: that it hears at all
        async with speaking(cloud, "eva-provider") as provider:
            await provider.publish(lease_topic(STRANGER), b"{}", qos=1)
        deadline = time.monotonic() + 10
        while not heard and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert heard == [lease_topic(STRANGER)]


def consent_for(vm: Guest, node: str = NODE, **other: object) -> Consent:
    now = int(time.time())
    facts: dict[str, object] = {
        "jti": b64(bytes(str(time.time_ns()), "ascii")[-16:]),
        "node": node,
        "resource_id": ResourceId.parse(str(vm.resource_id)),
        "giver": "mallory",
        "operators": frozenset({CLOUDADMIN}),
        "kinds": frozenset(Kind),
        "access": Access.KEYBOARD,
        "issued_at": now,
        "expires_at": now + 600,
    }
    return Consent(**(facts | other))  # type: ignore[arg-type]


def signers(cloud: Cloud) -> dict[str, SigningKey]:
    """Whoever might try: a stranger's key, this node's own, and the root key, which signs key sets only."""

    def read(path) -> SigningKey:
        key = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return SigningKey(key)

    home = cloud.directory
    return {
        "a stranger": SigningKey(Ed25519PrivateKey.generate()),
        "the node": read(home / NODE / "state/node.pem"),
        "root": read(home / "provider/root.pem"),
        "the provider": read(next(path for path in (home / "provider").glob("*.pem") if path.name != "root.pem")),
    }


async def test_a_forged_consent_is_refused_and_counted(cloud: Cloud, shared_guest: Guest) -> None:
    """Also one that the provider signed for another node, as another kind of token, or for too long."""
    await well(cloud)
    keys = signers(cloud)
    good = consent_for(shared_guest)
    forged = {name: keys[name].sign(Typ.CONSENT, good.to_claims()) for name in ("a stranger", "the node", "root")}
    provider = keys["the provider"]
    forged |= {
        "for another node": provider.sign(Typ.CONSENT, consent_for(shared_guest, OTHER).to_claims()),
        "another kind of token": provider.sign(Typ.LEASE, good.to_claims()),
        "a claim too many": provider.sign(Typ.CONSENT, good.to_claims() | {"nbf": 1}),
        "too long": provider.sign(Typ.CONSENT, consent_for(shared_guest).to_claims() | {"exp": good.issued_at + 28_801}),
        "from later": provider.sign(
            Typ.CONSENT,
            good.to_claims() | {"iat": good.issued_at + 60, "exp": good.issued_at + 600},
        ),
        "another VM": provider.sign(Typ.CONSENT, good.to_claims() | {"resource_id": resource_id_of("no-such-vm")}),
    }
    async with signed_in(cloud) as alice, speaking(cloud, "eva-provider") as post:
        expiry = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        for name, token in forged.items():
            before = await refused_so_far(cloud)
            await post.publish(consent_topic(NODE), Envelope(token).encode(), qos=1, properties=expiry)
            deadline = time.monotonic() + 10
            while await refused_so_far(cloud) == before:
                assert time.monotonic() < deadline, f"{name}: neither refused nor counted"
                await asyncio.sleep(LOOK)
            with pytest.raises(Refused) as refused:
                await alice.open(shared_guest.resource_id)
            assert refused.value.refusal is Refusal.NO_CONSENT, name
        # and nothing of it was the messenger's fault: the same letter, well signed, is taken
        await post.publish(
            consent_topic(NODE), Envelope(provider.sign(Typ.CONSENT, consent_for(shared_guest).to_claims())).encode(), qos=1
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                opened = await alice.open(shared_guest.resource_id)
                break
            except Refused:
                assert time.monotonic() < deadline, "the good one is refused, too"
                await asyncio.sleep(LOOK)
        await alice.ask("session.delete", resource_id=opened.resource_id)  # type: ignore[arg-type]


async def refused_so_far(cloud: Cloud) -> float:
    return await measured(cloud, "eva_tokens_refused_total") + await measured(cloud, "eva_consents_refused_total")
