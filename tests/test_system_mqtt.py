"""The MQTT broker is trusted to deliver and for nothing else: who may say what there, and what a forged letter does."""

import asyncio
import contextlib
import time

import aiomqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from paho.mqtt import client as mqtt

from broker.uplink import client_tls
from eva.consent import CLOUDADMIN, Access, Consent, Kind
from eva.control import Refusal, Refused
from eva.endpoint import ClientTls
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
from tests.system_operator import LOOK, NODE, PATIENCE, signed_in
from tests.system_parts import measured, publish_as_provider, speaking, tell_provider, well

OTHER = "AzS-ERCS02"
STRANGER = "AzS-ERCS66"
NOT_AUTHORIZED = 0x87


TOPICS = (consent_topic, revocation_topic, lease_topic, lease_request_topic, receipt_topic, status_topic)


def said_of(cloud: Cloud, identity: str, topics: list[str]) -> list[int]:
    """What mosquitto says of a letter from this identity on each topic: MQTT 5 3.4.2.1, PUBACK Reason Code."""
    pair = cloud.authority.client(identity)
    codes: dict[int, int] = {}
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=identity, protocol=mqtt.MQTTv5)
    client.tls_set_context(client_tls(ClientTls(cloud.authority.ca, pair.certificate, pair.key)))
    client.on_publish = lambda _client, _data, mid, reason, _properties: codes.setdefault(mid, reason.value)
    client.connect("localhost", cloud.mosquitto.port)
    mids = [client.publish(topic, b"x", qos=1).mid for topic in topics]
    deadline = time.monotonic() + PATIENCE
    while len(codes) < len(mids) and time.monotonic() < deadline:
        client.loop(0.1)
    client.disconnect()
    return [codes[mid] for mid in mids]


async def test_another_nodes_certificate_writes_none_of_this_nodes_topics(cloud: Cloud) -> None:
    said = await asyncio.to_thread(said_of, cloud, STRANGER, [topic(NODE) for topic in TOPICS])
    assert said == [NOT_AUTHORIZED] * len(TOPICS)


async def test_a_node_writes_its_own_questions_and_receipts_and_no_letter_to_itself(cloud: Cloud) -> None:
    said = await asyncio.to_thread(said_of, cloud, STRANGER, [topic(STRANGER) for topic in TOPICS])
    assert [code == NOT_AUTHORIZED for code in said] == [True, True, True, False, False, False]


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
        await publish_as_provider(cloud, lease_topic(STRANGER), b"{}")
        deadline = time.monotonic() + PATIENCE
        while not heard and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert set(heard) == {lease_topic(STRANGER)}  # once for each subscription that fits it


def consent_for(vm: Guest, node: str = NODE, **other: object) -> Consent:
    now = int(time.time())
    jti = b64(bytes(str(time.time_ns()), "ascii")[-16:])
    facts: dict[str, object] = {
        "jti": jti,
        "cid": jti,
        "node": node,
        "resource_id": ResourceId.parse(str(vm.resource_id)),
        "giver": "mallory",
        "operators": frozenset({CLOUDADMIN}),
        "kinds": frozenset(Kind),
        "access": Access.KEYBOARD,
        "issued_at": now,
        "expires_at": now + 600,
        "watched": False,
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
    with contextlib.suppress(AssertionError):  # there is none, unless a test before left one
        await tell_provider(cloud, "/revoke", {"resource_id": shared_guest.resource_id})
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
            good.to_claims() | {"iat": good.issued_at + 3600, "exp": good.issued_at + 7200},
        ),
        "another VM": provider.sign(Typ.CONSENT, good.to_claims() | {"resource_id": resource_id_of("no-such-vm")}),
    }
    async with signed_in(cloud) as alice:
        for name, token in forged.items():
            before = await refused_so_far(cloud)
            await publish_as_provider(cloud, consent_topic(NODE), Envelope(token).encode())
            deadline = time.monotonic() + PATIENCE
            while await refused_so_far(cloud) == before:
                assert time.monotonic() < deadline, f"{name}: neither refused nor counted"
                await asyncio.sleep(LOOK)
            with pytest.raises(Refused) as refused:
                await alice.open(shared_guest.resource_id)
            assert refused.value.refusal is Refusal.NO_CONSENT, name
        # and nothing of it was the messenger's fault: the same letter, well signed, is taken
        honest = provider.sign(Typ.CONSENT, consent_for(shared_guest).to_claims())
        await publish_as_provider(cloud, consent_topic(NODE), Envelope(honest).encode())
        deadline = time.monotonic() + PATIENCE
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
