"""Which escape and control sequences of a guest may reach an operator's terminal. Pure: one whole sequence in, a verdict out.

Grammar: ECMA-48 5.4 (control sequences) and ECMA-35 (escape sequences); names as in xterm's ctlseqs. What is not named
here does not pass. `broker/terminal_filter.py` cuts the stream into sequences and does as the verdict says.

Choices:
- IRM (`CSI 4 h`) passes, for it only paints. LNM, KAM and SRM change the operator's keyboard: dropped. So are tab stops
  (HTS, TBC), which would outlive the session, `CSI 3 J`, which erases the operator's scrollback, and national character
  sets, which would change the letters of a shell's own language.
- A number too great is lowered, not refused: programs ask for the far corner with `CSI 32766;32766 H`.
"""

import dataclasses
import enum
import functools
import re
from typing import Final

SEQUENCE_LIMIT: Final = 128  # bytes between the introducer and the final byte
FIELD_LIMIT: Final = 16  # parameters in a sequence
SUBFIELD_LIMIT: Final = 8  # sub-parameters in an SGR parameter; 38:2::r:g:b has six
INTERMEDIATE_LIMIT: Final = 2
NUMBER_LIMIT: Final = 9999  # a greater number is lowered to this
REPEAT_LIMIT: Final = 999  # the same for REP, where each one is a character on the operator's screen


class Drop(enum.StrEnum):
    """Why something was kept from the viewers; a fixed set, fit for a metric's label."""

    OSC = "osc"
    DCS = "dcs"
    SOS = "sos"
    PM = "pm"
    APC = "apc"
    WINDOW = "window"
    QUERY = "query"
    MODE = "mode"  # counted for each mode number
    SEQUENCE = "sequence"  # any other escape or control sequence, and one that was broken off
    CONTROL = "control"  # C0 and DEL
    OVERSIZE = "oversize"  # too long, too many parameters, or a string longer than is waited for
    UTF8 = "utf8"  # a byte that is no UTF-8, a C1 or a bidirectional control character
    THROTTLED = "throttled"  # a permitted query, bell or reset too many


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one sequence: bytes for every viewer, a query for the keyboard's owner, or a drop; all may be empty."""

    shown: bytes = b""
    query: bytes = b""
    dropped: Drop | None = None
    count: int = 1  # of what was dropped
    alternate: int | None = None  # the mode by which `shown` goes to the alternate screen; 0 if it goes back


# Text and common sequences that pass as they are: only a quicker way to what the filter's states and the verdicts below
# would also say. UTF-8 after RFC 3629 section 4, less U+0080-U+009F, U+202A-U+202E (E2 80 AA-AE) and U+2066-U+2069.
PLAIN: Final = re.compile(
    rb"""(?:[\b-\x0f\x20-\x7e]+
         |\xc2[\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]
         |\xe2(?:\x80[\x80-\xa9\xaf-\xbf]|\x81[\x80-\xa5\xaa-\xbf]|[\x82-\xbf][\x80-\xbf])
         |\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1\xe3-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]
         |\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}
         |\x1b(?:\[(?:[0-9]{0,4}[@A-ILMPSTXZ`ade]
                     |[0-2]?[JK]
                     |[0-9]{0,4}(?:;[0-9]{0,4})?[Hfr]
                     |[0-9]{0,4}(?:;[0-9]{0,4}){0,15}m
                     |\?(?:1|7|25)[hl])
               |[78M=>DE]
               |[()*+][0AB]))+""",
    re.VERBOSE,
)

_ESCAPES: Final = frozenset(b"78M=>DE")  # DECSC DECRC RI DECKPAM DECKPNM IND NEL
# To G0 to G3: line drawing, British, ASCII.
_CHARSETS: Final = frozenset(slot + name for slot in (b"(", b")", b"*", b"+") for name in (b"0", b"A", b"B"))

_PARTS: Final = re.compile(rb"([<-?]?)([0-9:;]*)([ -/]*)")
_LONG_NUMBER: Final = re.compile(rb"[0-9]{5,}")
_LONG_REPEAT: Final = re.compile(rb"[0-9]{4,}")
# The most parameters of each final byte. Of one: ICH CUU CUD CUF CUB CNL CPL CHA CHT IL DL DCH SU SD ECH CBT HPA HPR REP
# VPA VPR, ED EL (SD with more is xterm's mouse tracking). Of two: CUP HVP DECSTBM. SCOSC and SCORC have none (with
# parameters they are DECSLRM and a key report).
_FIELDS: Final = {
    **{bytes((final,)): 1 for final in b"@ABCDEFGILMPSTXZ`abdeJK"},
    **dict.fromkeys((b"H", b"f", b"r"), 2),
    **dict.fromkeys((b"s", b"u"), 0),
    b"m": FIELD_LIMIT,
}
_ERASURES: Final = frozenset({b"", b"0", b"1", b"2"})
_QUERIES: Final = frozenset({b"c", b"0c", b"5n", b"6n"})  # DA1, DSR
# IRM; DECCKM DECAWM DECTCEM and the two ways to the alternate screen.
_MODES: Final = {b"": frozenset({4}), b"?": frozenset({1, 7, 25, 47, 1049})}
_ALTERNATE_MODES: Final = frozenset({47, 1049})
# Names for the counts alone: what else is dropped, by its last bytes, with the prefix where that decides.
_NAMES: Final = {
    **dict.fromkeys((b"c", b"n", b"x", b"$p", b"*y", b">q", b"?u", b"?S"), Drop.QUERY),
    **dict.fromkeys((b"h", b"l"), Drop.MODE),
    b"t": Drop.WINDOW,
}


def judge_escape(intermediates: bytes, final: bytes) -> Verdict:
    """On ESC, `intermediates` (0x20-0x2f) and `final` (0x30-0x7e), where that introduces nothing longer."""
    if len(intermediates) > INTERMEDIATE_LIMIT:
        return Verdict(dropped=Drop.OVERSIZE)
    if intermediates + final in _CHARSETS or (not intermediates and ord(final) in _ESCAPES):
        return Verdict(b"\x1b" + intermediates + final)
    return Verdict(dropped=Drop.QUERY if intermediates + final == b"Z" else Drop.SEQUENCE)  # DECID


@functools.lru_cache(maxsize=512)
def judge_csi(body: bytes, final: bytes) -> Verdict:
    """On CSI, `body` (0x20-0x3f, perhaps cut off past SEQUENCE_LIMIT) and `final` (0x40-0x7e)."""
    parts = _PARTS.fullmatch(body)
    if parts is None:
        return Verdict(dropped=Drop.SEQUENCE)
    prefix, parameters, intermediates = parts.groups()
    fields = parameters.split(b";") if parameters else []
    if (
        len(body) > SEQUENCE_LIMIT
        or len(fields) > FIELD_LIMIT
        or len(intermediates) > INTERMEDIATE_LIMIT
        or any(field.count(b":") >= SUBFIELD_LIMIT for field in fields)
    ):
        return Verdict(dropped=Drop.OVERSIZE)
    if final in b"hl" and prefix in _MODES and not intermediates and b":" not in parameters:
        return _judge_modes(prefix, parameters.split(b";"), final)
    if body + final in _QUERIES:
        return Verdict(query=b"\x1b[" + body + final)
    if not prefix and not intermediates and _passes(parameters, len(fields), final):
        return Verdict(b"\x1b[" + _lowered(parameters, final) + final)
    name = intermediates + final
    return Verdict(dropped=_NAMES.get(prefix + name, _NAMES.get(name, Drop.SEQUENCE)))


def _judge_modes(prefix: bytes, fields: list[bytes], final: bytes) -> Verdict:
    numbers = [int(field or b"0") for field in fields]
    kept = [number for number in numbers if number in _MODES[prefix]]
    alternate = None
    for number in kept:
        if number in _ALTERNATE_MODES:
            alternate = number if final == b"h" else 0
    return Verdict(
        shown=b"\x1b[" + prefix + b";".join(b"%d" % number for number in kept) + final if kept else b"",
        dropped=Drop.MODE if len(kept) < len(numbers) else None,
        count=len(numbers) - len(kept),
        alternate=alternate,
    )


def _passes(parameters: bytes, fields: int, final: bytes) -> bool:
    """Whether a control sequence without prefix and intermediates passes."""
    if final in b"JK":
        return parameters in _ERASURES
    if b":" in parameters and final != b"m":
        return False
    return final in _FIELDS and fields <= _FIELDS[final]


def _lowered(parameters: bytes, final: bytes) -> bytes:
    """The parameters with no number above the limit, and none of more digits than the limit has."""
    long, limit = (_LONG_REPEAT, REPEAT_LIMIT) if final == b"b" else (_LONG_NUMBER, NUMBER_LIMIT)
    return long.sub(lambda number: b"%d" % min(int(number.group()), limit), parameters)
