"""A connection that has not said yet what it is; and, if it is none of the two websockets', a browser's, served over HTTP/1.1.

What begins with `GET /v1/` becomes an OperatorConnection as if nothing had been read, and all rules for websockets are there.
The rest is parsed by h11, one request at a time, and answered on a connection that is kept: a page consists of some sixty
small files. A visitor costs at most MAX_READ bytes and, at any moment, one deadline: for its request, or for taking the
answer at RATE. One that is kept and silent is the listener's to end whenever it likes.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Coroutine
from email.utils import formatdate
from typing import Any, Final, Protocol, cast

import h11

from broker.pages import PlainRequest, Reply
from broker.websocket import OPEN_TIMEOUT, OperatorConnection

MAX_HEAD: Final = 16 * 1024  # bytes of one request's head
MAX_READ: Final = 64 * 1024  # bytes read and not yet answered
MAX_REQUESTS: Final = 500  # on one connection
IDLE_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 20.0  # for an answer that is not ready at once: an issuer is asked, up to three times
RATE: Final = 20_000  # bytes a second that a reader takes at least, with OPEN_TIMEOUT before it counts
CHUNK: Final = 16 * 1024
BELOW: Final = 128 * 1024  # bytes of an answer that the transports below may still hold when we have written its last
WEBSOCKETS: Final = b"GET /v1/"


class Porter(Protocol):
    """Who lets visitors in, and has the answers."""

    def enter(self, visitor: Visitor) -> bool:
        """Before its first byte; False: it is aborted."""

    def admit(self, visitor: Visitor, connection: OperatorConnection) -> None:
        """It wants to be a websocket."""

    def answer(self, visitor: Visitor, request: PlainRequest) -> Reply | Coroutine[Any, Any, Reply]:
        """A coroutine is given up when the visitor goes."""

    def rest(self, visitor: Visitor) -> None:
        """It has its answer, and may ask again."""

    def leave(self, visitor: Visitor) -> None:
        """It is gone, or a websocket now. Called once for each that entered."""


class Visitor(asyncio.Protocol):
    """See the module."""

    transport: asyncio.Transport

    def __init__(self, porter: Porter, connection: OperatorConnection) -> None:
        """`connection`: what it becomes if it is a websocket."""
        self._porter = porter
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._opening = bytearray()  # until it is known which it is
        self._http: h11.Connection | None = None
        self._asked = 0  # requests
        self._busy = False  # between a request and the end of its answer
        self._headless = False  # it asked by HEAD
        self._closing = False
        self._thinking: asyncio.Task[None] | None = None
        self._unsent = memoryview(b"")  # of the answer's body
        self._below = 0  # bytes of it that may not have left when its last is written
        self._sunk = 0  # bytes that came when no request was waited for any more
        self._held = False  # the transport takes no more just now

    # -- the transport's calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # it has a stream's methods; uvloop's is of no such class
        self.transport.set_write_buffer_limits(high=2 * CHUNK, low=CHUNK)
        self._deadline(self._connection.accepted + OPEN_TIMEOUT - self._loop.time())
        if not self._porter.enter(self):
            self._closing = True
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._sunk += len(data)
            if self._sunk > MAX_READ:
                self.transport.abort()
            return
        if self._http is None:
            self._opening += data
            if self._opening.startswith(WEBSOCKETS):
                self._become_websocket()
                return
            if WEBSOCKETS.startswith(self._opening):
                return
            data, self._http = bytes(self._opening), h11.Connection(h11.SERVER, MAX_HEAD)
            self._opening.clear()
        if len(self._http.trailing_data[0]) + len(data) > MAX_READ:
            self.transport.abort()
            return
        self._http.receive_data(data)
        self._next()

    def eof_received(self) -> None:
        """The transport closes; what it has not sent by the deadline is dropped."""
        self._closing = True

    def connection_lost(self, _: Exception | None) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._thinking is not None:
            self._thinking.cancel()
        self._porter.leave(self)

    def pause_writing(self) -> None:
        self._held = True

    def resume_writing(self) -> None:
        self._held = False
        self._send()

    # -- which it is ---------------------------------------------------------------------------------------------

    def _become_websocket(self) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._porter.admit(self, self._connection)
        self.transport.set_protocol(self._connection)
        self._connection.connection_made(self.transport)
        self._connection.data_received(bytes(self._opening))

    # -- requests ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Takes up the next request, if it is there whole."""
        if self._busy or self._closing or self._http is None:
            return
        try:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._take(event, self._http.next_event())
            elif isinstance(event, h11.ConnectionClosed):
                self.close()
        except h11.RemoteProtocolError as error:
            self._start(Reply.plain(http.HTTPStatus(error.error_status_hint), last=True))

    def _take(self, event: h11.Request, following: object) -> None:
        self._asked += 1
        self._headless = event.method == b"HEAD"
        fault = _fault(event, following)
        if fault is not None:
            self._start(Reply.plain(fault, last=True))
            return
        fields = tuple((name.decode("latin-1"), text.decode("latin-1")) for name, text in event.headers)
        request = PlainRequest(event.method.decode("latin-1"), event.target.decode("latin-1"), fields)
        found = self._porter.answer(self, request)
        if isinstance(found, Reply):
            self._start(found)
            return
        self._hold(ANSWER_SECONDS)
        self._thinking = self._loop.create_task(self._think(found))

    async def _think(self, answer: Coroutine[Any, Any, Reply]) -> None:
        found = await answer
        if not self.transport.is_closing():
            self._start(found)

    # -- answers -------------------------------------------------------------------------------------------------

    def _start(self, reply: Reply) -> None:
        if self._http is None or self._closing:
            return
        self._hold(OPEN_TIMEOUT + len(reply.body) / RATE)
        fields = [*reply.fields, ("Date", formatdate(usegmt=True))]
        if reply.status is not http.HTTPStatus.NOT_MODIFIED:
            fields.append(("Content-Length", str(len(reply.body))))
        if reply.last or self._asked >= MAX_REQUESTS:
            fields.append(("Connection", "close"))
        self.transport.write(self._http.send(h11.Response(status_code=reply.status, headers=fields, reason=reply.status.phrase)))
        self._unsent = memoryview(b"" if self._headless else reply.body)
        self._below = min(len(self._unsent), BELOW)
        self._send()

    def _send(self) -> None:
        """Goes on with the answer as far as the transport takes it: a slow reader has no more than a few chunks here."""
        if not self._busy or self._http is None or self._closing:
            return
        while len(self._unsent) and not self._held:
            chunk, self._unsent = self._unsent[:CHUNK], self._unsent[CHUNK:]
            self.transport.write(self._http.send(h11.Data(data=bytes(chunk))))
        if not len(self._unsent) and self._http.our_state is h11.SEND_BODY:
            self._http.send(h11.EndOfMessage())
            self._finish()

    def _finish(self) -> None:
        assert self._http is not None  # noqa: S101 - it has sent the answer
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._part()
            return
        self._http.start_next_cycle()
        self._busy = False
        self._deadline(IDLE_SECONDS + self._below / RATE)
        self._porter.rest(self)
        # in the next turn of the loop: one read can hold a thousand requests
        self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._next()
        if not self._busy and not self._closing:
            self.transport.resume_reading()

    # -- the end -------------------------------------------------------------------------------------------------

    def _part(self) -> None:
        """Ends the connection after the last answer: where much is on its way, the peer does, having it whole, or the deadline.

        TLS below gives a close one second and drops what has not been sent by then.
        """
        if self._below <= CHUNK:
            self.close()
        else:
            self._closing = True
            self.transport.resume_reading()

    def close(self) -> None:
        """Ends the connection; the deadline stands."""
        self._closing = True
        self.transport.close()

    def _hold(self, seconds: float) -> None:
        self._busy = True
        self.transport.pause_reading()
        self._deadline(seconds)

    def _deadline(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.transport.abort)


def _fault(event: h11.Request, following: object) -> http.HTTPStatus | None:
    """Why h11 takes it and we do not."""
    if event.http_version not in (b"1.0", b"1.1"):
        return http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if len(event.target) + sum(len(name) + len(text) for name, text in event.headers) > MAX_HEAD:
        return http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE  # one that came whole in one read
    return None if isinstance(following, h11.EndOfMessage) else http.HTTPStatus.BAD_REQUEST  # nothing here takes a body
