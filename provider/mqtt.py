"""The rim to MQTT 5: what nodes send goes to the registrar, its letters go out. Nothing is decided here.

What MQTT loses is asked for again (leases, receipts) or carried by a lease (revocations), so a full queue may drop. A node's
messages keep their order: each node has its lane, and a lane is one task.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from eva.consent import is_node_name
from eva.token import BadToken
from eva.wire import MAX_ENVELOPE, lease_request_topic, lease_topic, receipt_topic, status_topic
from provider.consent.authority import Refused
from provider.consent.letters import Undelivered
from provider.consent.registrar import Registrar
from provider.meters import Meters
from provider.settings import Mqtt
from provider.store.store import StoreDown

LANES = 4
LANE_LENGTH = 256
QUEUE = 1024  # messages between the socket and the lanes
SESSION_SECONDS = 86_400  # MQTT 5 3.1.2.11.2
LEASE_EXPIRY = 5  # seconds; a lease that comes later than that answers nobody
KEEPALIVE = 15
MAX_CORRELATION = 64
BACKOFF = (0.2, 0.5, 1.0, 2.0, 4.0)

log = logging.getLogger("provider.mqtt")


@dataclass(frozen=True, slots=True)
class _Arrival:
    kind: str
    node: str
    payload: bytes
    correlation: bytes | None


def tls_context(settings: Mqtt) -> ssl.SSLContext | None:
    """Raises OSError, ssl.SSLError where a file is missing or is no certificate."""
    if settings.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls.certificate is not None:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    return context


class MqttPost:
    """One MQTT session, taken up again whenever it is lost."""

    def __init__(self, settings: Mqtt, meters: Meters) -> None:
        self._settings = settings
        self._meters = meters
        self._tls = tls_context(settings)
        self._password = settings.password_file.read_text(encoding="utf-8").strip() if settings.password_file else None
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def send(
        self, topic: str, payload: bytes, *, expires: int | None, patience: float, correlation: bytes | None = None
    ) -> None:
        """Until the MQTT broker has it; waits for a lost session. `expires`, `patience`: seconds. Raises Undelivered."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
        if expires is not None:
            properties.MessageExpiryInterval = expires
        if correlation is not None:
            properties.CorrelationData = correlation
        try:
            async with asyncio.timeout(patience):
                await self._connected.wait()
                client = self._client
                if client is None:
                    raise Undelivered("MQTT session lost")
                await client.publish(topic, payload, qos=1, properties=properties, timeout=patience)
        except TimeoutError:
            raise Undelivered("MQTT did not take it in time") from None
        except aiomqtt.MqttError as error:
            raise Undelivered(f"MQTT: {error}") from None

    async def run(self, registrar: Registrar) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            lanes = [asyncio.Queue[_Arrival](LANE_LENGTH) for _ in range(LANES)]
            for lane in lanes:
                group.create_task(self._serve(lane, registrar))
            await self._stay_connected(lanes)

    async def _stay_connected(self, lanes: Sequence[asyncio.Queue[_Arrival]]) -> None:
        tries = 0
        while True:
            try:
                async with self._new_client() as client:
                    await self._subscribe(client)
                    tries = 0
                    log.info("MQTT session with %s:%d", self._settings.host, self._settings.port)
                    self._set_client(client)
                    async for message in client.messages:
                        self._sort(message, lanes)
            except aiomqtt.MqttError as error:
                log.warning("no MQTT: %s", error)
            finally:
                self._set_client(None)
            await asyncio.sleep(BACKOFF[min(tries, len(BACKOFF) - 1)])
            tries += 1

    def _set_client(self, client: aiomqtt.Client | None) -> None:
        self._client = client
        self._meters.mqtt_up.set(0 if client is None else 1)
        if client is None:
            self._connected.clear()
        else:
            self._connected.set()

    def _new_client(self) -> aiomqtt.Client:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.SessionExpiryInterval = SESSION_SECONDS
        return aiomqtt.Client(
            self._settings.host,
            self._settings.port,
            identifier=self._settings.client_id,
            username=self._settings.username,
            password=self._password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=KEEPALIVE,
            tls_context=self._tls,
            max_queued_incoming_messages=QUEUE,
            timeout=5.0,
            # without it a small letter waits up to 40 ms for the peer's delayed acknowledgement of the one before
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        topics = [(name("+"), 1) for name in (lease_request_topic, receipt_topic, status_topic)]
        codes = await client.subscribe(topics)
        if any((code if isinstance(code, int) else code.value) >= 0x80 for code in codes):  # MQTT 5 3.9.3
            raise aiomqtt.MqttError("the MQTT broker's access list refuses a subscription")

    def _sort(self, message: aiomqtt.Message, lanes: Sequence[asyncio.Queue[_Arrival]]) -> None:
        # eva/v1/KIND/NODE, as subscribed to
        _, _, kind, node = message.topic.value.split("/")
        payload = message.payload
        if not is_node_name(node) or not isinstance(payload, bytes) or len(payload) > MAX_ENVELOPE:
            self._meters.refused.labels("size").inc()
            return
        if kind == "status":
            # retained, unsigned: a hint for people, and nothing hangs on it
            log.info("status of %s: %r", node, payload[:64])
            return
        correlation: bytes | None = getattr(message.properties, "CorrelationData", None)
        if correlation is not None and len(correlation) > MAX_CORRELATION:
            correlation = None
        try:
            lanes[zlib.crc32(node.encode()) % LANES].put_nowait(_Arrival(kind, node, payload, correlation))
        except asyncio.QueueFull:
            self._meters.dropped.inc()

    async def _serve(self, lane: asyncio.Queue[_Arrival], registrar: Registrar) -> None:
        while True:
            arrival = await lane.get()
            try:
                if arrival.kind == "receipt":
                    await registrar.take_receipt(arrival.payload, arrival.node)
                else:
                    await self._answer(arrival, registrar)
            except (BadToken, Refused) as error:
                log.warning("%s at %s refused: %s", arrival.kind, arrival.node, error)
            except Undelivered as error:
                log.warning("%s of %s not answered: %s", arrival.kind, arrival.node, error.why)
            except StoreDown as error:
                # the disk is full, the store locked or away: no answer, so nodes hold, then cut; the next ask may find it mended
                log.error("%s of %s not decided: %s", arrival.kind, arrival.node, error.why)

    async def _answer(self, arrival: _Arrival, registrar: Registrar) -> None:
        answer = await registrar.answer_lease(arrival.payload, "mqtt", arrival.node)
        # never to a response topic of the asker's choice, which may be another node's
        await self.send(
            lease_topic(answer.node),
            answer.payload,
            expires=LEASE_EXPIRY,
            patience=LEASE_EXPIRY,
            correlation=arrival.correlation,
        )
