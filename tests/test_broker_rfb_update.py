"""Rectangles: where each ends, and what a hostile guest may not say. After each one a clipboard shows that the end was found."""

from struct import pack

import pytest

from broker.rfb_protocol import LimitError, MalformedError, UnknownError
from tests.rfb_bytes import (
    ALL,
    TRUE_COLOUR_8,
    TRUE_COLOUR_16,
    TRUE_COLOUR_32,
    compact,
    guest_cut_text,
    handshaken,
    rectangle,
    running,
    set_encodings,
    to_operator,
    update,
)

SIZES = [(TRUE_COLOUR_8, 1, 1), (TRUE_COLOUR_16, 2, 2), (TRUE_COLOUR_32, 4, 3)]
CLIPBOARD = guest_cut_text(b"from the guest")


def body(length: int) -> bytes:
    """Bytes that end the session should one of them be taken for the start of a message."""
    return b"\x63" * length


def assert_walked(message: bytes, form: bytes = TRUE_COLOUR_32) -> None:
    rfb = running(form)
    assert to_operator(rfb, message + CLIPBOARD + b"\x02") == message + b"\x02"


@pytest.mark.parametrize(("form", "size", "_tight"), SIZES)
def test_raw(form: bytes, size: int, _tight: int) -> None:
    assert_walked(update(rectangle(0, body(8 * 4 * size))), form)


def test_copy_rect() -> None:
    assert_walked(update(rectangle(1, body(4))))


@pytest.mark.parametrize("encoding", [6, 16])
@pytest.mark.parametrize("length", [0, 1, 300, 65_536])
def test_zlib_and_zrle(encoding: int, length: int) -> None:
    assert_walked(update(rectangle(encoding, pack(">I", length) + body(length))))


@pytest.mark.parametrize(("form", "_size", "tight"), SIZES)
def test_tight_fill(form: bytes, _size: int, tight: int) -> None:
    assert_walked(update(rectangle(7, b"\x80" + body(tight))), form)


@pytest.mark.parametrize(("form", "_size", "tight"), SIZES[1:])
def test_tight_png_fill(form: bytes, _size: int, tight: int) -> None:
    assert_walked(update(rectangle(-260, b"\x80" + body(tight))), form)


@pytest.mark.parametrize("encoding", [7, -260])
@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 65_000])
def test_tight_jpeg_with_each_form_of_length(encoding: int, length: int) -> None:
    assert_walked(update(rectangle(encoding, b"\x90" + compact(length) + body(length))))


def test_tight_png() -> None:
    assert_walked(update(rectangle(-260, b"\xa0" + compact(200) + body(200))))


@pytest.mark.parametrize("control", [b"\x00", b"\x1f", b"\x30", b"\x40\x00", b"\x70\x00", b"\x40\x02"])
def test_tight_compressed(control: bytes) -> None:
    assert_walked(update(rectangle(7, control + compact(40) + body(40))))


@pytest.mark.parametrize(("form", "_size", "tight"), SIZES)
def test_tight_below_twelve_bytes_has_no_length(form: bytes, _size: int, tight: int) -> None:
    assert_walked(update(rectangle(7, b"\x00" + body(3 * tight), width=3, height=1)), form)


def test_tight_of_twelve_bytes_has_a_length() -> None:
    assert_walked(update(rectangle(7, b"\x00" + compact(9) + body(9), width=4, height=1)))


@pytest.mark.parametrize("colours", [3, 200, 256])
def test_tight_palette(colours: int) -> None:
    assert_walked(update(rectangle(7, b"\x40\x01" + bytes((colours - 1,)) + body(colours * 3) + compact(20) + body(20))))


def test_tight_palette_with_plain_data() -> None:
    assert_walked(update(rectangle(7, b"\x40\x01\x02" + body(9) + body(11), width=11, height=1)))


def test_tight_two_colours_have_a_bit_for_each_pixel() -> None:
    assert_walked(update(rectangle(7, b"\x40\x01\x01" + body(6) + body(2 * 5), width=9, height=5)))


def test_tight_two_colours_compressed() -> None:
    assert_walked(update(rectangle(7, b"\x40\x01\x01" + body(6) + compact(30) + body(30), width=64, height=64)))


@pytest.mark.parametrize(("form", "size", "_tight"), SIZES)
def test_cursor(form: bytes, size: int, _tight: int) -> None:
    assert_walked(update(rectangle(-239, body(9 * 5 * size + 2 * 5), x=8, y=4, width=9, height=5)), form)


@pytest.mark.parametrize("form", [TRUE_COLOUR_8, TRUE_COLOUR_32])
def test_cursor_with_alpha(form: bytes) -> None:
    assert_walked(update(rectangle(-314, pack(">i", 0) + body(9 * 5 * 4), width=9, height=5)), form)


def test_an_empty_cursor() -> None:
    assert_walked(update(rectangle(-239, width=0, height=0)))


def test_led_state() -> None:
    assert_walked(update(rectangle(-261, b"\x02", width=1, height=1)))


@pytest.mark.parametrize("encoding", [-257, -258])
def test_acknowledgements_have_no_body(encoding: int) -> None:
    assert_walked(update(rectangle(encoding, width=65_535, height=65_535)))


@pytest.mark.parametrize("screens", [0, 1, 255])
def test_extended_desktop_size(screens: int) -> None:
    assert_walked(update(rectangle(-308, bytes((screens, 0, 0, 0)) + body(16 * screens), width=800, height=600)))


def test_last_rect_ends_an_update_before_its_count() -> None:
    message = pack(">BxH", 0, 65_535) + rectangle(1, body(4)) + rectangle(-224, width=0, height=0)
    assert_walked(message)


def test_an_update_without_rectangles() -> None:
    assert_walked(update())


def test_many_kinds_in_one_update() -> None:
    assert_walked(
        update(
            rectangle(0, body(8 * 4 * 4)),
            rectangle(7, b"\x80" + body(3)),
            rectangle(-239, body(4 * 4 * 4 + 4), width=4, height=4),
            rectangle(16, pack(">I", 7) + body(7)),
            rectangle(-261, b"\x01"),
        )
    )


def test_a_new_size_holds_for_what_follows() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(-223, width=1_000, height=700)))
    assert rfb.screen == (1_000, 700)
    rfb.from_guest(update(rectangle(1, body(4), x=992, y=696)))


def test_a_smaller_screen_takes_less() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(-223, width=320, height=200)))
    with pytest.raises(LimitError):
        rfb.from_guest(update(rectangle(1, body(4), x=313)))


def test_a_refused_size_is_not_taken() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(-308, bytes(4), x=1, y=3, width=2_000, height=2_000)))
    assert rfb.screen == (640, 480)


@pytest.mark.parametrize("place", [{"x": 633}, {"y": 477}, {"width": 641}, {"height": 65_535}, {"x": 65_535, "width": 65_535}])
@pytest.mark.parametrize("encoding", [0, 1, 6, 7, 16, -260])
def test_pixels_outside_the_screen_end_it(encoding: int, place: dict[str, int]) -> None:
    with pytest.raises(LimitError):
        running().from_guest(update(rectangle(encoding, **place)))


@pytest.mark.parametrize("encoding", [-223, -308])
@pytest.mark.parametrize(("width", "height"), [(65_535, 65_535), (0, 0), (16_385, 100)])
def test_a_screen_beyond_the_limits_ends_it(encoding: int, width: int, height: int) -> None:
    with pytest.raises(LimitError):
        running().from_guest(update(rectangle(encoding, width=width, height=height)))


@pytest.mark.parametrize("encoding", [-239, -314])
def test_a_cursor_beyond_the_limit_ends_it(encoding: int) -> None:
    with pytest.raises(LimitError):
        running().from_guest(update(rectangle(encoding, width=1_025, height=1)))


@pytest.mark.parametrize("encoding", [6, 16])
@pytest.mark.parametrize("length", [65_536 + 2 * 8 * 4 * 4 + 1, 1 << 31, (1 << 32) - 1])
def test_a_compressed_length_beyond_the_limit_ends_it(encoding: int, length: int) -> None:
    with pytest.raises(LimitError):
        running().from_guest(update(rectangle(encoding, pack(">I", length))))


def test_a_tight_length_beyond_the_limit_ends_it() -> None:
    with pytest.raises(LimitError):
        running().from_guest(update(rectangle(7, b"\x90\xff\xff\xff")))


@pytest.mark.parametrize("encoding", [2, 4, 5, 15, 17, 22, -259, -307, -309, -313, 0x574D5669, (1 << 31) - 1, -(1 << 31)])
def test_an_encoding_that_is_never_let_through_ends_it(encoding: int) -> None:
    with pytest.raises(UnknownError):
        running().from_guest(update(rectangle(encoding)))


@pytest.mark.parametrize("encoding", [number for number in ALL if number != 0])
def test_an_encoding_that_the_client_did_not_ask_for_ends_it(encoding: int) -> None:
    with pytest.raises(UnknownError):
        running(encodings=[0]).from_guest(update(rectangle(encoding)))


def test_an_encoding_left_out_later_may_still_be_under_way() -> None:
    rfb = running(encodings=[16])
    rfb.from_operator(set_encodings(0), keyboard=False)
    message = update(rectangle(16, pack(">I", 1) + b"x"))
    assert to_operator(rfb, message) == message


def test_a_level_is_no_encoding_of_a_rectangle() -> None:
    with pytest.raises(UnknownError):
        running(encodings=[0, -32, -256]).from_guest(update(rectangle(-32)))


def test_pixels_before_the_first_request_end_it() -> None:
    with pytest.raises(MalformedError):
        handshaken().from_guest(update(rectangle(0)))


@pytest.mark.parametrize("method", [*range(0xA, 0x10)])
def test_an_unknown_tight_method_ends_it(method: int) -> None:
    with pytest.raises(UnknownError):
        running().from_guest(update(rectangle(7, bytes((method << 4,)))))


@pytest.mark.parametrize("method", [*range(8), *range(0xB, 0x10)])
def test_tight_png_has_no_basic_compression(method: int) -> None:
    with pytest.raises(UnknownError):
        running().from_guest(update(rectangle(-260, bytes((method << 4,)))))


def test_an_unknown_tight_filter_ends_it() -> None:
    with pytest.raises(UnknownError):
        running().from_guest(update(rectangle(7, b"\x40\x03")))


def test_a_palette_of_one_colour_ends_it() -> None:
    # Some clients give it one bit a pixel and some eight
    with pytest.raises(MalformedError):
        running().from_guest(update(rectangle(7, b"\x40\x01\x00")))


def test_an_alpha_cursor_in_another_encoding_ends_it() -> None:
    with pytest.raises(UnknownError):
        running().from_guest(update(rectangle(-314, pack(">i", 7))))


def test_a_piece_inside_pixels_is_passed_on_and_not_copied() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(0, width=640, height=480)))
    piece = bytearray(65_536)
    (passed,) = rfb.from_guest(memoryview(piece)).pieces
    assert isinstance(passed, memoryview)
    assert passed.obj is piece
