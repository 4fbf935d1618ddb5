"""Operator to guest: what goes on, what is rewritten, what is dropped, what ends the session."""

from struct import pack, unpack

import pytest

from broker.rfb import ClientMessage, Dropped, RfbError, RfbFilter
from broker.rfb_protocol import LimitError, MalformedError, TurnError, UnknownError
from tests.rfb_bytes import (
    ALL,
    DEPTH_32,
    TRUE_COLOUR_8,
    TRUE_COLOUR_16,
    TRUE_COLOUR_32,
    VERSION,
    extended_key,
    handshaken,
    key,
    pointer,
    rectangle,
    request,
    running,
    server_init,
    set_encodings,
    set_format,
    to_guest,
    to_operator,
    update,
)

INPUTS = [(key(0x61, down=True), "key"), (pointer(1, 2, 3), "pointer"), (extended_key(0x61, 0x1E, down=True), "key")]
UNWANTED = [
    (pack(">B3xI", 6, 5) + b"hello", Dropped.CUT_TEXT),
    (pack(">B3xi", 6, -9) + b"\x10\x00\x00\x01extra", Dropped.CUT_TEXT),
    (pack(">B3xI", 6, 0), Dropped.CUT_TEXT),
    (pack(">BBHHHH", 150, 1, 0, 0, 640, 480), Dropped.CONTINUOUS_UPDATES),
    (pack(">B3xIB", 248, 1, 3) + b"abc", Dropped.FENCE),
    (pack(">BxBB", 250, 1, 2), Dropped.POWER),
    (pack(">BxHHBx", 251, 800, 600, 1) + bytes(16), Dropped.DESKTOP_SIZE),
    (pack(">BxHHBx", 251, 800, 600, 0), Dropped.DESKTOP_SIZE),
    (pack(">BBH", 255, 1, 0), Dropped.AUDIO),
    (pack(">BBH", 255, 1, 1), Dropped.AUDIO),
    (pack(">BBHBBI", 255, 1, 2, 3, 2, 44_100), Dropped.AUDIO),
]


def encodings_of(message: bytes) -> list[int]:
    return list(unpack(f">{(len(message) - 4) // 4}i", message[4:]))


def encodings_to_guest(*numbers: int) -> list[int]:
    return encodings_of(to_guest(handshaken(), set_encodings(*numbers)))


@pytest.mark.parametrize("message", [message for message, _ in INPUTS])
def test_an_input_by_itself_is_one_and_would_go_on_as_it_is(message: bytes) -> None:
    rfb = running()
    assert rfb.is_input(message)
    assert rfb.from_operator(message, keyboard=True) == (((message, True),), {})


@pytest.mark.parametrize("message", [b"", request(incremental=True), *(message for message, _ in UNWANTED)])
def test_all_else_by_itself_is_no_input(message: bytes) -> None:
    assert not running().is_input(message)


@pytest.mark.parametrize("message", [message for message, _ in INPUTS])
def test_a_part_of_an_input_and_more_than_one_is_none(message: bytes) -> None:
    assert not any(running().is_input(message[:size]) for size in range(len(message)))
    assert not running().is_input(message * 2)


@pytest.mark.parametrize("before", [b"\x04", pack(">B3xI", 6, 50)])
def test_what_completes_another_message_is_no_input(before: bytes) -> None:
    rfb = running()
    rfb.from_operator(before, keyboard=True)
    assert not any(rfb.is_input(message) for message, _ in INPUTS)


def test_there_is_no_input_before_the_handshake_is_done_nor_after_an_error() -> None:
    broken = running()
    with pytest.raises(RfbError):
        broken.from_operator(b"\xee", keyboard=True)
    assert not any(rfb.is_input(message) for rfb in (RfbFilter("title"), broken) for message, _ in INPUTS)


@pytest.mark.parametrize("shared", [b"\x00", b"\x01", b"\xff"])
def test_client_init_is_always_shared(shared: bytes) -> None:
    rfb = RfbFilter("title")
    for guest, operator in ((VERSION, VERSION), (b"\x01\x01", b"\x01")):
        rfb.from_guest(guest)
        rfb.from_operator(operator, keyboard=False)
    rfb.from_guest(bytes(4))
    assert to_guest(rfb, shared) == b"\x01"


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.889\n", b"RFB 004.000\n", b"GET / HTTP/1"])
def test_another_version_is_refused(version: bytes) -> None:
    rfb = RfbFilter("title")
    rfb.from_guest(VERSION)
    with pytest.raises(UnknownError):
        rfb.from_operator(version, keyboard=False)


@pytest.mark.parametrize("choice", [0, 2, 16, 19])
def test_another_security_type_is_refused(choice: int) -> None:
    rfb = RfbFilter("title")
    rfb.from_guest(VERSION)
    rfb.from_operator(VERSION, keyboard=False)
    rfb.from_guest(b"\x01\x01")
    with pytest.raises(UnknownError):
        rfb.from_operator(bytes((choice,)), keyboard=False)


def test_a_client_that_speaks_ahead_is_refused() -> None:
    rfb = RfbFilter("title")
    rfb.from_guest(VERSION)
    with pytest.raises(TurnError):
        rfb.from_operator(VERSION + b"\x01", keyboard=False)


def test_a_client_that_speaks_first_is_refused() -> None:
    rfb = RfbFilter("title")
    with pytest.raises(TurnError):
        rfb.from_operator(VERSION, keyboard=False)


@pytest.mark.parametrize("message", [set_format(TRUE_COLOUR_16), request(), request(incremental=True)])
def test_view_messages_go_on_unchanged(message: bytes) -> None:
    step = handshaken().from_operator(message, keyboard=False)
    assert step.messages == (ClientMessage(message, is_input=False),)


@pytest.mark.parametrize(("message", "kind"), INPUTS)
def test_input_goes_on_with_the_keyboard(message: bytes, kind: str) -> None:
    step = handshaken().from_operator(message, keyboard=True)
    assert step.messages == (ClientMessage(message, is_input=True),)


@pytest.mark.parametrize(("message", "kind"), INPUTS)
def test_input_is_dropped_and_counted_without_the_keyboard(message: bytes, kind: str) -> None:
    step = handshaken().from_operator(message * 3, keyboard=False)
    assert (step.messages, step.dropped) == ((), {Dropped(kind): 3})


@pytest.mark.parametrize(("message", "kind"), INPUTS)
def test_the_keyboard_at_the_last_byte_decides(message: bytes, kind: str) -> None:
    rfb = handshaken()
    rfb.from_operator(message[:-1], keyboard=True)
    assert rfb.from_operator(message[-1:], keyboard=False).messages == ()


LONE = [key(0x61, down=True), pointer(1, 2, 3)]


HANDSHAKE = ((VERSION, VERSION), (b"\x01\x01", b"\x01"), (bytes(4), b"\x01"))


@pytest.mark.parametrize("said", [0, 1, 2, 3])
@pytest.mark.parametrize("read", LONE)
def test_what_looks_like_input_before_the_handshake_is_done_is_a_fault(read: bytes, said: int) -> None:
    rfb = RfbFilter("title")
    for guest, operator in HANDSHAKE[:said]:
        rfb.from_guest(guest)
        rfb.from_operator(operator, keyboard=True)
    with pytest.raises(RfbError):
        rfb.from_operator(read, keyboard=True)


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("read", LONE)
def test_what_looks_like_input_in_the_place_of_an_answer_is_a_fault(read: bytes, turn: int) -> None:
    rfb = RfbFilter("title")
    for guest, operator in HANDSHAKE[:turn]:
        rfb.from_guest(guest)
        rfb.from_operator(operator, keyboard=True)
    rfb.from_guest(HANDSHAKE[turn][0])
    with pytest.raises(RfbError):
        rfb.from_operator(read, keyboard=True)


@pytest.mark.parametrize("keyboard", [True, False])
@pytest.mark.parametrize("read", LONE)
def test_what_looks_like_input_inside_a_skipped_body_is_dropped(read: bytes, keyboard: bool) -> None:
    rfb = handshaken()
    rfb.from_operator(pack(">B3xI", 6, len(read)), keyboard)
    step = rfb.from_operator(read, keyboard)
    assert (step.messages, dict(step.dropped)) == ((), {})
    assert to_guest(rfb, request()) == request()


@pytest.mark.parametrize("read", LONE)
def test_what_looks_like_input_after_a_part_of_a_message_completes_it(read: bytes) -> None:
    rfb = handshaken()
    whole = pack(">BBHHHH", 3, 0, 0, 0, 640, 480)[: -len(read)] + read
    rfb.from_operator(whole[: -len(read)], keyboard=True)
    assert rfb.from_operator(read, keyboard=True).messages == (ClientMessage(whole, is_input=False),)


@pytest.mark.parametrize(("message", "kind"), UNWANTED)
def test_unwanted_messages_are_dropped_even_with_the_keyboard(message: bytes, kind: Dropped) -> None:
    step = handshaken().from_operator(message + request(), keyboard=True)
    assert (step.messages, step.dropped) == ((ClientMessage(request(), is_input=False),), {kind: 1})


@pytest.mark.parametrize(("message", "kind"), UNWANTED)
def test_unwanted_messages_are_counted_once_however_they_come(message: bytes, kind: Dropped) -> None:
    rfb = handshaken()
    counted = [dict(rfb.from_operator(bytes((byte,)), keyboard=True).dropped) for byte in message + request()]
    assert [count for count in counted if count] == [{kind: 1}]


def test_order_is_kept() -> None:
    stream = key(1, down=True) + request() + pack(">B3xI", 6, 1) + b"x" + pointer(0, 1, 1) + set_encodings(0)
    step = handshaken().from_operator(stream, keyboard=True)
    assert [(m.data, m.is_input) for m in step.messages] == [
        (key(1, down=True), True),
        (request(), False),
        (pointer(0, 1, 1), True),
        (set_encodings(0), False),
    ]


def test_an_unknown_type_ends_it() -> None:
    for kind in set(range(256)) - {0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255}:
        with pytest.raises(UnknownError):
            handshaken().from_operator(bytes((kind, *bytes(40))), keyboard=True)


@pytest.mark.parametrize("tail", [b"\x02", b"\x01\x00\x03"])
def test_an_unknown_qemu_message_ends_it(tail: bytes) -> None:
    with pytest.raises(UnknownError):
        handshaken().from_operator(b"\xff" + tail, keyboard=True)


@pytest.mark.parametrize(
    "message",
    [
        pack(">B3xI", 6, (1 << 24) + 1),
        pack(">B3xI", 6, 1 << 31),
        pack(">B3xI", 6, (1 << 32) - (1 << 24) - 1),
        pack(">BxH", 2, 257),
        pack(">BxH", 2, 65_535),
        pack(">B3xIB", 248, 0, 65),
    ],
)
def test_a_length_above_its_limit_ends_it_before_it_is_read(message: bytes) -> None:
    with pytest.raises(LimitError):
        handshaken().from_operator(message, keyboard=True)


def test_a_skipped_body_is_not_kept() -> None:
    rfb = handshaken()
    rfb.from_operator(pack(">B3xI", 6, 1 << 24), keyboard=True)
    piece = bytes(1 << 20)
    for _ in range(16):
        assert rfb.from_operator(piece, keyboard=True).messages == ()
    assert to_guest(rfb, request()) == request()


def test_encodings_keep_the_client_s_order() -> None:
    assert encodings_to_guest(16, 7, 6, 1, 0, -239, -223) == [16, 7, 6, 1, 0, -239, -223]


def test_encodings_that_cannot_be_walked_are_left_out() -> None:
    assert encodings_to_guest(5, 0, 2, 15, 17, -260, 0x574D5669) == [0, -260]


@pytest.mark.parametrize("number", [-259, -307, -309, -312, -313, 0xC0A1E5CE - (1 << 32)])
def test_clipboard_power_audio_and_the_like_are_left_out(number: int) -> None:
    assert encodings_to_guest(0, number) == [0]


def test_raw_is_put_where_no_pixels_are_left() -> None:
    assert encodings_to_guest(5, -223) == [-223, 0]


def test_raw_is_put_where_nothing_is_left() -> None:
    assert encodings_to_guest() == [0]


def test_the_rewritten_list_stays_below_256_bytes() -> None:
    known = [*range(-600, 20)]
    for start in range(0, len(known), 256):
        assert len(to_guest(handshaken(), set_encodings(*known[start : start + 256]))) <= 256
    levels = [*range(-32, -22), *range(-256, -246)]
    assert len(to_guest(handshaken(), set_encodings(*ALL, *levels))) <= 256


def test_an_encoding_asked_for_twice_is_kept_once() -> None:
    assert encodings_to_guest(*([7, 0] * 100)) == [7, 0]


def test_tight_is_left_out_where_client_and_server_would_measure_it_differently() -> None:
    assert encodings_of(to_guest(handshaken(), set_format(DEPTH_32) + set_encodings(7, -260, 0))[20:]) == [0]


def test_tight_png_is_left_out_where_qemu_makes_none() -> None:
    assert encodings_of(to_guest(handshaken(), set_format(TRUE_COLOUR_8) + set_encodings(7, -260, 0))[20:]) == [7, 0]


@pytest.mark.parametrize(("form", "encoding"), [(DEPTH_32, 7), (DEPTH_32, -260), (TRUE_COLOUR_8, -260)])
def test_such_a_format_is_refused_once_tight_may_come(form: bytes, encoding: int) -> None:
    rfb = handshaken()
    rfb.from_operator(set_encodings(encoding), keyboard=False)
    with pytest.raises(MalformedError):
        rfb.from_operator(set_format(form), keyboard=False)


@pytest.mark.parametrize("form", [TRUE_COLOUR_8, TRUE_COLOUR_16])
@pytest.mark.parametrize("before", [request(), set_encodings(0, -239)])
def test_the_size_of_a_pixel_is_settled_before_pixels_can_be_under_way(form: bytes, before: bytes) -> None:
    rfb = handshaken()
    rfb.from_operator(before, keyboard=False)
    with pytest.raises(MalformedError):
        rfb.from_operator(set_format(form), keyboard=False)


def test_the_size_of_a_pixel_may_change_before() -> None:
    rfb = handshaken()
    stream = set_format(TRUE_COLOUR_8) + set_encodings(0) + set_format(TRUE_COLOUR_16)
    assert to_guest(rfb, stream) == stream


def test_the_colours_of_a_pixel_may_move_at_any_time() -> None:
    swapped = bytearray(TRUE_COLOUR_32)
    swapped[10], swapped[12] = 0, 16
    rfb = running()
    assert to_guest(rfb, set_format(bytes(swapped))) == set_format(bytes(swapped))


def test_the_guest_follows_the_client_s_format() -> None:
    rfb = running(TRUE_COLOUR_16, [0])
    raw = update(rectangle(0, bytes(8 * 4 * 2)))
    assert to_operator(rfb, raw + b"\x02") == raw + b"\x02"
    assert rfb.at_rest


def test_a_key_goes_on_as_it_is_in_either_form() -> None:
    stream = key(0xFFE3, down=True) + extended_key(0x61, 0x1E, down=True) + pointer(1, 5, 6)
    assert to_guest(handshaken(), stream, keyboard=True) == stream


def test_a_guest_that_has_said_nothing_of_it_takes_places_and_not_movements() -> None:
    assert not running().relative


def test_a_guest_may_take_movements() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(-257, x=0, width=640, height=480)))
    assert rfb.relative


def test_no_message_is_longer_than_256_bytes_and_each_is_whole() -> None:
    stream = b"".join(key(0x1000 + n, down=True) for n in range(200)) + set_encodings(*range(-250, 5)) + request()
    messages = handshaken(server_init()).from_operator(stream, keyboard=True).messages
    assert max(len(m.data) for m in messages) <= 256
    assert {len(m.data) for m in messages if m.is_input} == {8}
