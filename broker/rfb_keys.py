"""The keys and buttons that one viewer holds down in the guest. Pure.

Kept so that they can be let go when the session ends: a guest left with Ctrl down is changed for its owner too. What is
down is what was written: a release that waits at the gate has let nothing go, a press that waits there has pressed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

MAX_KEYS = 64

_KEY = Struct(">B?2xI")  # RFC 6143 7.5.4
_EXTENDED = Struct(">BBHII")  # rfbproto, QEMU Extended Key Event: type, submessage, down, keysym, keycode
POINTER = Struct(">BBHH")  # RFC 6143 7.5.5

KEY_EVENT = 4
POINTER_EVENT = 5

NO_MOVEMENT = 0x7FFF  # rfbproto, QEMU Pointer Motion Change


def _fold(keysym: int) -> int:
    """One keysym for both cases of a Latin letter, as QEMU does: 'a' may be pressed and 'A' let go."""
    return keysym | 0x20 if 0x41 <= keysym <= 0x5A else keysym


def _key_of(message: bytes) -> tuple[tuple[int, int], bool]:
    """Which key a KeyEvent or QEMU Extended Key Event is about, and whether it goes down."""
    if message[0] == KEY_EVENT:
        _, down, keysym = _KEY.unpack(message)
        return (-1, _fold(keysym)), down
    _, _, down, keysym, keycode = _EXTENDED.unpack(message)
    return (keycode, _fold(keysym)), bool(down)


def _release_of(press: bytes) -> bytes:
    if press[0] == KEY_EVENT:
        return b"\x04\0\0\0" + press[4:]
    return press[:2] + b"\0\0" + press[4:]


class PressedKeys:
    """Is told each input message that was written, and knows what releases it.

    A client that lets a key go under another keysym leaves its first one in the list: the extra release at the end
    does nothing in the guest. The list is bounded: the key held longest is to be let go after the 65th.
    """

    __slots__ = ("_buttons", "_keys", "_place")

    def __init__(self) -> None:
        self._keys: dict[tuple[int, int], bytes] = {}  # what pressed it
        self._buttons = 0
        self._place = (0, 0)

    def wrote(self, message: bytes) -> bytes:
        """Take a KeyEvent, QEMU Extended Key Event or PointerEvent. Give what is to be written next, or b""."""
        if message[0] == POINTER_EVENT:
            _, self._buttons, x, y = POINTER.unpack(message)
            self._place = (x, y)
            return b""
        key, down = _key_of(message)
        if not down:
            self._keys.pop(key, None)
            return b""
        self._keys[key] = message
        return _release_of(next(iter(self._keys.values()))) if len(self._keys) > MAX_KEYS else b""

    def after(self, messages: Iterable[bytes]) -> PressedKeys:
        """What will be down once these are written too."""
        later = PressedKeys()
        later._keys.update(self._keys)
        later._buttons, later._place = self._buttons, self._place
        for message in messages:
            later.wrote(message)
        return later

    def is_released_by(self, message: bytes) -> bool:
        """Whether this input message lets go of something that is down, and presses nothing."""
        if message[0] == POINTER_EVENT:
            return message[1] != self._buttons and message[1] | self._buttons == self._buttons
        key, down = _key_of(message)
        return not down and key in self._keys

    def releases(self, *, relative: bool) -> tuple[bytes, ...]:
        """The messages that let go all that is down, the last pressed first. It is down until they are written.

        At most 786 bytes. `relative`: the guest takes pointer events as movements, so the buttons are released without one.
        """
        messages = [_release_of(press) for press in reversed(self._keys.values())]
        if self._buttons:
            x, y = (NO_MOVEMENT, NO_MOVEMENT) if relative else self._place
            messages.append(POINTER.pack(POINTER_EVENT, 0, x, y))
        return tuple(messages)
