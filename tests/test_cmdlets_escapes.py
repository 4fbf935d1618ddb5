"""cmdlets/escapes.py: a tilde means something at the start of a line only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdlets.escapes import HELP_LINES, Command, Escapes


@pytest.mark.parametrize("command", list(Command))
def test_every_command_has_its_key(command: Command):
    assert Escapes().feed(b"~" + command.key.encode()) == [command]


def test_a_tilde_inside_a_line_is_a_tilde():
    assert Escapes().feed(b"cd ~.") == [b"cd ~."]


@pytest.mark.parametrize("end", [b"\r", b"\n"])
def test_a_line_starts_after_its_end(end: bytes):
    assert Escapes().feed(b"ls" + end + b"~.") == [b"ls" + end, Command.LEAVE]


def test_two_tildes_are_one():
    assert Escapes().feed(b"~~.") == [b"~."]


def test_an_unknown_key_goes_with_its_tilde():
    assert Escapes().feed(b"~x") == [b"~x"]


def test_a_command_may_follow_a_command():
    assert Escapes().feed(b"~d~k") == [Command.CTRL_ALT_DEL, Command.TAKE_KEYBOARD]


def test_what_stands_before_and_after_keeps_its_place():
    assert Escapes().feed(b"a\r~sb") == [b"a\r", Command.SEND_ANYWAY, b"b"]


def test_the_help_names_every_key():
    assert all(any(f"~{command.key} " in line for line in HELP_LINES) for command in Command)


@given(st.lists(st.sampled_from([b"~", b".", b"\r", b"a", b"d"]), max_size=12), st.data())
def test_any_split_means_the_same(keys: list[bytes], data: st.DataObject):
    typed = b"".join(keys)
    cut = data.draw(st.integers(0, len(typed)))

    def joined(*pieces: bytes) -> list[bytes | Command]:
        escapes, parts = Escapes(), []
        for piece in pieces:
            for part in escapes.feed(piece):
                if parts and isinstance(part, bytes) and isinstance(parts[-1], bytes):
                    parts[-1] += part
                else:
                    parts.append(part)
        return parts

    assert joined(typed[:cut], typed[cut:]) == joined(typed)
