"""What broker/websocket.py and broker/console_stream.py lean on in `websockets` beyond its documented interface.

Each name, shape and order of calls.

A new release of `websockets` that changes one of them fails here, by name, before it fails an operator.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable
from importlib.metadata import version

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from broker.websocket import OperatorConnection

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def opened(**options: object) -> ServerProtocol:
    """A server's protocol core behind its handshake."""
    protocol = ServerProtocol(**options)
    protocol.receive_data(UPGRADE)
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    protocol.data_to_send()
    assert protocol.state is State.OPEN
    return protocol


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def parameters(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_one_that_was_tried() -> None:
    assert int(version("websockets").split(".")[0]) in (16, 17)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("process_event", ["self", "event"]),
        ("data_received", ["self", "data"]),
        ("eof_received", ["self"]),
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("send_data", ["self"]),
        ("start_keepalive", ["self"]),
        ("wait_closed", ["self"]),
    ],
)
def test_a_method_that_we_override_or_call(method: str, expected: list[str]) -> None:
    function = getattr(ServerConnection, method)
    assert parameters(function) == expected
    assert not inspect.iscoroutinefunction(function) or method == "wait_closed"


def test_the_constructor_takes_what_ours_passes_on() -> None:
    assert parameters(OperatorConnection) == parameters(ServerConnection)


def test_nothing_of_ours_hides_a_name_of_theirs() -> None:
    ours = {name for name in vars(OperatorConnection) if not name.startswith("__")}
    overridden = {name for name in ours if hasattr(ServerConnection, name)}
    assert overridden == {
        "connection_lost",
        "connection_made",
        "data_received",
        "eof_received",
        "pause_writing",
        "process_event",
        "resume_writing",
        "start_keepalive",
    }


async def test_no_attribute_of_ours_hides_one_of_theirs() -> None:
    theirs = set(vars(ServerConnection(ServerProtocol(), None)))
    ours = set(vars(OperatorConnection(ServerProtocol(), None))) - theirs
    assert not {name for name in ours if hasattr(ServerConnection, name)}
    assert {"protocol", "loop", "connection_lost_waiter"} <= theirs
    assert not theirs & {"congested", "send_binary", "send_notice", "hand_over", "fail", "_stream", "_departure", "_reserved"}


async def test_the_order_of_the_calls_in_a_connections_life() -> None:
    """Every hook is reached, by the real server, in the order that we build on."""
    calls: list[str] = []

    class Witness(ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            calls.append("connection_made")
            super().connection_made(transport)

        def start_keepalive(self) -> None:
            calls.append(f"start_keepalive {self.protocol.state.name}")
            super().start_keepalive()

        def process_event(self, event: object) -> None:
            kind = event.opcode.name if isinstance(event, Frame) else type(event).__name__
            calls.append(f"process_event {kind} {self.protocol.state.name}")
            super().process_event(event)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            calls.append(f"connection_lost {self.protocol.state.name} {self.connection_lost_waiter.done()}")

    async def handler(connection: ServerConnection) -> None:
        calls.append(f"handler {type(connection).__name__}")
        await connection.wait_closed()

    listener = socket.create_server(("127.0.0.1", 0))
    server = serve(handler, sock=listener, create_connection=Witness, ping_interval=None)
    address = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    async with server, connect(address, compression=None) as client:
        await client.send(b"x")
        await (await client.ping())
    assert calls == [
        "connection_made",
        "process_event Request CONNECTING",
        "start_keepalive OPEN",
        "handler Witness",
        "process_event BINARY OPEN",
        "process_event PING OPEN",
        "process_event CLOSE CLOSING",
        "connection_lost CLOSED True",
    ]


def test_the_state_lies_in_an_attribute() -> None:
    """broker/console_stream.py reads that: a property costs a call for each key and each chunk."""
    protocol = opened()
    assert protocol._state is State.OPEN
    protocol.send_close(1000)
    assert protocol._state is protocol.state is State.CLOSING
    protocol.receive_eof()
    assert protocol._state is protocol.state is State.CLOSED


def test_data_received_gives_every_event_to_process_event() -> None:
    source = inspect.getsource(Connection.data_received)
    assert source.index("receive_data(data)") < source.index("self.send_data()") < source.index("process_event(event)")


def test_data_received_does_not_look_at_flow_control() -> None:
    """Pongs are written without regard to a congested transport: MAX_UNSENT is there for that."""
    assert "drain" not in inspect.getsource(Connection.data_received)


def test_frames_behind_the_request_are_parsed_before_the_response() -> None:
    """Hence process_event aborts on a frame while CONNECTING."""
    protocol = ServerProtocol()
    protocol.receive_data(UPGRADE + masked(Opcode.BINARY, b"early"))
    assert [type(event) for event in protocol.events_received()] == [Request, Frame]
    assert protocol.state is State.CONNECTING


def test_a_whole_frame_gives_its_event_at_once_and_leaves_nothing_behind() -> None:
    protocol = opened()
    for opcode, fin in ((Opcode.BINARY, False), (Opcode.PING, True), (Opcode.CONT, True), (Opcode.BINARY, True)):
        protocol.receive_data(masked(opcode, b"abc", fin=fin))
        (event,) = protocol.events_received()
        assert isinstance(event, Frame)
        assert (event.opcode, event.fin, bytes(event.data)) == (opcode, fin, b"abc")
        assert protocol.reader.buffer == b""


def test_the_core_does_not_miss_frames_that_went_by_it() -> None:
    """Whole binary frames never reach it: only between the fragments of a message would that be wrong."""
    protocol = opened()
    protocol.receive_data(masked(Opcode.CONT, b"x"))
    assert isinstance(protocol.parser_exc, ProtocolError)


@pytest.mark.parametrize(
    ("header", "error", "code"),
    [
        (b"\x82\x02", ProtocolError, CloseCode.PROTOCOL_ERROR),
        (b"\x82\xff" + (65_537).to_bytes(8), PayloadTooBig, CloseCode.MESSAGE_TOO_BIG),
    ],
)
def test_a_bad_header_fails_the_connection_without_its_payload(header: bytes, error: type[Exception], code: CloseCode) -> None:
    protocol = opened(max_size=65_536)
    protocol.receive_data(header)
    assert isinstance(protocol.parser_exc, error)
    assert protocol.close_rcvd is None
    assert protocol.close_expected()
    assert protocol.state is State.CLOSING
    close, eof = protocol.data_to_send()
    assert (close[0], int.from_bytes(close[2:4]), eof) == (0x88, code, b"")


def test_a_close_frame_is_told_from_a_fault() -> None:
    protocol = opened()
    protocol.receive_data(masked(Opcode.CLOSE, b"\x03\xe8"))
    assert protocol.close_rcvd is not None
    assert protocol.parser_exc is None
    assert protocol.close_expected()


def test_fail_closes_with_our_code() -> None:
    protocol = opened()
    protocol.fail(CloseCode.UNSUPPORTED_DATA, "binary only")
    assert protocol.data_to_send()[0].endswith(b"\x03\xebbinary only")
    assert protocol.close_expected()


def test_an_invalid_close_raises_and_leaves_the_connection_open() -> None:
    protocol = opened()
    with pytest.raises(ProtocolError):
        protocol.send_close(4002, "x" * 124)
    assert protocol.state is State.OPEN


def test_data_opcodes_lie_below_the_control_opcodes() -> None:
    assert sorted(DATA_OPCODES) == [0, 1, 2]
    assert sorted(set(Opcode) - set(DATA_OPCODES)) == [8, 9, 10]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_extension_masks_views_without_a_copy_of_ours(kind: type) -> None:
    assert apply_mask(memoryview(b"..abcde")[2:], kind(b"\1\2\3\4")) == bytes(
        byte ^ key for byte, key in zip(b"abcde", b"\1\2\3\4\1", strict=True)
    )
