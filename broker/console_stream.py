"""A console's bytes within its websocket's frames: straight between the transport and the console's `Feed`, both ways.

Whole, masked binary frames, which is what every client sends, are unmasked here and handed to the feed in the read callback
itself: no task, no queue. All else (control frames, fragments, faults) goes to the parser of `websockets` by way of the
connection, whole frame by whole frame, so that it stands at a frame's border whenever it is called.

Every key and every chunk goes this way, and each call on it is paid by each of them (docs/benchmarks.md).
"""

from __future__ import annotations

import asyncio
import codecs
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

# The C extension, by name: pure Python masks over ten times slower, and it is better to stop at start than to crawl.
from websockets.speedups import apply_mask

if TYPE_CHECKING:
    from broker.websocket import Departure, OperatorConnection

MAX_MESSAGE: Final = 64 * 1024  # bytes of one operator message, whole or in fragments
FRAMES_A_TURN: Final = 64  # frames of one operator walked before the loop serves others: one read can hold 36,000
JOIN_BELOW: Final = 8 * 1024  # bytes of a frame that it is cheaper to copy once than to write from two places

_FIN: Final = 0x80  # RFC 6455 5.2, first byte
_MASKED: Final = 0x80  # RFC 6455 5.2, second byte
_WHOLE_BINARY: Final = _FIN | Opcode.BINARY.value
_WHOLE_TEXT: Final = _FIN | Opcode.TEXT.value
_CONTROL: Final = 0x08  # opcodes from here on are control frames
_MASK_KEY: Final = 4  # bytes
_OPEN: Final = State.OPEN  # an enum's member is looked up through its metaclass
_WALKED: Final = (State.OPEN, State.CLOSING)
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_HEADER: Final = struct.Struct("!BB").pack
_HEADER_16: Final = struct.Struct("!BBH").pack
_HEADER_64: Final = struct.Struct("!BBQ").pack


def _header(first: int, length: int) -> bytes:
    """RFC 6455 5.2, of a frame that is not masked."""
    if length < 126:
        return _HEADER(first, length)
    return _HEADER_16(first, 126, length) if length < 0x10000 else _HEADER_64(first, 127, length)


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


class ConsoleStream(asyncio.Protocol):
    """One connection's. From `OperatorConnection.reserve` on the transport calls it directly."""

    __slots__ = (
        "_connection",
        "_core",
        "_deaf",
        "_in_message",
        "_loop",
        "_need",
        "_paused",
        "_releasing",
        "_rest",
        "_take",
        "_takes_text",
        "_transport",
        "_utf8",
        "_write",
        "ended",
        "feed",
        "heard",
    )

    def __init__(self, connection: OperatorConnection) -> None:
        self._connection = connection
        self._core = connection.protocol
        self._loop = connection.loop
        self._take: Callable[[bytes], None] | None = None  # the feed's, while a whole frame may go straight to it
        self._deaf = False  # nothing more of this peer is looked at
        self._in_message = False  # between the first and the last fragment of a message
        self._need = 0  # bytes, from the start of `_rest`, that the walk wants before it can go on
        self._paused = False
        self._releasing = False  # `_release` is due
        self._rest = bytearray()  # read and not yet walked: a part of a frame, or frames that are held
        self._takes_text = False
        self._utf8: codecs.IncrementalDecoder | None = None  # of the text message that has begun
        self.ended = False  # the broker has ended the connection
        self.feed: Feed | None = None
        self.heard = True  # a sign of life since the last look

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write

    # -- from the operator ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what was read: deliver its frames, or hold them."""
        self.heard = True
        take = self._take
        if take is not None:
            # one whole, short, masked binary frame: what each key typed is (RFC 6455 5.2)
            length = len(data) - 6
            if 0 <= length < 126 and data[0] == _WHOLE_BINARY and data[1] == _MASKED | length:
                take(apply_mask(data[6:], data[2:6]))
                return
        if self._deaf:
            return
        self._take = None
        if self._core._state in _WALKED:
            self._receive(data)
        else:
            self._connection.data_received(data)
        self._settle()

    def _settle(self) -> None:
        """See whether a whole frame may go straight to the feed: nothing is held before it, and it is no part of a message."""
        straight = self.feed is not None and not (self._rest or self._paused or self._in_message)
        self._take = self.feed.operator_bytes if straight and self.feed is not None else None

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
        while self._core._state in _WALKED:
            left = size - at
            if left < 2:
                self._need = 2
                break
            if share == 0 and self.ended:
                self._deaf = True  # who goes on pouring is not read any more: `end` has set the abort
                self._transport.pause_reading()
                return
            if share == 0:
                self._need = 0
                self._transport.pause_reading()
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
            elif first & 0x0F < _CONTROL and self.ended:
                at = end
                continue
            elif first & 0x0F < _CONTROL and (self._paused or self.feed is None):
                self._need = 0
                self._transport.pause_reading()
                break
            elif first == _WHOLE_BINARY and not self._in_message and self.feed is not None:
                self.feed.operator_bytes(apply_mask(view[body:end], data[body - _MASK_KEY : body]))
                at = end
                continue
            self._connection.hand_over(view[at:end])
            at = end
        if self._core._state in _WALKED:
            self._rest += view[at:]
        else:
            self._connection.hand_over(view[at:])

    def take_fragment(self, frame: Frame) -> None:
        """Take a data frame that `websockets` has parsed: a fragment, or text."""
        self._in_message = not frame.fin
        if self.feed is None:
            return
        if frame.opcode is Opcode.TEXT:
            if not self._takes_text:
                self._connection.fail(CloseCode.UNSUPPORTED_DATA, "a screen takes binary frames only")
                return
            self._utf8 = _UTF8()
        if self._utf8 is not None:
            try:
                self._utf8.decode(bytes(frame.data), final=frame.fin)
            except UnicodeDecodeError:
                self._connection.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")  # RFC 6455 8.1
                return
            if frame.fin:
                self._utf8 = None
        self.feed.operator_bytes(bytes(frame.data))

    # -- held and let go -----------------------------------------------------------------------------------------------

    def attach(self, feed: Feed, *, text: bool) -> None:
        """Deliver to `feed`; what was held follows in the next turn of the loop."""
        self.feed, self._takes_text = feed, text
        self._release_soon()

    def pause(self) -> None:
        self._paused = True
        self._take = None

    def resume(self) -> None:
        self._paused = False
        self._release_soon()

    def let_go(self) -> Feed | None:
        """Deliver nothing more. Gives the feed, if there was one."""
        feed, self.feed, self._take = self.feed, None, None
        return feed

    def close(self) -> None:
        """The connection is lost. What points back goes: nothing of a connection is to wait for the collector."""
        self.let_go()
        del self._connection, self._transport, self._write

    def end(self) -> None:
        """Look for the peer's close frame only: it may come behind data frames, held or not, and the walk drops those."""
        rest, self._rest = self._rest, bytearray()
        self._walk(rest, 0)
        if not self._deaf:
            self._transport.resume_reading()

    def _release_soon(self) -> None:
        """Release in the next turn of the loop; once, however many ask, so that no operator has more than one share of it."""
        self._take = None
        if not self._releasing:
            self._releasing = True
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        """Walk what was held, as far as may be; then read on."""
        self._releasing = False
        if self._core._state is not _OPEN:
            return
        held, self._rest = self._rest, bytearray()
        self._walk(held, 0)
        if not self._rest or self._need:  # nothing is held any more
            self._transport.resume_reading()
        self._settle()

    # -- to the operator -----------------------------------------------------------------------------------------------

    def send_binary(self, *buffers: bytes | memoryview) -> None:
        """Send the buffers (of bytes), in order, as one binary frame; after the end, nothing.

        Bounds nothing: whoever calls stops while `congested`. What a memoryview shows must not change any more: while the
        socket is full it is kept as it is.
        """
        if self._core._state is not _OPEN:
            return
        length = sum(map(len, buffers))
        if length < JOIN_BELOW:
            self._write(b"".join((_header(_WHOLE_BINARY, length), *buffers)))
        else:
            self._transport.writelines((_header(_WHOLE_BINARY, length), *buffers))

    def send_notice(self, text: str) -> None:
        """Send one text frame; after the end, nothing."""
        if self._core._state is _OPEN:
            data = text.encode()
            self._write(_header(_WHOLE_TEXT, len(data)) + data)

    # -- the transport's other calls -----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
