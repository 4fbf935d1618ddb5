"""provider/watch/seal.py: what a browser keeps is neither read nor made outside."""

from __future__ import annotations

import pytest

from provider.watch.seal import Purpose, seal, unseal
from tests.provider_parts import signing_key

KEY = signing_key()
NOW = 1_800_000_000
TEXT = '{"cid": "x"}'


def opened(sealed: str, now: int = NOW, purpose: Purpose = Purpose.SESSION, seconds: int = 60) -> str | None:
    return unseal(KEY, purpose, sealed, now, seconds)


def sealed() -> str:
    return seal(KEY, Purpose.SESSION, TEXT, NOW)


def test_it_opens_for_who_has_the_key():
    assert opened(sealed()) == TEXT


def test_it_cannot_be_read():
    assert TEXT not in sealed()


def test_twice_it_is_not_alike():
    assert sealed() != sealed()


def test_another_key_opens_nothing():
    assert unseal(signing_key(), Purpose.SESSION, sealed(), NOW, 60) is None


@pytest.mark.parametrize("purpose", [Purpose.SIGN_IN, Purpose.VERDICT])
def test_what_is_sealed_for_one_thing_is_not_for_another(purpose: Purpose):
    assert opened(sealed(), purpose=purpose) is None


@pytest.mark.parametrize(("late", "good"), [(60, True), (61, False)])
def test_its_time_runs_out(late: int, good: bool):
    assert (opened(sealed(), NOW + late) == TEXT) is good


def test_one_from_the_future_is_none():
    assert opened(sealed(), NOW - 120) is None


def test_no_bit_of_it_can_be_changed():
    whole = sealed()
    for place in range(0, len(whole), 7):
        other = "A" if whole[place] != "A" else "B"
        assert opened(whole[:place] + other + whole[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "x", "gAAAAA", "\u00e4", "=" * 4096, "\x00"])
def test_what_was_never_sealed(text: str):
    assert opened(text) is None
