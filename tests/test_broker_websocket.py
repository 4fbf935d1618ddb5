"""broker/websocket.py against real clients: `websockets`' own, and raw ones that break the rules, plain and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import itertools
import os
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from broker import console_stream, websocket
from broker.websocket import CLOSE_GRACE, Departure, NotReservedError, OperatorConnection
from tests.broker_parts import PATIENCE, awake

KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = b"GET /v1/console HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + KEY
UPGRADE += b"Sec-WebSocket-Version: 13\r\n\r\n"
ONE_READ = 256_000  # bytes: uvloop's read buffer
BLOCK = bytes(range(256)) * 256
NEVER = 600.0  # seconds: longer than any test lasts


# The hook that is to replace this fixture stands in a conftest, for every module.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that the broker runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is let go for being slow: a busy machine may make slow who is not."""
    monkeypatch.setattr(websocket, "OPEN_TIMEOUT", NEVER)
    monkeypatch.setattr(websocket, "PING_INTERVAL", NEVER)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AzS-ERCS01")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "ercs.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(params=["plain", "tls"])
def pem(request: pytest.FixtureRequest, certificate: Path) -> Path | None:
    return certificate if request.param == "tls" else None


@dataclass
class Console:
    """A feed that keeps all it is given; `acts` are called, one for each payload, in the delivery itself."""

    payloads: list[bytes] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    tides: list[str] = field(default_factory=list)
    acts: list[Callable[[bytes], None]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def operator_bytes(self, data: bytes) -> None:
        self.payloads.append(data)
        self.changed.set()
        if self.acts:
            self.acts.pop(0)(data)

    def congested(self) -> None:
        self.tides.append("congested")
        self.changed.set()

    def writable(self) -> None:
        self.tides.append("writable")
        self.changed.set()

    def operator_gone(self, departure: Departure) -> None:
        self.departures.append(departure)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def take(self, size: int) -> bytes:
        await self.until(lambda: sum(map(len, self.payloads)) >= size)
        return b"".join(self.payloads)

    async def departure(self) -> Departure:
        await self.until(lambda: bool(self.departures))
        return self.departures[0]


@dataclass
class Edge:
    """A server whose connections are consoles' (path /v1/console) or echo their messages (any other path)."""

    port: int
    client_tls: ssl.SSLContext | None
    connections: asyncio.Queue[OperatorConnection] = field(default_factory=asyncio.Queue)

    async def serve(self, connection: OperatorConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/v1/console":
            connection.reserve()
            self.connections.put_nowait(connection)
            await connection.wait_closed()
        else:
            self.connections.put_nowait(connection)
            async for message in connection:
                await connection.send(message)

    async def accepted(self) -> OperatorConnection:
        return await asyncio.wait_for(self.connections.get(), PATIENCE)

    def dial(self, path: str = "/v1/console", **options: object) -> connect:
        scheme = "wss" if self.client_tls else "ws"
        return connect(
            f"{scheme}://127.0.0.1:{self.port}{path}",
            ssl=self.client_tls,
            compression=None,
            open_timeout=PATIENCE,
            **options,
        )

    @contextlib.asynccontextmanager
    async def attached(self, **options: object) -> AsyncIterator[tuple[ClientConnection, OperatorConnection, Console]]:
        async with self.dial(**options) as client:
            connection, console = await self.accepted(), Console()
            connection.attach(console)
            yield client, connection, console

    @contextlib.asynccontextmanager
    async def raw(
        self, *, text: bool = False
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, OperatorConnection, Console]]:
        """A peer that speaks bytes: through the handshake, and no further by itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client_tls)
        try:
            writer.write(UPGRADE)
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            connection, console = await self.accepted(), Console()
            connection.attach(console, text=text)
            yield reader, writer, connection, console
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def edge(pem: Path | None = None) -> AsyncIterator[Edge]:
    listener = socket.create_server(("127.0.0.1", 0))
    server_tls = client_tls = None
    if pem is not None:
        server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_tls.load_cert_chain(pem)
        client_tls = ssl.create_default_context(cafile=str(pem))
    here = Edge(listener.getsockname()[1], client_tls)
    server = await websocket.serve(here.serve, sock=listener, tls=server_tls)
    try:
        yield here
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


async def send_until_stuck(client: ClientConnection) -> int:
    """Send until the peer has taken nothing for 0.3 s; the bytes it took at least."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(client.send(BLOCK), 0.3)
            sent += len(BLOCK)
    return sent


async def wait_closed(connection: OperatorConnection) -> float:
    """Seconds until the connection's socket was closed; those in which this process stood still do not count."""
    async with awake() as seconds, asyncio.timeout(PATIENCE):
        await connection.wait_closed()
        return seconds()


# -- the operator's bytes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 16_384, 65_535, 65_536])
async def test_a_frame_of_any_size_is_delivered_unmasked(pem: Path | None, size: int) -> None:
    async with edge(pem) as here, here.attached() as (client, _, console):
        await client.send(BLOCK[:size])
        await client.send(b"end")
        await console.take(size + 3)
        assert console.payloads == [BLOCK[:size], b"end"]


async def test_bulk_arrives_whole_and_in_order(pem: Path | None) -> None:
    sent = [os.urandom(16_384) for _ in range(200)]
    async with edge(pem) as here, here.attached() as (client, _, console):
        for block in sent:
            await client.send(block)
        await console.take(200 * 16_384)
        assert console.payloads == sent


async def test_fragments_and_pings_between_them(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (reader, writer, _, console):
        writer.write(masked(Opcode.BINARY, b"uname", fin=False) + masked(Opcode.PING, b"p1"))
        writer.write(masked(Opcode.CONT, b" -", fin=False) + masked(Opcode.CONT, b"a\n") + masked(Opcode.BINARY, b"id\n"))
        assert await console.take(12) == b"uname -a\nid\n"
        assert await reader.readexactly(4) == b"\x8a\x02p1"


STREAM = (
    masked(Opcode.BINARY, b"first")
    + masked(Opcode.PING, b"ping")
    + masked(Opcode.BINARY, b"frag", fin=False)
    + masked(Opcode.CONT, b"ment")
    + masked(Opcode.BINARY, b"")
    + masked(Opcode.BINARY, BLOCK[:126])
    + masked(Opcode.BINARY, b"last")
)
CARRIED = b"firstfragment" + BLOCK[:126] + b"last"


async def test_a_stream_split_at_any_byte_is_the_same_stream() -> None:
    async with edge() as here, here.attached() as (_, connection, console):
        for cut in range(len(STREAM) + 1):
            console.payloads.clear()
            connection._stream.data_received(STREAM[:cut])
            connection._stream.data_received(STREAM[cut:])
            assert b"".join(console.payloads) == CARRIED


async def test_a_stream_byte_by_byte_is_the_same_stream() -> None:
    stream = STREAM + masked(Opcode.BINARY, BLOCK)
    async with edge() as here, here.attached() as (_, connection, console):
        for byte in stream:
            connection._stream.data_received(bytes((byte,)))
        assert b"".join(console.payloads) == CARRIED + BLOCK


async def test_a_read_full_of_small_frames_takes_many_turns_of_the_loop() -> None:
    frames = [b"%04d" % number for number in range(1000)]
    async with edge() as here, here.attached() as (_, connection, console):
        connection._stream.data_received(b"".join(masked(Opcode.BINARY, frame) for frame in frames))
        taken = len(console.payloads)
        assert taken == console_stream.FRAMES_A_TURN
        assert not connection.transport.is_reading()
        while taken < len(frames):
            await asyncio.sleep(0)
            assert taken < len(console.payloads) <= taken + console_stream.FRAMES_A_TURN
            taken = len(console.payloads)
        assert console.payloads == frames
        assert connection.transport.is_reading()


async def test_a_non_minimal_length_is_taken() -> None:
    async with edge() as here, here.raw() as (_, writer, _, console):
        writer.write(b"\x82\xff" + (2).to_bytes(8) + b"\0\0\0\0hi")
        assert await console.take(2) == b"hi"


# -- a read that is as long as one short frame: the way of each key typed ------------------------------------------------


async def failed(reader: asyncio.StreamReader, console: Console) -> int:
    """The code of the close frame that a fault is answered with."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readexactly(4)  # before all else: soon a reset may follow, and a reader then gives no more
    assert await console.departure() is Departure.FAULT
    assert head[0] == 0x88
    return int.from_bytes(head[2:])


async def test_a_lone_frame_within_a_message_is_a_fault(pem: Path | None) -> None:
    """RFC 6455 5.4: fragments of one message must not be interleaved with those of another."""
    async with edge(pem) as here, here.raw() as (reader, writer, _, console):
        writer.write(masked(Opcode.BINARY, b"begun", fin=False))
        await console.take(5)
        writer.write(masked(Opcode.BINARY, b"alone"))
        assert await failed(reader, console) == 1002
        assert console.payloads == [b"begun"]


async def test_a_payload_that_looks_like_a_frame_is_a_payload(pem: Path | None) -> None:
    inner = masked(Opcode.BINARY, b"rm -rf /\n")
    async with edge(pem) as here, here.raw() as (_, writer, connection, console):
        writer.write(bytes((0x82, 0x80 | len(inner))) + bytes(4))
        async with asyncio.timeout(PATIENCE):
            while not connection._stream._rest:
                await asyncio.sleep(0)
        writer.write(inner)
        await console.take(len(inner))
        assert console.payloads == [inner]


async def test_an_unmasked_frame_as_long_as_a_masked_one_is_a_fault(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (reader, writer, _, console):
        writer.write(b"\x82\x02hi" + b"more")
        assert await failed(reader, console) == 1002
        assert console.payloads == []


async def test_a_frame_whose_length_says_126_is_read_by_its_long_length(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, writer, _, console):
        writer.write(b"\x82\xfe" + (124).to_bytes(2) + bytes(4) + BLOCK[:124])  # 6 + 126 bytes, as it seems
        await console.take(124)
        assert console.payloads == [BLOCK[:124]]


# -- holding the operator ----------------------------------------------------------------------------------------------


async def test_frames_wait_for_the_feed(pem: Path | None) -> None:
    async with edge(pem) as here, here.dial() as client:
        connection, console = await here.accepted(), Console()
        await client.send(b"before ")
        await asyncio.sleep(0.05)  # for a byte that must not come there is nothing to await
        assert console.payloads == []
        connection.attach(console)
        await client.send(b"after")
        assert await console.take(12) == b"before after"


async def test_a_ping_is_answered_before_there_is_a_feed(pem: Path | None) -> None:
    async with edge(pem) as here, here.dial() as client:
        await asyncio.wait_for(await client.ping(), PATIENCE)


async def test_what_is_held_without_a_feed_is_bounded(pem: Path | None) -> None:
    async with edge(pem) as here, here.dial(write_limit=1) as client:
        connection = await here.accepted()
        await send_until_stuck(client)
        assert len(connection._stream._rest) <= ONE_READ + 2 * console_stream.MAX_MESSAGE
        client.transport.abort()


async def test_after_a_pause_no_other_frame_comes_until_the_operator_is_resumed(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, writer, connection, console):
        console.acts = [lambda _: connection.pause_operator()]
        frames = [b"%04d" % number for number in range(1000)]
        writer.write(b"".join(masked(Opcode.BINARY, frame) for frame in frames))
        await console.take(4)
        await asyncio.sleep(0.05)
        assert console.payloads == frames[:1]
        console.acts = [lambda _: None, lambda _: connection.pause_operator()]
        connection.resume_operator()
        await console.take(12)
        await asyncio.sleep(0.05)
        assert console.payloads == frames[:3]
        assert not connection.transport.is_reading()
        connection.resume_operator()
        await console.take(4000)
        assert console.payloads == frames


async def test_a_ping_lets_no_frame_past_a_pause(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, console):
        connection.pause_operator()
        await asyncio.wait_for(await client.ping(), PATIENCE)
        await client.send(b"held")
        async with asyncio.timeout(PATIENCE):
            while not connection._stream._rest:
                await asyncio.sleep(0)
        assert console.payloads == []


async def test_a_paused_operator_is_held_by_the_socket(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached(write_limit=1) as (client, connection, console):
        connection.pause_operator()
        sent = await send_until_stuck(client)
        assert console.payloads == []
        assert len(connection._stream._rest) <= ONE_READ + 2 * console_stream.MAX_MESSAGE
        connection.resume_operator()
        assert (await console.take(sent)).startswith(BLOCK * (sent // len(BLOCK)))


# -- the console's bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_buffers_are_sent_as_one_frame(pem: Path | None, size: int) -> None:
    data = (BLOCK * 4)[:size]
    async with edge(pem) as here, here.attached(max_size=None) as (client, connection, _):
        connection.send_binary(data[: size // 2], memoryview(data)[size // 2 :])
        assert await client.recv() == data


async def test_a_notice_is_a_text_frame(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, _):
        connection.send_notice('{"offset": 0, "vm": "Gerät"}')
        assert await client.recv() == '{"offset": 0, "vm": "Gerät"}'


async def test_a_peer_that_does_not_read_makes_it_congested_and_writable_once_it_reads(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (reader, _, connection, console):
        payload, sent = BLOCK[:-10], 0
        while not connection.congested:
            connection.send_binary(payload)
            sent += 1
            await asyncio.sleep(0)
        assert console.tides == ["congested"]
        frames = (b"\x82\x7e" + len(payload).to_bytes(2) + payload) * sent
        async with asyncio.timeout(PATIENCE):
            assert await reader.readexactly(len(frames)) == frames
        await console.until(lambda: len(console.tides) == 2)
        assert console.tides == ["congested", "writable"]
        assert not connection.congested


async def test_after_the_end_nothing_is_sent(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, _):
        connection.end(4002, "consent-revoked")
        connection.send_binary(b"late")
        connection.send_notice("late")
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
        connection.send_binary(b"too late")
        await wait_closed(connection)
        connection.send_binary(b"far too late")


# -- the end, by the broker --------------------------------------------------------------------------------------------


async def test_end_tells_the_operator_why(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, console):
        connection.end(4002, "consent-revoked", grace=NEVER)
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await client.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "consent-revoked")
        await wait_closed(connection)  # by the handshake, not by the grace
        assert console.departures == []


async def test_no_operator_byte_is_delivered_after_end(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, writer, connection, console):
        console.acts = [lambda _: connection.end(4001, "consent-expired")]
        writer.write(b"".join(masked(Opcode.BINARY, b"%d" % number) for number in range(1000)))
        await console.take(1)
        await wait_closed(connection)
        assert console.payloads == [b"0"]


@pytest.mark.parametrize("state", ["reading", "paused", "held"])
async def test_the_closing_handshake_comes_through_whatever_is_held(pem: Path | None, state: str) -> None:
    async with edge(pem) as here, here.dial() as client:
        connection, console = await here.accepted(), Console()
        if state != "held":
            connection.attach(console)
        if state == "paused":
            connection.pause_operator()
        for _ in range(3):
            await client.send(BLOCK)
        while connection.transport.is_reading() and state != "reading":
            await asyncio.sleep(0.001)  # until the frames are there and held
        connection.end(4002, "consent-revoked", grace=NEVER)
        await wait_closed(connection)
        await client.wait_closed()
        assert (connection.close_code, client.close_code) == (4002, 4002)


async def test_a_close_frame_right_behind_the_byte_at_which_we_ended_is_seen(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (reader, writer, connection, console):
        console.acts = [lambda _: connection.end(4001, "consent-expired", grace=NEVER)]
        writer.write(masked(Opcode.BINARY, b"x") + masked(Opcode.BINARY, b"y") + masked(Opcode.CLOSE, b""))
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b"\x88\x11\x0f\xa1consent-expired"  # to the end of file
        assert console.payloads == [b"x"]


async def test_who_pours_small_frames_after_the_end_costs_the_loop_nothing(pem: Path | None) -> None:
    """36,000 frames took the parser of `websockets` 0.3 s, in which no other session was cut."""
    async with edge(pem) as here, here.raw() as (reader, writer, connection, _):
        flood = masked(Opcode.BINARY, b"Q") * 36_000
        handed: list[int] = []
        connection.hand_over = lambda data: handed.append(len(data))
        connection.end(4002, "consent-revoked")
        connection._stream.data_received(flood)
        assert (handed, connection._stream._rest, connection.transport.is_reading()) == ([], b"", False)
        connection._stream.data_received(flood)
        assert handed == []
        async with asyncio.timeout(PATIENCE):
            assert await reader.read(2) == b"\x88\x11"  # it is told all the same
        assert await wait_closed(connection) < 1
        writer.close()


async def test_what_was_held_of_small_frames_is_not_parsed_at_the_end(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, _, connection, _):
        connection.pause_operator()
        connection._stream.data_received(masked(Opcode.BINARY, b"Q") * 36_000)
        handed: list[int] = []
        connection.hand_over = lambda data: handed.append(len(data))
        connection.end(4002, "consent-revoked")
        assert (handed, connection._stream._rest, connection.transport.is_reading()) == ([], b"", False)
        assert await wait_closed(connection) < 1


async def test_end_is_over_within_its_grace_for_a_peer_that_never_reads(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, _, connection, console):
        while not connection.congested:
            connection.send_binary(BLOCK)
            await asyncio.sleep(0)
        began = time.monotonic()
        connection.end(4002, "consent-revoked")
        assert await wait_closed(connection) < 1
        assert time.monotonic() - began > CLOSE_GRACE * 0.8
        assert console.departures == []


async def test_end_is_over_within_its_grace_for_a_peer_that_never_answers(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, _, connection, _):
        began = time.monotonic()
        connection.end(4002, "consent-revoked")
        assert await wait_closed(connection) < 1
        assert time.monotonic() - began > CLOSE_GRACE * 0.8


async def test_a_second_end_only_brings_the_abort_forward(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, _, connection, _):
        connection.end(4002, "consent-revoked", grace=NEVER)
        connection.end(4001, "consent-expired", grace=0)
        connection.end(4001, "consent-expired", grace=NEVER)
        await wait_closed(connection)
        connection.end(4001, "consent-expired")


async def test_end_with_a_reason_that_does_not_fit_still_ends() -> None:
    async with edge() as here, here.raw() as (_, _, connection, _):
        with pytest.raises(websockets.ProtocolError):
            connection.end(4002, "x" * 124)
        await wait_closed(connection)


async def test_end_before_attach_reaches_no_feed() -> None:
    async with edge() as here, here.dial() as client:
        connection, console = await here.accepted(), Console()
        await client.send(b"before")
        connection.end(4002, "consent-revoked")
        connection.attach(console)
        await wait_closed(connection)
        assert (console.payloads, console.departures) == ([], [])


# -- the end, by the operator ------------------------------------------------------------------------------------------


async def test_a_close_frame_is_answered_and_the_feed_told_once(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, console):
        await client.send(b"exit\n")
        await client.close(1000, "done")
        assert await console.departure() is Departure.LEFT
        await wait_closed(connection)
        assert (client.close_code, console.payloads, console.departures) == (1000, [b"exit\n"], [Departure.LEFT])


async def test_a_lost_connection_is_told_once(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, console):
        client.transport.abort()
        assert await console.departure() is Departure.LOST
        await wait_closed(connection)
        assert console.departures == [Departure.LOST]


async def test_a_half_closed_peer_that_never_reads_is_aborted() -> None:
    async with edge() as here, here.raw() as (_, writer, connection, console):
        while not connection.congested:
            connection.send_binary(BLOCK)
            await asyncio.sleep(0)
        writer.write_eof()
        assert await console.departure() is Departure.LOST
        await wait_closed(connection)


async def test_a_feed_attached_too_late_is_told_at_once(pem: Path | None) -> None:
    async with edge(pem) as here, here.dial() as client:
        connection, console = await here.accepted(), Console()
        await client.close()
        await wait_closed(connection)
        connection.attach(console)
        assert console.departures == [Departure.LEFT]


async def test_a_feed_that_raises_ends_its_own_connection_only() -> None:
    async with edge() as here, here.attached() as (first, connection, console), here.attached() as (second, _, other):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the traceback, else on the test's output

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        console.acts = [fail]
        await first.send(b"x")
        await wait_closed(connection)
        assert console.departures == [Departure.LOST]
        await second.send(b"y")
        assert await other.take(1) == b"y"


# -- peers that break the rules ----------------------------------------------------------------------------------------

FAULTS = {
    "oversized": (b"\x82\xff" + (65_537).to_bytes(8) + b"\0\0\0\0", 1009),
    "oversized 2^63": (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0", 1009),
    "oversized in fragments": (masked(Opcode.BINARY, BLOCK, fin=False) + masked(Opcode.CONT, b"x"), 1009),
    "unmasked": (b"\x82\x02hi", 1002),
    "unmasked, header only": (b"\x82\x02", 1002),
    "reserved bit": (b"\xc2\x80\0\0\0\0", 1002),
    "unknown opcode": (b"\x83\x80\0\0\0\0", 1002),
    "long ping": (masked(Opcode.BINARY, bytes(126)).replace(b"\x82", b"\x89", 1), 1002),
    "stray continuation": (masked(Opcode.CONT, b"x"), 1002),
    "binary within a message": (masked(Opcode.BINARY, b"a", fin=False) + masked(Opcode.BINARY, b"b"), 1002),
    "text": (masked(Opcode.TEXT, b"hello"), 1003),
    "text in fragments": (masked(Opcode.TEXT, b"he", fin=False) + masked(Opcode.CONT, b"llo"), 1003),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n" * 40, 1002),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_fails_the_connection_with_its_code(pem: Path | None, fault: str) -> None:
    sent, code = FAULTS[fault]
    async with edge(pem) as here, here.raw() as (reader, writer, connection, console):
        writer.write(masked(Opcode.BINARY, b"fine") + sent + masked(Opcode.BINARY, b"after"))
        assert await failed(reader, console) == code
        assert b"after" not in b"".join(console.payloads)
        assert console.payloads[0] == b"fine"
        await wait_closed(connection)
        assert console.departures == [Departure.FAULT]


TEXTS = {
    "whole": (masked(Opcode.TEXT, "Gerät\r".encode()), "Gerät\r".encode()),
    "a character in two fragments": (masked(Opcode.TEXT, b"\xc3", fin=False) + masked(Opcode.CONT, b"\xa4"), b"\xc3\xa4"),
    "before bytes that are no text": (masked(Opcode.TEXT, b"a") + masked(Opcode.BINARY, b"\xff"), b"a\xff"),
    "before fragments that are none": (
        masked(Opcode.TEXT, b"a") + masked(Opcode.BINARY, b"\xff", fin=False) + masked(Opcode.CONT, b"\xfe"),
        b"a\xff\xfe",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_a_console_that_takes_text_has_its_utf_8(pem: Path | None, name: str) -> None:
    sent, bytes_of_it = TEXTS[name]
    async with edge(pem) as here, here.raw(text=True) as (_, writer, _, console):
        writer.write(sent)
        assert await console.take(len(bytes_of_it)) == bytes_of_it


NOT_UTF_8 = {
    "a stray byte": masked(Opcode.TEXT, b"\xff"),
    "half a character": masked(Opcode.TEXT, b"\xc3"),
    "half a character over fragments": masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CONT, b"\xc3"),
    "a surrogate": masked(Opcode.TEXT, b"\xed\xa0\x80"),
}


@pytest.mark.parametrize("name", NOT_UTF_8)
async def test_text_that_is_no_utf_8_fails_the_connection(pem: Path | None, name: str) -> None:
    async with edge(pem) as here, here.raw(text=True) as (reader, writer, _, console):
        writer.write(NOT_UTF_8[name] + masked(Opcode.BINARY, b"after"))
        assert await failed(reader, console) == 1007
        assert b"after" not in b"".join(console.payloads)
        assert console.departures == [Departure.FAULT]


async def test_pings_whose_pongs_are_never_read_end_the_connection(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, writer, connection, console):
        flood = masked(Opcode.PING, bytes(125)) * 500

        async def pump() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(flood)
                    await writer.drain()
                    await asyncio.sleep(0)  # drain() gives nobody a turn while there is room, or once TLS is closed

        pumping = asyncio.create_task(pump())
        assert await console.departure() is Departure.FAULT
        assert connection.transport.get_write_buffer_size() <= websocket.MAX_UNSENT + 2 * ONE_READ
        await wait_closed(connection)
        pumping.cancel()
        await asyncio.wait([pumping])


# -- before the handshake is done --------------------------------------------------------------------------------------


async def test_at_most_64_kib_are_read_before_the_handshake(pem: Path | None) -> None:
    async with edge(pem) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=here.client_tls)
        lines = itertools.chain(
            [UPGRADE[:-2]], (b"X-%d: " % number + bytes(4000).hex().encode() + b"\r\n" for number in range(9))
        )
        with contextlib.suppress(ConnectionError):
            writer.writelines(lines)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        assert here.connections.empty()
        writer.transport.abort()


async def test_a_slow_opener_is_closed(pem: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(pem) as here:
        monkeypatch.setattr(websocket, "OPEN_TIMEOUT", 0.3)  # TLS has all the time that it wants
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=here.client_tls)
        writer.write(UPGRADE[:-2])
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        writer.transport.abort()


async def test_a_peer_that_never_starts_tls_is_closed(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "OPEN_TIMEOUT", 0.3)
    async with edge(certificate) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        writer.transport.abort()


async def test_tls_and_upgrade_share_the_opening_timeout(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[float, float]] = []
    made = OperatorConnection.connection_made

    def noted(connection: OperatorConnection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        assert connection._opening_timer is not None
        timers.append((connection.accepted, connection._opening_timer.when()))

    monkeypatch.setattr(OperatorConnection, "connection_made", noted)
    async with edge(certificate) as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.port)
        await asyncio.sleep(0.05)
        begun = asyncio.get_running_loop().time()
        await writer.start_tls(here.client_tls, server_hostname="127.0.0.1")
        async with asyncio.timeout(PATIENCE):
            while not timers:
                await asyncio.sleep(0)
        ((accepted, over),) = timers
        assert accepted < begun
        assert over == pytest.approx(accepted + NEVER, abs=0.01)
        writer.transport.abort()


async def test_the_opening_timeout_ends_with_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle | None] = []
    start = OperatorConnection.start_keepalive

    def noted(connection: OperatorConnection) -> None:
        timers.append(connection._opening_timer)
        start(connection)

    monkeypatch.setattr(OperatorConnection, "start_keepalive", noted)
    async with edge() as here, here.attached() as (client, _, console):
        assert [timer.cancelled() for timer in timers if timer is not None] == [True]
        await client.send(b"alive")
        assert await console.take(5) == b"alive"


async def test_frames_sent_before_the_response_end_the_connection(pem: Path | None) -> None:
    async with edge(pem) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=here.client_tls)
        writer.write(UPGRADE + masked(Opcode.BINARY, b"early"))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        assert here.connections.empty()
        writer.transport.abort()


# -- signs of life -----------------------------------------------------------------------------------------------------


async def test_a_silent_peer_is_dropped(pem: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.1)
    async with edge(pem) as here, here.raw() as (_, _, connection, console):
        assert await console.departure() is Departure.SILENT
        await wait_closed(connection)
        assert console.departures == [Departure.SILENT]


# Where a peer must not be dropped, the looks at it are taken here and not by their timer, which a standstill would bring
# before the answer.


async def test_a_peer_that_answers_pings_stays(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached(ping_interval=None) as (_, connection, console):
        for _ in range(5):
            connection._watch()
            async with asyncio.timeout(PATIENCE):
                while not connection._stream.heard:
                    await asyncio.sleep(0)
        assert console.departures == []


async def test_an_operator_whom_we_hold_is_not_taken_for_silent(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached(ping_interval=None) as (client, connection, console):
        connection.pause_operator()
        await client.send(b"held")
        async with asyncio.timeout(PATIENCE):
            while connection.transport.is_reading():
                await asyncio.sleep(0)
        for _ in range(5):
            connection._watch()
            await asyncio.sleep(0)
        assert console.departures == []
        assert not connection.transport.is_reading()
        connection.resume_operator()
        assert await console.take(4) == b"held"


async def test_an_operator_whom_we_hold_and_who_goes_is_noticed(pem: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.1)
    async with edge(pem) as here, here.attached() as (client, connection, console):
        connection.pause_operator()
        await client.send(b"held")
        client.transport.abort()
        assert await console.departure() is Departure.LOST
        await wait_closed(connection)


async def test_a_close_frame_with_nothing_held_before_it_reaches_a_paused_console(pem: Path | None) -> None:
    async with edge(pem) as here, here.attached() as (client, connection, console):
        connection.pause_operator()
        await client.close()
        assert await console.departure() is Departure.LEFT


async def test_a_peer_that_takes_bytes_but_answers_no_ping_stays(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (reader, _, connection, console):
        for _ in range(5):
            while not connection.congested:
                connection.send_binary(BLOCK)
                await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                while connection.congested:
                    assert await reader.read(1 << 18)
            connection._watch()
        assert console.departures == []


async def test_a_peer_that_takes_nothing_is_dropped_even_when_held(pem: Path | None) -> None:
    async with edge(pem) as here, here.raw() as (_, writer, connection, console):
        connection.pause_operator()
        writer.write(masked(Opcode.BINARY, b"held"))
        while connection.transport.is_reading():
            await asyncio.sleep(0.001)
        while not connection.congested:
            connection.send_binary(BLOCK)
            await asyncio.sleep(0)
        for _ in range(2):
            connection._watch()
        assert await console.departure() is Departure.SILENT
        await wait_closed(connection)


# -- the rest ----------------------------------------------------------------------------------------------------------


async def test_without_reserve_it_is_an_ordinary_connection(pem: Path | None) -> None:
    async with edge(pem) as here, here.dial("/v1/control") as client:
        (await here.accepted()).vouched = True
        for message in ("sign in", b"\0bytes", "x" * console_stream.MAX_MESSAGE):
            await client.send(message)
            assert await client.recv() == message
        await client.send("x" * (console_stream.MAX_MESSAGE + 1))
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd.code == 1009


async def test_attach_wants_a_reserved_connection() -> None:
    async with edge() as here, here.dial("/v1/control"):
        connection = await here.accepted()
        with pytest.raises(NotReservedError):
            connection.attach(Console())


async def test_attach_is_for_once() -> None:
    async with edge() as here, here.attached() as (_, connection, _):
        with pytest.raises(NotReservedError):
            connection.attach(Console())


async def test_compression_is_not_negotiated() -> None:
    async with edge() as here, connect(f"ws://127.0.0.1:{here.port}/v1/console", compression="deflate") as client:
        assert client.protocol.extensions == []


async def test_no_task_no_descriptor_and_no_connection_is_left(pem: Path | None) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count, not paths

    async with edge(pem) as here:
        async with here.attached() as (_, connection, _):  # what the loop opens at its first connection stays open
            pass
        await wait_closed(connection)
        await asyncio.sleep(0.01)
        before = descriptors()
        closed = []
        for ending in ("left", "ended", "lost") * 5:
            async with here.attached() as (client, connection, console):
                await client.send(b"x")
                await console.take(1)
                if ending == "ended":
                    connection.end(4002, "consent-revoked")
                if ending == "lost":
                    client.transport.abort()
            await wait_closed(connection)
            closed.append(weakref.ref(connection))
        del connection, client
        async with asyncio.timeout(PATIENCE):
            while descriptors() > before:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        gc.collect()
        assert [reference for reference in closed if reference() is not None] == []  # a timer would hold it
    assert asyncio.all_tasks() == {asyncio.current_task()}
