"""The filter as a whole: any split gives the same bytes, any bytes raise nothing but RfbError, nothing unwanted gets through."""

import random
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.rfb import RfbError, RfbFilter
from tests.rfb_bytes import (
    TRUE_COLOUR_32,
    VERSION,
    compact,
    extended_key,
    guest_cut_text,
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

bodies = st.binary(max_size=40)


def _tight(body: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(
        [
            b"\x80" + (body + bytes(3))[:3],
            b"\x90" + compact(len(body)) + body,
            b"\x00" + compact(len(body)) + body,
            b"\x40\x01\x01" + bytes(6) + (body + bytes(4))[:4],
            b"\x40\x01\x03" + bytes(12) + compact(len(body)) + body,
        ]
    )


def _raw(body: bytes) -> bytes:
    return rectangle(0, (body + bytes(128))[:128])


rectangles = st.one_of(
    bodies.map(_raw),
    bodies.map(lambda body: rectangle(16, pack(">I", len(body)) + body)),
    bodies.map(lambda body: rectangle(6, pack(">I", len(body)) + body)),
    bodies.flatmap(_tight).map(lambda body: rectangle(7, body)),
    bodies.map(lambda body: rectangle(1, (body + bytes(4))[:4])),
    bodies.map(lambda body: rectangle(-239, (body + bytes(26))[:26], width=3, height=2)),
    st.just(rectangle(-258)),
    st.just(rectangle(-261, b"\x03")),
)
guest_messages = st.one_of(
    st.lists(rectangles, max_size=4).map(lambda each: (update(*each), True)),
    bodies.map(lambda body: (guest_cut_text(body), False)),
    bodies.map(lambda body: (pack(">BBHI", 255, 1, 2, len(body)) + body, False)),
    st.just((b"\x02", True)),
)
operator_messages = st.one_of(
    st.sampled_from(
        [(request(), True), (request(incremental=True), True), (set_format(TRUE_COLOUR_32), True), (set_encodings(0, 16), True)]
    ),
    st.builds(lambda keysym, down: (key(keysym, down=down), False), st.integers(0, 0xFFFF), st.booleans()),
    st.builds(lambda buttons, x: (pointer(buttons, x, 0), False), st.integers(0, 255), st.integers(0, 0xFFFF)),
    st.builds(
        lambda keysym, down: (extended_key(keysym, keysym & 0x7F, down=down), False), st.integers(0, 0xFFFF), st.booleans()
    ),
    bodies.map(lambda body: (pack(">B3xI", 6, len(body)) + body, False)),
    bodies.map(lambda body: (pack(">B3xIB", 248, 0, len(body)) + body, False)),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(st.lists(guest_messages, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_guest_s_updates_go_on_and_its_clipboard_does_not_however_it_is_cut(
    messages: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    rfb = running()
    stream = b"".join(message for message, _ in messages)
    assert b"".join(to_operator(rfb, piece) for piece in pieces(stream, cuts)) == b"".join(m for m, wanted in messages if wanted)
    assert rfb.at_rest


@given(st.lists(operator_messages, max_size=12), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_viewer_never_gets_input_through_however_it_is_cut(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    rfb = running()
    stream = b"".join(message for message, _ in messages)
    assert b"".join(to_guest(rfb, piece) for piece in pieces(stream, cuts)) == b"".join(m for m, wanted in messages if wanted)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.binary(max_size=60)), max_size=30), st.booleans())
def test_any_bytes_from_either_side_raise_nothing_but_rfb_error(said: list[tuple[bool, bool, bytes]], started: bool) -> None:
    rfb = running() if started else RfbFilter("title")
    for operator, keyboard, words in said:
        try:
            if operator:
                rfb.from_operator(words, keyboard)
            else:
                rfb.from_guest(words)
        except RfbError:
            break


def test_a_handshake_goes_through_byte_by_byte() -> None:
    rfb = RfbFilter("title")
    said = [VERSION, VERSION, b"\x02\x10\x01", b"\x01", bytes(4), b"\x00", server_init()]
    passed = []
    for number, words in enumerate(said):
        through = to_guest if number % 2 else to_operator
        passed.append(b"".join(through(rfb, bytes((byte,))) for byte in words))
    title = server_init(name=b"title")
    assert passed == [VERSION, VERSION, b"\x01\x01", b"\x01", bytes(4), b"\x01", title]
    assert rfb.running


@pytest.mark.parametrize("title", ["x" * 201, "Z\u00fcrich", "a\nb", "\x1b]0;x\x07"])
def test_a_title_that_a_client_could_take_amiss_is_refused(title: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        RfbFilter(title)


def test_after_an_operator_s_error_no_byte_goes_either_way() -> None:
    rfb = running()
    rfb.from_guest(update(rectangle(0, width=640, height=480)))
    with pytest.raises(RfbError):
        rfb.from_operator(b"\x63", keyboard=True)
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x00")
    with pytest.raises(RfbError):
        rfb.from_operator(request(), keyboard=True)


def test_after_a_guest_s_error_no_byte_goes_either_way() -> None:
    rfb = running()
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x63")
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x02")
    with pytest.raises(RfbError):
        rfb.from_operator(request(), keyboard=True)


def test_after_an_error_a_body_that_was_to_be_skipped_is_refused_too() -> None:
    rfb = running()
    rfb.from_operator(pack(">B3xI", 6, 100), keyboard=True)
    with pytest.raises(RfbError):
        rfb.from_guest(b"\x63")
    with pytest.raises(RfbError):
        rfb.from_operator(b"text", keyboard=True)


def test_the_screen_is_known_after_the_handshake() -> None:
    assert (RfbFilter("title").screen, handshaken().screen) == ((0, 0), (640, 480))


GUEST_SEED = update(
    rectangle(0, bytes(range(128))),
    rectangle(16, pack(">I", 5) + b"abcde"),
    rectangle(7, b"\x40\x01\x03" + bytes(12) + compact(30) + bytes(30)),
    rectangle(7, b"\x90" + compact(200) + bytes(200)),
    rectangle(-239, bytes(26), width=3, height=2),
    rectangle(-308, b"\x01\x00\x00\x00" + bytes(16), width=800, height=600),
) + guest_cut_text(b"text")
OPERATOR_SEED = (
    set_encodings(7, 16, 0, -223)
    + request()
    + key(0x61, down=True)
    + pointer(1, 2, 3)
    + pack(">B3xI", 6, 3)
    + b"abc"
    + extended_key(1, 2, down=True)
    + pack(">BxHHBx", 251, 9, 9, 1)
    + bytes(16)
)


def mutant(source: random.Random, seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(data))
        data[at] = source.choice((0, 1, 2, 127, 128, 255, source.randrange(256)))
    cut = source.randrange(len(data))
    return bytes(data[cut:] + data[:cut]) if source.random() < 0.2 else bytes(data)


@pytest.mark.parametrize(
    "mutants", [pytest.param(50_000), pytest.param(1_000_000, marks=(pytest.mark.faults, pytest.mark.timeout(900)))]
)
def test_mutants_raise_nothing_but_rfb_error(mutants: int) -> None:
    source = random.Random(6143)
    rfb, ended = running(), 0
    for number in range(mutants):
        if number % 20 == 0:
            rfb = running()  # one that skips a long body sees nothing of the mutants
        try:
            if number % 2:
                for message in rfb.from_operator(mutant(source, OPERATOR_SEED), keyboard=False).messages:
                    assert not message.is_input
                    assert message.data[0] in (0, 2, 3)
                    assert len(message.data) <= 256
            else:
                rfb.from_guest(mutant(source, GUEST_SEED))
        except RfbError:
            ended += 1
            rfb = running()
    assert mutants // 10 < ended < mutants
