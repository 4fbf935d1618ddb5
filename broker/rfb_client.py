"""Operator to guest: the messages of a VNC client, of which only those that invariant 6 names go on. Pure.

RFC 6143 7.5; rfbproto for the types above 6. What goes on comes out as whole messages of at most 256 bytes.
"""

from collections import Counter
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple

from broker.rfb_keys import KEY_EVENT, POINTER_EVENT
from broker.rfb_protocol import (
    LEVELS,
    MAX_CUT_TEXT,
    MAX_ENCODINGS,
    MAX_FENCE,
    NOTHING_DROPPED,
    PIXELS,
    SECURITY_NONE,
    VERSION,
    WALKED,
    Agreement,
    Dropped,
    Encoding,
    LimitError,
    MalformedError,
    PixelFormat,
    RfbError,
    Side,
    Stage,
    TurnError,
    UnknownError,
)

SET_PIXEL_FORMAT = 0
SET_ENCODINGS = 2
UPDATE_REQUEST = 3
CUT_TEXT = 6
CONTINUOUS_UPDATES = 150
FENCE = 248
XVP = 250
SET_DESKTOP_SIZE = 251
QEMU = 255
QEMU_KEY = 0
QEMU_AUDIO = 1
QEMU_AUDIO_FORMAT = 2

# Bytes up to where the length of the message is known; what follows is skipped by count
_HEADERS = {
    SET_PIXEL_FORMAT: 20,
    UPDATE_REQUEST: 10,
    KEY_EVENT: 8,
    POINTER_EVENT: 6,
    CUT_TEXT: 8,
    CONTINUOUS_UPDATES: 10,
    FENCE: 9,
    XVP: 4,
    SET_DESKTOP_SIZE: 8,
}
_INPUTS = {KEY_EVENT: 8, POINTER_EVENT: 6, QEMU: 12}
_DROPPED = {
    CUT_TEXT: Dropped.CUT_TEXT,
    CONTINUOUS_UPDATES: Dropped.CONTINUOUS_UPDATES,
    FENCE: Dropped.FENCE,
    XVP: Dropped.POWER,
    SET_DESKTOP_SIZE: Dropped.DESKTOP_SIZE,
    QEMU: Dropped.AUDIO,
}

_RUNNING = Stage.RUNNING  # an enum's member is looked up through its metaclass
_U16 = Struct(">H")
_S32 = Struct(">i")
_ENCODINGS_HEAD = Struct(">BxH")


class ClientMessage(NamedTuple):
    """One whole message for the guest; `is_input` when it may change the guest (a key, the pointer)."""

    data: bytes
    is_input: bool


class ClientStep(NamedTuple):
    """What a piece of operator bytes came to: messages in order, and how many of which kind were taken out."""

    messages: tuple[ClientMessage, ...]
    dropped: Mapping[Dropped, int]


def dropped_input(message: bytes) -> Dropped:
    """How an input message is counted that does not go on."""
    return Dropped.POINTER if message[0] == POINTER_EVENT else Dropped.KEY


def _qemu_header(have: bytes) -> int:
    """The header bytes of a QEMU client message, as far as `have` tells; raise UnknownError."""
    if len(have) < 2:
        return 2
    if have[1] == QEMU_KEY:
        return 12
    if have[1] != QEMU_AUDIO:
        raise UnknownError(Side.OPERATOR, "qemu-message", have[1])
    if len(have) < 4:
        return 4
    (operation,) = _U16.unpack_from(have, 2)
    if operation > QEMU_AUDIO_FORMAT:
        raise UnknownError(Side.OPERATOR, "audio-operation", operation)
    return 10 if operation == QEMU_AUDIO_FORMAT else 4


def _header(have: bytes) -> int:
    """The header bytes of the message that starts with `have`, as far as `have` tells; raise UnknownError, LimitError."""
    kind = have[0]
    if kind == QEMU:
        return _qemu_header(have)
    if kind == SET_ENCODINGS:
        if len(have) < 4:
            return 4
        (count,) = _U16.unpack_from(have, 2)
        if count > MAX_ENCODINGS:
            raise LimitError(Side.OPERATOR, "encodings", count)
        return 4 + 4 * int(count)
    try:
        return _HEADERS[kind]
    except KeyError:
        raise UnknownError(Side.OPERATOR, "message", kind) from None


def _body(header: bytes) -> int:
    """The bytes that follow the header of a message that is not let through; raise LimitError."""
    kind = header[0]
    if kind == CUT_TEXT:
        length = abs(_S32.unpack_from(header, 4)[0])  # negative: rfbproto, Extended Clipboard
        if length > MAX_CUT_TEXT:
            raise LimitError(Side.OPERATOR, "cut-text", length)
        return int(length)
    if kind == FENCE:
        if header[8] > MAX_FENCE:
            raise LimitError(Side.OPERATOR, "fence", header[8])
        return header[8]
    if kind == SET_DESKTOP_SIZE:
        return 16 * header[6]
    return 0


class ClientSide:
    """The operator's half of one viewer. Keeps at most one message header of 1,028 bytes."""

    __slots__ = ("_agreement", "_partial", "_skip")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._partial = b""
        self._skip = 0

    def is_input(self, data: bytes | memoryview) -> bool:
        """Whether these are one key or one movement of the pointer, whole and by itself, as clients write them.

        It changes nothing here: who has the keyboard may write it as it is. No more than this is done for each key typed.
        """
        return (
            len(data) > 5
            and _INPUTS.get(data[0]) == len(data)
            and (data[0] != QEMU or data[1] == QEMU_KEY)
            and self._agreement.stage is _RUNNING
            and not self._partial
            and not self._skip
        )

    def feed(self, data: bytes | memoryview, keyboard: bool) -> ClientStep:
        """Take bytes as they come; with `keyboard`, key and pointer messages completed by them go on. Raise RfbError."""
        try:
            return self._step(data, keyboard)
        except RfbError:
            self._agreement.stage = Stage.BROKEN
            raise

    def _step(self, data: bytes | memoryview, keyboard: bool) -> ClientStep:
        if self._agreement.stage is Stage.BROKEN:
            raise TurnError(Side.OPERATOR, "broken", len(data))
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        have = self._partial + bytes(data[skipped:])
        at = 0
        messages: list[ClientMessage] = []
        dropped: Counter[Dropped] = Counter()
        while at < len(have):
            length = self._length(have[at : at + 4], len(have) - at)
            if length > len(have) - at:
                break
            message = have[at : at + length]
            at += length
            if self._agreement.stage is not Stage.RUNNING:
                messages.append(ClientMessage(self._handshake(message), is_input=False))
                continue
            kind = self._message(message, keyboard, messages)
            if kind is not None:
                dropped[kind] += 1
                body = min(self._skip, len(have) - at)
                self._skip -= body
                at += body
        self._partial = have[at:]
        return ClientStep(tuple(messages), dropped or NOTHING_DROPPED)

    def _length(self, start: bytes, waiting: int) -> int:
        if self._agreement.stage is Stage.RUNNING:
            return _header(start)
        return self._agreement.turn(Side.OPERATOR, waiting).length

    def _handshake(self, message: bytes) -> bytes:
        stage = self._agreement.stage
        if stage is Stage.OPERATOR_VERSION and message != VERSION:
            raise UnknownError(Side.OPERATOR, "version", int.from_bytes(message))
        if stage is Stage.SECURITY_CHOICE and message[0] != SECURITY_NONE:
            raise UnknownError(Side.OPERATOR, "security", message[0])
        self._agreement.advance()
        # ClientInit, RFC 6143 7.3.1: unshared would throw every other viewer off
        return b"\x01" if stage is Stage.CLIENT_INIT else message

    def _message(self, message: bytes, keyboard: bool, out: list[ClientMessage]) -> Dropped | None:
        """Append what goes on of one message, or give the kind that is dropped and set what is to be skipped."""
        kind = message[0]
        if kind == SET_PIXEL_FORMAT:
            self._set_format(message)
        elif kind == SET_ENCODINGS:
            message = self._set_encodings(message)
        elif kind == UPDATE_REQUEST:
            self._agreement.asked = True
        elif kind in (KEY_EVENT, POINTER_EVENT) or (kind == QEMU and message[1] == QEMU_KEY):
            if not keyboard:
                return dropped_input(message)
            out.append(ClientMessage(message, is_input=True))
            return None
        else:
            self._skip = _body(message)
            return _DROPPED[kind]
        out.append(ClientMessage(message, is_input=False))
        return None

    def _set_format(self, message: bytes) -> None:
        """Take a SetPixelFormat, RFC 6143 7.5.1; raise MalformedError for one that would leave a rectangle's end in doubt.

        The server answers in the format it has at the time of encoding, which nobody else can know. So the size of a
        pixel is settled before anything that has pixels can be under way: the first update, and the cursor's shape,
        which comes unasked. Later the colours of a pixel may move, its size may not.
        """
        agreement = self._agreement
        settled = agreement.asked or Encoding.CURSOR in agreement.encodings
        wanted = PixelFormat.parse(memoryview(message)[4:], Side.OPERATOR)
        if settled and wanted != agreement.format:
            raise MalformedError(Side.OPERATOR, "late-pixel-size", wanted.size)
        if agreement.encodings & wanted.unfit:
            raise MalformedError(Side.OPERATOR, "pixel-format-for-tight", message[5])
        agreement.format = wanted

    def _set_encodings(self, message: bytes) -> bytes:
        """Rewrite a SetEncodings, RFC 6143 7.5.2, to those that can be walked, each once, in the client's order."""
        asked = [int(number) for (number,) in _S32.iter_unpack(memoryview(message)[4:])]
        allowed = WALKED - self._agreement.format.unfit
        kept = [number for number in dict.fromkeys(asked) if number in allowed]
        if not PIXELS.intersection(kept):
            kept.append(Encoding.RAW)
        self._agreement.encodings.update(number for number in kept if number not in LEVELS)
        return _ENCODINGS_HEAD.pack(SET_ENCODINGS, len(kept)) + b"".join(map(_S32.pack, kept))
