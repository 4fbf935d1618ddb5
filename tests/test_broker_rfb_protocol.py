"""The words of RFB: pixel formats, screen sizes, the table of stages."""

from struct import pack

import pytest

from broker.rfb_protocol import (
    TURNS,
    WALKED,
    Agreement,
    LimitError,
    MalformedError,
    PixelFormat,
    RfbError,
    Side,
    Stage,
    TurnError,
)
from tests import rfb_bytes as rfb


def form(
    bits: int = 32, depth: int = 24, *, true: int = 1, maxima: tuple[int, ...] = (255,) * 3, shifts: tuple[int, ...] = (16, 8, 0)
) -> bytes:
    return pack(">BBBBHHHBBB3x", bits, depth, 0, true, *maxima, *shifts)


@pytest.mark.parametrize(
    ("data", "size", "tight_size"),
    [
        (rfb.TRUE_COLOUR_32, 4, 3),
        (rfb.TRUE_COLOUR_16, 2, 2),
        (rfb.TRUE_COLOUR_8, 1, 1),
        (rfb.COLOUR_MAP_8, 1, 1),
        (form(maxima=(1023, 1023, 1023), depth=30, shifts=(20, 10, 0)), 4, 4),
        (rfb.DEPTH_32, 4, 0),
    ],
)
def test_a_pixel_format_gives_the_sizes_of_its_pixels(data: bytes, size: int, tight_size: int) -> None:
    assert PixelFormat.parse(data, Side.OPERATOR) == PixelFormat(size, tight_size)


@pytest.mark.parametrize(
    "data",
    [
        form(bits=24),
        form(bits=0),
        form(bits=255),
        form(depth=0),
        form(bits=16, depth=24),
        form(bits=16, depth=16, true=0),
        form(maxima=(0, 255, 255)),
        form(maxima=(254, 255, 255)),
        form(shifts=(25, 8, 0)),
        form(shifts=(255, 8, 0)),
        form(bits=8, depth=8),
    ],
)
def test_a_pixel_format_that_peers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        PixelFormat.parse(data, Side.OPERATOR)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (16_384, 4_096), (1_920, 1_080)])
def test_a_screen_within_the_limits_is_taken(width: int, height: int) -> None:
    agreement = Agreement()
    agreement.resize(width, height)
    assert (agreement.width, agreement.height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (16_385, 1), (1, 16_385), (16_384, 4_097), (65_535, 65_535)])
def test_a_screen_beyond_the_limits_is_refused(width: int, height: int) -> None:
    with pytest.raises(LimitError):
        Agreement().resize(width, height)


def test_every_stage_but_the_last_two_has_its_turn() -> None:
    assert set(TURNS) == set(Stage) - {Stage.RUNNING, Stage.BROKEN}


def test_the_handshake_goes_through_every_stage_once() -> None:
    agreement = Agreement()
    seen = []
    while agreement.stage is not Stage.RUNNING:
        seen.append(agreement.stage)
        agreement.advance()
    assert seen == list(TURNS)


@pytest.mark.parametrize("stage", list(TURNS))
def test_only_one_side_may_speak_in_a_stage(stage: Stage) -> None:
    agreement = Agreement(stage=stage)
    other = Side.GUEST if TURNS[stage].side is Side.OPERATOR else Side.OPERATOR
    assert agreement.turn(TURNS[stage].side, 1) is TURNS[stage]
    with pytest.raises(TurnError):
        agreement.turn(other, 1)


def test_errors_hold_facts() -> None:
    error = LimitError(Side.GUEST, "screen", 7)
    assert isinstance(error, RfbError)
    assert (error.side, error.field, error.value) == (Side.GUEST, "screen", 7)


@pytest.mark.parametrize(
    "number", [2, 4, 5, 15, 17, -259, -307, -309, -312, -313, -316, -317, -0x3F5F1E5C, 0x574D5669, 0xC0A1E5CE - (1 << 32)]
)
def test_what_cannot_be_walked_or_never_may_pass_is_not_listed(number: int) -> None:
    assert number not in WALKED
