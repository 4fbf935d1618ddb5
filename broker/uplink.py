"""The rim to the provider: MQTT 5 for all, HTTPS for leases when MQTT does not answer.

What arrives is given to `Consents` in the read loop itself. What MQTT loses is asked for again: leases carry revocations,
lease requests carry receipts. So the queues here may drop, and none of them grows without bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Callable

import aiomqtt
import httpx
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.certificates import client_context, load_pair
from broker.clock import Clock
from broker.consents import Consents
from broker.metrics import Metrics
from broker.outbox import Outbox
from broker.settings import Mqtt, Provider
from broker.state import StoredReceipt
from eva.endpoint import ClientTls
from eva.token import SigningKey, b64
from eva.wire import (
    CONTENT_TYPE,
    LEASE_PATH,
    MAX_ENVELOPE,
    MAX_RECEIPTS,
    Envelope,
    LeaseRequest,
    consent_topic,
    lease_request_topic,
    lease_topic,
    receipt_topic,
    revocation_topic,
    status_topic,
)

log = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0  # for an answer over MQTT, before the same question goes over HTTPS
HTTPS_SECONDS = 1.5
SESSION_SECONDS = 86_400  # MQTT 5 3.1.2.11.2
REQUEST_EXPIRY = 5  # seconds, MQTT 5 3.3.2.3.3: an older question has been asked again
KEEPALIVE = 10
QUEUE = 4096  # messages between the socket and the loop; what is dropped there, the next lease carries
RECEIPTS = 256  # that wait to be published; those beyond go with a lease request
BACKOFF = (0.2, 0.5, 1.0, 2.0, 4.0)


def client_tls(tls: ClientTls) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError for a file that is missing or no certificate."""
    context = client_context(tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        load_pair(context, tls.certificate, tls.key)
    return context


class Uplink:
    """`run` until cancelled. `anchor`: the count and head of the audit on disk. `is_held`: whether what more there is to tell
    waits until a lease says what has come.
    """

    def __init__(
        self,
        node: str,
        mqtt: Mqtt,
        provider: Provider,
        every: float,
        key: SigningKey,
        clock: Clock,
        boot_id: str,
        consents: Consents,
        outbox: Outbox,
        metrics: Metrics,
        randomness: Callable[[int], bytes],
        anchor: Callable[[], tuple[int, str]],
        is_held: Callable[[], bool],
    ) -> None:
        self._node = node
        self._mqtt = mqtt
        self._mqtt_tls = client_tls(mqtt.tls) if mqtt.tls is not None else None
        self._password = mqtt.password_file.read_text().strip() if mqtt.password_file is not None else None
        self._url = provider.url + LEASE_PATH
        self._https_tls = client_context(provider.ca)
        self._every = every
        self._key = key
        self._clock = clock
        self._boot_id = boot_id
        self._consents = consents
        self._outbox = outbox
        self._metrics = metrics
        self._randomness = randomness
        self._anchor = anchor
        # what the audit was at the start, and later when the newest ask was answered: a node whose state was put back may write
        # records, of sessions that are over or that it cuts, and must not outgrow by them what it once told
        self._told = anchor()
        self._was_answered = False
        self._is_held = is_held
        self._client: aiomqtt.Client | None = None
        self._answered = asyncio.Event()
        self._hurry = asyncio.Event()
        self._receipts: asyncio.Queue[StoredReceipt] = asyncio.Queue(RECEIPTS)
        consents.publish = self.queue_receipt
        consents.behind = self._hurry.set

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected(), name="mqtt")
            group.create_task(self._ask_for_leases(), name="leases")
            group.create_task(self._publish_receipts(), name="receipts")

    # -- MQTT ----------------------------------------------------------------------------------------------------

    def _new_client(self) -> aiomqtt.Client:
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        connect.SessionExpiryInterval = SESSION_SECONDS
        return aiomqtt.Client(
            self._mqtt.host,
            self._mqtt.port,
            identifier=self._node,
            username=self._mqtt.username,
            password=self._password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=connect,
            keepalive=KEEPALIVE,
            timeout=5,
            tls_context=self._mqtt_tls,
            max_queued_incoming_messages=QUEUE,
            # without it Nagle and delayed acknowledgements make 80 ms of a cut's way
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            will=aiomqtt.Will(status_topic(self._node), _status("lost"), qos=1, retain=True),
        )

    async def _stay_connected(self) -> None:
        tries = 0
        while True:
            try:
                async with self._new_client() as client:
                    topics = [f(self._node) for f in (consent_topic, revocation_topic, lease_topic)]
                    await client.subscribe([(topic, 1) for topic in topics])
                    await client.publish(status_topic(self._node), _status("up"), qos=1, retain=True)
                    log.info("MQTT session with %s:%d", self._mqtt.host, self._mqtt.port)
                    tries = 0
                    self._client = client
                    self._hurry.set()
                    async for message in client.messages:
                        self._take(str(message.topic), message.payload)
            except aiomqtt.MqttError as error:
                log.warning("no MQTT: %s", error)
            finally:
                self._client = None
            await asyncio.sleep(BACKOFF[min(tries, len(BACKOFF) - 1)])
            tries += 1

    def _take(self, topic: str, payload: object) -> None:
        if not isinstance(payload, bytes) or len(payload) > MAX_ENVELOPE:
            return
        if topic == revocation_topic(self._node):
            self._consents.take_revocation(payload)
        elif topic == consent_topic(self._node):
            self._consents.take_consent(payload)
        elif topic == lease_topic(self._node) and self._consents.take_lease(payload):
            self._was_answered = True
            self._answered.set()

    async def _publish(self, topic: str, payload: bytes, properties: Properties | None = None) -> bool:
        """Whether the MQTT broker took it. A refusal or a loss is no fault: there is another way for all that matters."""
        client = self._client
        if client is None:
            return False
        try:
            await client.publish(topic, payload, qos=1, properties=properties, timeout=5)
        except aiomqtt.MqttError as error:
            log.warning("not published on %s: %s", topic, error)
            return False
        return True

    # -- receipts ------------------------------------------------------------------------------------------------

    def queue_receipt(self, receipt: StoredReceipt) -> None:
        """Takes a receipt that is on disk, to be published soon."""
        if self._receipts.full():
            return  # it is on disk, and the next lease request carries it
        self._receipts.put_nowait(receipt)

    async def _publish_receipts(self) -> None:
        while True:
            tokens = [(await self._receipts.get()).token]
            while not self._receipts.empty() and len(tokens) <= MAX_RECEIPTS:
                tokens.append(self._receipts.get_nowait().token)
            await self._publish(receipt_topic(self._node), Envelope(tokens[0], receipts=tuple(tokens[1:])).encode())
            if self._receipts.empty() and self._is_held():
                self._hurry.set()  # the answer says what has come, and makes room

    # -- leases --------------------------------------------------------------------------------------------------

    async def _ask_for_leases(self) -> None:
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(verify=self._https_tls, timeout=HTTPS_SECONDS, trust_env=False) as https:
            while True:
                began = loop.time()
                self._hurry.clear()  # before the ask: what hurries while it is under way came too late for it
                await self._ask(https)
                try:
                    async with asyncio.timeout_at(began + self._every):
                        await self._hurry.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(0.05)  # one that hurries does not race

    async def _ask(self, https: httpx.AsyncClient) -> None:
        """Asks once, on both paths if it must."""
        now, nonce = self._clock.now(), b64(self._randomness(16))
        if self._was_answered:
            self._told, self._was_answered = self._anchor(), False
        seq, keys_version = self._consents.seq_on_disk, self._consents.keys_version
        request = LeaseRequest(self._node, nonce, now.wall_seconds, self._boot_id, seq, keys_version, *self._told)
        token = self._key.sign(LeaseRequest.TYP, request.to_claims())
        payload = Envelope(token, receipts=self._outbox.oldest()).encode()
        self._answered.clear()
        self._consents.lease.ask(nonce, now)
        if self._client is not None:
            self._metrics.lease_asked.labels("mqtt").inc()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = lease_topic(self._node)
            properties.CorrelationData = nonce.encode()
            properties.MessageExpiryInterval = REQUEST_EXPIRY
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if await self._publish(lease_request_topic(self._node), payload, properties):
                        await self._answered.wait()
                        return
            except TimeoutError:
                log.warning("no lease over MQTT within %g s", ANSWER_SECONDS)
        self._metrics.lease_asked.labels("https").inc()
        try:
            async with https.stream("POST", self._url, content=payload, headers={"content-type": CONTENT_TYPE}) as answer:
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MAX_ENVELOPE:
                        return
            if answer.status_code == httpx.codes.OK:
                self._was_answered |= self._consents.take_lease(body)
            else:
                log.warning("no lease over HTTPS: status %d", answer.status_code)
        except httpx.HTTPError as error:
            log.warning("no lease over HTTPS: %s", error or type(error).__name__)


def _status(word: str) -> bytes:
    return json.dumps({"status": word}).encode()
