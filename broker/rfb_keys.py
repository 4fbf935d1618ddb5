"""The keys and buttons that one viewer holds down in the guest. Pure.

Kept so that they can be let go, once, when the session ends: a guest left with Ctrl down is changed for its owner too.
"""

from struct import Struct

MAX_KEYS = 64

_KEY = Struct(">B?2xI")  # RFC 6143 7.5.4
_EXTENDED = Struct(">BBHII")  # rfbproto, QEMU Extended Key Event: type, submessage, down, keysym, keycode
_POINTER = Struct(">BBHH")  # RFC 6143 7.5.5

_SIZES = {4: _KEY.size, 5: _POINTER.size, 255: _EXTENDED.size}

_NO_MOVEMENT = 0x7FFF  # rfbproto, QEMU Pointer Motion Change


def _fold(keysym: int) -> int:
    """One keysym for both cases of a Latin letter, as QEMU does: 'a' may be pressed and 'A' let go."""
    return keysym | 0x20 if 0x41 <= keysym <= 0x5A else keysym


def whole_messages(released: bytes) -> tuple[bytes, ...]:
    """What `release` gave, message by message."""
    found, at = [], 0
    while at < len(released):
        end = at + _SIZES[released[at]]
        found.append(released[at:end])
        at = end
    return tuple(found)


class PressedKeys:
    """Takes each whole input message on its way to the guest and knows what releases it.

    A client that lets a key go under another keysym leaves its first one in the list: the extra release at the end
    does nothing in the guest. The list is bounded: the key held longest is let go for the 65th.
    """

    def __init__(self) -> None:
        self._keys: dict[tuple[int, int], bytes] = {}
        self._buttons = 0
        self._place = (0, 0)

    def key(self, message: bytes) -> tuple[bytes, ...]:
        """Take a KeyEvent (8 bytes); give the messages to write."""
        _, down, keysym = _KEY.unpack(message)
        key = (-1, _fold(keysym))
        if not down:
            self._keys.pop(key, None)
            return (message,)
        return self._press(key, message, message[:1] + b"\0\0\0" + message[4:])

    def extended(self, message: bytes) -> tuple[bytes, ...]:
        """Take a QEMU Extended Key Event (12 bytes); give the messages to write."""
        kind, submessage, down, keysym, keycode = _EXTENDED.unpack(message)
        key = (keycode, _fold(keysym))
        if not down:
            self._keys.pop(key, None)
            return (message,)
        return self._press(key, message, _EXTENDED.pack(kind, submessage, 0, keysym, keycode))

    def pointer(self, message: bytes) -> None:
        """Take a PointerEvent (6 bytes)."""
        _, self._buttons, x, y = _POINTER.unpack(message)
        self._place = (x, y)

    def release(self, *, relative: bool) -> bytes:
        """Give the messages that let go all that is down, the last pressed first; a second call gives b"".

        `relative`: the guest takes pointer events as movements, so the buttons are released without one.
        """
        messages = list(reversed(self._keys.values()))
        if self._buttons:
            x, y = (_NO_MOVEMENT, _NO_MOVEMENT) if relative else self._place
            messages.append(_POINTER.pack(5, 0, x, y))
        self._keys.clear()
        self._buttons = 0
        return b"".join(messages)

    def _press(self, key: tuple[int, int], message: bytes, release: bytes) -> tuple[bytes, ...]:
        if key in self._keys or len(self._keys) < MAX_KEYS:
            self._keys[key] = release
            return (message,)
        oldest = next(iter(self._keys))
        evicted = self._keys.pop(oldest)
        self._keys[key] = release
        return (evicted, message)
