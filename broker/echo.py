"""What an operator typed on serial, for who watches: text only once the guest has echoed it, else a count. Pure.

A guest that hides what is typed (a password's prompt) echoes nothing, so what is typed waits until the guest's output says
the same, in the same order and from its very next byte on. In doubt it is hidden:

- other output where the echo was due, or right behind it within SETTLE, hides all that was not shown yet;
- so does ECHO_WITHIN without an echo; and after either, the rest of the line, up to Enter;
- what is still without its echo when Enter is typed is shown only where the whole rest of the line comes back and the
  line's end right behind it.

Tab, arrows and the like are answered by a guest in its own way: any output stands for theirs. What was typed behind them and
before that answer is hidden, since the answer could be taken for its echo. What a terminal answers to a guest's query is
nothing that was typed.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

ECHO_WITHIN = 3.0  # seconds: QEMU looks but once a second whether somebody has opened its line
SETTLE = 0.1  # seconds behind an echo in which no other output may come
MAX_TYPED = 1024  # bytes without their echo: of more, all are hidden
MAX_TEXT = 1024  # characters of text told at once: of more, the rest is hidden

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_REPLY = re.compile(rb"\x1b\[(?:\d+;\d+R|\?[\d;]*c|0n)")  # to DSR 6, DA1, DSR 5
_SEQUENCES = {
    b"A": "Up",
    b"B": "Down",
    b"C": "Right",
    b"D": "Left",
    b"H": "Home",
    b"F": "End",
    b"Z": "Shift+Tab",
    b"2~": "Insert",
    b"3~": "Delete",
    b"5~": "Page Up",
    b"6~": "Page Down",
}
_NAMES = {0x00: "Ctrl+Space", 0x08: "Backspace", 0x09: "Tab", 0x1B: "Esc", 0x7F: "Backspace"}
# They begin a new line at a shell and are no part of a secret: told at once, whatever waits before them is hidden.
_BREAKS = b"\x03\x1a\x1c"  # Ctrl+C, Ctrl+Z, Ctrl+\


class Sort(Enum):
    TEXT = auto()
    MASKED = auto()
    KEY = auto()  # what a guest answers in its own way
    ENTER = auto()


@dataclass(frozen=True, slots=True)
class Typed:
    """One byte, or one key's bytes. `at`: seconds, when it was typed, or later when it was echoed."""

    sort: Sort
    raw: bytes
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Text:
    """`is_key`: the text is a key's name."""

    text: str
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    count: int


class Echo:
    """One keyboard's line. Times are seconds on any clock that only rises."""

    def __init__(self) -> None:
        self._waiting: deque[Typed] = deque()  # typed, and no echo came
        self._echoed: deque[Typed] = deque()  # echoed, and not settled
        self._doubt = False  # nothing more of this line is shown
        self._answering = False  # output is some key's answer, until the next byte is typed
        self._line_feed = False  # a carriage return was Enter's echo: a line feed may belong to it
        self._parts: list[Text | Hidden] = []
        self._run = bytearray()  # text, on its way into the parts
        self._told = 0  # characters in the parts

    # -- what happens --------------------------------------------------------------------------------------------

    def typed(self, data: bytes, now: float, *, masked: bool = False) -> None:
        """These bytes have gone to the guest."""
        self.look(now)
        at = 0
        while at < len(data):
            found = _SEQUENCE.match(data, at) if not masked else None
            raw = found[0] if found is not None else data[at : at + 1]
            at += len(raw)
            if _REPLY.fullmatch(raw) is None:
                self._type(raw, now, masked)
        if len(self._waiting) + len(self._echoed) > MAX_TYPED:
            self._give_up()

    def _type(self, raw: bytes, now: float, masked: bool) -> None:
        self._answering = False
        if raw in (b"\r", b"\n"):
            self._enter(raw, now)
        elif not masked and len(raw) == 1 and raw in _BREAKS:
            self._give_up()
            self._doubt = False
            self._answering = True
            self._tell_key(_name(raw))
        elif self._doubt:
            self._hide(raw)
        elif masked:
            self._waiting.append(Typed(Sort.MASKED, raw, "", now))
        elif len(raw) == 1 and (0x20 <= raw[0] < 0x7F or raw[0] >= 0x80):
            self._waiting.append(Typed(Sort.TEXT, raw, "", now))
        else:
            self._waiting.append(Typed(Sort.KEY, raw, _name(raw), now))

    def _enter(self, raw: bytes, now: float) -> None:
        if not self._waiting and not self._echoed:
            self._end_line()
        else:
            self._waiting.append(Typed(Sort.ENTER, raw, "Enter", now))

    def guest(self, shown: bytes, now: float) -> None:
        """The guest's next output, as its viewers see it."""
        self.look(now)
        for place in range(len(shown)):
            if not self._waiting and not self._echoed:
                self._line_feed = False
                return  # nothing is awaited
            self._match(shown[place : place + 1], now)

    def _match(self, byte: bytes, now: float) -> None:
        line_feed, self._line_feed = self._line_feed, False
        if line_feed and byte == b"\n":
            return
        if not self._waiting:
            if not self._answering:
                self._give_up()  # output right behind an echo: it may have been no echo
            return
        head = self._waiting[0]
        if head.sort is Sort.KEY:
            while self._waiting and self._waiting[0].sort is Sort.KEY:
                one = self._waiting.popleft()
                self._echoed.append(Typed(one.sort, one.raw, one.name, now))
            if self._waiting:
                self._give_up()
            else:
                self._answering = True
        elif head.sort is Sort.ENTER and byte in (b"\r", b"\n"):
            self._waiting.popleft()
            self._settle(math.inf)  # not now + SETTLE, which rounding can make less than SETTLE away
            self._end_line()
            self._line_feed = byte == b"\r"
        elif head.raw == byte:
            self._waiting.popleft()
            self._echoed.append(Typed(head.sort, head.raw, head.name, now))
        else:
            self._give_up()

    def look(self, now: float) -> None:
        """Decides what time alone decides."""
        if self._waiting and now - self._waiting[0].at >= ECHO_WITHIN:
            self._give_up()
        if not self._ending:
            self._settle(now)

    def break_off(self) -> None:
        """Another types from now on: what waits is hidden."""
        self._give_up()
        self._doubt = False

    @property
    def _ending(self) -> bool:
        """Whether Enter waits for its echo: the rest of its line waits with it."""
        return any(one.sort is Sort.ENTER for one in self._waiting)

    @property
    def due(self) -> float | None:
        """When to look again, or None: nothing waits."""
        times = [self._waiting[0].at + ECHO_WITHIN] if self._waiting else []
        if self._echoed and not self._ending:
            times.append(self._echoed[0].at + SETTLE)
        return min(times, default=None)

    def told(self) -> list[Text | Hidden]:
        """What was decided since the last call."""
        self._close_run()
        parts, self._parts, self._told = self._parts, [], 0
        return parts

    # -- what it comes to ----------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """What was echoed long enough ago was echoed."""
        while self._echoed and now - self._echoed[0].at >= SETTLE:
            one = self._echoed.popleft()
            if one.sort is Sort.TEXT:
                self._run += one.raw
            elif one.sort is Sort.KEY:
                self._tell_key(one.name)
            else:
                self._hide(one.raw)

    def _give_up(self) -> None:
        """Hides all that is not told yet, line by line."""
        rest = [*self._echoed, *self._waiting]
        self._echoed.clear()
        self._waiting.clear()
        for one in rest:
            if one.sort is Sort.ENTER:
                self._end_line()
            else:
                self._hide(one.raw)
                self._doubt = True

    def _end_line(self) -> None:
        self._doubt = False
        self._tell_key("Enter")

    def _hide(self, raw: bytes) -> None:
        """Counts one more that is hidden: a key, or a character by its first byte."""
        if len(raw) > 1 or raw[0] & 0xC0 != 0x80:
            self._count_hidden(1)

    def _count_hidden(self, count: int) -> None:
        self._close_run()
        last = self._parts[-1] if self._parts else None
        if isinstance(last, Hidden):
            self._parts[-1] = Hidden(last.count + count)
        else:
            self._parts.append(Hidden(count))

    def _tell_key(self, name: str) -> None:
        self._close_run()
        if self._told + len(name) > MAX_TEXT:
            self._count_hidden(1)
            return
        self._told += len(name)
        self._parts.append(Text(name, is_key=True))

    def _close_run(self) -> None:
        """Takes the text that was echoed into the parts; what does not print stands as U+FFFD."""
        run, self._run = self._run, bytearray()
        text = "".join(c if c.isprintable() else "\ufffd" for c in run.decode(errors="replace"))
        room = MAX_TEXT - self._told
        if text[:room]:
            self._told += len(text[:room])
            self._parts.append(Text(text[:room]))
        if text[room:]:
            self._parts.append(Hidden(len(text[room:])))


def _name(raw: bytes) -> str:
    """What a control character or sequence is called."""
    if len(raw) > 1:
        return _SEQUENCES.get(raw[2:], "Key")
    code = raw[0]
    return _NAMES.get(code) or f"Ctrl+{chr(code + 0x40)}"
