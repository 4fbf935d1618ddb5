"""The calls of one connection that are under way: a slow one keeps no other waiting.

Each is a task that ends with its connection. It has done what it does without waiting before the next message is looked at:
so what holds, cuts, or moves the keyboard happens in the order in which it was asked, whatever is still under way. Answers
come in any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from eva.control import Refusal, Refused

MOST_CALLS = 32  # under way; with as many the connection is not read
MOST_SLOW = 4  # of them that wait for a hypervisor


class Calls:
    """Use it as a context, at whose end what is under way is cancelled. `idle` is called when nothing is any more."""

    def __init__(self, idle: Callable[[], None] = lambda: None) -> None:
        self._idle = idle
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MOST_CALLS)
        self._slow = 0

    def __len__(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def begin(self, call: Coroutine[Any, Any, None]) -> None:
        """Returns when the call has done what it does without waiting."""
        await self._room.acquire()
        task = self._group.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.sleep(0)  # a turn of the loop, in which the task has its first step

    @contextmanager
    def slow(self) -> Iterator[None]:
        """What waits for a hypervisor. Raises Refused."""
        if self._slow >= MOST_SLOW:
            raise Refused(Refusal.TOO_MANY, "calls that wait for a hypervisor")
        self._slow += 1
        try:
            yield
        finally:
            self._slow -= 1

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if not self._tasks:
            self._idle()
