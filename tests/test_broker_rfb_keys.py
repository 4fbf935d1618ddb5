"""Keys and buttons held down: what was written is down until its release was written, in the form in which it was pressed."""

import pytest

from broker.rfb_keys import MAX_KEYS, PressedKeys
from tests.rfb_bytes import extended_key, key, pointer

CONTROL = 0xFFE3


def pressed(*messages: bytes) -> PressedKeys:
    keys = PressedKeys()
    for message in messages:
        keys.wrote(message)
    return keys


def releases(*messages: bytes) -> bytes:
    return b"".join(pressed(*messages).releases(relative=False))


def test_nothing_pressed_needs_no_release() -> None:
    assert releases() == b""


def test_a_pressed_key_is_released() -> None:
    assert releases(key(CONTROL, down=True)) == key(CONTROL, down=False)


def test_a_key_is_down_until_its_release_was_written() -> None:
    keys = pressed(key(CONTROL, down=True))
    assert keys.releases(relative=False) == keys.releases(relative=False) == (key(CONTROL, down=False),)


@pytest.mark.parametrize("press", [key(CONTROL, down=True), extended_key(CONTROL, 0x1D, down=True), pointer(1, 3, 4)])
def test_what_was_released_needs_no_release(press: bytes) -> None:
    assert releases(press, releases(press)) == b""


def test_a_key_let_go_needs_no_release() -> None:
    assert releases(key(CONTROL, down=True), key(CONTROL, down=False)) == b""


def test_a_repeated_press_is_released_once() -> None:
    assert releases(key(0x61, down=True), key(0x61, down=True)) == key(0x61, down=False)


def test_a_letter_may_be_let_go_in_the_other_case() -> None:
    assert releases(key(ord("a"), down=True), key(ord("A"), down=False)) == b""


def test_an_extended_key_is_released_in_its_own_form() -> None:
    assert releases(extended_key(CONTROL, 0x1D, down=True)) == extended_key(CONTROL, 0x1D, down=False)


def test_the_two_forms_of_a_key_are_two_keys() -> None:
    down = extended_key(CONTROL, 0x1D, down=True), key(CONTROL, down=True)
    assert releases(*down, key(CONTROL, down=False)) == extended_key(CONTROL, 0x1D, down=False)


def test_two_keysyms_under_one_keycode_are_both_released() -> None:
    # QEMU goes by the keysym when it has a keyboard layout, by the keycode when it has none
    down = extended_key(0x31, 2, down=True), extended_key(0x32, 2, down=True)
    assert releases(*down) == extended_key(0x32, 2, down=False) + extended_key(0x31, 2, down=False)


def test_the_last_pressed_is_released_first() -> None:
    assert releases(key(CONTROL, down=True), key(0x63, down=True)) == key(0x63, down=False) + key(CONTROL, down=False)


def test_buttons_are_released_where_the_pointer_is() -> None:
    assert releases(pointer(5, 10, 20), pointer(1, 30, 40)) == pointer(0, 30, 40)


def test_buttons_of_a_relative_pointer_are_released_without_a_movement() -> None:
    keys = pressed(pointer(1, 0x7FFF + 3, 0x7FFF))
    assert keys.releases(relative=True) == (pointer(0, 0x7FFF, 0x7FFF),)


def test_a_pointer_without_buttons_needs_no_release() -> None:
    assert releases(pointer(1, 1, 1), pointer(0, 1, 1)) == b""


def test_after_one_key_too_many_the_oldest_is_to_be_let_go() -> None:
    keys = pressed(*(key(0x1000 + number, down=True) for number in range(MAX_KEYS)))
    assert keys.wrote(key(0x2000, down=True)) == key(0x1000, down=False)


def test_a_key_pressed_again_is_not_one_too_many() -> None:
    keys = pressed(*(key(0x1000 + number, down=True) for number in range(MAX_KEYS)))
    assert keys.wrote(key(0x1000, down=True)) == b""


def test_the_one_too_many_is_down_until_its_release_was_written() -> None:
    keys = pressed(*(key(0x1000 + number, down=True) for number in range(MAX_KEYS + 1)))
    assert keys.releases(relative=False)[-1] == key(0x1000, down=False)


def test_all_that_is_down_at_most_is_as_long_as_told() -> None:
    keys = pressed(pointer(1, 1, 1), *(extended_key(0x1000 + number, 2, down=True) for number in range(MAX_KEYS + 1)))
    assert len(b"".join(keys.releases(relative=False))) == 786


# -- what will be down -----------------------------------------------------------------------------------------------


def test_what_waits_is_reckoned_with() -> None:
    later = pressed(key(CONTROL, down=True)).after([key(CONTROL, down=False), key(0x61, down=True), pointer(2, 1, 1)])
    assert later.releases(relative=False) == (key(0x61, down=False), pointer(0, 1, 1))


def test_what_waits_is_not_down_for_that() -> None:
    keys = pressed(key(CONTROL, down=True), pointer(1, 1, 1))
    keys.after([key(CONTROL, down=False), key(0x61, down=True), pointer(0, 1, 1)])
    assert keys.releases(relative=False) == (key(CONTROL, down=False), pointer(0, 1, 1))


@pytest.mark.parametrize(
    ("message", "released"),
    [
        (key(0x61, down=False), True),
        (key(0x41, down=False), True),
        (key(0x61, down=True), False),
        (key(0x62, down=False), False),
        (extended_key(0x61, 0x1E, down=False), False),
        (pointer(0, 9, 9), True),
        (pointer(1, 9, 9), True),
        (pointer(3, 9, 9), False),
        (pointer(4, 9, 9), False),
        (pointer(5, 9, 9), False),
    ],
)
def test_what_lets_go_and_presses_nothing(message: bytes, released: bool) -> None:
    assert pressed(key(0x61, down=True), pointer(3, 1, 1)).is_released_by(message) is released
