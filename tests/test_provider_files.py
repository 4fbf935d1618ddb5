"""provider/watch/files.py: how many read at once, and how long; what goes out is held by tests/test_rest_watch.py."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from starlette.types import Message

from provider.rest.arm import ArmError
from provider.watch import files
from provider.watch.files import AT_ONCE, CHUNK, FOR_ONE, File, Seats


def test_one_address_has_so_many_seats():
    seats = Seats()
    with ExitStack() as taken:
        for _ in range(FOR_ONE):
            taken.enter_context(seats.one("a"))
        with pytest.raises(ArmError, match="busy"), seats.one("a"):
            pass
        with seats.one("b"):
            pass
    with seats.one("a"):
        pass


def test_all_together_have_so_many():
    seats = Seats()
    with ExitStack() as taken:
        for number in range(AT_ONCE):
            taken.enter_context(seats.one(str(number)))
        with pytest.raises(ArmError, match="busy"), seats.one("another"):
            pass


def full(seats: Seats, address: str) -> bool:
    try:
        with seats.one(address):
            return False
    except ArmError:
        return True


def test_who_is_turned_away_takes_no_seat():
    seats = Seats()
    with ExitStack() as taken:
        for _ in range(FOR_ONE):
            taken.enter_context(seats.one("a"))
        assert all(full(seats, "a") for _ in range(2 * AT_ONCE))
        assert not full(seats, "b")
    assert not full(seats, "a")


def test_a_seat_given_back_is_one():
    seats = Seats()
    with ExitStack() as taken:
        for _ in range(FOR_ONE - 1):
            taken.enter_context(seats.one("a"))
        assert not full(seats, "a")
        taken.enter_context(seats.one("a"))
        assert full(seats, "a")


async def _nothing() -> Message:
    raise AssertionError


async def test_it_goes_out_in_pieces():
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    content = bytes(range(256)) * 600
    await File(content, {"x": "y"}, Seats(), "a")({}, _nothing, send)
    pieces = [one["body"] for one in sent[1:]]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) == CHUNK
    assert (b"content-length", str(len(content)).encode()) in sent[0]["headers"]


async def test_a_reader_that_stands_still_gives_its_seat_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "SECONDS", 0.05)
    seats, stuck = Seats(), asyncio.Event()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 2:
            await stuck.wait()

    await File(bytes(10 * CHUNK), {}, seats, "a")({}, _nothing, send)
    assert sent[-1].get("more_body") is True  # not ended, so that the server hangs up
    with ExitStack() as taken:
        for _ in range(FOR_ONE):
            taken.enter_context(seats.one("a"))
