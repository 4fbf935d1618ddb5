"""The terminal filter: what it lets through, what it keeps, and that real programs look right through it."""

import collections
import fcntl
import itertools
import os
import pickle
import pty
import re
import select
import shutil
import struct
import termios
import time
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.terminal_filter import BURST, INTERVAL_NS, STRING_LIMIT, Drop, Filtered, TerminalFilter, TokenBucket
from broker.terminal_sequence import PLAIN, SEQUENCE_LIMIT
from tests.broker_parts import PATIENCE

UNKNOWN = "\ufffd".encode()


def shown(data: bytes) -> bytes:
    return TerminalFilter().feed(data, 0).shown


def dropped(data: bytes) -> dict[Drop, int]:
    terminal = TerminalFilter()
    terminal.feed(data, 0)
    return dict(+terminal.dropped)


def whole(chunks: list[bytes]) -> tuple[bytes, list[tuple[int, bytes]], collections.Counter[Drop], bytes]:
    """All that a filter gives for a stream in these chunks, each chunk's output checked to be safe by itself."""
    terminal = TerminalFilter()
    out, queries = b"", []
    for chunk in chunks:
        filtered = terminal.feed(chunk, 0)
        assert_safe(filtered.shown)
        queries += [(len(out) + offset, query) for offset, query in filtered.queries]
        out += filtered.shown
    return out, queries, +terminal.dropped, terminal.reset_tail()


def each_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# A second opinion on what is safe, written apart from the filter: all of it, and nothing of it broken off.
SAFE_SEQUENCE = re.compile(
    r"\x1b(?:[78M=>DE]|[()*+][0AB]|\[(?:"
    r"\d{0,4}[ABCDEFGIZabde`ST@PLMX]|[012]?[JK]|(?:\d{0,4}(?:;\d{0,4})?)[Hfr]|[su]"
    r"|[\d:;]*m|4(?:;4)*[hl]|\?(?:1|7|25|47|1049)(?:;(?:1|7|25|47|1049))*[hl]))"
)
UNSAFE_CHARACTER = re.compile("[^\\x07-\\x0f\\x20-\\x7e\\xa0-\u2029\u202f-\u2065\u206a-\U0010ffff]")


def assert_safe(out: bytes) -> None:
    rest = SAFE_SEQUENCE.sub("", out.decode("utf-8"))
    assert not UNSAFE_CHARACTER.search(rest), rest
    assert all(
        int(number) <= 9999 for number in re.findall(r"\d+(?=[^\x1b]*?[A-Za-z])", "".join(SAFE_SEQUENCE.findall(out.decode())))
    )


# Streams as they are met, the hostile ones from published terminal attacks, each with what must be left of it.
CORPUS = {
    "osc 52 clipboard": (b"a\x1b]52;c;cm0gLXJmIC8K\x07b", b"ab"),
    "osc 52 by st": (b"a\x1b]52;c;?\x1b\\b", b"ab"),
    "title": (b"\x1b]0;root@vm: ~\x07# ", b"# "),
    "title in utf-8": ("\x1b]2;caf\u00e9 \u20ac\x07# ".encode(), b"# "),
    "title report": (b"\x1b]0;rm -rf /\n\x07\x1b[21t$ ", b"$ "),
    "hyperlink": (b"\x1b]8;;file:///etc/passwd\x1b\\here\x1b]8;;\x1b\\", b"here"),
    "iterm2 file": (b"\x1b]1337;File=name=eA==;inline=0:AAAA\x07ok", b"ok"),
    "notification": (b"\x1b]777;notify;a;b\x1b\\\x1b]9;x\x07ok", b"ok"),
    "palette query": (b"\x1b]4;1;?\x07\x1b]10;?\x1b\\ok", b"ok"),
    "decrqss": (b'\x1bP$q"p\x1b\\ok', b"ok"),
    "xtgettcap": (b"\x1bP+q544e\x1b\\ok", b"ok"),
    "decudk": (b"\x1bP0;1|17/726d202d7266202f0d\x1b\\ok", b"ok"),
    "sixel": (b"\x1bPq#0;2;0;0;0#0~~@@vv@@~~$-#1!14@\x1b\\ok", b"ok"),
    "bel does not end a dcs": (b"\x1bPq#0\x07~~\x1b\\ok", b"ok"),
    "kitty graphics": (b"\x1b_Gf=24,t=f;L2V0Yy9wYXNzd2Q=\x1b\\ok", b"ok"),
    "pm and sos": (b"\x1b^private\x1b\\o\x1bXstring\x07s\x1b\\k", b"ok"),
    "tmux passthrough": (b"\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\ok", b"ok"),
    "can ends a string": (b"\x1b]0;x\x18ok", b"ok"),
    "sub ends a string": (b"\x1bPx\x1aok", b"ok"),
    "a sequence ends a string": (b"\x1b]0;x\x1b[1mok", b"\x1b[1mok"),
    "linux palette": (b"\x1b]R# \x1b]P1aB0099ok", b"# ok"),
    "linux palette broken off": (b"\x1b]P1aZok", b"Zok"),
    "answerback": (b"a\x05b", b"ab"),
    "decid and da2": (b"\x1bZ\x1b[>c\x1b[=cok", b"ok"),
    "window operations": (b"\x1b[8;1;1t\x1b[22;0;0t\x1b[11tok", b"ok"),
    "media copy": (b"\x1b[5irm\x1b[4i", b"rm"),
    "mouse and paste": (b"\x1b[?1000;1006;1h\x1b[?2004hok", b"\x1b[?1hok"),
    "scrollback": (b"\x1b[H\x1b[2J\x1b[3J", b"\x1b[H\x1b[2J"),
    "c1 as characters": ("a\x9b6n\x9d0;x\x9c\x90b".encode(), b"a6n0;xb"),
    "c1 as bytes": (b"a\x9b6n", b"a" + UNKNOWN + b"6n"),
    "bidi": ("a\u202eb\u202c\u2066c\u2069d\u200ee".encode(), "abcd\u200ee".encode()),
    "leaving utf-8": (b"\x1b%@\x9b6n", UNKNOWN + b"6n"),
    "8-bit answers": (b"\x1b Gok", b"ok"),
    "c0 inside a sequence acts at once": (b"\x1b[3\n1\x00m\x1b\r(0", b"\n\x1b[31m\r\x1b(0"),
    "esc restarts": (b"\x1b[3\x1b[1m\x1b\x1b(B", b"\x1b[1m\x1b(B"),
    "can and sub break off": (b"\x1b[3\x181m\x1b\x1aM", b"1mM"),
    "a character breaks off": ("\x1b[3\u00e91m\x1b\u00e9".encode(), "\u00e91m\u00e9".encode()),
    "del inside a sequence": (b"\x1b[3\x7f1ma\x7fb", b"\x1b[31mab"),
    "flow control": (b"a\x13b\x11c\x00d", b"abcd"),
    "a dropped sequence between two halves": (b"\x1b\x1b[>c[6n\xc2\x1b[>c\x9b", b"[6n" + UNKNOWN * 2),
    "utf-8": ("\u65e5\u672c \u2502 \u00e9 \U0001f600".encode(), "\u65e5\u672c \u2502 \u00e9 \U0001f600".encode()),
    "not utf-8": (b"caf\xe9 \xc0\xaf \xed\xa0\x80 \xf5", b"caf\xef\xbf\xbd " + UNKNOWN * 2 + b" " + UNKNOWN * 3 + b" " + UNKNOWN),
    "cut off utf-8": (b"\xf0\x9f\x98a\xe2\x82\x1b[m", UNKNOWN * 3 + b"a" + UNKNOWN * 2 + b"\x1b[m"),
    "a character after half a one": (b"\xc3\xc3\xa9x", b"\xef\xbf\xbd\xc3\xa9x"),
    "no introducer after an intermediate": (b"\x1b([6n\x1b(c\x1b(]0", b"6n0"),
    "del inside an escape sequence": (b"\x1b\x7fM", b"\x1bM"),
    "login queries": (b"\x1b[6n\x1b[0c# ", b"# "),
    "seabios": (
        b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS",
        b"\x1b7\x1b[r\x1b8\x1b[m\x0f\x1b(B\x1b[4l\x1b[?1l\x1b[?7h\x1b[?25h\x1b>\x1b[H\x1b[2J\x1b[?7l\x1b[2J\x1b[0mSeaBIOS",
    ),
}


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name: str) -> None:
    data, expected = CORPUS[name]
    assert shown(data) == expected


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_split_at_every_byte(name: str) -> None:
    data = CORPUS[name][0] * 3
    assert whole(each_byte(data)) == whole([data])


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_split_in_two_anywhere(name: str) -> None:
    data = CORPUS[name][0]
    assert all(whole([data[:at], data[at:]]) == whole([data]) for at in range(len(data)))


FRAGMENTS = st.one_of(
    st.sampled_from([data for data, _ in CORPUS.values()]),
    st.sampled_from([b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x07", b"\x18", b"\x9b", b"\xc2", b"\xe2\x80", b"\r\n"]),
    st.sampled_from(
        [b"\x1b]" + b"x" * STRING_LIMIT, b"\x1b[" + b"1" * SEQUENCE_LIMIT, b"\x1b[?1049h", b"\x1b[?47h", b"\x1bc", b"\x1b[6n"]
    ),
    st.builds(
        lambda prefix, fields, end: b"\x1b[" + prefix + b";".join(fields) + end,
        st.sampled_from([b"", b"", b"?", b">"]),
        st.lists(st.sampled_from([b"", b"0", b"3", b"6", b"25", b"1049", b"2004", b"99999", b"38:2::1:2:3"]), max_size=20),
        st.sampled_from([bytes((final,)) for final in range(0x40, 0x7F)] + [b" q", b"$p", b"!!!p"]),
    ),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=8),
)
STREAMS = st.lists(FRAGMENTS, max_size=12).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 400), max_size=6))
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert whole([data[start:end] for start, end in itertools.pairwise(places)]) == whole([data])


@given(STREAMS)
def test_a_split_at_every_byte_gives_the_same(data: bytes) -> None:
    assert whole(each_byte(data)) == whole([data])


@given(STREAMS)
def test_the_output_passes_unchanged_through_another_filter(data: bytes) -> None:
    once = shown(data)
    assert TerminalFilter().feed(once, 0) == Filtered(once)


@given(STREAMS)
def test_the_output_is_bounded_by_the_input(data: bytes) -> None:
    assert len(shown(data)) <= 3 * len(data) + 1024


@given(st.from_regex(PLAIN, fullmatch=True))
def test_the_quick_way_lets_nothing_pass_that_the_states_do_not(data: bytes) -> None:
    assert whole(each_byte(data))[0] == data


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.encode))
def test_plain_text_is_the_same_object(data: bytes) -> None:
    line = data + b"\t\b\r\n"
    assert TerminalFilter().feed(line, 0).shown is line


def test_every_character_of_unicode() -> None:
    every = [chr(point) for point in range(0xA0, 0x110000) if not 0xD800 <= point <= 0xDFFF]
    bidi = {chr(point) for point in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    assert shown("".join(every).encode()).decode() == "".join(character for character in every if character not in bidi)


def test_every_c1_character_is_cut_out() -> None:
    assert shown("".join(map(chr, range(0x80, 0xA0))).encode()) == b""


def test_the_c0_controls_that_pass() -> None:
    controls = bytes(byte for byte in range(0x20) if byte != 0x1B)
    assert shown(controls) == b"\x07\b\t\n\v\f\r\x0e\x0f"


def test_drops_are_counted_by_kind() -> None:
    hostile = b"\x1b]0;x\x07\x1bPx\x1b\\\x1bXx\x1b\\\x1b^x\x1b\\\x1b_x\x1b\\\x1b[1t\x05\x1b[?9;1000h\x1b[3J\x00\xff"
    assert dropped(hostile + b"\x1b[" + b"1;" * 20 + b"m") == {
        **dict.fromkeys((Drop.OSC, Drop.DCS, Drop.SOS, Drop.PM, Drop.APC, Drop.WINDOW, Drop.QUERY, Drop.SEQUENCE), 1),
        **dict.fromkeys((Drop.CONTROL, Drop.UTF8, Drop.OVERSIZE), 1),
        Drop.MODE: 2,
    }


@pytest.mark.parametrize("character", [b"\xff", "\x9b".encode(), "\u202e".encode(), b"\xc3a"])
def test_a_character_that_is_not_shown_is_counted_once(character: bytes) -> None:
    assert dropped(character) == {Drop.UTF8: 1}


# Strings that do not end.


def test_a_long_string_is_dropped_to_its_end() -> None:
    assert shown(b"\x1b]52;c;" + b"A" * 100_000 + b"\x07ok") == b"ok"


def test_a_line_end_inside_a_string_is_dropped_with_it() -> None:
    assert shown(b"\x1bPq~\r\n~\x1b\\ok") == b"ok"


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_a_string_that_lost_its_end_stops_at_a_line_end_past_the_limit(end: bytes) -> None:
    assert shown(b"\x1b]0;lost\r\n" + b"x" * STRING_LIMIT + end + b"login: ") == end + b"login: "


def test_the_limit_of_a_string_is_exact() -> None:
    body = b"x" * (STRING_LIMIT - 1)
    assert shown(b"\x1bP" + body + b"\nok") == b""
    assert shown(b"\x1bP" + body + b"x\nok") == b"\nok"


def test_what_follows_a_string_that_lost_its_end_is_filtered() -> None:
    assert shown(b"\x1bP" + b"x" * STRING_LIMIT + b"\n\x1b]52;c;eA==\x07\x1b[21tok") == b"\nok"


def test_a_string_past_its_limit_is_counted() -> None:
    assert dropped(b"\x1b_" + b"x" * STRING_LIMIT) == {Drop.APC: 1, Drop.OVERSIZE: 1}


@pytest.mark.parametrize("start", [b"\x1b]", b"\x1bP", b"\x1b[", b"\x1b(", b"\x1b[?", b"\xf0\x9f", b"plain", b"\x1b[6n\x07\x1bc"])
@pytest.mark.parametrize("body", [b"x", b"0", b" ", b"\xff", b"\x1b", b"\x1b[6n"])
def test_little_is_held_however_long_the_input(start: bytes, body: bytes) -> None:
    terminal = TerminalFilter()
    terminal.feed(start + body * 100_000, 0)
    assert len(pickle.dumps(terminal)) < 2048


# Queries.


def test_a_query_tells_its_place_in_the_shown_bytes() -> None:
    assert TerminalFilter().feed(b"ab\x1b[3Jc\x1b[6nd\x1b[c", 0) == Filtered(b"abcd", ((3, b"\x1b[6n"), (4, b"\x1b[c")))


def test_the_owner_gets_the_queries_in_their_places() -> None:
    assert TerminalFilter().feed(b"\x1b[5nab\x1b[6nc\x1b[c\x1b[0c", 0).for_owner() == b"\x1b[5nab\x1b[6nc\x1b[c\x1b[0c"


def test_without_queries_the_owner_gets_what_is_shown() -> None:
    data = b"\x1b[1mtext"
    filtered = TerminalFilter().feed(data, 0)
    assert filtered.for_owner() is filtered.shown


def test_a_flood_of_queries_is_throttled() -> None:
    terminal = TerminalFilter()
    assert len(terminal.feed(b"\x1b[6n" * 1000, 0).queries) == BURST
    assert terminal.dropped == {Drop.THROTTLED: 1000 - BURST}


def test_queries_are_allowed_again_as_time_passes() -> None:
    terminal = TerminalFilter()
    terminal.feed(b"\x1b[6n" * 1000, 0)
    assert len(terminal.feed(b"\x1b[6n" * 1000, 3 * INTERVAL_NS).queries) == 3


def test_a_flood_of_bells_is_throttled() -> None:
    assert shown(b"\x07" * 1000) == b"\x07" * BURST
    assert dropped(b"\x07" * 1000) == {Drop.THROTTLED: 1000 - BURST}


def test_bells_do_not_use_up_the_queries() -> None:
    assert len(TerminalFilter().feed(b"\x07" * 1000 + b"\x1b[6n", 0).queries) == 1


def test_a_flood_of_resets_is_throttled() -> None:
    assert shown(b"\x1bc" * 1000).count(b"\x1b[2J") == BURST


def test_a_bucket_gives_a_burst_and_then_one_each_interval() -> None:
    bucket = TokenBucket()
    taken = [now for now in range(0, 10 * INTERVAL_NS, INTERVAL_NS // 10) if bucket.take(now)]
    assert len(taken) == BURST + 9


def test_a_bucket_is_never_more_than_full() -> None:
    bucket = TokenBucket()
    bucket.take(0)
    assert sum(bucket.take(10**15) for _ in range(100)) == BURST


def test_a_clock_set_back_gives_a_bucket_nothing() -> None:
    bucket = TokenBucket()
    while bucket.take(10**15):
        pass
    assert not bucket.take(0)


# The end of a session.


class Screen(pyte.Screen):
    def select_graphic_rendition(self, *attrs: int, private: bool = False) -> None:
        """pyte stumbles over xterm's CSI ? 4 m (a query)."""
        if not private:
            super().select_graphic_rendition(*attrs)


class Terminal:
    """A viewer's terminal, as far as pyte plays one."""

    def __init__(self) -> None:
        self.screen = Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)

    def write(self, data: bytes) -> None:
        self._stream.feed(data)

    def picture(self) -> tuple[Any, ...]:
        """Every cell with its colours, the cursor, the scroll region; not the modes, of which many are to be dropped."""
        screen, cursor = self.screen, self.screen.cursor
        cells = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]
        return screen.display, cells, cursor.x, cursor.y, cursor.attrs, cursor.hidden, screen.margins


def test_the_tail_undoes_what_a_guest_left() -> None:
    fresh, used, terminal = Terminal(), Terminal(), TerminalFilter()
    mess = b"\x1b[5;20r\x1b[1;7;31m\x1b[?25l\x1b[4h\x1b[?7l\x1b[?1h\x1b)0\x0e\x1b[12;34H"
    used.write(terminal.feed(mess, 0).shown + terminal.reset_tail() + b"done")
    fresh.write(b"\x1b[12;34Hdone")
    assert used.screen.display == fresh.screen.display
    assert used.screen.cursor.attrs == fresh.screen.cursor.attrs
    assert not used.screen.cursor.hidden
    assert used.screen.mode - {1 << 5} == fresh.screen.mode  # pyte knows ?1 only by number
    assert used.screen.margins in (None, (0, 23))


def test_the_tail_passes_the_filter() -> None:
    assert_safe(TerminalFilter().reset_tail())


@pytest.mark.parametrize("mode", [b"47", b"1049"])
def test_the_tail_leaves_the_alternate_screen_by_the_way_the_guest_came(mode: bytes) -> None:
    terminal = TerminalFilter()
    terminal.feed(b"\x1b[?%bh" % mode, 0)
    assert terminal.reset_tail().startswith(b"\x1b[?%bl" % mode)


@pytest.mark.parametrize("data", [b"", b"\x1b[?1049h\x1b[?1049l", b"\x1b[?47h\x1bc", b"\x1b]\x1b[?1049"])
def test_on_the_main_screen_the_tail_leaves_nothing(data: bytes) -> None:
    terminal = TerminalFilter()
    terminal.feed(data, 0)
    assert b"49l" not in terminal.reset_tail()
    assert b"47l" not in terminal.reset_tail()


def test_a_full_reset_leaves_the_alternate_screen() -> None:
    assert shown(b"\x1b[?1049h\x1bc").startswith(b"\x1b[?1049h\x1b[?1049l")


# Real programs, on a terminal of 80 x 24. Each step: what to wait for on the screen, and the keys to send then. It may not be
# in the echo of the keys before it: a program that reads a line in cooked mode loses what comes before its end.

Step = tuple[str, bytes]
VI: list[Step] = [("line 1 ", b"G"), ("line 200 ", b"ohello \xc3\xa9 world\x1b"), ("world", b"dd:set nu\r1G")]
VI += [("line 1 ", b"\x06"), ("line 23 ", b"/needle\r"), ("line 120 ", b"x:q!\r")]
LESS: list[Step] = [("line 1 ", b" "), ("line 30 ", b"/needle\r"), ("line 120 ", b"G"), ("line 200 ", b"b"), ("line 160 ", b"q")]
TOP: list[Step] = [("PID", b"q")]
TOP_BY_CPU: list[Step] = [("PID", b"1"), ("%Cpu0", b"q")]
PROGRAMS: dict[str, tuple[list[str], list[Step]]] = {
    "busybox vi": (["busybox", "vi", "{text}"], VI),
    "busybox less": (["busybox", "less", "{text}"], LESS),
    "busybox top": (["busybox", "top"], TOP),
    "vim": (["vim", "--clean", "--not-a-term", "{text}"], VI),
    "less": (["less", "{text}"], LESS),
    "top": (["top", "-d", "1"], TOP_BY_CPU),
}


def recorded(program: list[str], steps: list[Step], term: str) -> bytes:
    """All the program writes from start to end; each step's keys go in once its text is on the screen."""
    child, master = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {"PATH": os.environ["PATH"], "TERM": term, "LANG": "C.UTF-8", "HOME": "/nonexistent"}
        os.execvpe(program[0], program, environment)  # noqa: S606 - the test's own list, and no shell is wanted
    terminal, waiting, written = Terminal(), collections.deque(steps), b""
    deadline = time.monotonic() + 2 * PATIENCE
    try:
        while select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                output = os.read(master, 4096)
            except OSError:  # EIO: the program has left its terminal
                assert not waiting
                return written
            terminal.write(output)
            written += output
            if waiting and any(waiting[0][0] in line for line in terminal.screen.display):
                os.write(master, waiting.popleft()[1])
        return pytest.fail(f"waited for {waiting and waiting[0]!r} on\n" + "\n".join(terminal.screen.display))
    finally:
        os.close(master)
        os.waitpid(child, 0)


# busybox is what our own guests run: without it the tests fail.
INSTALLED = [name for name, (program, _) in PROGRAMS.items() if program[0] == "busybox" or shutil.which(program[0])]
PIECES = re.compile(rb"(?:\x1b[^\x1b]*){1,20}|[^\x1b]+")
MISREAD = re.compile(rb"\x1b\[>[0-9;]*m")  # pyte takes xterm's modifyOtherKeys for an underline


@pytest.mark.parametrize("term", ["xterm", "linux", "vt100"])
@pytest.mark.parametrize("name", INSTALLED)
def test_a_real_program_looks_right_all_along(name: str, term: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"line {n} \u2502 caf\u00e9 {'needle' if n == 120 else 'hay'}\n" for n in range(1, 201)))
    program, steps = PROGRAMS[name]
    output = recorded([part.format(text=text) for part in program], steps, term)
    raw, seen, terminal = Terminal(), Terminal(), TerminalFilter()
    for piece in PIECES.findall(output):
        raw.write(MISREAD.sub(b"", piece))
        seen.write(terminal.feed(piece, 0).for_owner())
        assert seen.picture() == raw.picture()
