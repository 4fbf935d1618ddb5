"""FramebufferUpdate: where each rectangle ends. Pixels are passed on unread. Pure.

RFC 6143 7.6.1, 7.7, 7.8; rfbproto for Zlib, Tight and the pseudo-encodings that RFC 6143 does not have.
"""

from collections.abc import Callable
from struct import Struct

from broker.rfb_protocol import (
    COMPRESSED,
    COMPRESSED_SLACK,
    MAX_CURSOR,
    PIXELS,
    TIGHT,
    Agreement,
    Encoding,
    LimitError,
    MalformedError,
    Side,
    UnknownError,
)
from broker.rfb_walk import Bytes, Walk

TIGHT_FILTER = 0x4  # a bit of the four highest; the others name a method
TIGHT_FILL = 0x8
TIGHT_JPEG = 0x9
TIGHT_PNG = 0xA
TIGHT_PLAIN = 12  # bytes; below, Tight data is neither compressed nor has it a length

_RECT = Struct(">HHHHi")
_U16 = Struct(">H")
_U32 = Struct(">I")
_S32 = Struct(">i")


class Update:
    """Reads one FramebufferUpdate after the other; `done` is called when one has no further header.

    The pixel format is taken when a message starts: the client, too, finishes the update at hand as it began it.
    """

    __slots__ = ("_agreement", "_done", "_format", "_height", "_png", "_rects", "_walk", "_width")

    def __init__(self, agreement: Agreement, walk: Walk, done: Callable[[], None]) -> None:
        self._agreement = agreement
        self._walk = walk
        self._done = done
        self._rects = 0
        self._width = 0
        self._height = 0
        self._png = False
        self._format = agreement.format

    def start(self, header: Bytes) -> Bytes:
        """Read the message's header of 4 bytes."""
        (self._rects,) = _U16.unpack_from(header, 2)
        self._format = self._agreement.format
        self._next()
        return header

    def _next(self) -> None:
        if self._rects:
            self._walk.expect(_RECT.size, self._rect)
        else:
            self._done()

    def _rect(self, header: Bytes) -> Bytes:
        x, y, self._width, self._height, encoding = _RECT.unpack(header)
        if encoding not in self._agreement.encodings:
            raise UnknownError(Side.GUEST, "encoding", encoding)
        self._rects -= 1
        self._next()
        if encoding in PIXELS:
            self._pixels(encoding, x, y)
        else:
            self._pseudo(encoding, x, y)
        return header

    def _pixels(self, encoding: int, x: int, y: int) -> None:
        if not self._agreement.asked:
            # Before the first request the size of a pixel may still change while the update is under way
            raise MalformedError(Side.GUEST, "unasked-update", encoding)
        if x + self._width > self._agreement.width or y + self._height > self._agreement.height:
            raise LimitError(Side.GUEST, "rectangle", self._width << 16 | self._height)
        if encoding == Encoding.RAW:
            self._walk.follow(self._width * self._height * self._format.size)
        elif encoding == Encoding.COPY_RECT:
            self._walk.follow(4)
        elif encoding in COMPRESSED:
            self._walk.expect(4, self._compressed)
        elif encoding in TIGHT:
            self._png = encoding == Encoding.TIGHT_PNG
            self._walk.expect(1, self._tight)

    def _pseudo(self, encoding: int, x: int, y: int) -> None:
        if encoding in (Encoding.CURSOR, Encoding.CURSOR_WITH_ALPHA):
            self._cursor(encoding)
        elif encoding == Encoding.DESKTOP_SIZE:
            self._agreement.resize(self._width, self._height)
        elif encoding == Encoding.EXTENDED_DESKTOP_SIZE:
            if y == 0:  # a status: with any other the size is not a new one
                self._agreement.resize(self._width, self._height)
            self._walk.expect(4, self._screens)
        elif encoding == Encoding.LAST_RECT:
            self._rects = 0
            self._next()
        elif encoding == Encoding.LED_STATE:
            self._walk.follow(1)
        elif encoding == Encoding.POINTER_TYPE:
            self._agreement.relative = x == 0

    def _cursor(self, encoding: int) -> None:
        width, height = self._width, self._height
        if max(width, height) > MAX_CURSOR:
            raise LimitError(Side.GUEST, "cursor", width << 16 | height)
        if encoding == Encoding.CURSOR:
            # pixels and a mask of one bit each: RFC 6143 7.8.1
            self._walk.follow(width * height * self._format.size + (width + 7) // 8 * height)
        else:
            self._walk.expect(4, self._alpha_cursor)

    def _alpha_cursor(self, header: Bytes) -> Bytes:
        (encoding,) = _S32.unpack(header)
        if encoding != Encoding.RAW:
            raise UnknownError(Side.GUEST, "cursor-encoding", encoding)
        self._walk.follow(self._width * self._height * 4)  # always 32 bits: rfbproto, Cursor With Alpha
        self._next()
        return header

    def _screens(self, header: Bytes) -> Bytes:
        self._walk.follow(16 * header[0])
        self._next()
        return header

    def _compressed(self, header: Bytes) -> Bytes:
        (length,) = _U32.unpack(header)
        self._follow_compressed(length)
        return header

    def _follow_compressed(self, length: int) -> None:
        """Let the last `length` bytes of the rectangle follow; raise LimitError."""
        if length > 2 * self._width * self._height * self._format.size + COMPRESSED_SLACK:
            raise LimitError(Side.GUEST, "compressed", length)
        self._walk.follow(length)
        self._next()

    # Tight and TightPNG

    def _tight(self, header: Bytes) -> Bytes:
        method = header[0] >> 4
        if method == TIGHT_FILL:
            self._walk.follow(self._format.tight_size)
            self._next()
        elif method == TIGHT_JPEG or (method == TIGHT_PNG and self._png):
            self._walk.expect(1, self._tight_length)
        elif method > TIGHT_FILL or self._png:
            raise UnknownError(Side.GUEST, "tight-method", method)
        elif method & TIGHT_FILTER:
            self._walk.expect(1, self._tight_filter)
        else:
            self._follow_tight(self._width * self._height * self._format.tight_size)
        return header

    def _tight_filter(self, header: Bytes) -> Bytes:
        if header[0] == 1:
            self._walk.expect(1, self._tight_palette)
        elif header[0] in (0, 2):
            self._follow_tight(self._width * self._height * self._format.tight_size)
        else:
            raise UnknownError(Side.GUEST, "tight-filter", header[0])
        return header

    def _tight_palette(self, header: Bytes) -> Bytes:
        colours = header[0] + 1
        if colours < 2:
            raise MalformedError(Side.GUEST, "tight-colours", colours)
        row = (self._width + 7) // 8 if colours == 2 else self._width
        self._follow_tight(row * self._height, colours * self._format.tight_size)
        return header

    def _follow_tight(self, length: int, palette: int = 0) -> None:
        """Let a palette of so many bytes follow and data that has `length` bytes before compression."""
        if length < TIGHT_PLAIN:
            self._walk.follow(palette + length)
            self._next()
        else:
            self._walk.follow(palette)
            self._walk.expect(1, self._tight_length)

    def _tight_length(self, header: Bytes) -> Bytes | None:
        """Read a length of one to three bytes, seven bits, seven bits and eight, the lowest first."""
        if header[-1] & 0x80 and len(header) < 3:
            self._walk.more(len(header) + 1)
            return None
        length = header[0] & 0x7F
        if len(header) > 1:
            length |= (header[1] & 0x7F) << 7
        if len(header) > 2:
            length |= header[2] << 14
        self._follow_compressed(length)
        return header
