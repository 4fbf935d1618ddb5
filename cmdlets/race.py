"""Halves of one whole: they run side by side, and the first to end ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(*halves: Coroutine[Any, Any, T]) -> T:
    """Gives what the first to end gives, or raises what it raises; the others are cancelled and have ended by then.

    If several end in the same turn of the loop, the one named first counts.
    """
    tasks = [asyncio.create_task(half) for half in halves]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next(task for task in tasks if task in done).result()
