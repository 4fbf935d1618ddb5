"""broker/threshold.py: TLS' handshakes at a real port are bounded in number, in time, and cost no calm operator a seat.

Both loops are tried: the daemon runs on uvloop, the tests on asyncio's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import uvloop

import broker.threshold
import broker.visitor
from broker.lobby import Bounds
from broker.websocket import BACKLOG, OPEN_TIMEOUT
from lab.certificates import Authority
from tests.broker_parts import PATIENCE
from tests.operator_port import Port, port, unhurried
from tests.plain_peer import Peer, head

FEW = Bounds(most=16, each=6, strangers=12)

# The hook that is to replace this fixture stands in a conftest, for every module.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    monkeypatch.setattr(broker.threshold, "UNSECURED", FEW)
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        yield one


async def under_way(door: Port, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(door.listener.threshold.lobby) != count:
            await asyncio.sleep(0.01)


def half_open(door: Port, source: str = "127.0.0.1", said: bytes = b"") -> socket.socket:
    """A connection that begins no handshake, or stops in it. The kernel takes it; the port need not run."""
    sock = socket.create_connection(("127.0.0.1", door.number), source_address=(source, 0))
    sock.setblocking(False)
    sock.sendall(said)
    return sock


def is_gone(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):  # the node's part of the handshake
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


async def gone(*socks: socket.socket) -> None:
    async with asyncio.timeout(PATIENCE):
        while not all(map(is_gone, socks)):
            await asyncio.sleep(0.01)


def client_hello() -> bytes:
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(coming, going, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return going.read()


async def test_an_address_has_so_many(door: Port) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(half_open(door)) for _ in range(FEW.each)]
        await under_way(door, FEW.each)
        await gone(stack.enter_context(half_open(door)))
        assert door.refusals() == {"handshakes": 1}
        assert not any(map(is_gone, held))
    await under_way(door, 0)


@pytest.mark.parametrize("said", [b"", b"\x16", client_hello()[:100], client_hello()], ids=["nothing", "a byte", "half", "hello"])
async def test_a_flood_keeps_no_calm_operator_out(door: Port, said: bytes) -> None:
    """Whoever comes calmly gets in, and the flood's oldest give way."""
    with ExitStack() as stack:
        flood = [stack.enter_context(half_open(door, f"127.0.2.{number % 7 + 1}", said)) for number in range(100)]
        await under_way(door, FEW.strangers)
        async with door.signed_in():
            peer = await Peer.at(door)
            assert (await peer.asks(head()))[0] == 200
            peer.writer.transport.abort()
            assert len(door.listener.threshold.lobby) <= FEW.strangers
        assert sum(map(is_gone, flood)) >= 100 - FEW.strangers
        assert door.refusals()["handshakes"] >= 100 - FEW.strangers


async def test_a_flood_holds_no_more_descriptors_than_seats(door: Port) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = held()
    with ExitStack() as stack:
        flood = [stack.enter_context(half_open(door, f"127.0.3.{number % 200 + 1}")) for number in range(400)]
        await under_way(door, FEW.strangers)
        async with asyncio.timeout(PATIENCE):
            while sum(map(is_gone, flood)) < len(flood) - FEW.strangers:
                await asyncio.sleep(0.01)
        assert held() - before - len(flood) <= FEW.strangers
    await under_way(door, 0)


async def test_familiar_addresses_have_seats_that_no_stranger_takes(door: Port) -> None:
    door.desk.attempts.remember(IPv4Address("127.0.0.9"), "alice", door.node.clock.now())
    with ExitStack() as stack:
        for number in range(FEW.strangers):
            stack.enter_context(half_open(door, f"127.0.2.{number % 6 + 1}"))
        await under_way(door, FEW.strangers)
        for _ in range(FEW.most - FEW.strangers):
            stack.enter_context(half_open(door, "127.0.0.9"))
        await under_way(door, FEW.most)
        assert door.refusals() == {}


async def test_a_handshake_that_is_not_ended_is_ended(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.threshold, "OPEN_TIMEOUT", OPEN_TIMEOUT)
    with half_open(door, said=client_hello()) as sock:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(PATIENCE):
            while not is_gone(sock):
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began > OPEN_TIMEOUT - 1
    await under_way(door, 0)


async def test_who_draws_the_handshake_out_has_no_more_time_to_ask(door: Port) -> None:
    """One deadline from the accept on, for both."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.number)
    await under_way(door, 1)
    await asyncio.sleep(0.2)  # as one that draws it out
    begun = asyncio.get_running_loop().time()
    await writer.start_tls(door.tls, server_hostname="127.0.0.1")
    async with asyncio.timeout(PATIENCE):
        while not (visitors := list(door.listener.reception._visitors)):
            await asyncio.sleep(0)
    assert visitors[0]._timer is not None
    assert visitors[0]._timer.when() < begun + broker.visitor.OPEN_TIMEOUT - 0.1
    writer.transport.abort()


async def test_the_kernel_keeps_a_crowd_until_it_is_accepted(door: Port) -> None:
    assert door.listener._server is not None
    listening = door.listener._server.sockets[0]
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    longest = int.from_bytes(info[28:32], sys.byteorder)  # of a listening socket tcpi_sacked is the backlog (tcp_diag(7))
    assert longest == BACKLOG


async def test_what_is_no_tls_is_let_go_at_once(door: Port) -> None:
    with half_open(door, said=b"GET / HTTP/1.1\r\n\r\n") as sock:
        async with asyncio.timeout(PATIENCE):
            while not is_gone(sock):
                await asyncio.sleep(0.01)
    await under_way(door, 0)


async def test_a_request_in_one_flight_with_the_handshakes_end_is_answered(door: Port) -> None:
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = door.tls.wrap_bio(coming, going, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number)
    writer.write(going.read())
    while True:
        coming.write(await reader.read(65536))
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            continue
    client.write(head())
    writer.write(going.read())  # Finished, and the request
    found = b""
    async with asyncio.timeout(PATIENCE):
        while b"200 OK" not in found:
            coming.write(await reader.read(65536))
            try:
                found += client.read(65536)
            except ssl.SSLWantReadError:
                continue
    writer.transport.abort()


async def test_a_reset_at_once_leaves_nothing(door: Port) -> None:
    for _ in range(50):
        with half_open(door) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer = await Peer.at(door, local_addr=("127.0.0.2", 0))
    assert (await peer.asks(head()))[0] == 200
    peer.writer.transport.abort()
    await under_way(door, 0)


async def test_a_port_that_closes_ends_its_handshakes(door: Port) -> None:
    with half_open(door) as sock:
        await under_way(door, 1)
        await door.listener.stop()
        await gone(sock)
    await under_way(door, 0)
