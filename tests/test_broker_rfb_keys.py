"""Keys and buttons held down: each is released once, in the form in which it was pressed."""

from broker.rfb_keys import MAX_KEYS, PressedKeys
from tests.rfb_bytes import extended_key, key, pointer

CONTROL = 0xFFE3


def test_nothing_pressed_needs_no_release() -> None:
    assert PressedKeys().release(relative=False) == b""


def test_a_pressed_key_is_released() -> None:
    keys = PressedKeys()
    keys.key(key(CONTROL, down=True))
    assert keys.release(relative=False) == key(CONTROL, down=False)


def test_a_key_is_released_once() -> None:
    keys = PressedKeys()
    keys.key(key(CONTROL, down=True))
    keys.release(relative=False)
    assert keys.release(relative=False) == b""


def test_a_key_let_go_needs_no_release() -> None:
    keys = PressedKeys()
    keys.key(key(CONTROL, down=True))
    keys.key(key(CONTROL, down=False))
    assert keys.release(relative=False) == b""


def test_a_repeated_press_is_released_once() -> None:
    keys = PressedKeys()
    keys.key(key(0x61, down=True))
    keys.key(key(0x61, down=True))
    assert keys.release(relative=False) == key(0x61, down=False)


def test_a_letter_may_be_let_go_in_the_other_case() -> None:
    keys = PressedKeys()
    keys.key(key(ord("a"), down=True))
    keys.key(key(ord("A"), down=False))
    assert keys.release(relative=False) == b""


def test_an_extended_key_is_released_in_its_own_form() -> None:
    keys = PressedKeys()
    keys.extended(extended_key(CONTROL, 0x1D, down=True))
    assert keys.release(relative=False) == extended_key(CONTROL, 0x1D, down=False)


def test_the_two_forms_of_a_key_are_two_keys() -> None:
    keys = PressedKeys()
    keys.extended(extended_key(CONTROL, 0x1D, down=True))
    keys.key(key(CONTROL, down=True))
    keys.key(key(CONTROL, down=False))
    assert keys.release(relative=False) == extended_key(CONTROL, 0x1D, down=False)


def test_two_keysyms_under_one_keycode_are_both_released() -> None:
    # QEMU goes by the keysym when it has a keyboard layout, by the keycode when it has none
    keys = PressedKeys()
    keys.extended(extended_key(0x31, 2, down=True))
    keys.extended(extended_key(0x32, 2, down=True))
    assert keys.release(relative=False) == extended_key(0x32, 2, down=False) + extended_key(0x31, 2, down=False)


def test_the_last_pressed_is_released_first() -> None:
    keys = PressedKeys()
    keys.key(key(CONTROL, down=True))
    keys.key(key(0x63, down=True))
    assert keys.release(relative=False) == key(0x63, down=False) + key(CONTROL, down=False)


def test_buttons_are_released_where_the_pointer_is() -> None:
    keys = PressedKeys()
    keys.pointer(pointer(5, 10, 20))
    keys.pointer(pointer(1, 30, 40))
    assert keys.release(relative=False) == pointer(0, 30, 40)


def test_buttons_are_released_once() -> None:
    keys = PressedKeys()
    keys.pointer(pointer(1, 30, 40))
    keys.release(relative=False)
    assert keys.release(relative=False) == b""


def test_buttons_of_a_relative_pointer_are_released_without_a_movement() -> None:
    keys = PressedKeys()
    keys.pointer(pointer(1, 0x7FFF + 3, 0x7FFF))
    assert keys.release(relative=True) == pointer(0, 0x7FFF, 0x7FFF)


def test_a_pointer_without_buttons_needs_no_release() -> None:
    keys = PressedKeys()
    keys.pointer(pointer(1, 1, 1))
    keys.pointer(pointer(0, 1, 1))
    assert keys.release(relative=False) == b""


def test_one_key_too_many_lets_the_oldest_go() -> None:
    keys = PressedKeys()
    for number in range(MAX_KEYS):
        keys.key(key(0x1000 + number, down=True))
    assert keys.key(key(0x2000, down=True)) == (key(0x1000, down=False), key(0x2000, down=True))


def test_all_keys_in_the_list_are_released() -> None:
    keys = PressedKeys()
    for number in range(3 * MAX_KEYS):
        keys.key(key(0x1000 + number, down=True))
    newest = range(3 * MAX_KEYS - 1, 2 * MAX_KEYS - 1, -1)
    assert keys.release(relative=False) == b"".join(key(0x1000 + number, down=False) for number in newest)
