"""The verdicts on single escape and control sequences."""

import pytest

from broker.terminal_sequence import FIELD_LIMIT, SEQUENCE_LIMIT, SUBFIELD_LIMIT, Drop, Verdict, judge_csi, judge_escape


def csi(sequence: bytes) -> Verdict:
    return judge_csi(sequence[:-1], sequence[-1:])


def escape(sequence: bytes) -> Verdict:
    return judge_escape(sequence[:-1], sequence[-1:])


@pytest.mark.parametrize(
    "sequence",
    [b"A", b"12B", b"C", b"4D", b"2E", b"2F", b"80G", b"I", b"Z", b"3a", b"3e", b"7d", b"7`"]
    + [b"H", b"5;7H", b";7H", b"5;H", b"24;80f", b"r", b"1;24r", b"3S", b"3T"]
    + [b"J", b"0J", b"1J", b"2J", b"K", b"0K", b"1K", b"2K", b"4X"]
    + [b"@", b"2@", b"P", b"2P", b"L", b"2L", b"M", b"2M", b"5b", b"s", b"u"]
    + [b"m", b"0;1;31m", b"38;5;200m", b"38;2;1;2;3m", b"38:2::255:128:0m", b"4:3m", b";m"]
    + [b"4h", b"4l"]
    + [b"?%d%c" % (mode, final) for mode in (1, 7, 25, 47, 1049) for final in b"hl"],
)
def test_shown_as_it_is(sequence: bytes) -> None:
    assert csi(sequence).shown == b"\x1b[" + sequence
    assert csi(sequence).dropped is None


@pytest.mark.parametrize(
    ("sequence", "kind"),
    [
        (b"14t", Drop.WINDOW),
        (b"22;0;0t", Drop.WINDOW),
        (b">c", Drop.QUERY),
        (b">0c", Drop.QUERY),
        (b"=c", Drop.QUERY),
        (b"?0c", Drop.QUERY),
        (b"1c", Drop.QUERY),
        (b"00c", Drop.QUERY),
        (b"?6n", Drop.QUERY),
        (b"?15n", Drop.QUERY),
        (b">6n", Drop.QUERY),
        (b"n", Drop.QUERY),
        (b"7n", Drop.QUERY),
        (b"5;6n", Drop.QUERY),
        (b"?2004$p", Drop.QUERY),
        (b"4$p", Drop.QUERY),
        (b">0q", Drop.QUERY),
        (b"x", Drop.QUERY),
        (b"1;1;1;1;5;5*y", Drop.QUERY),
        (b"?u", Drop.QUERY),
        (b"?1;1;0S", Drop.QUERY),
        (b"2h", Drop.MODE),
        (b"12l", Drop.MODE),
        (b"20h", Drop.MODE),
        (b"?5h", Drop.MODE),
        (b"?6h", Drop.MODE),
        (b"?9h", Drop.MODE),
        (b"?1000h", Drop.MODE),
        (b"?1006h", Drop.MODE),
        (b"?1007h", Drop.MODE),
        (b"?1048h", Drop.MODE),
        (b"?2004h", Drop.MODE),
        (b"?h", Drop.MODE),
        (b">4h", Drop.MODE),
        (b"?25 h", Drop.SEQUENCE),
        (b"?1:25h", Drop.MODE),
        (b"3J", Drop.SEQUENCE),
        (b"2;3J", Drop.SEQUENCE),
        (b"03J", Drop.SEQUENCE),
        (b"?2J", Drop.SEQUENCE),
        (b"3K", Drop.SEQUENCE),
        (b"3g", Drop.SEQUENCE),
        (b"i", Drop.SEQUENCE),
        (b"5i", Drop.SEQUENCE),
        (b"?5i", Drop.SEQUENCE),
        (b"!p", Drop.SEQUENCE),
        (b"2 q", Drop.SEQUENCE),
        (b"1;2;3;4;5T", Drop.SEQUENCE),
        (b"1;2;3H", Drop.SEQUENCE),
        (b"1:2H", Drop.SEQUENCE),
        (b"1;2s", Drop.SEQUENCE),
        (b"0u", Drop.SEQUENCE),
        (b">1u", Drop.SEQUENCE),
        (b"=1;1u", Drop.SEQUENCE),
        (b">4;2m", Drop.SEQUENCE),
        (b"?4m", Drop.SEQUENCE),
        (b"?1r", Drop.SEQUENCE),
        (b"?1s", Drop.SEQUENCE),
        (b"1 @", Drop.SEQUENCE),
        (b"1?h", Drop.SEQUENCE),
        (b"1$2m", Drop.SEQUENCE),
        (b"1 1H", Drop.SEQUENCE),
        (b"~", Drop.SEQUENCE),
    ],
)
def test_dropped(sequence: bytes, kind: Drop) -> None:
    assert csi(sequence) == Verdict(dropped=kind)


@pytest.mark.parametrize("sequence", [b"c", b"0c", b"5n", b"6n"])
def test_a_login_s_queries_are_for_the_owner_and_not_shown(sequence: bytes) -> None:
    assert csi(sequence) == Verdict(query=b"\x1b[" + sequence)


def test_each_mode_is_judged_on_its_own() -> None:
    assert csi(b"?1;1000;25;2004h") == Verdict(shown=b"\x1b[?1;25h", dropped=Drop.MODE, count=2)


def test_a_mode_is_shown_by_its_number() -> None:
    assert csi(b"?0025l").shown == b"\x1b[?25l"


@pytest.mark.parametrize(
    ("sequence", "alternate"), [(b"?1049h", 1049), (b"?47h", 47), (b"?1049l", 0), (b"?25h", None), (b"?47;1049;25h", 1049)]
)
def test_the_way_to_the_alternate_screen_is_told(sequence: bytes, alternate: int | None) -> None:
    assert csi(sequence).alternate == alternate


@pytest.mark.parametrize(
    ("sequence", "shown"),
    [
        (b"32766;32766H", b"9999;9999H"),
        (b"9999;10000H", b"9999;9999H"),
        (b"00000001;1H", b"1;1H"),
        (b"1000b", b"999b"),
        (b"99999b", b"999b"),
        (b"38:2::70000:1:1m", b"38:2::9999:1:1m"),
        (b"9" * SEQUENCE_LIMIT + b"A", b"9999A"),
    ],
)
def test_a_great_number_is_lowered(sequence: bytes, shown: bytes) -> None:
    assert csi(sequence) == Verdict(shown=b"\x1b[" + shown)


@pytest.mark.parametrize(
    "sequence",
    [
        b"1;" * (FIELD_LIMIT - 1) + b"1m",
        b"1:" * (SUBFIELD_LIMIT - 1) + b"1m",
    ],
)
def test_as_many_parameters_as_may_be_are_shown(sequence: bytes) -> None:
    assert csi(sequence).shown == b"\x1b[" + sequence


@pytest.mark.parametrize(
    "sequence",
    [
        b"1;" * FIELD_LIMIT + b"1m",
        b"1:" * SUBFIELD_LIMIT + b"1m",
        b"9" * (SEQUENCE_LIMIT + 1) + b"A",
        b"?" + b"25;" * FIELD_LIMIT + b"25h",
        b"!!!p",
    ],
)
def test_too_many_parameters_or_bytes_are_dropped_whole(sequence: bytes) -> None:
    assert csi(sequence) == Verdict(dropped=Drop.OVERSIZE)


@pytest.mark.parametrize("sequence", [b"7", b"8", b"M", b"=", b">", b"D", b"E", b"(0", b"(A", b"(B", b")0", b"*B", b"+A"])
def test_escape_shown(sequence: bytes) -> None:
    assert escape(sequence) == Verdict(shown=b"\x1b" + sequence)


@pytest.mark.parametrize(
    ("sequence", "kind"),
    [
        (b"Z", Drop.QUERY),
        (b"H", Drop.SEQUENCE),
        (b"N", Drop.SEQUENCE),
        (b"n", Drop.SEQUENCE),
        (b"l", Drop.SEQUENCE),
        (b"k", Drop.SEQUENCE),
        (b"#8", Drop.SEQUENCE),
        (b"%@", Drop.SEQUENCE),
        (b"%G", Drop.SEQUENCE),
        (b" G", Drop.SEQUENCE),
        (b"(K", Drop.SEQUENCE),
        (b"-A", Drop.SEQUENCE),
        (b"((B", Drop.SEQUENCE),
        (b"(((B", Drop.OVERSIZE),
    ],
)
def test_escape_dropped(sequence: bytes, kind: Drop) -> None:
    assert escape(sequence) == Verdict(dropped=kind)
