"""broker/calls.py: calls that keep no other waiting, have begun in their order, and end with their connection."""

from __future__ import annotations

import asyncio

import pytest

from broker.calls import MOST_CALLS, MOST_SLOW, Calls
from eva.control import Refusal, Refused
from tests.broker_parts import PATIENCE


async def test_a_call_has_begun_before_the_next_one():
    begun: list[int] = []

    async def call(number: int) -> None:
        begun.append(number)
        await asyncio.Event().wait()

    async with Calls() as calls:
        for number in range(5):
            await calls.begin(call(number))
            assert begun[-1] == number


async def test_one_that_is_done_before_the_end_has_counted():
    """The connection may close right behind what it asked."""
    begun: list[int] = []

    async def call() -> None:
        begun.append(1)

    async with Calls() as calls:
        await calls.begin(call())
    assert begun == [1]


async def test_what_is_under_way_at_the_end_is_cancelled():
    ended = asyncio.Event()

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with asyncio.timeout(PATIENCE), Calls() as calls:
        await calls.begin(call())
    assert ended.is_set()


async def test_there_are_so_many_and_no_more():
    go = asyncio.Event()

    async def call() -> None:
        await go.wait()

    async with Calls() as calls:
        for _ in range(MOST_CALLS):
            await calls.begin(call())
        waiting = asyncio.ensure_future(calls.begin(call()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(calls), waiting.done()) == (MOST_CALLS, False)
        go.set()
        async with asyncio.timeout(PATIENCE):
            await waiting


async def test_of_slow_ones_there_are_few_and_each_makes_room_again():
    calls = Calls()
    for _ in range(2):
        held = [calls.slow() for _ in range(MOST_SLOW)]
        for one in held:
            one.__enter__()
        with pytest.raises(Refused) as caught, calls.slow():
            pass
        assert caught.value.refusal is Refusal.TOO_MANY
        for one in held:
            one.__exit__(None, None, None)


async def test_the_last_one_says_that_it_was_the_last():
    told: list[int] = []
    go = asyncio.Event()

    async def call() -> None:
        await go.wait()

    async with Calls(lambda: told.append(len(calls))) as calls:
        await calls.begin(call())
        await calls.begin(call())
        assert told == []
        go.set()
        async with asyncio.timeout(PATIENCE):
            while not told:
                await asyncio.sleep(0)
    assert told == [0]


async def test_a_fault_of_ours_in_one_ends_all_and_is_not_swallowed():
    ended = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        raise ZeroDivisionError

    async def connection() -> None:
        async with asyncio.timeout(PATIENCE), Calls() as calls:
            await calls.begin(waits())
            await calls.begin(fails())
            await asyncio.Event().wait()  # for the next message

    with pytest.raises(ExceptionGroup) as caught:
        await connection()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert ended.is_set()
