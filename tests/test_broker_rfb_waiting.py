"""Input that waits: movements run together, clicks stay where they were, and what is dropped leaves nothing down."""

import pytest

from broker.rfb_client import ClientMessage
from broker.rfb_keys import PressedKeys
from broker.rfb_waiting import MAX_WAITING, WaitingInput
from tests.rfb_bytes import key, pointer

A_DOWN, A_UP = key(0x61, down=True), key(0x61, down=False)


def waiting(*messages: bytes, relative: bool = False) -> list[bytes]:
    found = WaitingInput()
    for message in messages:
        found.take(ClientMessage(message, is_input=True), relative=relative)
    return [message.data for message in found.queue]


class Held:
    """Input under a rein that holds it."""

    def __init__(self, *pressed: bytes) -> None:
        self.pressed = PressedKeys()
        for message in pressed:
            self.pressed.wrote(message)
        self.waiting = WaitingInput()

    def take(self, message: bytes) -> bool:
        return self.waiting.take_while_held(ClientMessage(message, is_input=True), self.pressed, relative=False)

    def fill(self) -> None:
        while len(self.waiting.queue) < MAX_WAITING:
            self.take(key(0x20, down=False))


# -- movements -------------------------------------------------------------------------------------------------------


def test_of_a_run_of_movements_the_first_and_the_last_wait() -> None:
    assert waiting(*(pointer(0, x, 5) for x in range(100))) == [pointer(0, 0, 5), pointer(0, 99, 5)]


def test_a_button_is_pressed_and_let_go_where_it_was() -> None:
    drag = [pointer(0, 1, 1), pointer(1, 1, 1), pointer(1, 2, 2), pointer(1, 9, 9), pointer(0, 9, 9)]
    assert waiting(*drag) == [drag[0], drag[1], drag[3], drag[4]]


def test_turns_of_the_wheel_all_wait() -> None:
    turns = [pointer(8, 1, 1), pointer(0, 1, 1)] * 5
    assert waiting(*turns) == turns


def test_a_movement_does_not_overtake_a_key() -> None:
    moves = [pointer(0, 1, 1), pointer(0, 2, 2), A_DOWN, pointer(0, 3, 3)]
    assert waiting(*moves) == moves


def test_keys_do_not_run_together() -> None:
    assert waiting(A_DOWN, A_DOWN, A_DOWN) == [A_DOWN] * 3


def test_movements_of_a_relative_pointer_add_up() -> None:
    moved = waiting(*[pointer(0, 0x7FFF + 3, 0x7FFF - 2)] * 5, relative=True)
    assert moved == [pointer(0, 0x7FFF + 3, 0x7FFF - 2), pointer(0, 0x7FFF + 12, 0x7FFF - 8)]


@pytest.mark.parametrize("far", [0, 0xFFFF])
def test_movements_that_no_message_can_tell_stay_apart(far: int) -> None:
    assert waiting(*[pointer(0, far, 0x7FFF)] * 3, relative=True) == [pointer(0, far, 0x7FFF)] * 3


def test_bytes_that_wait_are_counted() -> None:
    found = WaitingInput()
    for message in (A_DOWN, pointer(0, 1, 1)):
        found.take(ClientMessage(message, is_input=True), relative=False)
    assert found.size == 14


# -- the bound, while the rein holds ---------------------------------------------------------------------------------


def test_up_to_the_bound_all_wait() -> None:
    held = Held()
    assert [held.take(A_DOWN) for _ in range(MAX_WAITING + 1)] == [True] * MAX_WAITING + [False]


def test_past_the_bound_a_movement_goes_on_running_together() -> None:
    held = Held()
    for _ in range(MAX_WAITING - 2):
        held.take(A_DOWN)
    assert [held.take(pointer(0, x, 1)) for x in range(200)] == [True] * 200
    assert [message.data for message in held.waiting.queue][-2:] == [pointer(0, 0, 1), pointer(0, 199, 1)]


def test_past_the_bound_the_release_of_what_waits_to_be_pressed_waits_too_once() -> None:
    held = Held()
    held.take(A_DOWN)
    held.fill()
    assert (held.take(A_UP), held.take(A_UP)) == (True, False)


def test_past_the_bound_the_release_of_what_was_dropped_is_dropped() -> None:
    held = Held()
    held.fill()
    assert (held.take(A_DOWN), held.take(A_UP)) == (False, False)


def test_past_the_bound_a_button_is_let_go() -> None:
    held = Held()
    held.take(pointer(1, 1, 1))
    held.fill()
    assert (held.take(pointer(0, 5, 5)), held.take(pointer(0, 6, 6))) == (True, False)


def test_past_the_bound_the_release_of_what_is_down_waits() -> None:
    held = Held(A_DOWN)
    held.fill()
    assert held.take(A_UP)


def test_what_was_let_go_meanwhile_needs_no_release() -> None:
    held = Held(A_DOWN)
    held.fill()
    held.take(key(0x62, down=True))
    held.pressed.wrote(A_UP)
    held.waiting.reckon_anew()
    assert not held.take(A_UP)


def test_whatever_comes_leaves_nothing_down_that_was_let_go() -> None:
    held = Held()
    for number in range(40):
        held.take(key(0x1000 + number, down=True))
    held.fill()
    for number in range(200):
        held.take(key(0x1000 + number, down=True))
        held.take(key(0x1000 + number, down=False))
    assert held.pressed.after(message.data for message in held.waiting.queue).releases(relative=False) == ()


def test_with_room_again_all_wait_again() -> None:
    held = Held()
    held.fill()
    held.take(A_DOWN)
    held.waiting.queue.popleft()
    assert held.take(A_DOWN)


# -- held again ------------------------------------------------------------------------------------------------------


def overfull(*pressed: bytes) -> Held:
    """A pause in which more came than may wait."""
    held = Held(*pressed)
    held.fill()
    assert not held.take(A_DOWN)
    return held


def test_in_the_next_pause_what_came_meanwhile_is_let_go() -> None:
    """It was resumed and all went down; what is owed is reckoned from what waits now."""
    held = overfull()
    held.waiting.queue.clear()
    held.take(A_DOWN)
    held.fill()
    assert held.take(A_UP)


def test_so_it_is_where_only_a_part_went_down_before_it() -> None:
    held = overfull()
    held.waiting.queue.popleft()
    held.waiting.take(ClientMessage(A_DOWN, is_input=True), relative=False)
    assert held.take(A_UP)


def test_what_is_cleared_does_not_wait_and_owes_nothing() -> None:
    held = overfull(A_DOWN)
    held.waiting.clear()
    assert (len(held.waiting.queue), held.waiting.size) == (0, 0)
    held.fill()
    assert held.take(A_UP)  # which is down all the same
