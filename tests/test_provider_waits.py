"""provider/consent/waits.py: who waits is woken, and looks for himself after a second."""

from __future__ import annotations

import asyncio

import pytest

import provider.consent.waits
from lab.transcript import PATIENCE_S
from provider.consent.waits import LOOK_SECONDS, Waits


@pytest.fixture
def unending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself while a test has patience."""
    monkeypatch.setattr(provider.consent.waits, "LOOK_SECONDS", 2 * PATIENCE_S)


@pytest.mark.usefixtures("unending")
async def test_what_is_said_while_one_looks_is_not_missed():
    waits = Waits()
    with waits.on("a", "b") as wait:
        waits.wake("b")
        async with asyncio.timeout(PATIENCE_S):
            await wait.pause()


async def test_what_others_wait_for_wakes_nobody_and_the_pause_ends_by_itself():
    waits = Waits()
    began = asyncio.get_running_loop().time()
    with waits.on("a") as wait:
        waits.wake("b")
        await wait.pause()
    assert asyncio.get_running_loop().time() - began >= LOOK_SECONDS * 0.99


@pytest.mark.usefixtures("unending")
async def test_one_word_wakes_all_who_wait_for_it():
    waits = Waits()
    with waits.on("a") as one, waits.on("a") as two:
        waits.wake("a")
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(one.pause(), two.pause())


def test_nothing_is_kept_of_those_who_have_gone():
    waits = Waits()
    with waits.on("a"), waits.on("a", "b"):
        pass
    assert waits._waiting == {}
