"""RFB messages as bytes, written from RFC 6143 and rfbproto and not from the filter."""

from collections.abc import Iterable
from struct import pack

from broker.rfb import RfbFilter

VERSION = b"RFB 003.008\n"
TRUE_COLOUR_32 = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))
TRUE_COLOUR_16 = bytes((16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0))
TRUE_COLOUR_8 = bytes((8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 0, 3, 6, 0, 0, 0))
COLOUR_MAP_8 = bytes((8, 8, 0, 0, *bytes(12)))
DEPTH_32 = bytes((32, 32, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))

ALL = (7, -260, 16, 6, 1, 0, -223, -308, -224, -239, -314, -257, -258, -261)


def server_init(width: int = 640, height: int = 480, form: bytes = TRUE_COLOUR_32, name: bytes = b"QEMU (guest)") -> bytes:
    return pack(">HH", width, height) + form + pack(">I", len(name)) + name


def set_format(form: bytes) -> bytes:
    return b"\0\0\0\0" + form


def set_encodings(*numbers: int) -> bytes:
    return pack(">BxH", 2, len(numbers)) + b"".join(pack(">i", number) for number in numbers)


def request(*, incremental: bool = False, width: int = 640, height: int = 480) -> bytes:
    return pack(">BBHHHH", 3, incremental, 0, 0, width, height)


def key(keysym: int, *, down: bool) -> bytes:
    return pack(">BBHI", 4, down, 0, keysym)


def pointer(buttons: int, x: int, y: int) -> bytes:
    return pack(">BBHH", 5, buttons, x, y)


def extended_key(keysym: int, keycode: int, *, down: bool) -> bytes:
    return pack(">BBHII", 255, 0, down, keysym, keycode)


def guest_cut_text(text: bytes) -> bytes:
    return b"\x03" + bytes(3) + pack(">I", len(text)) + text


def update(*rectangles: bytes) -> bytes:
    return pack(">BxH", 0, len(rectangles)) + b"".join(rectangles)


def rectangle(encoding: int, body: bytes = b"", *, x: int = 0, y: int = 0, width: int = 8, height: int = 4) -> bytes:
    return pack(">HHHHi", x, y, width, height, encoding) + body


def compact(length: int) -> bytes:
    """rfbproto, Tight Encoding."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))


def handshaken(init: bytes | None = None) -> RfbFilter:
    """A filter after its handshake; the client has said nothing since."""
    rfb = RfbFilter("title")
    rfb.from_guest(VERSION)
    rfb.from_operator(VERSION, keyboard=False)
    rfb.from_guest(b"\x01\x01")
    rfb.from_operator(b"\x01", keyboard=False)
    rfb.from_guest(bytes(4))
    rfb.from_operator(b"\x01", keyboard=False)
    rfb.from_guest(server_init() if init is None else init)
    return rfb


def running(form: bytes = TRUE_COLOUR_32, encodings: Iterable[int] = ALL) -> RfbFilter:
    """A filter whose client has asked for this format, these encodings and an update."""
    rfb = handshaken()
    rfb.from_operator(set_format(form) + set_encodings(*encodings) + request(), keyboard=False)
    return rfb


def to_guest(rfb: RfbFilter, data: bytes, *, keyboard: bool = False) -> bytes:
    return b"".join(message.data for message in rfb.from_operator(data, keyboard).messages)


def to_operator(rfb: RfbFilter, data: bytes) -> bytes:
    return b"".join(rfb.from_guest(data).pieces)
