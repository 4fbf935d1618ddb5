"""What of a guest's serial output reaches the operators' terminals. Pure: bytes and a time in, bytes out.

Guest output is hostile (design, invariant 9): it may move the cursor and paint, but not reach the operator's clipboard,
title, files, keyboard or mouse, nor make the terminal answer beyond what a login needs. The states are those of the DEC
VT500 (vt100.net, "A parser for DEC's ANSI-compatible video terminals"); a sequence is held until it is whole and is then
shown whole or not at all. Which ones pass is in `broker/terminal_sequence.py`.

Choices:
- The console speaks UTF-8. A byte that is no UTF-8 is shown as U+FFFD, one for each byte, so that Latin-1 text keeps its
  columns. Raw C1 bytes are such bytes; the characters U+0080-U+009F are cut out, for a terminal would obey them.
- The bidirectional overrides and isolates (U+202A-U+202E, U+2066-U+2069) are cut out: they make a line read otherwise
  than it is, and no console program needs them.
- BEL passes, rate-limited: a guest may ring, not din.
- `ESC c` (full reset) is sent by firmware, by `reset` and by some logins, but in the operator's terminal it would also
  wipe the scrollback and the operator's own settings. It becomes the undoing of what passes, then a clear screen.
- A string (OSC, DCS, SOS, PM, APC) is dropped with its body, unbuffered. One that has not ended after STRING_LIMIT bytes
  ends at the next line end too, so that a lost terminator cannot blank the console; what follows is filtered as ever.
"""

import codecs
import collections
import dataclasses
import re
from collections.abc import Callable
from typing import ClassVar, Final

from broker.terminal_sequence import PLAIN, SEQUENCE_LIMIT, Drop, judge_csi, judge_escape

STRING_LIMIT: Final = 4096  # bytes of a string's body after which a line end ends it too
BURST: Final = 8  # queries, bells and resets: each kind so many at once ...
INTERVAL_NS: Final = 250_000_000  # ... and how long until one more


@dataclasses.dataclass(frozen=True, slots=True)
class Filtered:
    """One chunk after the filter.

    `shown` is for every viewer; the offsets of a session's stream count it and nothing else. `queries` (DA1, DSR 5 and 6)
    are for the keyboard's owner alone, each with its offset in `shown`, ascending: out of band, never kept for replay.
    Both hold whole characters and sequences only, so anything may be sent between two chunks.
    """

    shown: bytes
    queries: tuple[tuple[int, bytes], ...] = ()

    def for_owner(self) -> bytes:
        """`shown` with the queries in their places; `shown` itself when there are none."""
        if not self.queries:
            return self.shown
        parts: list[bytes] = []
        start = 0
        for offset, query in self.queries:
            parts += (self.shown[start:offset], query)
            start = offset
        return b"".join((*parts, self.shown[start:]))


class TokenBucket:
    """BURST at once, then one each INTERVAL_NS (generic cell rate algorithm, ITU-T I.371). A clock set back only denies."""

    def __init__(self) -> None:
        self._full_at_ns: int | None = None

    def take(self, now_ns: int) -> bool:
        """Whether one more is allowed at `now_ns`; if so it is taken."""
        full_at_ns = now_ns if self._full_at_ns is None else max(self._full_at_ns, now_ns)
        if full_at_ns - now_ns > (BURST - 1) * INTERVAL_NS:
            return False
        self._full_at_ns = full_at_ns + INTERVAL_NS
        return True


# The states, as indices into TerminalFilter._STEPS (an Enum's look-ups took a third of the time):
_GROUND: Final = 0
_ESCAPE: Final = 1  # after ESC, and its intermediate bytes
_CSI: Final = 2
_OSC: Final = 3  # after ESC ], before the first byte, which tells the Linux console's own kinds
_PALETTE: Final = 4  # in the Linux console's ESC ] P nrrggbb, which has no terminator
_STRING: Final = 5
_OVERRUN: Final = 6  # in a string past STRING_LIMIT

_ENQ, _BEL, _CAN, _SUB, _ESC, _DEL = 0x05, 0x07, 0x18, 0x1A, 0x1B, 0x7F

# BS HT LF VT FF CR SO SI, and printable ASCII.
_TEXT: Final = bytes([*range(0x08, 0x10), *range(0x20, _DEL)])
_HIGH: Final = re.compile(rb"[\x80-\xff]+")
_UNSHOWN: Final = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069]+")
_UNDECODED: Final = re.compile("[\udc80-\udcff]")  # surrogateescape's mark for a byte that is no UTF-8
_UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"

_STRINGS: Final = {ord("P"): Drop.DCS, ord("X"): Drop.SOS, ord("^"): Drop.PM, ord("_"): Drop.APC}
_OSC_END: Final = re.compile(rb"[\x07\x18\x1a\x1b]")
_STRING_END: Final = re.compile(rb"[\x18\x1a\x1b]")
_OVERRUN_END: Final = re.compile(rb"[\x07\n\r\x18\x1a\x1b]")
_CSI_BODY: Final = re.compile(rb"[\x20-\x3f]*")
_WHOLE_CSI: Final = re.compile(rb"\x1b\[([\x20-\x3f]{0,%d})([\x40-\x7e])" % SEQUENCE_LIMIT)

# Undoes what passes: region (which homes the cursor, hence ESC 7 and 8), SGR, SI, G0, IRM, DECCKM, DECAWM, DECTCEM, keypad.
# G1 stays: terminals differ in what it is at first, and after SI nothing shows it.
_SANE: Final = b"\x1b7\x1b[r\x1b8\x1b[m\x0f\x1b(B\x1b[4l\x1b[?1l\x1b[?7h\x1b[?25h\x1b>"


class TerminalFilter:
    """The filter of one console's output, whatever the number of its viewers. Little and bounded is held between chunks.

    `dropped` counts what was kept back since the start.
    """

    def __init__(self) -> None:
        self.dropped: collections.Counter[Drop] = collections.Counter()
        self._state: int = _GROUND
        self._sequence = bytearray()  # of ESCAPE and CSI: what came between the introducer and the final byte
        self._partial = b""  # the start of a character whose rest has not come
        self._room = 0  # bytes that STRING may still drop, hex digits that PALETTE may
        self._string_end = _STRING_END
        self._alternate = 0  # the mode by which the guest went to the alternate screen, 0 on the main one
        self._query_bucket, self._bell_bucket, self._reset_bucket = TokenBucket(), TokenBucket(), TokenBucket()
        # Of the chunk in hand; empty between chunks.
        self._now_ns = 0
        self._shown = bytearray()
        self._queries: list[tuple[int, bytes]] = []

    def feed(self, data: bytes, now_ns: int) -> Filtered:
        """The next bytes from the guest, at `now_ns` of a monotonic clock; any split of the stream gives the same whole.

        Plain text comes back as the same object. Never longer than three times the input plus 1 KiB.
        """
        if self._state == _GROUND and not self._partial and not data.translate(None, _TEXT):
            return Filtered(data)
        self._now_ns = now_ns
        at = 0
        while at < len(data):
            at = self._STEPS[self._state](self, data, at)
        filtered = Filtered(bytes(self._shown), tuple(self._queries))
        self._shown.clear()
        self._queries.clear()
        return filtered

    def reset_tail(self) -> bytes:
        """The bytes that leave a viewer's terminal sane at a session's end; the cursor stays where it is."""
        return (b"\x1b[?%dl" % self._alternate if self._alternate else b"") + _SANE

    # The states. Each step takes one byte or one run of bytes at `at` and gives the place of the next.

    def _ground(self, data: bytes, at: int) -> int:
        if self._partial and data[at] < 0x80:
            self._end_character()
        if not self._partial and (plain := PLAIN.match(data, at)):
            self._shown += plain.group()
            return plain.end()
        if whole := _WHOLE_CSI.match(data, at):  # the quick way through ESCAPE and CSI
            self._end_csi(*whole.groups())
            return whole.end()
        if high := _HIGH.match(data, at):
            self._characters(high.group())
            return high.end()
        if data[at] == _ESC:
            self._enter(_ESCAPE)
        else:
            self._control(data[at])
        return at + 1

    def _escape(self, data: bytes, at: int) -> int:
        byte = data[at]
        if not 0x20 <= byte < _DEL:
            return self._interrupt(byte, at)
        if byte < 0x30:
            self._collect(data[at : at + 1])
        else:
            self._state = _GROUND
            self._end_escape(byte)
        return at + 1

    def _csi(self, data: bytes, at: int) -> int:
        if body := _CSI_BODY.match(data, at):
            self._collect(body.group())
            at = body.end()
        if at == len(data):
            return at
        if not 0x20 <= data[at] < _DEL:
            return self._interrupt(data[at], at)
        self._state = _GROUND
        self._end_csi(bytes(self._sequence), data[at : at + 1])
        return at + 1

    def _osc(self, data: bytes, at: int) -> int:
        # ESC ] R (reset the palette) has no terminator either; programs of TERM=linux send it on leaving (console_codes(4)).
        if data[at] == ord("R"):
            self._state = _GROUND
            return at + 1
        if data[at] == ord("P"):
            self._state, self._room = _PALETTE, 7
            return at + 1
        self._state = _STRING
        return at

    def _palette(self, data: bytes, at: int) -> int:
        is_digit = data[at] in b"0123456789abcdefABCDEF"
        self._room -= 1
        if not is_digit or not self._room:
            self._state = _GROUND
        return at + 1 if is_digit else at

    def _string(self, data: bytes, at: int) -> int:
        end = self._string_end.search(data, at, at + self._room)
        if end:
            return self._end_string(data, end.start())
        taken = min(self._room, len(data) - at)
        self._room -= taken
        if not self._room:
            self.dropped[Drop.OVERSIZE] += 1
            self._state = _OVERRUN
        return at + taken

    def _overrun(self, data: bytes, at: int) -> int:
        end = _OVERRUN_END.search(data, at)
        return self._end_string(data, end.start()) if end else len(data)

    _STEPS: ClassVar[tuple[Callable[["TerminalFilter", bytes, int], int], ...]] = (
        _ground,
        _escape,
        _csi,
        _osc,
        _palette,
        _string,
        _overrun,
    )

    # What the states do.

    def _enter(self, state: int) -> None:
        self._state = state
        self._sequence.clear()

    def _collect(self, part: bytes) -> None:
        self._sequence += part[: SEQUENCE_LIMIT + 1 - len(self._sequence)]

    def _interrupt(self, byte: int, at: int) -> int:
        """A byte that is no part of a sequence: C0 acts at once; CAN, SUB, ESC and characters break the sequence off."""
        if byte < 0x80 and byte not in (_CAN, _SUB, _ESC):
            self._control(byte)
            return at + 1
        self.dropped[Drop.SEQUENCE] += 1
        self._state = _GROUND
        return at

    def _start_string(self, state: int, kind: Drop, end: re.Pattern[bytes]) -> None:
        self.dropped[kind] += 1
        self._state, self._room, self._string_end = state, STRING_LIMIT, end

    def _end_string(self, data: bytes, at: int) -> int:
        """ESC stays to be read as such (a `\\` after it makes it ST), a line end to be shown."""
        self._state = _GROUND
        return at if data[at] in b"\x1b\n\r" else at + 1

    def _end_escape(self, final: int) -> None:
        if self._sequence:
            self._judge_escape(final)
        elif final == ord("["):
            self._enter(_CSI)
        elif final == ord("]"):
            self._start_string(_OSC, Drop.OSC, _OSC_END)
        elif final in _STRINGS:
            self._start_string(_STRING, _STRINGS[final], _STRING_END)
        elif final == ord("c"):
            self._reset()
        elif final != ord("\\"):  # ST has done its work by ending the string
            self._judge_escape(final)

    def _judge_escape(self, final: int) -> None:
        verdict = judge_escape(bytes(self._sequence), bytes((final,)))
        self._shown += verdict.shown
        if verdict.dropped:
            self.dropped[verdict.dropped] += 1

    def _end_csi(self, body: bytes, final: bytes) -> None:
        verdict = judge_csi(body, final)
        self._shown += verdict.shown
        if verdict.dropped:
            self.dropped[verdict.dropped] += verdict.count
        if verdict.alternate is not None:
            self._alternate = verdict.alternate
        if verdict.query and self._allowed(self._query_bucket):
            self._queries.append((len(self._shown), verdict.query))

    def _reset(self) -> None:
        if self._allowed(self._reset_bucket):
            self._shown += self.reset_tail() + b"\x1b[H\x1b[2J"
            self._alternate = 0

    def _control(self, byte: int) -> None:
        if byte in _TEXT or (byte == _BEL and self._allowed(self._bell_bucket)):
            self._shown.append(byte)
        elif byte != _BEL:
            self.dropped[Drop.QUERY if byte == _ENQ else Drop.CONTROL] += 1

    def _allowed(self, bucket: TokenBucket) -> bool:
        if bucket.take(self._now_ns):
            return True
        self.dropped[Drop.THROTTLED] += 1
        return False

    def _characters(self, high: bytes) -> None:
        held = self._partial + high
        text, used = codecs.utf_8_decode(held, "surrogateescape", False)
        self._partial = held[used:]
        shown = _UNSHOWN.sub("", text)
        cut = len(text) - len(shown)
        shown, unknown = _UNDECODED.subn(_UNKNOWN, shown)
        self.dropped[Drop.UTF8] += cut + unknown
        self._shown += shown.encode()

    def _end_character(self) -> None:
        self.dropped[Drop.UTF8] += len(self._partial)
        self._shown += _UNKNOWN.encode() * len(self._partial)
        self._partial = b""
