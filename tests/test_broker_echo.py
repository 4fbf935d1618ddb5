"""broker/echo.py: what is typed is told once the guest has echoed it, and is a count in every other case."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.echo import ECHO_WITHIN, MAX_TEXT, MAX_TYPED, SETTLE, Echo, Hidden, Text

ENTER = Text("Enter", is_key=True)


class Line:
    """A keyboard, a guest that says what the test says, and a clock."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.now = 1000.0
        self.parts: list[Text | Hidden] = []

    def type(self, data: bytes, *, masked: bool = False) -> Line:
        self.echo.typed(data, self.now, masked=masked)
        return self

    def says(self, shown: bytes, *, by_byte: bool = False) -> Line:
        for piece in [shown[at : at + 1] for at in range(len(shown))] if by_byte else [shown]:
            self.echo.guest(piece, self.now)
        return self

    def wait(self, seconds: float) -> Line:
        self.now += seconds
        self.echo.look(self.now)
        return self

    def echoed(self, data: bytes) -> Line:
        """One key after the other, each echoed at once."""
        for at in range(len(data)):
            self.type(data[at : at + 1]).says(data[at : at + 1]).wait(SETTLE)
        return self

    def told(self) -> list[Text | Hidden]:
        return merged(self.wait(ECHO_WITHIN + SETTLE).echo.told())

    def told_now(self) -> list[Text | Hidden]:
        return merged(self.echo.told())


def merged(parts: Iterable[Text | Hidden]) -> list[Text | Hidden]:
    found: list[Text | Hidden] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Hidden) and isinstance(last, Hidden):
            found[-1] = Hidden(last.count + part.count)
        else:
            found.append(part)
    return found


def shown(parts: Iterable[Text | Hidden]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text) and not part.is_key)


# -- what is echoed ----------------------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=1e9))
def test_a_line_and_its_enter_are_told_whenever_it_is(now: float) -> None:
    line = Line()
    line.now = now
    assert line.type(b"uname\n").says(b"uname\r\nLinux\r\n").told() == [Text("uname"), ENTER]


def test_what_is_echoed_is_told() -> None:
    assert Line().echoed(b"uname -a").told() == [Text("uname -a")]


def test_it_is_told_soon() -> None:
    assert Line().type(b"l").says(b"l").wait(SETTLE).told_now() == [Text("l")]


def test_an_echo_may_take_as_long_as_qemu_takes_to_look_whether_its_line_is_open() -> None:
    line = Line().type(b"l").wait(1.0)  # it looks once a second
    assert line.wait(1.0).says(b"l").told() == [Text("l")]  # and may itself have to wait for a processor


def test_enter_is_a_name() -> None:
    assert Line().echoed(b"ls").type(b"\r").says(b"\r\nfile\r\n$ ").told() == [Text("ls"), ENTER]


def test_enter_alone() -> None:
    assert Line().type(b"\r").says(b"\r\n$ ").told() == [ENTER]


def test_what_comes_behind_enter_is_the_next_line() -> None:
    line = Line().echoed(b"ls").type(b"\r").says(b"\r\nfile\r\n$ ").echoed(b"id").type(b"\r").says(b"\r\n")
    assert line.told() == [Text("ls"), ENTER, Text("id"), ENTER]


def test_typing_that_outruns_its_echo_is_told() -> None:
    assert Line().type(b"u").type(b"n").says(b"u").type(b"a").says(b"na").told() == [Text("una")]


@pytest.mark.parametrize("by_byte", [False, True])
def test_a_line_that_comes_at_once_is_told_when_all_of_it_comes_back(by_byte: bool) -> None:
    assert Line().type(b"ls -l\r").says(b"ls -l\r\ntotal 0\r\n", by_byte=by_byte).told() == [Text("ls -l"), ENTER]


def test_lines_that_are_echoed_one_behind_the_other() -> None:
    assert Line().type(b"a\nb\n").says(b"a\r\nb\r\n").told() == [Text("a"), ENTER, Text("b"), ENTER]


def test_text_that_is_no_ascii() -> None:
    word = "größe".encode()
    assert Line().type(word).says(word).told() == [Text("größe")]


def test_what_does_not_print_is_replaced() -> None:
    word = "a\u202eb".encode()
    assert Line().type(word).says(word).told() == [Text("a\ufffdb")]


def test_half_a_character_is_replaced() -> None:
    assert Line().type(b"\xc3").says(b"\xc3").told() == [Text("\ufffd")]


# -- what is not -------------------------------------------------------------------------------------------------------


def test_what_no_output_answers_is_a_count() -> None:
    assert Line().type(b"secret").told() == [Hidden(6)]


def test_a_character_counts_once() -> None:
    assert Line().type("größe".encode()).told() == [Hidden(5)]


def test_a_password_at_a_prompt() -> None:
    line = Line()
    for key in (b"s", b"e", b"c", b"\r"):
        line.type(key).wait(0.2)
    assert line.says(b"\r\nWelcome\r\n$ ").told() == [Hidden(3), ENTER]


def test_a_password_that_is_pasted_with_enter() -> None:
    assert Line().type(b"secret\r").says(b"\r\nLogin incorrect\r\n").told() == [Hidden(6), ENTER]


def test_a_password_that_begins_like_what_comes_next() -> None:
    assert Line().type(b"Login1\r").says(b"Login incorrect\r\n", by_byte=True).told() == [Hidden(6), ENTER]


def test_of_a_line_that_comes_back_in_part_nothing_is_told() -> None:
    assert Line().type(b"ab\r").says(b"a").wait(SETTLE).says(b"x").told() == [Hidden(2), ENTER]


def test_a_password_that_comes_later_in_the_output() -> None:
    assert Line().type(b"secret\r").says(b"\r\nno secret is safe\r\n").told() == [Hidden(6), ENTER]


@pytest.mark.parametrize("by_byte", [False, True])
def test_a_key_that_a_message_happens_to_begin_with(by_byte: bool) -> None:
    assert Line().type(b"a").says(b"audit: backlog limit exceeded\r\n", by_byte=by_byte).told() == [Hidden(1)]


def test_after_one_that_was_not_echoed_the_rest_of_the_line_is_hidden() -> None:
    line = Line().type(b"s").wait(ECHO_WITHIN).type(b"e").says(b"e").wait(SETTLE)
    assert line.type(b"\r").says(b"\r\n").told() == [Hidden(2), ENTER]


def test_the_next_line_is_judged_anew() -> None:
    line = Line().type(b"secret").wait(ECHO_WITHIN).type(b"\r").says(b"\r\n$ ")
    assert line.echoed(b"id").told() == [Hidden(6), ENTER, Text("id")]


def test_what_comes_out_of_order_is_hidden() -> None:
    assert Line().type(b"ab").says(b"ba").told() == [Hidden(2)]


def test_an_echo_that_comes_too_late_is_none() -> None:
    assert Line().type(b"a").wait(ECHO_WITHIN).says(b"a").told() == [Hidden(1)]


def test_output_that_was_on_its_way_is_no_echo() -> None:
    assert Line().type(b"a").says(b"total 0\r\n$ a").told() == [Hidden(1)]


def test_a_masked_entry_is_a_count_though_it_is_echoed() -> None:
    line = Line().echoed(b"pw=").type(b"hunter2", masked=True).says(b"hunter2").wait(SETTLE).echoed(b";ls")
    assert line.told() == [Text("pw="), Hidden(7), Text(";ls")]


def test_a_masked_entry_may_hold_control_characters() -> None:
    assert Line().type(b"a\tb\x1b[A", masked=True).told() == [Hidden(6)]


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"\t", "Tab"),
        (b"\x7f", "Backspace"),
        (b"\x1b[A", "Up"),
        (b"\x1bOB", "Down"),
        (b"\x1b", "Esc"),
        (b"\x12", "Ctrl+R"),
        (b"\x1b[1;5C", "Key"),
    ],
)
def test_a_key_that_the_guest_answers_in_its_way(raw: bytes, name: str) -> None:
    assert Line().type(raw).says(b"\x08 \x08or whatever\r\n").told() == [Text(name, is_key=True)]


def test_a_key_without_an_answer_is_hidden() -> None:
    assert Line().type(b"\t").told() == [Hidden(1)]


def test_a_word_that_is_completed() -> None:
    line = Line().echoed(b"cat /et").type(b"\t").says(b"c/").wait(SETTLE).echoed(b"hosts").type(b"\r").says(b"\r\n")
    assert line.told() == [Text("cat /et"), Text("Tab", is_key=True), Text("hosts"), ENTER]


def test_what_is_typed_before_a_key_is_answered_is_hidden() -> None:
    assert Line().type(b"\tab").says(b"ab").told() == [Hidden(3)]


def test_a_key_that_repeats() -> None:
    back = Text("Backspace", is_key=True)
    assert Line().type(b"\x7f").type(b"\x7f").says(b"\x08 \x08\x08 \x08").told() == [back, back]


@pytest.mark.parametrize(("raw", "name"), [(b"\x03", "Ctrl+C"), (b"\x1a", "Ctrl+Z"), (b"\x1c", "Ctrl+\\")])
def test_a_break_is_told_and_what_waits_before_it_is_hidden(raw: bytes, name: str) -> None:
    assert Line().type(b"secret").type(raw).says(b"^C\r\n$ ").told() == [Hidden(6), Text(name, is_key=True)]


def test_a_break_begins_a_line() -> None:
    line = Line().type(b"s").wait(ECHO_WITHIN).type(b"\x03").says(b"^C\r\n$ ").echoed(b"id")
    assert line.told() == [Hidden(1), Text("Ctrl+C", is_key=True), Text("id")]


@pytest.mark.parametrize("reply", [b"\x1b[24;80R", b"\x1b[?1;2c", b"\x1b[0n"])
def test_what_a_terminal_answers_is_nothing_typed(reply: bytes) -> None:
    assert Line().type(reply).echoed(b"ls").told() == [Text("ls")]


# -- bounds and hand-over ----------------------------------------------------------------------------------------------


def test_another_keyboard_takes_nothing_over() -> None:
    line = Line().type(b"sec")
    line.echo.break_off()
    assert line.says(b"sec").echoed(b"ls").told() == [Hidden(3), Text("ls")]


def test_what_waits_is_bounded() -> None:
    line = Line().type(b"a" * (MAX_TYPED + 1))
    assert line.told_now() == [Hidden(MAX_TYPED + 1)]
    assert line.echo.due is None


def test_what_is_told_at_once_is_bounded() -> None:
    line = Line()
    for _ in range(3):
        line.type(b"a" * MAX_TYPED).says(b"a" * MAX_TYPED).wait(SETTLE)
    parts = line.told_now()
    assert (len(shown(parts)), parts[-1]) == (MAX_TEXT, Hidden(3 * MAX_TYPED - MAX_TEXT))


def test_nothing_is_due_when_nothing_waits() -> None:
    assert Line().echoed(b"ls").echo.due is None


@pytest.mark.parametrize("typed", [b"a", b"a\r"])
def test_it_is_due_when_time_decides(typed: bytes) -> None:
    line = Line().type(typed).says(b"a")
    due = line.echo.due
    assert due is not None
    line.wait(due - line.now)
    assert line.echo.due is None


# -- for any typist and any guest --------------------------------------------------------------------------------------

keys = st.one_of(
    st.sampled_from([bytes([b]) for b in b"abcXYZ019 ~"]), st.sampled_from([b"\r", b"\n", b"\t", b"\x7f", b"\x03", b"\x1b[A"])
)
pauses = st.sampled_from([0.0, 0.01, SETTLE, 0.5, ECHO_WITHIN])
answers = st.text(alphabet="defghDEFGH345.:-\r\n$# \x08\x1b[", max_size=12).map(str.encode)


@given(st.lists(st.tuples(keys, pauses, answers, pauses), max_size=40), st.booleans())
def test_of_a_guest_that_never_says_what_was_typed_no_text_is_shown(
    events: list[tuple[bytes, float, bytes, float]], by_byte: bool
) -> None:
    line = Line()
    for key, before, output, after in events:
        if key == b" ":
            continue  # both alphabets have it
        line.type(key).wait(before).says(output, by_byte=by_byte).wait(after)
    assert shown(line.told()) == ""


@given(st.text(alphabet="abcd", min_size=2, max_size=8), st.text(alphabet="abcd\r\n", max_size=40), st.booleans(), st.booleans())
def test_a_password_is_shown_only_where_the_guest_shows_all_of_it(
    password: str, output: str, by_byte: bool, at_once: bool
) -> None:
    """Whatever a guest says behind Enter: no part of what it has not echoed before, unless it is the whole line."""
    line = Line()
    if at_once:
        line.type(password.encode() + b"\r")
    else:
        for key in password:
            line.type(key.encode())
        line.type(b"\r")
    found = shown(line.says(output.encode(), by_byte=by_byte).told())
    whole = output.startswith((password + "\r", password + "\n"))
    assert found == (password if whole else "")


@given(st.text(alphabet="abcd\r", max_size=30), st.data())
def test_a_masked_byte_is_never_shown(text: str, data: st.DataObject) -> None:
    line = Line()
    for key in text:
        masked = data.draw(st.booleans())
        line.type(b"S" if masked else key.encode(), masked=masked)
        line.says(b"S" if masked else key.encode() if key != "\r" else b"\r\n").wait(data.draw(pauses))
    assert "S" not in shown(line.told())


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_taken(typed: bytes, output: bytes) -> None:
    line = Line().type(typed).says(output)
    parts = line.told()
    assert len(shown(parts)) <= MAX_TEXT
    assert line.echo.due is None
