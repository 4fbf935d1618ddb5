"""What the registrar does by itself, again and again. Which of several providers does it is settled in each transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from provider.consent.loss import Hearing
from provider.consent.registrar import Registrar
from provider.store.store import StoreDown

SWEEP_SECONDS = 5.0
MOVE_SECONDS = 1.0
PRUNE_SECONDS = 3600.0

log = logging.getLogger("provider.consent.rounds")


async def sweep_for_ever(registrar: Registrar) -> None:
    await _rounds(registrar.sweep, SWEEP_SECONDS)


async def prune_for_ever(registrar: Registrar) -> None:
    await _rounds(registrar.prune, PRUNE_SECONDS)


async def move_for_ever(registrar: Registrar) -> None:
    hearing, after = Hearing(), ""

    async def look() -> None:
        nonlocal after
        moves = await registrar.move_lost(hearing, after)
        while moves.is_full:
            moves = await registrar.move_lost(hearing, moves.last)
        after = moves.last

    await _rounds(look, MOVE_SECONDS)


async def _rounds(turn: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        try:
            await turn()
        except StoreDown as error:
            log.error("the store does not answer: %s", error.why)
        await asyncio.sleep(seconds)
