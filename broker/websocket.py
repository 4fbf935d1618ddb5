"""The operator's websocket: handshake and closing by `websockets`, a console's bytes straight between the transports.

A connection is an ordinary `ServerConnection` (the control channel) until `reserve()` makes it a console's. From then on
whole, masked binary frames, which is what every client sends, are unmasked here and handed to the console's `Feed` in the
read callback itself: no task, no queue, no stream. All else (control frames, fragments, faults) goes to the parser of
`websockets`, whole frame by whole frame, so that it stands at a frame's border whenever it is called.

Overridden or read here and not documented by `websockets`: see tests/test_websockets_seam.py, which holds each of them.
"""

from __future__ import annotations

import asyncio
import codecs
import enum
import math
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

# The C extension, by name: pure Python masks over ten times slower, and it is better to stop at start than to crawl.
from websockets.speedups import apply_mask
from websockets.typing import Subprotocol

MAX_MESSAGE: Final = 64 * 1024  # bytes of one operator message, whole or in fragments
MAX_OPENING: Final = 64 * 1024  # bytes read of a peer before its handshake is done
OPEN_TIMEOUT: Final = 5.0  # seconds from accept to the end of the handshake, TLS included
CLOSE_TIMEOUT: Final = 1.0  # seconds for an orderly close (control connections, TLS shutdown)
CLOSE_GRACE: Final = 0.25  # seconds from a close frame, a fault or end of file to the abort of the transport
PING_INTERVAL: Final = 20.0  # seconds; a peer silent for one to two of them is gone
HIGH_WATER: Final = 256 * 1024  # bytes unsent at which a connection is congested
LOW_WATER: Final = 64 * 1024  # bytes unsent at which it is writable again
MAX_UNSENT: Final = 1024 * 1024  # bytes unsent, by pongs that the peer asks for and never reads, that end a connection
FRAMES_A_TURN: Final = 64  # frames of one operator walked before the loop serves others: one read can hold 36,000
JOIN_BELOW: Final = 8 * 1024  # bytes of a frame that it is cheaper to copy once than to write from two places

_FIN: Final = 0x80  # RFC 6455 5.2, first byte
_MASKED: Final = 0x80  # RFC 6455 5.2, second byte
_WHOLE_BINARY: Final = _FIN | Opcode.BINARY
_CONTROL: Final = 0x08  # opcodes from here on are control frames
_MASK_KEY: Final = 4  # bytes
_WALKED: Final = (State.OPEN, State.CLOSING)
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_HEADER: Final = struct.Struct("!BB").pack
_HEADER_16: Final = struct.Struct("!BBH").pack
_HEADER_64: Final = struct.Struct("!BBQ").pack


class NotReservedError(Exception):
    """`attach` on a connection that was not reserved for a console, or that has had its feed."""


class Departure(enum.Enum):
    """How an operator's connection came to its end when the broker did not end it."""

    LEFT = "close frame"  # the operator's program closed it
    LOST = "connection lost"  # TCP or TLS ended without a close frame
    SILENT = "no sign of life"  # nothing heard and nothing taken for one to two PING_INTERVALs
    FAULT = "protocol fault"  # the peer broke RFC 6455 or a limit, or sent text to a screen


class Feed(Protocol):
    """What a console's websocket delivers to. Every call comes from the loop; none may block."""

    def operator_bytes(self, data: bytes) -> None:
        """Take one binary frame's payload (any fragmentation), 0 to MAX_MESSAGE bytes, in the read callback."""

    def congested(self) -> None:
        """Stop reading the console: HIGH_WATER is passed. Mostly called from within `send_binary`."""

    def writable(self) -> None:
        """Read the console again: the unsent bytes fell to LOW_WATER."""

    def operator_gone(self, departure: Departure) -> None:
        """The connection is over. Called once, or never if the broker called `end` first."""


class OperatorConnection(ServerConnection):
    """One operator's websocket, for control messages or, once reserved, for a console's bytes."""

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        close_timeout: float | None = CLOSE_TIMEOUT,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        write_limit: int | tuple[int, int | None] = (HIGH_WATER, LOW_WATER),
    ) -> None:
        super().__init__(
            protocol,
            server,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
        )
        self.ping_seconds = PING_INTERVAL
        self.congested = False  # more than HIGH_WATER bytes are unsent: stop reading the console
        self._accepted = self.loop.time()  # for TLS too: the protocol is made before its handshake
        self._opening_bytes = 0
        self._opening_timer: asyncio.TimerHandle | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._abort_at = math.inf  # the loop's time
        self._heard = True  # a sign of life since the last look
        self.arrived: Callable[[OperatorConnection], bool] | None = None
        self.front: Callable[[OperatorConnection], asyncio.Protocol] | None = None
        self._feed: Feed | None = None
        self._departure: Departure | None = None
        self._ended = False  # by `end`
        self._reserved = False
        self._attached = False
        self._paused = False
        self._deaf = False  # nothing more of this peer is looked at
        self._releasing = False  # `_release` is due
        self._in_message = False  # between the first and the last fragment of a message
        self._takes_text = False
        self._utf8: codecs.IncrementalDecoder | None = None  # of the text message that has begun
        self._rest = bytearray()  # read and not yet walked: a part of a frame, or frames that are held
        self._need = 0  # bytes, from the start of `_rest`, that the walk wants before it can go on

    @property
    def departure(self) -> Departure | None:
        """How the operator's side came to its end; None while it lasts, and where the broker ended it."""
        return self._departure

    # -- what the broker calls -----------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Make this a console's connection: from now on data frames are held for `attach`.

        Call it in `process_request` or as the handler's first statement, before any data frame can have come. What is
        held is bounded: reading stops at the first data frame.
        """
        self._reserved = True

    def attach(self, feed: Feed, *, text: bool = False) -> None:
        """Deliver to `feed`; what was held follows in the next turn of the loop. `text`: text frames too, as their UTF-8.

        Calls `feed.operator_gone` at once if the connection is over already. Raises NotReservedError.
        """
        if not self._reserved or self._attached:
            raise NotReservedError
        self._attached = True
        self._takes_text = text
        if self._departure is not None:
            feed.operator_gone(self._departure)
        elif self.protocol.state is State.OPEN:
            self._feed = feed
            self._release_soon()

    def send_binary(self, *buffers: bytes | memoryview) -> None:
        """Send the buffers (of bytes), in order, as one binary frame; after the end, nothing.

        Bounds nothing: whoever calls stops while `congested`. What a memoryview shows must not change any more: while the
        socket is full it is kept as it is.
        """
        self._send_frame(Opcode.BINARY, buffers)

    def send_notice(self, text: str) -> None:
        """Send one text frame; after the end, nothing."""
        self._send_frame(Opcode.TEXT, (text.encode(),))

    def pause_operator(self) -> None:
        """Hold the operator: after the frame now being delivered comes no other until `resume_operator`.

        Reading stops at the next data frame, and with it for the close and the pongs behind it: a peer whose bytes we
        hold is not taken for silent, and one that has gone is noticed by the next ping to it.
        """
        self._paused = True

    def resume_operator(self) -> None:
        """Go on, from the next turn of the loop, with the frames that were held and then with the socket."""
        self._paused = False
        self._release_soon()

    def end(self, code: int, reason: str, grace: float = CLOSE_GRACE) -> None:
        """Let go of the feed, send a close frame and abort the transport after `grace` seconds, whatever the peer does.

        Never waits; `wait_closed()` tells when the socket is closed. A second call may only bring the abort forward.
        Raises ProtocolError, with the abort set all the same, for a code outside 3000-4999 and RFC 6455 7.4.1, or a
        reason above 123 bytes.
        """
        self._feed = None
        self._ended = True
        self._abort_within(0.0 if self.protocol.state is State.CONNECTING else grace)
        if self.protocol.state is not State.OPEN:
            return
        self.protocol.send_close(code, reason)
        self.send_data()
        if not self._reserved:
            return
        # The peer's close frame may come behind data frames, held or not: the walk drops those.
        rest, self._rest = self._rest, bytearray()
        self._walk(rest, 0)
        if not self._deaf:
            self.transport.resume_reading()

    # -- from the operator ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Walk a console's frames here; leave the handshake and the control channel to `websockets`."""
        self._heard = True
        feed = self._feed
        if feed is not None and not self._rest and not self._paused and not self._in_message:
            # one whole, short, masked binary frame: what each key typed is (RFC 6455 5.2)
            length = len(data) - 6
            if 0 <= length < 126 and data[0] == _WHOLE_BINARY and data[1] == _MASKED | length:
                feed.operator_bytes(apply_mask(data[6:], data[2:6]))
                return
        state = self.protocol.state
        if self._deaf:
            return
        if state in _WALKED and self._reserved:
            self._receive(data)
        elif state is State.CONNECTING and self._opening_bytes + len(data) > MAX_OPENING:
            self.transport.abort()
        else:
            self._opening_bytes += len(data)
            self._hand_over(data)

    def _receive(self, data: bytes) -> None:
        """Complete the frame that an earlier read began, copying no more than it lacks; walk the others in place."""
        at = 0
        while self._rest and at < len(data):
            missing = self._need - len(self._rest)
            if missing <= 0:  # held, with reading paused: this read was under way
                self._rest += data[at:]
                return
            self._rest += data[at : at + missing]
            at += missing
            if len(self._rest) == self._need:
                begun, self._rest = self._rest, bytearray()
                self._walk(begun, 0)
        if at < len(data):
            self._walk(data, at)

    def _walk(self, data: bytes | bytearray, at: int) -> None:  # noqa: C901, PLR0912 - a call for each part costs as much again
        """Deliver the whole frames of `data` from offset `at` on; keep the rest in `_rest`, and in `_need` what it lacks.

        The header is RFC 6455 5.2; whatever is not plainly a whole masked binary frame is for `websockets` to judge.
        """
        size = len(data)
        view = memoryview(data)
        share = FRAMES_A_TURN
        while self.protocol.state in _WALKED:
            left = size - at
            if left < 2:
                self._need = 2
                break
            if share == 0 and self._ended:
                self._deaf = True  # who goes on pouring is not read any more: `end` has set the abort
                self.transport.pause_reading()
                return
            if share == 0:
                self._need = 0
                self.transport.pause_reading()
                self._release_soon()
                break
            share -= 1
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            body = at + 2 + _MASK_KEY
            if length >= 126:
                body += 2 if length == 126 else 8
                if body > size:
                    self._need = body - at
                    break
                length = int.from_bytes(view[at + 2 : body - _MASK_KEY])
            end = body + length
            if length > MAX_MESSAGE or second < _MASKED:
                end = size  # its header alone fails the connection: wait for no more of it
            elif end > size:
                self._need = end - at
                break
            elif first & 0x0F < _CONTROL and self._ended:
                at = end
                continue
            elif first & 0x0F < _CONTROL and (self._paused or self._feed is None):
                self._need = 0
                self.transport.pause_reading()
                break
            elif first == _WHOLE_BINARY and not self._in_message and self._feed is not None:
                self._feed.operator_bytes(apply_mask(view[body:end], data[body - _MASK_KEY : body]))
                at = end
                continue
            self._hand_over(view[at:end])
            at = end
        if self.protocol.state in _WALKED:
            self._rest += view[at:]
        else:
            self._hand_over(view[at:])

    def _release_soon(self) -> None:
        """Release in the next turn of the loop; once, however many ask, so that no operator has more than one share of it."""
        if not self._releasing:
            self._releasing = True
            self.loop.call_soon(self._release)

    def _release(self) -> None:
        """Walk what was held, as far as may be; then read on."""
        self._releasing = False
        if self.protocol.state is not State.OPEN:
            return
        held, self._rest = self._rest, bytearray()
        self._walk(held, 0)
        if not self._rest or self._need:  # nothing is held any more
            self.transport.resume_reading()

    def _hand_over(self, data: bytes | bytearray | memoryview) -> None:
        """Give bytes to the parser of `websockets`, and see a connection to its end that it closes or fails."""
        if data:
            super().data_received(bytes(data))
        if self._ended:
            return  # `end` has set the abort
        if self.protocol.close_expected():
            faulty = self.protocol.close_rcvd is None or self.protocol.parser_exc is not None
            self._depart(Departure.FAULT if faulty else Departure.LEFT)
            self._abort_within(CLOSE_GRACE)
        elif self.congested and self.transport.get_write_buffer_size() > MAX_UNSENT:
            self._depart(Departure.FAULT)
            self.transport.abort()

    def process_event(self, event: Request | Response | Frame) -> None:
        """Take the fragments and the text of a console's peer; the rest is as `websockets` has it."""
        if isinstance(event, Frame) and self.protocol.state is State.CONNECTING:
            self.transport.abort()  # RFC 6455 4.1: the client MUST wait for the response before it sends more
        elif isinstance(event, Frame) and self._reserved and event.opcode < _CONTROL:
            self._take_fragment(event)
        else:
            super().process_event(event)

    def _take_fragment(self, frame: Frame) -> None:
        self._in_message = not frame.fin
        if self._feed is None:
            return
        if frame.opcode is Opcode.TEXT:
            if not self._takes_text:
                self._fail(CloseCode.UNSUPPORTED_DATA, "a screen takes binary frames only")
                return
            self._utf8 = _UTF8()
        if self._utf8 is not None:
            try:
                self._utf8.decode(bytes(frame.data), final=frame.fin)
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "text that is no UTF-8")  # RFC 6455 8.1
                return
            if frame.fin:
                self._utf8 = None
        self._feed.operator_bytes(bytes(frame.data))

    def _fail(self, code: CloseCode, why: str) -> None:
        self.protocol.fail(code, why)
        self.send_data()
        self._depart(Departure.FAULT)

    # -- to the operator -----------------------------------------------------------------------------------------------

    def _send_frame(self, opcode: Opcode, buffers: Sequence[bytes | memoryview]) -> None:
        if self.protocol.state is not State.OPEN:
            return
        length = sum(map(len, buffers))
        if length < 126:
            header = _HEADER(_FIN | opcode, length)
        elif length < 0x10000:
            header = _HEADER_16(_FIN | opcode, 126, length)
        else:
            header = _HEADER_64(_FIN | opcode, 127, length)
        if length < JOIN_BELOW:
            self.transport.write(b"".join((header, *buffers)))
        else:
            self.transport.writelines((header, *buffers))

    def pause_writing(self) -> None:
        """HIGH_WATER is passed."""
        super().pause_writing()
        self.congested = True
        if self._feed is not None:
            self._feed.congested()

    def resume_writing(self) -> None:
        """LOW_WATER is reached. A peer that takes bytes is alive, however far behind them its pong may be."""
        super().resume_writing()
        self.congested = False
        self._heard = True
        if self._feed is not None:
            self._feed.writable()

    # -- opening, signs of life and the end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the peer what is left of OPEN_TIMEOUT since it was accepted: TLS has had its share."""
        if self.front is not None:
            first, self.front = self.front(self), None
            cast(asyncio.Transport, transport).set_protocol(first)
            first.connection_made(transport)
            return
        super().connection_made(transport)
        self._opening_timer = self.loop.call_at(self._accepted + OPEN_TIMEOUT, self.transport.abort)
        if self.arrived is not None and not self.arrived(self):
            self.transport.abort()

    def start_keepalive(self) -> None:
        """Watch the peer from the end of its handshake on, by a timer in place of the task of `websockets`.

        That task drops a peer whose pongs nobody reads, so an operator held by a paused guest would be gone after 40 s;
        and it waits without end for a peer that takes nothing.
        """
        if self._opening_timer is not None:
            self._opening_timer.cancel()
            self._opening_timer = None
        self._watch_timer = self.loop.call_later(self.ping_seconds, self._watch)

    def _watch(self) -> None:
        if self.protocol.state is not State.OPEN:
            return
        unread = not self.transport.is_reading() and not self.congested
        if not self._heard and not unread:
            self._depart(Departure.SILENT)
            self.end(CloseCode.INTERNAL_ERROR, "no sign of life")
            return
        self._heard = False
        if not self.congested:
            self.protocol.send_ping(b"")
            self.send_data()
        self._watch_timer = self.loop.call_later(self.ping_seconds, self._watch)

    def eof_received(self) -> None:
        """The peer sends no more: what is unsent does not keep the socket open."""
        super().eof_received()
        self._depart(Departure.LOST)
        self._abort_within(CLOSE_GRACE)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: nothing of this connection stays in the loop."""
        super().connection_lost(exc)
        for timer in (self._abort_timer, self._watch_timer, self._opening_timer):
            if timer is not None:
                timer.cancel()
        self._abort_timer = self._watch_timer = self._opening_timer = None
        self._depart(Departure.LOST)

    def _depart(self, departure: Departure) -> None:
        if self._departure is not None or self._ended:
            return
        self._departure = departure
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.operator_gone(departure)

    def _abort_within(self, grace: float) -> None:
        deadline = self.loop.time() + grace
        if self.connection_lost_waiter.done() or deadline >= self._abort_at:
            return
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._abort_at = deadline
        self._abort_timer = self.loop.call_at(deadline, self.transport.abort)


async def serve(
    handler: Callable[[OperatorConnection], Awaitable[None]],
    *,
    sock: socket.socket,
    tls: ssl.SSLContext | None,
    process_request: Callable[[OperatorConnection, Request], Awaitable[Response | None] | Response | None] | None = None,
    select_subprotocol: Callable[[OperatorConnection, Sequence[Subprotocol]], Subprotocol | None] | None = None,
    arrived: Callable[[OperatorConnection], bool] | None = None,
    front: Callable[[OperatorConnection], asyncio.Protocol] | None = None,
) -> Server:
    """Accept operators on a listening socket, with this module's limits and without compression.

    `handler` runs in a task of its own for each connection, until the connection is closed: for a console it ends with
    `await connection.wait_closed()`. The caller closes the server (`close()`, `wait_closed()`). `arrived` hears of each
    connection before a byte of its request is read, TLS done; where it says False the connection is aborted. `front` makes
    what has the transport first: it may give it to this connection, by `connection_made`, with all that it has read.
    """

    def create(protocol: ServerProtocol, server: Server, **options: Any) -> OperatorConnection:
        connection = OperatorConnection(protocol, server, **options)
        connection.arrived, connection.front = arrived, front
        return connection

    return await serve_websockets(
        handler,  # type: ignore[arg-type]  # create_connection makes every connection an OperatorConnection
        sock=sock,
        ssl=tls,
        process_request=process_request,  # type: ignore[arg-type]  # the same
        select_subprotocol=select_subprotocol,  # type: ignore[arg-type]  # the same
        create_connection=create,  # type: ignore[arg-type]  # a function that makes one does as well as the class
        compression=None,
        server_header=None,
        open_timeout=OPEN_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=None,  # OperatorConnection watches by itself
        max_size=MAX_MESSAGE,
        write_limit=(HIGH_WATER, LOW_WATER),
    )
