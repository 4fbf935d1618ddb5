"""Guest to operator: the handshake, and the messages that are no update."""

from struct import pack

import pytest

from broker.rfb import Dropped, RfbError, RfbFilter
from broker.rfb_protocol import LimitError, MalformedError, TurnError, UnknownError
from tests.rfb_bytes import (
    TRUE_COLOUR_8,
    TRUE_COLOUR_32,
    VERSION,
    guest_cut_text,
    handshaken,
    running,
    server_init,
    to_operator,
)

TITLED = pack(">HH", 640, 480) + TRUE_COLOUR_32 + pack(">I", 5) + b"title"
UNWANTED = [
    (guest_cut_text(b"rm -rf ~\n"), Dropped.CUT_TEXT),
    (guest_cut_text(b""), Dropped.CUT_TEXT),
    (pack(">B3xi", 3, -8) + b"\x02\x00\x00\x01abcd", Dropped.CUT_TEXT),
    (pack(">BBH", 255, 1, 0), Dropped.AUDIO),
    (pack(">BBH", 255, 1, 1), Dropped.AUDIO),
    (pack(">BBHI", 255, 1, 2, 6) + b"\x00\x00\x03\x00\x00\x00", Dropped.AUDIO),
]


def up_to(*said: bytes) -> RfbFilter:
    """A filter whose guest and operator have said these in turn."""
    rfb = RfbFilter("title")
    for number, words in enumerate(said):
        if number % 2:
            rfb.from_operator(words, keyboard=False)
        else:
            rfb.from_guest(words)
    return rfb


def test_the_version_goes_on() -> None:
    assert to_operator(RfbFilter("title"), VERSION) == VERSION


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 005.000\n", b"HTTP/1.1 200"])
def test_another_version_ends_it(version: bytes) -> None:
    with pytest.raises(UnknownError):
        RfbFilter("title").from_guest(version)


@pytest.mark.parametrize("types", [b"\x01\x01", b"\x03\x02\x01\x13", b"\xff" + bytes(254) + b"\x01"])
def test_of_the_security_types_only_none_goes_on(types: bytes) -> None:
    assert to_operator(up_to(VERSION, VERSION), types) == b"\x01\x01"


@pytest.mark.parametrize("types", [b"\x00", b"\x01\x02", b"\x02\x10\x13"])
def test_security_without_none_ends_it(types: bytes) -> None:
    with pytest.raises(UnknownError):
        up_to(VERSION, VERSION).from_guest(types)


def test_a_refusal_ends_it() -> None:
    with pytest.raises(UnknownError):
        up_to(VERSION, VERSION, b"\x01\x01", b"\x01").from_guest(pack(">I", 1) + pack(">I", (1 << 32) - 1))


def test_the_guest_s_name_is_replaced() -> None:
    rfb = up_to(VERSION, VERSION, b"\x01\x01", b"\x01", bytes(4), b"\x01")
    assert to_operator(rfb, server_init(name=b"<script>alert(1)</script>") + b"\x02") == TITLED + b"\x02"


def test_the_name_is_skipped_however_it_comes() -> None:
    rfb = up_to(VERSION, VERSION, b"\x01\x01", b"\x01", bytes(4), b"\x01")
    passed = [to_operator(rfb, bytes((byte,))) for byte in server_init(name=bytes(4_096)) + b"\x02"]
    assert b"".join(passed) == TITLED + b"\x02"


def test_the_client_may_answer_before_the_name_has_ended() -> None:
    rfb = up_to(VERSION, VERSION, b"\x01\x01", b"\x01", bytes(4), b"\x01", server_init()[:25], pack(">BxHi", 2, 1, 0))
    assert rfb.running


def test_a_name_beyond_the_limit_ends_it() -> None:
    rfb = up_to(VERSION, VERSION, b"\x01\x01", b"\x01", bytes(4), b"\x01")
    with pytest.raises(LimitError):
        rfb.from_guest(pack(">HH", 640, 480) + TRUE_COLOUR_32 + pack(">I", (1 << 32) - 1))


def test_a_screen_beyond_the_limits_ends_it() -> None:
    with pytest.raises(LimitError):
        handshaken(server_init(65_535, 65_535))


def test_a_pixel_format_beyond_the_rules_ends_it() -> None:
    with pytest.raises(MalformedError):
        handshaken(server_init(form=b"\x18" + TRUE_COLOUR_32[1:]))


def test_the_guest_s_own_format_holds_until_the_client_asks_for_another() -> None:
    rfb = handshaken(server_init(form=TRUE_COLOUR_8))
    rfb.from_operator(pack(">BBHHHH", 3, 0, 0, 0, 8, 1), keyboard=False)
    raw = pack(">BxHHHHHi", 0, 1, 0, 0, 8, 1, 0) + bytes(8)
    assert to_operator(rfb, raw + b"\x02") == raw + b"\x02"


@pytest.mark.parametrize(
    "said",
    [
        (VERSION + b"\x01",),
        (VERSION, VERSION, b"\x01\x01\x00"),
        (VERSION, VERSION, b"\x01\x01", b"\x01", bytes(5)),
    ],
)
def test_a_guest_that_speaks_ahead_ends_it(said: tuple[bytes, ...]) -> None:
    with pytest.raises(TurnError):
        up_to(*said)


def test_a_guest_that_speaks_out_of_turn_ends_it() -> None:
    rfb = up_to(VERSION)
    with pytest.raises(TurnError):
        rfb.from_guest(b"\x01")


def test_an_empty_piece_is_nobody_s_turn() -> None:
    assert up_to(VERSION).from_guest(b"").pieces == ()


def test_a_bell_goes_on() -> None:
    assert to_operator(handshaken(), b"\x02\x02") == b"\x02\x02"


def test_a_colour_map_goes_on() -> None:
    colours = pack(">BxHH", 1, 0, 256) + bytes(6 * 256)
    assert to_operator(handshaken(), colours + b"\x02") == colours + b"\x02"


@pytest.mark.parametrize(("first", "count"), [(0, 257), (1, 256), (65_535, 65_535)])
def test_a_colour_map_beyond_the_limit_ends_it(first: int, count: int) -> None:
    with pytest.raises(LimitError):
        handshaken().from_guest(pack(">BxHH", 1, first, count))


@pytest.mark.parametrize(("message", "kind"), UNWANTED)
def test_clipboard_and_sound_are_taken_out_and_counted(message: bytes, kind: Dropped) -> None:
    step = running().from_guest(b"\x02" + message + b"\x02" + message)
    assert (b"".join(step.pieces), step.dropped) == (b"\x02\x02", {kind: 2})


@pytest.mark.parametrize(("message", "kind"), UNWANTED)
def test_they_are_taken_out_however_they_come(message: bytes, kind: Dropped) -> None:
    rfb = running()
    steps = [rfb.from_guest(bytes((byte,))) for byte in message + b"\x02" + message]
    assert b"".join(piece for step in steps for piece in step.pieces) == b"\x02"
    assert [dict(step.dropped) for step in steps if step.dropped] == [{kind: 1}] * 2


@pytest.mark.parametrize(
    "message",
    [
        pack(">B3xI", 3, (1 << 24) + 1),
        pack(">B3xI", 3, 1 << 31),
        pack(">BBHI", 255, 1, 2, (1 << 32) - 1),
    ],
)
def test_a_length_above_its_limit_ends_it_before_it_is_read(message: bytes) -> None:
    with pytest.raises(LimitError):
        running().from_guest(message)


def test_an_unknown_type_ends_it() -> None:
    for kind in set(range(256)) - {0, 1, 2, 3, 255}:
        with pytest.raises(UnknownError):
            running().from_guest(bytes((kind,)))


@pytest.mark.parametrize("message", [b"\xff\x00\x00\x00", b"\xff\x02\x00\x00", b"\xff\x01\x00\x03"])
def test_an_unknown_qemu_message_ends_it(message: bytes) -> None:
    with pytest.raises(UnknownError):
        running().from_guest(message)


def test_nothing_of_a_piece_goes_on_once_it_has_ended() -> None:
    rfb = running()
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x02\x63")
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x02")
