"""Who is let in at a node's port before anybody has signed in, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import broker.reception
from broker.lobby import Bounds
from broker.reception import MAX_UNFINISHED
from eva.consent import Kind
from eva.control import Method
from lab.certificates import Authority
from tests.broker_parts import PATIENCE, vm_id
from tests.operator_port import Port, ask, port, unhurried
from tests.plain_peer import Peer, head, seats_left

SCRIPT = "/shared/json_rpc.js"


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        yield one


async def unfinished(door: Port, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while door.listener.reception.unfinished(IPv4Address("127.0.0.1")) != count:
            await asyncio.sleep(0.01)


# -- seats ---------------------------------------------------------------------------------------------------------------


async def test_a_page_that_is_kept_holds_no_seat(door: Port) -> None:
    peers = [await Peer.at(door) for _ in range(6)]
    await seats_left(door, 6)
    for peer in peers:
        assert (await peer.asks(head()))[0] == 200
    await seats_left(door, 0)
    assert (await peers[0].asks(head(SCRIPT)))[0] == 200
    for peer in peers:
        peer.writer.transport.abort()


async def test_few_are_kept(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has been silent for longest gives way."""
    monkeypatch.setattr(broker.reception, "MAX_IDLE", 2)
    peers = []
    for _ in range(4):
        peers.append(await Peer.at(door))
        await peers[-1].asks(head())
    for peer in peers[:2]:
        await peer.gone()
    for peer in peers[2:]:
        assert (await peer.asks(head(SCRIPT)))[0] == 200
        peer.writer.transport.abort()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Bounds:
    bounds = Bounds(most=12, each=4, strangers=8)
    monkeypatch.setattr(broker.reception, "UNSIGNED", bounds)
    return bounds


async def test_silent_ones_from_many_addresses_keep_no_operator_out(few: Bounds, door: Port) -> None:
    """Neither one that nobody has signed in from, nor a familiar one, to whom strangers do not give way."""
    strangers = [await Peer.at(door, local_addr=(f"127.0.1.{1 + number // few.each}", 0)) for number in range(few.strangers)]
    await seats_left(door, few.strangers)
    async with door.signed_in(source="127.0.0.7"):
        await strangers[0].gone()
        strangers.append(await Peer.at(door, local_addr=("127.0.1.9", 0)))
        await seats_left(door, few.strangers)
    door.desk.attempts.remember(IPv4Address("127.0.0.1"), "alice", door.node.clock.now())
    peer = await Peer.at(door)
    assert (await peer.asks(head()))[0] == 200
    async with door.signed_in():
        pass
    assert door.refusals() == {"lobby": 1}
    for one in (*strangers, peer):
        one.writer.transport.abort()


async def test_where_somebody_is_signed_in_connections_that_say_nothing_are_bounded_too(door: Port) -> None:
    async with door.signed_in() as client:
        silent = await asyncio.gather(*(Peer.at(door) for _ in range(MAX_UNFINISHED)))
        await unfinished(door, MAX_UNFINISHED)
        await (await Peer.at(door)).gone()
        assert door.refusals() == {"lobby": 1}
        elsewhere = await Peer.at(door, local_addr=("127.0.0.2", 0))
        assert (await elsewhere.asks(head()))[0] == 200
        silent[0].writer.transport.abort()
        await unfinished(door, MAX_UNFINISHED - 1)
        door.node.grant()
        opened = await ask(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(Kind.SERIAL))
        async with door.console(opened):
            pass
        for peer in (*silent, elsewhere):
            peer.writer.transport.abort()


async def test_a_page_that_is_kept_counts_as_finished(door: Port) -> None:
    async with door.signed_in():
        peers = [await Peer.at(door) for _ in range(3)]
        await unfinished(door, 3)
        for peer in peers:
            assert (await peer.asks(head()))[0] == 200
        await unfinished(door, 0)
        for peer in peers:
            peer.writer.transport.abort()


# -- Host and Origin -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "127.0.0.1:x", "evil@127.0.0.1"])
async def test_a_rebound_name_gets_nothing(door: Port, host: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head(host=host)))[0] == 403
    peer.writer.transport.abort()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:1"])
async def test_a_foreign_page_gets_nothing(door: Port, origin: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", f"Origin: {origin}")))[0] == 403
    peer.writer.transport.abort()


async def test_our_own_page_is_not_foreign(door: Port) -> None:
    host = f"127.0.0.1:{door.number}"
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", f"Origin: https://{host}", host=host)))[0] == 200
    async with door.control(origin=f"https://{host}"):
        pass
    peer.writer.transport.abort()


async def test_what_is_not_there_tells_nothing(door: Port) -> None:
    peer = await Peer.at(door)
    status, fields, body = await peer.asks(head("/nothing?secret=1"))
    assert (status, body, "server" in fields) == (404, b"\n", False)
    assert door.refusals() == {"path": 1}
    peer.writer.transport.abort()


async def test_a_page_is_no_websocket(door: Port) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", "Upgrade: websocket", "Connection: Upgrade")))[0] == 404
    peer.writer.transport.abort()
