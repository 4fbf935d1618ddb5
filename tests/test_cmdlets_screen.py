"""cmdlets/screen.py: our own lines stand between sequences, and the terminal is left as a shell expects it."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdlets.screen import Screen

PIECES = [b"a", "é".encode(), "漢".encode(), "😀".encode(), b"\x1b[31m", b"\x1b[?1049h", b"\x1b(0", b"\x1b7", b"\r\n"]


@pytest.mark.parametrize("piece", [piece for piece in PIECES if len(piece) > 1 and piece != b"\r\n"])
def test_an_unfinished_piece_waits_for_its_end(piece: bytes):
    for cut in range(1, len(piece)):
        screen = Screen()
        assert (screen.show(b"x" + piece[:cut]), screen.show(piece[cut:])) == (b"x", piece)


@given(st.lists(st.sampled_from(PIECES), max_size=20), st.integers(1, 7))
def test_no_byte_is_lost_or_moved(pieces: list[bytes], size: int):
    output, screen = b"".join(pieces), Screen()
    assert b"".join(screen.show(output[i : i + size]) for i in range(0, len(output), size)) == output


def test_what_is_held_back_has_a_bound():
    screen = Screen()
    shown = screen.show(b"\x1b[" + b"1" * 10_000)
    assert len(shown) == 10_002


def test_a_line_is_plain_whatever_the_guest_did():
    screen = Screen()
    display = pyte.Screen(40, 5)
    stream = pyte.ByteStream(display)
    stream.feed(screen.show(b"\x1b[31mred"))
    stream.feed(screen.line("eva: five minutes"))
    assert display.display[1].rstrip() == "eva: five minutes"
    assert display.buffer[1][0].fg == "default"


def test_plain_text_leaves_nothing_to_mend():
    screen = Screen()
    screen.show(b"login: ")
    assert screen.sane() == b""


@pytest.mark.parametrize("mode", [b"47", b"1047", b"1049"])
def test_the_alternate_screen_is_left_the_way_it_was_entered(mode: bytes):
    screen = Screen()
    screen.show(b"\x1b[?1;%bh" % mode)
    assert screen.sane().startswith(b"\x1b[?%bl" % mode)


def test_an_alternate_screen_already_left_is_not_left_again():
    screen = Screen()
    screen.show(b"\x1b[?1049h\x1b[?1049l")
    assert b"1049" not in screen.sane()


def test_the_cursor_keeps_its_place_and_the_screen_scrolls_whole():
    screen = Screen()
    display = pyte.Screen(40, 10)
    stream = pyte.ByteStream(display)
    stream.feed(screen.show(b"\x1b[2;4r\x1b[8;5H\x1b[?25l\x1b[7m"))
    stream.feed(screen.sane())
    assert (display.cursor.y, display.cursor.x) == (7, 4)
    assert display.margins is None or (display.margins.top, display.margins.bottom) == (0, 9)
    assert not display.cursor.hidden
    assert not display.cursor.attrs.reverse
