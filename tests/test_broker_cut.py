"""broker/cut.py over socketpairs: one recorded end, no byte after it, and one deadline for however many are cut together."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed

from broker import cut
from broker.admission import Wish
from broker.graphics_console import GraphicsViewer
from broker.session import Operator, Session, State
from broker.websocket import CLOSE_GRACE
from eva import audit
from eva.consent import Kind, Principal
from eva.control import Event, Mark
from eva.ending import Ending
from tests.broker_parts import (
    ALICE,
    BOB,
    PATIENCE,
    Core,
    Domain,
    News,
    awake,
    console_bytes,
    core,
    ends_of,
    heard,
    hears,
    notice,
    revocation_of,
    shake_hands,
    vm_id,
)
from tests.rfb_bytes import key, rectangle, request, update


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


def open_sockets() -> Counter[str]:
    """The sockets that this process holds, by the kernel's name, with how many descriptors each has."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib would hold a descriptor of its own
        try:
            found[os.readlink(f"/proc/self/fd/{name}")] += 1  # noqa: PTH115
        except FileNotFoundError:
            continue
    return found


async def test_a_session_has_one_start_and_one_end(node: Core):
    one = node.grant()
    session = await node.open()
    node.revoke(one)
    node.revoke(one, seq=2)
    node.sessions.end(session, Ending.NODE_STOPPING)
    await node.settle()
    assert [r.facts["session"] for r in node.records(audit.Event.SESSION_START)] == [session.id]
    assert ends_of(node, session) == ["consent-revoked"]


async def test_its_end_counts_the_bytes(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"ls\r")
        await hears(node.dialer.guest, 3)
        node.dialer.guest.send(b"file")
        await console_bytes(client, 4)
        node.revoke(one)
        await node.settle()
    (end,) = node.records(audit.Event.SESSION_END)
    assert {name: end.facts[name] for name in ("to_guest", "to_operator", "stale_at_most")} == {
        "to_guest": 3,
        "to_operator": 4,
        "stale_at_most": 0,
    }


async def test_stale_bytes_are_told(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 100)
        await hears(node.dialer.guest, 100)
        node.revoke(one)
        await node.settle()
    (end,) = node.records(audit.Event.SESSION_END)
    assert end.facts["stale_at_most"] == 100


async def test_the_operator_is_told_why(node: Core):
    one = node.grant()
    news = News()
    session = await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.revoke(one)
        assert (await notice(client, Mark.ENDED))["reason"] == "consent-revoked"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == Ending.CONSENT_REVOKED.code
    assert news.of(Event.ENDED)[0]["reason"] == "consent-revoked"


async def test_another_consents_session_goes_on(node: Core):
    node.domains.by_id[vm_id("vm2")] = (Domain(uuid="2" * 36),)
    one, _ = node.grant(), node.grant(vm="vm2")
    await node.open()
    other = await node.open(vm="vm2")
    node.revoke(one)
    assert (other.state, len(node.sessions)) == (State.DETACHED, 1)


async def test_two_consents_on_one_console_and_one_is_revoked(node: Core):
    one, other = (
        node.grant(operators=frozenset({Principal(False, "alice")})),
        node.grant(operators=frozenset({Principal(False, "bob")})),
    )
    await node.open()
    left = await node.open(operator=BOB)
    async with node.edge() as edge:
        client = await edge.connect(left)
        node.revoke(one)
        node.dialer.guest.send(b"still here")
        assert await console_bytes(client, 10) == b"still here"
    assert node.standing() == {other.jti}


async def test_keys_held_down_are_let_go_once_at_the_cut(node: Core):
    one = node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        await client.send(key(0xFFE3, down=True))
        assert await hears(guest, 8) == key(0xFFE3, down=True)
        node.revoke(one)
        assert heard(guest) == key(0xFFE3, down=False)


async def load(node: Core, guest: socket.socket, kind: Kind) -> None:
    """A guest that talks for ever: an answered echo of one byte, or a rectangle, and more."""
    loop = asyncio.get_running_loop()
    data = b"all work and no play\r\n" * 50 if kind is Kind.SERIAL else update(rectangle(0, bytes(8 * 4 * 4))) * 8
    try:
        while True:
            await loop.sock_sendall(guest, data)
            await asyncio.sleep(0.1)
    except OSError:
        return


async def operate(client, kind: Kind) -> None:
    data = b"x" if kind is Kind.SERIAL else key(0x61, down=True) + key(0x61, down=False) + request(incremental=True)
    try:
        while True:
            await client.send(data)
            await asyncio.sleep(0.1)
    except ConnectionClosed:
        return


async def drain(client) -> None:
    try:
        while True:
            await client.recv()
    except ConnectionClosed:
        return


async def listen(guest: socket.socket, got: dict[socket.socket, int]) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(guest, 65536):
            got[guest] = got.get(guest, 0) + len(data)
    except OSError:
        return


async def stalled(edge, session: Session) -> socket.socket:
    """An operator who opens the console and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", edge.port))
    await loop.sock_sendall(
        sock,
        f"GET /{session.id} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode(),
    )
    return sock


async def cut_many(node: Core, serial: int, graphics: int, still: int) -> None:
    """Cuts so many sessions under load with one revocation; `still` operators read nothing."""
    one = node.grant()
    before = set(open_sockets())
    sessions = [await node.open(Kind.SERIAL, Operator(f"s{n}", ALICE.groups, "127.0.0.1")) for n in range(serial)]
    serial_guest = node.dialer.guest
    quiet = sessions[-still:]
    got: dict[socket.socket, int] = {}
    async with node.edge() as edge, asyncio.TaskGroup() as group:
        sleepers = [await stalled(edge, s) for s in quiet]
        for session in sessions[:-still]:
            client = await edge.connect(session)
            group.create_task(drain(client))
            group.create_task(operate(client, Kind.SERIAL))
        for n in range(graphics):
            session = await node.open(Kind.GRAPHICS, Operator(f"g{n}", ALICE.groups, "127.0.0.1"))
            sessions.append(session)
            client = await edge.connect(session)
            guest = node.dialer.guest
            await shake_hands(client, guest)
            group.create_task(drain(client))
            group.create_task(operate(client, Kind.GRAPHICS))
            group.create_task(load(node, guest, Kind.GRAPHICS))
            group.create_task(listen(guest, got))
        group.create_task(load(node, serial_guest, Kind.SERIAL))
        group.create_task(listen(serial_guest, got))
        async with asyncio.timeout(PATIENCE):
            while got.get(serial_guest, 0) < 3 or len(edge.shown) < serial + graphics:
                await asyncio.sleep(0.01)
        lives = [node.live(s) for s in sessions]
        lines = [line.sock for line in node.dialer.lines]
        kernel = {os.readlink(f"/proc/self/fd/{sock.fileno()}") for sock in lines}  # noqa: PTH115
        shut: list[tuple[float, bool]] = []
        for line in node.dialer.lines:
            line.on_cut = lambda: shut.append((time.thread_time(), all(x.gate.ending for x in lives)))
        raw = node.signer.letter(revocation_of(one))
        began = time.thread_time()  # the processor's: what others take of it on a busy machine does not count
        node.consents.take_revocation(raw)
        passed = [x.gate.passed for x in lives]
        assert all(sock.fileno() == -1 for sock in lines)
        assert kernel.isdisjoint(open_sockets())
        assert all(gates for _, gates in shut)
        assert len(shut) >= len(lines)
        assert shut[0][0] - began <= 0.05
        async with awake() as seconds, asyncio.timeout(PATIENCE):
            while any(not c.connection_lost_waiter.done() for c in edge.shown):
                await asyncio.sleep(0.005)
            assert seconds() <= 1.0
        assert [x.gate.passed for x in lives] == passed
        for sock in (*sleepers, *node.dialer.guests):
            sock.close()
    await node.settle()
    starts = Counter(r.facts["session"] for r in node.records(audit.Event.SESSION_START))
    ends = Counter(r.facts["session"] for r in node.records(audit.Event.SESSION_END))
    assert starts == ends == Counter(s.id for s in sessions)
    assert {r.facts["reason"] for r in node.records(audit.Event.SESSION_END)} == {"consent-revoked"}
    assert node.records(audit.Event.CONSENT_ENDED)[0].chain == one.jti
    assert {name for name in set(open_sockets()) - before if name.startswith("socket:")} == set()


async def test_two_hundred_sessions_under_load_are_cut_by_one_revocation(node: Core):
    await cut_many(node, serial=100, graphics=100, still=5)


async def test_no_byte_of_the_operators_is_at_the_guest_after_the_cut(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 600)
        await hears(node.dialer.guest, 256)
        node.revoke(one)
        await asyncio.sleep(0.05)
        assert heard(node.dialer.guest) == b""


async def deadlines(node: Core, count: int, seconds: float) -> list[float]:
    """Cuts so many sessions, each of which takes so long to be told. Gives when each is to be closed, from the start."""
    node.grant()
    given: list[float] = []
    now = 0.0
    for _ in range(count):
        await node.sessions.open(Wish(vm_id(), Kind.GRAPHICS), ALICE, News())
    close = GraphicsViewer.close

    def slow(viewer: GraphicsViewer, ending: Ending, grace: float) -> None:
        nonlocal now
        given.append(now + grace)
        now += seconds
        close(viewer, ending, grace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphicsViewer, "close", slow)
        patch.setattr(cut, "time", SimpleNamespace(monotonic=lambda: now))
        assert node.sessions.end_all(Ending.NODE_STOPPING) == count
    return given


async def test_one_alone_has_its_grace(node: Core):
    (deadline,) = await deadlines(node, 1, 0)
    assert CLOSE_GRACE * 0.9 < deadline <= CLOSE_GRACE


async def test_many_have_one_deadline(node: Core):
    given = await deadlines(node, 20, 0.005)
    assert max(given) - min(given) < 0.02
    assert max(given) <= CLOSE_GRACE


async def test_one_whose_turn_comes_after_it_is_closed_at_once(node: Core):
    given = await deadlines(node, 3, CLOSE_GRACE)
    assert given[2] > CLOSE_GRACE  # nothing is left: it is closed when it is told
