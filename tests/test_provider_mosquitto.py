"""config/mosquitto.conf and mosquitto.acl with a real mosquitto: who may say and hear what."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from eva.wire import consent_topic, lease_request_topic, lease_topic, receipt_topic, revocation_topic, status_topic
from lab.certificates import Authority
from lab.mosquitto import Mosquitto
from lab.transcript import PATIENCE_S

CONFIG = Path(__file__).parent.parent / "config"
NODE, OTHER, PROVIDER = "AzS-ERCS01", "AzS-ERCS02", "eva-provider"


@pytest.fixture(scope="module")
def broker(certificates: Authority) -> Iterator[Mosquitto]:
    """The shipped configuration, its paths and port turned to this run's and nothing else."""
    server = certificates.server("mqtt")
    text = (CONFIG / "mosquitto.conf").read_text()
    turned = {
        "listener 8883": "listener @PORT@ 127.0.0.1",
        "/etc/eva/mosquitto.acl": str(CONFIG / "mosquitto.acl"),
        "/etc/eva/tls/ca.pem": str(certificates.ca),
        "/etc/eva/tls/mqtt.pem": str(server.certificate),
        "/etc/eva/tls/mqtt.key": str(server.key),
        "/var/lib/mosquitto/": "@DIRECTORY@/",
        "log_dest stderr\n": "",
    }
    for shipped, ours in turned.items():
        assert shipped in text
        text = text.replace(shipped, ours)
    assert not re.search(r"(?m)^[^#]*/etc", text)
    with Mosquitto(text) as mosquitto:
        yield mosquitto


@asynccontextmanager
async def client(
    broker: Mosquitto, authority: Authority, name: str, client_id: str | None = None
) -> AsyncIterator[aiomqtt.Client]:
    context = ssl.create_default_context(cafile=str(authority.ca))
    pair = authority.client(name)
    context.load_cert_chain(pair.certificate, pair.key)
    async with aiomqtt.Client(
        "127.0.0.1",
        broker.port,
        identifier=client_id or name,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=context,
    ) as connected:
        yield connected


async def heard(reader: aiomqtt.Client, writer: aiomqtt.Client, topics: list[str], last: str) -> list[str]:
    """Those of `topics` that come through when written; then `last`, which is allowed, is the sign that all are dealt with.

    What others wrote before is among them.
    """
    for topic in topics:
        await writer.publish(topic, b"x", qos=1)
    await writer.publish(last, b"last", qos=1)
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in reader.messages:
            if message.payload == b"last":
                return found
            found.append(message.topic.value)
    return found


async def test_a_node_hears_its_own_letters_only(broker: Mosquitto, certificates: Authority):
    mine = [consent_topic(NODE), revocation_topic(NODE)]
    others = [consent_topic(OTHER), revocation_topic(OTHER), lease_topic(OTHER)]
    async with client(broker, certificates, NODE) as node, client(broker, certificates, PROVIDER) as provider:
        await node.subscribe([("#", 1), ("eva/v1/node/#", 1)])
        assert set(await heard(node, provider, [*others, *mine], lease_topic(NODE))) == set(mine)


async def test_a_node_speaks_in_its_own_name_only(broker: Mosquitto, certificates: Authority):
    mine = [receipt_topic(NODE), status_topic(NODE)]
    others = [lease_request_topic(OTHER), receipt_topic(OTHER), status_topic(OTHER)]
    async with client(broker, certificates, NODE) as node, client(broker, certificates, PROVIDER) as provider:
        await provider.subscribe([(topic("+"), 1) for topic in (lease_request_topic, receipt_topic, status_topic)])
        assert await heard(provider, node, [*others, *mine], lease_request_topic(NODE)) == mine


async def test_a_node_cannot_play_the_provider(broker: Mosquitto, certificates: Authority):
    async with (
        client(broker, certificates, NODE) as node,
        client(broker, certificates, OTHER) as other,
        client(broker, certificates, PROVIDER) as provider,
    ):
        await other.subscribe(f"eva/v1/node/{OTHER}/#", qos=1)
        for topic in (consent_topic(OTHER), revocation_topic(OTHER), lease_topic(OTHER), consent_topic(NODE)):
            await node.publish(topic, b"forged", qos=1)
        assert await heard(other, provider, [], lease_topic(OTHER)) == []
        # not even towards itself
        await node.subscribe(f"eva/v1/node/{NODE}/#", qos=1)
        await node.publish(consent_topic(NODE), b"forged", qos=1)
        assert await heard(node, provider, [], lease_topic(NODE)) == []


async def test_the_provider_cannot_play_a_node(broker: Mosquitto, certificates: Authority):
    async with client(broker, certificates, NODE) as node, client(broker, certificates, PROVIDER) as provider:
        await provider.subscribe("eva/v1/+/+", qos=1)
        for topic in (receipt_topic(NODE), lease_request_topic(NODE), status_topic(NODE)):
            await provider.publish(topic, b"forged", qos=1)
        assert await heard(provider, node, [], receipt_topic(NODE)) == []


async def test_a_client_id_of_anothers_throws_nobody_off(broker: Mosquitto, certificates: Authority):
    async with client(broker, certificates, PROVIDER) as provider:
        await provider.subscribe(receipt_topic("+"), qos=1)
        async with client(broker, certificates, NODE, client_id=PROVIDER) as node:
            assert await heard(provider, node, [], receipt_topic(NODE)) == []


@pytest.mark.parametrize("name", ["+", "#"])
async def test_a_name_that_is_a_wildcard_opens_nothing(broker: Mosquitto, certificates: Authority, name: str):
    async with (
        client(broker, certificates, name, client_id="odd") as odd,
        client(broker, certificates, NODE) as node,
        client(broker, certificates, PROVIDER) as provider,
    ):
        await odd.subscribe("eva/v1/node/#", qos=1)
        await node.subscribe(f"eva/v1/node/{NODE}/#", qos=1)
        assert await heard(node, provider, [consent_topic(NODE)], lease_topic(NODE)) == [consent_topic(NODE)]
        # an answer on the odd one's own connection comes after all that was let through to it
        await odd.subscribe("eva/v1/other", qos=1)
        assert len(odd.messages) == 0


async def test_without_a_certificate_nobody_comes_in(broker: Mosquitto, certificates: Authority):
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", broker.port, identifier="x", tls_context=context, timeout=5):
            pass
