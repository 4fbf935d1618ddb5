"""The operator's websocket: handshake, signs of life and closing, by `websockets`.

A connection is an ordinary `ServerConnection` (the control channel) until `reserve()` makes it a console's. From then on
its transport calls a `ConsoleStream`, and this class has what is left: the handshake, control frames and faults, the end.

Overridden or read here and in broker/console_stream.py and not documented by `websockets`: see
tests/test_websockets_seam.py, which holds each of them.
"""

from __future__ import annotations

import asyncio
import enum
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from broker.console_stream import MAX_MESSAGE, ConsoleStream, Feed

MAX_OPENING: Final = 64 * 1024  # bytes read of a peer before it is vouched for
OPEN_TIMEOUT: Final = 5.0  # seconds from accept to the end of the handshake, TLS included
CLOSE_TIMEOUT: Final = 1.0  # seconds for an orderly close (control connections, TLS shutdown)
CLOSE_GRACE: Final = 0.25  # seconds from a close frame, a fault or end of file to the abort of the transport
PING_INTERVAL: Final = 20.0  # seconds; a peer silent for one to two of them is gone
HIGH_WATER: Final = 256 * 1024  # bytes unsent at which a connection is congested
LOW_WATER: Final = 64 * 1024  # bytes unsent at which it is writable again
BACKLOG: Final = 1024  # connections that the kernel keeps until they are accepted
MAX_UNSENT: Final = 1024 * 1024  # bytes unsent, by pongs that the peer asks for and never reads, that end a connection

_CONTROL: Final = 0x08  # opcodes from here on are control frames (RFC 6455 5.2)


class NotReservedError(Exception):
    """`attach` on a connection that was not reserved for a console, or that has had its feed."""


class Departure(enum.Enum):
    """How an operator's connection came to its end when the broker did not end it."""

    LEFT = "close frame"  # the operator's program closed it
    LOST = "connection lost"  # TCP or TLS ended without a close frame
    SILENT = "no sign of life"  # nothing heard and nothing taken for one to two PING_INTERVALs
    FAULT = "protocol fault"  # the peer broke RFC 6455 or a limit, or sent text to a screen


Front: TypeAlias = "Callable[[OperatorConnection], asyncio.Protocol]"


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
        self.accepted = self.loop.time()  # for TLS too: the protocol is made before its handshake
        self._opening_bytes = 0
        self._opening_timer: asyncio.TimerHandle | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._abort_at = math.inf  # the loop's time
        self.arrived: Callable[[OperatorConnection], bool] | None = None
        self.fronts: list[Front] = []
        self.vouched = False  # the peer has proved who it is, and may say more than MAX_OPENING
        self._departure: Departure | None = None
        self._reserved = False
        self._attached = False
        self._stream = ConsoleStream(self)
        # no detour by this object: each chunk of a screen and each answer to a key goes this way
        self.send_binary: Final = self._stream.send_binary
        self.send_notice: Final = self._stream.send_notice

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
        self._reserved = self.vouched = True
        self.transport.set_protocol(self._stream)

    def attach(self, feed: Feed, *, text: bool = False) -> None:
        """Deliver to `feed`; what was held follows in the next turn of the loop. `text`: text frames too, as their UTF-8.

        Calls `feed.operator_gone` at once if the connection is over already. Raises NotReservedError.
        """
        if not self._reserved or self._attached:
            raise NotReservedError
        self._attached = True
        if self._departure is not None:
            feed.operator_gone(self._departure)
        elif self.protocol.state is State.OPEN:
            self._stream.attach(feed, text=text)

    def pause_operator(self) -> None:
        """Hold the operator: after the frame now being delivered comes no other until `resume_operator`.

        Reading stops at the next data frame, and with it for the close and the pongs behind it: a peer whose bytes we
        hold is not taken for silent, and one that has gone is noticed by the next ping to it.
        """
        self._stream.pause()

    def resume_operator(self) -> None:
        """Go on, from the next turn of the loop, with the frames that were held and then with the socket."""
        self._stream.resume()

    def end(self, code: int, reason: str, grace: float = CLOSE_GRACE) -> None:
        """Let go of the feed, send a close frame and abort the transport after `grace` seconds, whatever the peer does.

        Never waits; `wait_closed()` tells when the socket is closed. A second call may only bring the abort forward.
        Raises ProtocolError, with the abort set all the same, for a code outside 3000-4999 and RFC 6455 7.4.1, or a
        reason above 123 bytes.
        """
        self._stream.let_go()
        self._stream.ended = True
        self._abort_within(0.0 if self.protocol.state is State.CONNECTING else grace)
        if self.protocol.state is not State.OPEN:
            return
        self.protocol.send_close(code, reason)
        self.send_data()
        if self._reserved:
            self._stream.end()

    # -- from the operator ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what is read before the handshake is done, and on the control channel."""
        self._stream.heard = True
        if self.vouched:
            self.hand_over(data)
        elif self._opening_bytes + len(data) > MAX_OPENING:
            self.transport.abort()
        else:
            self._opening_bytes += len(data)
            self.hand_over(data)

    def hand_over(self, data: bytes | bytearray | memoryview) -> None:
        """Give bytes to the parser of `websockets`, and see a connection to its end that it closes or fails."""
        if data:
            super().data_received(bytes(data))
        if self._stream.ended:
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
            self._stream.take_fragment(event)
        else:
            super().process_event(event)

    def fail(self, code: CloseCode, why: str) -> None:
        """End it for a fault of the peer's."""
        self.protocol.fail(code, why)
        self.send_data()
        self._depart(Departure.FAULT)

    # -- to the operator -----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """HIGH_WATER is passed."""
        super().pause_writing()
        self.congested = True
        if self._stream.feed is not None:
            self._stream.feed.congested()

    def resume_writing(self) -> None:
        """LOW_WATER is reached. A peer that takes bytes is alive, however far behind them its pong may be."""
        super().resume_writing()
        self.congested = False
        self._stream.heard = True
        if self._stream.feed is not None:
            self._stream.feed.writable()

    # -- opening, signs of life and the end ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the peer what is left of OPEN_TIMEOUT since it was accepted: TLS has had its share."""
        if self.fronts:
            first = self.fronts.pop(0)(self)
            cast(asyncio.Transport, transport).set_protocol(first)
            first.connection_made(transport)
            return
        super().connection_made(transport)
        self._stream.connection_made(transport)
        self._opening_timer = self.loop.call_at(self.accepted + OPEN_TIMEOUT, self.transport.abort)
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
        if not self._stream.heard and not unread:
            self._depart(Departure.SILENT)
            self.end(CloseCode.INTERNAL_ERROR, "no sign of life")
            return
        self._stream.heard = False
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
        self._stream.close()

    def _depart(self, departure: Departure) -> None:
        if self._departure is not None or self._stream.ended:
            return
        self._departure = departure
        feed = self._stream.let_go()
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
    fronts: Sequence[Front] = (),
) -> Server:
    """Accept operators on a listening socket, with this module's limits and without compression.

    `handler` runs in a task of its own for each connection, until the connection is closed: for a console it ends with
    `await connection.wait_closed()`. The caller closes the server (`close()`, `wait_closed()`). `arrived` hears of each
    connection before a byte of its request is read, TLS done; where it says False the connection is aborted. Each of
    `fronts` makes what has the transport before, in turn: it may pass one on by this connection's `connection_made`, with all
    that it has read.
    """

    def create(protocol: ServerProtocol, server: Server, **options: Any) -> OperatorConnection:
        connection = OperatorConnection(protocol, server, **options)
        connection.arrived, connection.fronts = arrived, list(fronts)
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
        open_timeout=None,  # OperatorConnection has a timer of its own, which has begun with TLS
        ssl_handshake_timeout=OPEN_TIMEOUT if tls is not None else None,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=None,  # OperatorConnection watches by itself
        max_size=MAX_MESSAGE,
        write_limit=(HIGH_WATER, LOW_WATER),
        backlog=BACKLOG,
    )
