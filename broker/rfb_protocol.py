"""The words of RFB that both directions share: errors, numbers, limits, stages, pixel formats. Pure.

Sources: RFC 6143 (3.8); the community's rfbproto for what RFC 6143 leaves to its registry; the messages of QEMU's VNC server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from struct import Struct
from types import MappingProxyType


class Side(StrEnum):
    """Who said it."""

    OPERATOR = "operator"
    GUEST = "guest"


class RfbError(Exception):
    """A peer broke the protocol or a limit: `side` said `field` with `value`. The filter is of no more use afterwards."""

    def __init__(self, side: Side, field: str, value: int) -> None:
        super().__init__(side, field, value)
        self.side = side
        self.field = field
        self.value = value


class UnknownError(RfbError):
    """A type, version, encoding or filter that this program does not let through."""


class LimitError(RfbError):
    """A length, count or size above its limit; nothing of it was read."""


class MalformedError(RfbError):
    """Values that cannot stand together."""


class TurnError(RfbError):
    """Bytes from the side whose turn it is not; `value` counts them."""


VERSION = b"RFB 003.008\n"  # RFC 6143 7.1.1; 3.3 and 3.7 word the security handshake otherwise and no client in use needs them
SECURITY_NONE = 1  # RFC 6143 7.2.1

MAX_SIDE = 16_384  # pixels
MAX_AREA = 1 << 26  # pixels; 256 MiB in the operator's client
MAX_CURSOR = 1_024  # pixels a side; QEMU makes none above 512
MAX_NAME = 4_096  # bytes
MAX_CUT_TEXT = 1 << 24  # bytes; skipped, never kept
MAX_AUDIO = 1 << 24  # bytes; skipped, never kept
MAX_FENCE = 64  # bytes; rfbproto, Fence
MAX_ENCODINGS = 256  # in one SetEncodings; clients list about 30
MAX_COLOURS = 256
COMPRESSED_SLACK = 1 << 16  # bytes a compressed rectangle may have beyond twice its raw size


class Stage(Enum):
    """Where the connection stands. In RUNNING both sides speak as they like; before it, one."""

    GUEST_VERSION = auto()
    OPERATOR_VERSION = auto()
    SECURITY_TYPES = auto()
    SECURITY_CHOICE = auto()
    SECURITY_RESULT = auto()
    CLIENT_INIT = auto()
    SERVER_INIT = auto()
    RUNNING = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is in a stage, the bytes of the header that is due, and the stage that follows it."""

    side: Side
    length: int
    then: Stage


# RFC 6143 7.1 to 7.3. A client that spoke before its turn could not know what it answers, so it is refused.
TURNS: Mapping[Stage, Turn] = MappingProxyType(
    {
        Stage.GUEST_VERSION: Turn(Side.GUEST, 12, Stage.OPERATOR_VERSION),
        Stage.OPERATOR_VERSION: Turn(Side.OPERATOR, 12, Stage.SECURITY_TYPES),
        Stage.SECURITY_TYPES: Turn(Side.GUEST, 1, Stage.SECURITY_CHOICE),  # and as many bytes as that one says
        Stage.SECURITY_CHOICE: Turn(Side.OPERATOR, 1, Stage.SECURITY_RESULT),
        Stage.SECURITY_RESULT: Turn(Side.GUEST, 4, Stage.CLIENT_INIT),
        Stage.CLIENT_INIT: Turn(Side.OPERATOR, 1, Stage.SERVER_INIT),
        Stage.SERVER_INIT: Turn(Side.GUEST, 24, Stage.RUNNING),
    }
)


class Encoding:
    """Encodings and pseudo-encodings whose borders can be walked (RFC 6143 7.7, 7.8; rfbproto)."""

    RAW = 0
    COPY_RECT = 1
    ZLIB = 6
    TIGHT = 7
    ZRLE = 16
    DESKTOP_SIZE = -223
    LAST_RECT = -224
    CURSOR = -239
    POINTER_TYPE = -257
    EXTENDED_KEY = -258
    TIGHT_PNG = -260
    LED_STATE = -261
    EXTENDED_DESKTOP_SIZE = -308
    CURSOR_WITH_ALPHA = -314


COMPRESSED = frozenset({Encoding.ZLIB, Encoding.ZRLE})
TIGHT = frozenset({Encoding.TIGHT, Encoding.TIGHT_PNG})
PIXELS = frozenset({Encoding.RAW, Encoding.COPY_RECT}) | COMPRESSED | TIGHT
LEVELS = frozenset(range(-32, -22)) | frozenset(
    range(-256, -246)
)  # JPEG quality and compression levels: no rectangle of their own
WALKED = (
    PIXELS
    | LEVELS
    | {Encoding.DESKTOP_SIZE, Encoding.LAST_RECT, Encoding.CURSOR, Encoding.POINTER_TYPE, Encoding.EXTENDED_KEY}
    | {Encoding.LED_STATE, Encoding.EXTENDED_DESKTOP_SIZE, Encoding.CURSOR_WITH_ALPHA}
)


class Dropped(StrEnum):
    """Kinds of message that are taken out; the words are metric labels."""

    KEY = "key"
    POINTER = "pointer"
    CUT_TEXT = "cut-text"
    AUDIO = "audio"
    DESKTOP_SIZE = "desktop-size"
    POWER = "power"
    FENCE = "fence"
    CONTINUOUS_UPDATES = "continuous-updates"


NOTHING_DROPPED: Mapping[Dropped, int] = MappingProxyType({})

_FORMAT = Struct(">BBBBHHHBBB3x")


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What of a PIXEL_FORMAT (RFC 6143 7.4) decides where a rectangle ends.

    `size` is bytes a pixel. `tight_size` is bytes a TPIXEL (rfbproto, Tight), 0 where client and server read the
    definition otherwise: rfbproto asks for depth 24, QEMU looks at the maxima only.
    """

    size: int
    tight_size: int

    @property
    def unfit(self) -> frozenset[int]:
        """The encodings that are walked but end in doubt in this format: QEMU makes no PNG of 8 bits a pixel, but other Tight."""
        if not self.tight_size:
            return TIGHT
        return frozenset({Encoding.TIGHT_PNG}) if self.size == 1 else frozenset()

    @classmethod
    def parse(cls, data: bytes | memoryview, side: Side) -> "PixelFormat":
        """Take the 16 bytes; raise MalformedError for one that QEMU and a client could take differently."""
        bits, depth, _, true_colour, *channels = _FORMAT.unpack(data)
        if bits not in (8, 16, 32) or not 1 <= depth <= bits:
            raise MalformedError(side, "bits-per-pixel", bits)
        if not true_colour:
            # QEMU takes any colour-map format as 8 bits
            if bits != 8:
                raise MalformedError(side, "colour-map-bits", bits)
            return cls(1, 1)
        maxima, shifts = channels[:3], channels[3:]
        for maximum, shift in zip(maxima, shifts, strict=True):
            if maximum == 0 or maximum & (maximum + 1) or (maximum << shift) >> bits:
                raise MalformedError(side, "colour-maximum", maximum)
        if bits != 32 or maxima != [255, 255, 255]:
            return cls(bits // 8, bits // 8)
        return cls(4, 3 if depth == 24 else 0)


@dataclass(slots=True)
class Agreement:
    """What the two peers have agreed on so far: the state that both directions of one viewer share.

    `encodings` only grows: updates already under way may still use an encoding that the client has since left out, and
    every one in it can be walked. `asked` is set by the first FramebufferUpdateRequest that was let through.
    `relative` is QEMU's word that the pointer sends movements (rfbproto, QEMU Pointer Motion Change).
    """

    stage: Stage = Stage.GUEST_VERSION
    format: PixelFormat = PixelFormat(4, 3)
    width: int = 0
    height: int = 0
    encodings: set[int] = field(default_factory=lambda: {Encoding.RAW})
    asked: bool = False
    relative: bool = False

    def turn(self, side: Side, waiting: int) -> Turn:
        """The turn of `side`, which has `waiting` bytes to say; raise TurnError when it is not its turn."""
        turn = TURNS.get(self.stage)
        if turn is None or turn.side is not side:
            raise TurnError(side, self.stage.name.lower().replace("_", "-"), waiting)
        return turn

    def advance(self) -> None:
        """Leave a stage of the handshake for the one that follows."""
        self.stage = TURNS[self.stage].then

    def resize(self, width: int, height: int) -> None:
        """Take the guest's screen size in pixels; raise LimitError."""
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_AREA):
            raise LimitError(Side.GUEST, "screen", width << 16 | height)
        self.width, self.height = width, height
