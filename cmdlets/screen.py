"""What the guest's output has done to the operator's terminal, so that our own lines fit in and it can be left sane. Pure.

The node has filtered the output already (broker/terminal_filter.py): it holds no strings, and of modes only the few below.
"""

from __future__ import annotations

import re

_TAIL = 256  # bytes: more than the longest sequence that the node passes

# The start of a control sequence (ECMA-48 5.4), of another escape sequence, or of a UTF-8 character.
_UNFINISHED = re.compile(rb"(?:\x1b(?:\[[0-?]*[ -/]*|[ -/]*)|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
_MODES = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_ALTERNATE = frozenset({b"47", b"1047", b"1049"})

# Attributes, G0 = ASCII and shifted in, cursor keys and keypad plain, wrap on, cursor shown, insert off; then the whole screen
# scrolls again, with the cursor kept, since DECSTBM sends it home.
_SANE = b"\x1b[0m\x1b(B\x0f\x1b[?1l\x1b>\x1b[?7h\x1b[?25h\x1b[4l\x1b7\x1b[r\x1b8"


class Screen:
    """Follows the output of one console."""

    def __init__(self) -> None:
        self._held = b""
        self._touched = False
        self._alternate: bytes | None = None

    def show(self, output: bytes) -> bytes:
        """What to write for `output`: up to a border at which a line of ours may stand; the rest waits for the next call."""
        output = self._held + output
        found = _UNFINISHED.search(output, max(0, len(output) - _TAIL))
        border = found.start() if found else len(output)
        output, self._held = output[:border], output[border:]
        if not self._touched:
            self._touched = b"\x1b" in output or b"\x0e" in output
        for parameters, final in _MODES.findall(output):
            for mode in _ALTERNATE.intersection(parameters.split(b";")):
                self._alternate = mode if final == b"h" else None
        return output

    def line(self, text: str) -> bytes:
        """One line of ours, plain whatever the guest's colours."""
        return b"\r\n" + (b"\x1b[0m\x0f" if self._touched else b"") + text.encode("utf-8", "replace") + b"\r\n"

    def sane(self) -> bytes:
        """What leaves the terminal as a shell expects it; nothing if the guest sent plain text only."""
        leave = b"\x1b[?%bl" % self._alternate if self._alternate else b""
        self._held = b""
        return leave + _SANE if self._touched else b""
