"""broker/keyboard.py."""

from __future__ import annotations

from broker.keyboard import Keyboard


def test_the_first_who_wants_it_gets_it():
    keyboard = Keyboard()
    assert keyboard.claim_free("a")
    assert keyboard.owner == "a"


def test_a_second_claim_changes_nothing():
    keyboard = Keyboard()
    keyboard.claim_free("a")
    assert not keyboard.claim_free("b")
    assert keyboard.owner == "a"


def test_taking_it_names_who_had_it():
    keyboard = Keyboard()
    keyboard.claim_free("a")
    assert (keyboard.take("b"), keyboard.owner) == ("a", "b")


def test_taking_what_is_ones_own_takes_from_nobody():
    keyboard = Keyboard()
    keyboard.claim_free("a")
    assert keyboard.take("a") is None


def test_only_its_owner_lets_it_go():
    keyboard = Keyboard()
    keyboard.claim_free("a")
    assert (keyboard.let_go("b"), keyboard.owner) == (False, "a")
    assert (keyboard.let_go("a"), keyboard.owner) == (True, None)
