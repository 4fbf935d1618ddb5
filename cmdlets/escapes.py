"""The operator's escape keys, as ssh has them: a tilde at the start of a line, then a letter. Pure."""

from __future__ import annotations

from enum import Enum

TILDE = ord("~")
_LINE_ENDS = b"\r\n"


class Command(Enum):
    """`key` follows the tilde; `text` is for the help."""

    LEAVE = (".", "leave the console")
    CTRL_ALT_DEL = ("d", "send Ctrl+Alt+Del")
    TAKE_KEYBOARD = ("k", "take the keyboard")
    SEND_ANYWAY = ("s", "send held input anyway (the VM may read it late)")
    STATUS = ("i", "tell VM, time left, viewers and keyboard")
    HELP = ("?", "this help")

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        self.text = text


_BY_KEY = {ord(command.key): command for command in Command}
HELP_LINES = (
    "Keys, at the start of a line:",
    *(f"  ~{command.key}  {command.text}" for command in Command),
    "  ~~  send a tilde",
)


class Escapes:
    """What is typed, parted into bytes for the guest and commands for us."""

    def __init__(self) -> None:
        self._line_start = True
        self._tilde = False

    def feed(self, typed: bytes) -> list[bytes | Command]:
        """The parts of `typed` in order. A tilde that may begin a command waits for the next byte."""
        parts: list[bytes | Command] = []
        keys = bytearray()
        for byte in typed:
            if self._tilde:
                self._tilde = False
                command = _BY_KEY.get(byte)
                if command is not None:
                    if keys:
                        parts.append(bytes(keys))
                        keys.clear()
                    parts.append(command)
                    continue
                keys.append(TILDE)
                if byte == TILDE:
                    self._line_start = False
                    continue
            elif self._line_start and byte == TILDE:
                self._tilde = True
                continue
            keys.append(byte)
            self._line_start = byte in _LINE_ENDS
        if keys:
            parts.append(bytes(keys))
        return parts
