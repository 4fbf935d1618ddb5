"""eva/ending.py: one list of endings, each with a code, a word and a sentence of its own."""

from __future__ import annotations

import re

import pytest

from eva.ending import REVOKING, Ending

# As design and docs name them: clients and auditors rely on these.
WORDS = {
    "operator-left": 4000,
    "consent-expired": 4001,
    "consent-revoked": 4002,
    "feature-disabled": 4003,
    "lease-lost": 4004,
    "vm-gone": 4005,
    "vm-stopped": 4006,
    "taken-over": 4007,
    "node-stopping": 4008,
    "audit-failed": 4009,
    "slow-operator": 4010,
    "protocol-error": 4011,
    "console-lost": 4012,
}


def test_the_words_and_codes_are_those_that_clients_know() -> None:
    assert {ending.word: ending.code for ending in Ending} == WORDS


def test_no_two_share_a_sentence() -> None:
    assert len({ending.text for ending in Ending}) == len(Ending)


@pytest.mark.parametrize("ending", Ending)
def test_codes_are_for_private_use(ending: Ending) -> None:
    """RFC 6455 7.4.2; ours are the first hundred."""
    assert 4000 <= ending.code <= 4099


@pytest.mark.parametrize("ending", Ending)
def test_a_close_frame_holds_the_sentence(ending: Ending) -> None:
    """RFC 6455 5.5: at most 125 bytes, of which 2 are the code."""
    assert len(ending.text.encode()) <= 123


@pytest.mark.parametrize("ending", Ending)
def test_a_word_is_a_metrics_label(ending: Ending) -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+", ending.word)


@pytest.mark.parametrize("ending", Ending)
def test_word_and_code_lead_back(ending: Ending) -> None:
    assert Ending.of_word(ending.word) is ending
    assert Ending.of_code(ending.code) is ending


@pytest.mark.parametrize("word", ["", "OPERATOR_LEFT", "Operator-left", "operator-left "])
def test_another_word_is_none(word: str) -> None:
    with pytest.raises(KeyError):
        Ending.of_word(word)


@pytest.mark.parametrize("code", [0, 1000, 1006, 3999, 4099, 4100])
def test_another_code_is_none(code: int) -> None:
    with pytest.raises(KeyError):
        Ending.of_code(code)


def test_a_provider_may_not_say_that_the_operator_left() -> None:
    assert {Ending.CONSENT_REVOKED, Ending.FEATURE_DISABLED} == REVOKING
