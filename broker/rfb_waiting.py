"""The keys and the pointer of one viewer that wait at the gate. Pure.

A pointer that is moved while nothing goes through would fill any queue. So of a run of movements the first and the last
wait: the first, as it may be the one that pressed a button, there and nowhere else.
"""

from __future__ import annotations

from collections import deque

from broker.rfb_client import ClientMessage
from broker.rfb_keys import NO_MOVEMENT, POINTER, POINTER_EVENT, PressedKeys

MAX_WAITING = 64  # messages


class WaitingInput:
    """`queue` is for its writer to take from, first to last."""

    __slots__ = ("_owed", "queue")

    def __init__(self) -> None:
        self.queue: deque[ClientMessage] = deque()
        self._owed: PressedKeys | None = None  # what will be down, while more comes than may wait

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(len(message.data) for message in self.queue)

    def clear(self) -> None:
        self.queue.clear()
        self._owed = None

    def take(self, message: ClientMessage, *, relative: bool) -> None:
        """Input behind what waits already. `relative`: the guest takes pointer events as movements."""
        self._owed = None
        if not self._move_on(message.data, relative):
            self.queue.append(message)

    def take_while_held(self, message: ClientMessage, pressed: PressedKeys, *, relative: bool) -> bool:
        """Input that waits for nobody knows how long; `pressed` is down now. False where it is dropped.

        Past the bound only what lets go of a key or button that would be down: each once.
        """
        if self._move_on(message.data, relative):
            return True
        if len(self.queue) < MAX_WAITING:
            self._owed = None
        else:
            if self._owed is None:
                self._owed = pressed.after(waiting.data for waiting in self.queue)
            if not self._owed.is_released_by(message.data):
                return False
            self._owed.wrote(message.data)
        self.queue.append(message)
        return True

    def reckon_anew(self) -> None:
        """What is down has changed."""
        self._owed = None

    def _move_on(self, data: bytes, relative: bool) -> bool:
        """Puts a movement in the place of the last one, if that is one too."""
        if data[0] != POINTER_EVENT or len(self.queue) < 2:
            return False
        last, before = self.queue[-1].data, self.queue[-2].data
        if not last[:2] == before[:2] == data[:2]:
            return False
        if relative:
            _, buttons, x, y = POINTER.unpack(data)
            _, _, last_x, last_y = POINTER.unpack(last)
            x, y = x + last_x - NO_MOVEMENT, y + last_y - NO_MOVEMENT
            if not (0 <= x <= 0xFFFF and 0 <= y <= 0xFFFF):
                return False
            data = POINTER.pack(POINTER_EVENT, buttons, x, y)
        self.queue[-1] = ClientMessage(data, is_input=True)
        return True
