"""Guest to operator: the handshake and messages of QEMU's VNC server, walked by header and length. Pure.

RFC 6143 7.1 to 7.3, 7.6; rfbproto. Clipboard and sound are taken out.
"""

from collections import Counter
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple

from broker.rfb_protocol import (
    MAX_AUDIO,
    MAX_COLOURS,
    MAX_CUT_TEXT,
    MAX_NAME,
    NOTHING_DROPPED,
    SECURITY_NONE,
    VERSION,
    Agreement,
    Dropped,
    LimitError,
    PixelFormat,
    RfbError,
    Side,
    Stage,
    TurnError,
    UnknownError,
)
from broker.rfb_update import Update
from broker.rfb_walk import Bytes, Reader, Walk

FRAMEBUFFER_UPDATE = 0
SET_COLOUR_MAP = 1
BELL = 2
CUT_TEXT = 3
QEMU = 255
QEMU_AUDIO = 1
QEMU_AUDIO_DATA = 2

_RUNNING = Stage.RUNNING  # an enum's member is looked up through its metaclass
_U16 = Struct(">H")
_PAIR = Struct(">HH")
_U32 = Struct(">I")
_S32 = Struct(">i")


class ServerStep(NamedTuple):
    """What a piece of guest bytes came to: pieces in order, and how many messages of which kind were taken out.

    Pieces are, wherever possible, the caller's own buffer or slices of it: write or copy them before it changes.
    """

    pieces: tuple[Bytes, ...]
    dropped: Mapping[Dropped, int]


class ServerSide:
    """The guest's half of one viewer. Keeps at most one header of 256 bytes."""

    __slots__ = ("_agreement", "_dropped", "_messages", "_title", "_turns", "_walk")

    def __init__(self, agreement: Agreement, title: str) -> None:
        self._agreement = agreement
        self._title = title.encode("ascii")
        self._walk = Walk(1, self._out_of_turn)
        update = Update(agreement, self._walk, self._next)
        self._turns: dict[Stage, Reader] = {
            Stage.GUEST_VERSION: self._version,
            Stage.SECURITY_TYPES: self._security_types,
            Stage.SECURITY_RESULT: self._security_result,
            Stage.SERVER_INIT: self._server_init,
        }
        self._messages: dict[int, tuple[int, Reader]] = {
            FRAMEBUFFER_UPDATE: (4, update.start),
            SET_COLOUR_MAP: (6, self._colour_map),
            CUT_TEXT: (8, self._cut_text),
            QEMU: (4, self._qemu),
        }
        self._dropped: Counter[Dropped] = Counter()

    @property
    def at_rest(self) -> bool:
        """Whether the last byte taken was the last of its message."""
        return self._walk.awaits(self._message)

    def feed(self, data: Bytes) -> ServerStep:
        """Take bytes as they come. Raise RfbError."""
        try:
            if self._agreement.stage is not _RUNNING:
                self._take_turn(len(data))
            pieces = self._walk.feed(data)
        except RfbError:
            self._agreement.stage = Stage.BROKEN
            raise
        if not self._dropped:
            return ServerStep(pieces, NOTHING_DROPPED)
        dropped, self._dropped = self._dropped, Counter()
        return ServerStep(pieces, dropped)

    def _take_turn(self, size: int) -> None:
        if self._agreement.stage is Stage.BROKEN:
            raise TurnError(Side.GUEST, "broken", size)
        if size and self._walk.awaits(self._out_of_turn):
            turn = self._agreement.turn(Side.GUEST, size)
            self._walk.expect(turn.length, self._turns[self._agreement.stage])

    # The handshake

    def _out_of_turn(self, header: Bytes) -> Bytes:
        raise TurnError(Side.GUEST, self._agreement.stage.name.lower().replace("_", "-"), len(header))

    def _end_turn(self) -> None:
        self._agreement.advance()
        self._walk.expect(1, self._out_of_turn)

    def _version(self, header: Bytes) -> Bytes:
        if header != VERSION:
            raise UnknownError(Side.GUEST, "version", int.from_bytes(header))
        self._end_turn()
        return header

    def _security_types(self, header: Bytes) -> Bytes | None:
        if len(header) < 1 + header[0]:
            self._walk.more(1 + header[0])
            return None
        if SECURITY_NONE not in bytes(header[1:]):
            raise UnknownError(Side.GUEST, "security", header[0])
        self._end_turn()
        return bytes((1, SECURITY_NONE))

    def _security_result(self, header: Bytes) -> Bytes:
        (result,) = _U32.unpack(header)
        if result:
            raise UnknownError(Side.GUEST, "security-result", result)
        self._end_turn()
        return header

    def _server_init(self, header: Bytes) -> Bytes:
        """ServerInit, RFC 6143 7.3.2. The name is the guest owner's text and never gets to the operator's title bar."""
        self._agreement.resize(*_PAIR.unpack_from(header))
        self._agreement.format = PixelFormat.parse(header[4:20], Side.GUEST)
        self._drop(_U32.unpack_from(header, 20)[0], MAX_NAME, "name")
        self._agreement.advance()
        self._next()
        return bytes(header[:20]) + _U32.pack(len(self._title)) + self._title

    # The messages

    def _next(self) -> None:
        self._walk.expect(1, self._message)

    def _message(self, header: Bytes) -> Bytes | None:
        kind = header[0]
        if kind == BELL:
            return header
        if kind not in self._messages:
            raise UnknownError(Side.GUEST, "message", kind)
        self._walk.expect(*self._messages[kind])
        return None

    def _drop(self, length: int, limit: int, field: str) -> None:
        if length > limit:
            raise LimitError(Side.GUEST, field, length)
        self._walk.follow(length, passing=False)

    def _colour_map(self, header: Bytes) -> Bytes:
        first, count = _PAIR.unpack_from(header, 2)
        if first + count > MAX_COLOURS:
            raise LimitError(Side.GUEST, "colours", first + count)
        self._walk.follow(6 * count)
        self._next()
        return header

    def _cut_text(self, header: Bytes) -> Bytes:
        length = abs(_S32.unpack_from(header, 4)[0])  # negative: rfbproto, Extended Clipboard
        self._drop(length, MAX_CUT_TEXT, "cut-text")
        self._dropped[Dropped.CUT_TEXT] += 1
        self._next()
        return b""

    def _qemu(self, header: Bytes) -> Bytes | None:
        (operation,) = _U16.unpack_from(header, 2)
        if header[1] != QEMU_AUDIO or operation > QEMU_AUDIO_DATA:
            raise UnknownError(Side.GUEST, "qemu-message", header[1])
        if operation == QEMU_AUDIO_DATA:
            if len(header) < 8:
                self._walk.more(8)
                return None
            self._drop(_U32.unpack_from(header, 4)[0], MAX_AUDIO, "audio")
        self._dropped[Dropped.AUDIO] += 1
        self._next()
        return b""
