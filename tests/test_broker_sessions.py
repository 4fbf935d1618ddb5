"""broker/sessions.py over socketpairs: from admission to the one recorded ending, and the cut of everything in between."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from broker.admission import Wish
from broker.session import Operator, Session, State
from broker.sessions import DROP_GRACE, LOST_GRACE, TICKET_GRACE
from eva import audit
from eva.consent import Access, Kind, Principal
from eva.control import Event, Mark, Refusal, Refused
from eva.ending import Ending
from hypervisor.control import DialFailure
from hypervisor.dialer import DialError
from tests.broker_parts import (
    ALICE,
    BOB,
    PIN,
    Core,
    Domain,
    News,
    console_bytes,
    core,
    heard,
    hears,
    notice,
    revocation_of,
    vm_id,
)
from tests.rfb_bytes import VERSION, key, rectangle, request, server_init, set_encodings, update


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


async def refusal(node: Core, *args: object, **other: object) -> Refusal:
    with pytest.raises(Refused) as caught:
        await node.open(*args, **other)  # type: ignore[arg-type]
    return caught.value.refusal


def hold_disk(node: Core) -> threading.Event:
    """The audit waits until the event is set."""
    gate, append = threading.Event(), node.journal._audit.append
    node.journal._audit.append = lambda entries: (gate.wait(10), append(entries))  # type: ignore[method-assign]
    return gate


async def pass_time(node: Core, seconds: float) -> None:
    """Lets both clocks go on while leases keep coming."""
    while seconds > 0:
        node.clock.run(min(seconds, 5))
        seconds -= 5
        await node.renew()
        node.sessions.tick(node.clock.now())


def ends_of(node: Core, session: Session) -> list[str]:
    return [str(r.facts["reason"]) for r in node.records(audit.Event.SESSION_END) if r.facts["session"] == session.id]


def open_sockets() -> Counter[str]:
    """The sockets that this process holds, by the kernel's name, with how many descriptors each has."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib would hold a descriptor of its own
        try:
            found[os.readlink(f"/proc/self/fd/{name}")] += 1  # noqa: PTH115
        except FileNotFoundError:
            continue
    return found


# -- before the console opens --------------------------------------------------------------------------------------------


async def test_without_a_consent_nothing_opens(node: Core):
    assert await refusal(node) is Refusal.NO_CONSENT


async def test_without_a_fresh_lease_nothing_opens(node: Core):
    node.grant()
    node.clock.run(6.1)
    assert await refusal(node) is Refusal.LEASE_STALE


async def test_a_node_that_stops_opens_nothing(node: Core):
    node.grant()
    node.sessions.stopping = True
    assert await refusal(node) is Refusal.STOPPING


async def test_the_count_of_sessions_has_a_bound(tmp_path: Path):
    async with core(tmp_path, most=1) as node:
        node.grant()
        await node.open()
        assert await refusal(node) is Refusal.TOO_MANY


async def test_the_start_is_on_disk_before_anybody_dials(node: Core):
    node.grant()
    await node.settle()
    gate = hold_disk(node)
    opening = asyncio.ensure_future(node.open())
    await asyncio.sleep(0.05)
    dialled_early = node.dialer.dialling.is_set()
    gate.set()
    session = await opening
    assert not dialled_early
    assert [r.facts["session"] for r in node.records(audit.Event.SESSION_START)] == [session.id]


async def test_a_disk_that_refuses_the_start_opens_nothing(node: Core):
    node.grant()
    await node.settle()

    def refuse(_: object) -> None:
        raise OSError(28, "No space left on device")

    node.journal._audit.append = refuse  # type: ignore[method-assign]
    assert await refusal(node) is Refusal.AUDIT_FAILED
    assert (node.dialer.guests, len(node.sessions)) == ([], 0)


async def test_revoked_while_the_start_is_written_it_never_dials(node: Core):
    one = node.grant()
    await node.settle()
    gate = hold_disk(node)
    opening = asyncio.ensure_future(node.open())
    await asyncio.sleep(0)
    node.revoke(one)
    gate.set()
    with pytest.raises(Refused):
        await opening
    await node.settle()
    assert not node.dialer.dialling.is_set()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["consent-revoked"]


@pytest.mark.parametrize("kind", list(Kind))
async def test_revoked_while_it_dials_the_line_is_cut_as_it_comes(node: Core, kind: Kind):
    one = node.grant()
    node.dialer.picked_up.clear()
    opening = asyncio.ensure_future(node.open(kind))
    await node.dialer.dialling.wait()
    node.revoke(one)
    node.dialer.picked_up.set()
    with pytest.raises(Refused):
        await opening
    assert node.dialer.lines[0].sock.fileno() == -1
    await node.settle()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["consent-revoked"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(DialFailure.BUSY, Refusal.CONSOLE_BUSY), (DialFailure.TIMED_OUT, Refusal.CONSOLE_FAILED)],
)
async def test_a_console_that_does_not_open_has_its_end_recorded(node: Core, failure: DialFailure, expected: Refusal):
    node.grant()
    node.dialer.failure = DialError(failure, "x")
    assert await refusal(node) is expected
    await node.settle()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["console-lost"]
    assert len(node.sessions) == 0


async def test_an_operator_who_goes_while_it_opens_leaves_nothing(node: Core):
    node.grant()
    node.dialer.picked_up.clear()
    opening = asyncio.ensure_future(node.open())
    await node.dialer.dialling.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await node.settle()
    assert (len(node.sessions), [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)]) == (0, ["operator-left"])


async def test_two_who_open_at_once_share_one_attachment(node: Core):
    node.grant()
    node.dialer.picked_up.clear()
    both = asyncio.gather(node.open(), node.open(operator=BOB))
    await node.dialer.dialling.wait()
    node.dialer.picked_up.set()
    await both
    assert len(node.dialer.guests) == 1


async def test_one_whose_dial_is_cut_leaves_the_other_to_dial(node: Core):
    first, second = (
        node.grant(operators=frozenset({Principal(False, "alice")})),
        node.grant(operators=frozenset({Principal(False, "bob")})),
    )
    node.dialer.picked_up.clear()
    one = asyncio.ensure_future(node.open())
    other = asyncio.ensure_future(node.open(operator=BOB))
    await node.dialer.dialling.wait()
    while len(node.sessions) < 2:
        await asyncio.sleep(0.01)
    node.revoke(first)
    node.dialer.picked_up.set()
    session = await other
    with pytest.raises(Refused):
        await one
    assert (session.accepted.consent.jti, session.state) == (second.jti, State.DETACHED)


@pytest.mark.parametrize("kind", list(Kind))
async def test_nothing_passes_before_the_operator_is_there(node: Core, kind: Kind):
    node.grant()
    session = await node.open(kind)
    if kind is Kind.SERIAL:
        node.live(session).viewer.operator_bytes(b"ls\r")
    node.dialer.guest.send(VERSION)
    await asyncio.sleep(0.02)
    assert (heard(node.dialer.guest), node.live(session).viewer.shown) == (b"", 0)


async def test_a_ticket_that_nobody_redeems_ends_it(node: Core):
    node.grant()
    session = await node.open()
    await pass_time(node, TICKET_GRACE - 0.1)
    still = len(node.sessions)
    await pass_time(node, 0.1)
    await node.settle()
    assert (still, ends_of(node, session)) == (1, ["operator-left"])


# -- the cut -------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("age", [15.1, 3600])
async def test_a_lost_lease_ends_all(node: Core, age: float):
    node.grant()
    session = await node.open()
    node.sessions.tick(node.clock.run(age))
    await node.settle()
    assert ends_of(node, session) == ["lease-lost"]


async def test_a_suspended_host_finds_its_lease_lost_before_a_byte_passes(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.clock.boot += 3600 * 10**9
        await client.send(b"rm -rf /\r")
        await client.ping()
        await asyncio.sleep(0.05)
        assert heard(node.dialer.guest) == b""


async def test_expiry_is_found_at_the_byte_though_no_timer_ran(node: Core):
    node.grant(seconds=5)
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"a")
        await hears(node.dialer.guest, 1)
        node.clock.run(5)
        await client.send(b"b")
        await (await client.ping())
        assert heard(node.dialer.guest) == b""


async def shake_hands(client, guest: socket.socket) -> None:
    """RFC 6143 7.1 to 7.3, through the filter."""
    guest.send(VERSION)
    await console_bytes(client, len(VERSION))
    await client.send(VERSION)
    await hears(guest, len(VERSION))
    guest.send(b"\x01\x01")
    await console_bytes(client, 2)
    await client.send(b"\x01")
    await hears(guest, 1)
    guest.send(bytes(4))
    await console_bytes(client, 4)
    await client.send(b"\x01")
    await hears(guest, 1)
    guest.send(server_init())
    await console_bytes(client, 24)
    await client.send(set_encodings(0) + request())
    await hears(guest, 8 + 10)


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


async def test_a_moved_keyboard_lets_go_of_however_many_keys(node: Core):
    node.grant()
    first, second = await node.open(Kind.GRAPHICS), await node.open(Kind.GRAPHICS, BOB)
    guest = node.dialer.guests[0]
    async with node.edge() as edge:
        client = await edge.connect(first)
        await shake_hands(client, guest)
        for keysym in range(0x100, 0x100 + 40):
            await client.send(key(keysym, down=True))
            await hears(guest, 8)
        node.sessions.move_keyboard(node.live(second), second.id)
        released = await hears(guest, 40 * 8)
        assert {released[i : i + 8] for i in range(0, len(released), 8)} == {key(0x100 + n, down=False) for n in range(40)}
        await client.send(request(incremental=True))
        assert await hears(guest, 10) == request(incremental=True)


async def test_a_line_that_ends_is_the_consoles_loss(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        began = time.monotonic()
        assert (await notice(client, Mark.ENDED))["reason"] == "console-lost"
        assert time.monotonic() - began < LOST_GRACE + 1


async def test_whoever_dials_anew_after_a_loss_has_the_keyboard(node: Core):
    node.grant()
    lost = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(lost)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        while node.live(lost).lost is None:
            await asyncio.sleep(0)
        assert node.sessions.owns_keyboard(await node.open())
        assert node.live(lost).session is lost  # which has not ended by itself meanwhile


async def test_a_line_that_ends_is_the_vms_stop_when_the_inventory_says_so(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        async with asyncio.timeout(5):
            while node.live(session).lost is None:
                await asyncio.sleep(0)
        node.sessions.end_domain(PIN, Ending.VM_STOPPED)
        assert (await notice(client, Mark.ENDED))["reason"] == "vm-stopped"
    await asyncio.sleep(LOST_GRACE)
    await node.settle()
    assert ends_of(node, session) == ["vm-stopped"]


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


async def drain(client, closed: list[float]) -> None:
    try:
        while True:
            await client.recv()
    except ConnectionClosed:
        closed.append(time.perf_counter())


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
    closed: list[float] = []
    got: dict[socket.socket, int] = {}
    async with node.edge() as edge, asyncio.TaskGroup() as group:
        sleepers = [await stalled(edge, s) for s in quiet]
        for session in sessions[:-still]:
            client = await edge.connect(session)
            group.create_task(drain(client, closed))
            group.create_task(operate(client, Kind.SERIAL))
        for n in range(graphics):
            session = await node.open(Kind.GRAPHICS, Operator(f"g{n}", ALICE.groups, "127.0.0.1"))
            sessions.append(session)
            client = await edge.connect(session)
            guest = node.dialer.guest
            await shake_hands(client, guest)
            group.create_task(drain(client, closed))
            group.create_task(operate(client, Kind.GRAPHICS))
            group.create_task(load(node, guest, Kind.GRAPHICS))
            group.create_task(listen(guest, got))
        group.create_task(load(node, serial_guest, Kind.SERIAL))
        group.create_task(listen(serial_guest, got))
        async with asyncio.timeout(20):
            while got.get(serial_guest, 0) < 3 or len(edge.shown) < serial + graphics:
                await asyncio.sleep(0.01)
        lives = [node.live(s) for s in sessions]
        lines = [line.sock for line in node.dialer.lines]
        kernel = {os.readlink(f"/proc/self/fd/{sock.fileno()}") for sock in lines}  # noqa: PTH115
        shut: list[tuple[float, bool]] = []
        for line in node.dialer.lines:
            line.on_cut = lambda: shut.append((time.perf_counter(), all(x.gate.ending for x in lives)))
        raw = node.signer.letter(revocation_of(one))
        began = time.perf_counter()
        node.consents.take_revocation(raw)
        done = time.perf_counter()
        passed = [x.gate.passed for x in lives]
        assert all(sock.fileno() == -1 for sock in lines)
        assert kernel.isdisjoint(open_sockets())
        assert all(gates for _, gates in shut)
        assert len(shut) >= len(lines)
        assert shut[0][0] - began <= 0.05
        async with asyncio.timeout(5):
            while any(not c.connection_lost_waiter.done() for c in edge.shown):
                await asyncio.sleep(0.005)
        ended = time.perf_counter()
        assert [x.gate.passed for x in lives] == passed
        assert ended - done <= 1.0
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


# -- dropped and resumed -------------------------------------------------------------------------------------------------


async def drop(node: Core, session: Session, client) -> None:
    client.transport.abort()
    async with asyncio.timeout(5):
        while session.state is State.LIVE:
            await asyncio.sleep(0)


async def test_a_drop_detaches_and_the_grace_ends_it(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        await drop(node, session, client)
    await pass_time(node, DROP_GRACE - 0.1)
    still = len(node.sessions)
    await pass_time(node, 0.1)
    await node.settle()
    assert (still, ends_of(node, session)) == (1, ["operator-left"])


async def test_a_dropped_sessions_gate_is_closed(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        await drop(node, session, client)
        node.live(session).viewer.operator_bytes(b"x")
        assert (session.state, heard(node.dialer.guest)) == (State.DETACHED, b"")


async def test_an_operator_who_closes_has_left(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.close()
        async with asyncio.timeout(5):
            while session.state is not State.ENDED:
                await asyncio.sleep(0)
    assert session.ending is Ending.OPERATOR_LEFT


async def test_a_graphics_session_that_drops_is_over(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await asyncio.sleep(0.05)
        client.transport.abort()
        async with asyncio.timeout(5):
            while session.state is not State.ENDED:
                await asyncio.sleep(0)
    assert session.ending is Ending.OPERATOR_LEFT


@pytest.mark.parametrize(
    "other", [BOB, Operator("alice", ALICE.groups, "127.0.0.2"), Operator("alice", frozenset(), "127.0.0.1")]
)
async def test_nobody_else_resumes_it(node: Core, other: Operator):
    node.grant()
    session = await node.open()
    with pytest.raises(Refused) as caught:
        node.sessions.resume(session.id, other, 0, News())
    assert caught.value.refusal is Refusal.NO_SESSION


async def test_no_graphics_session_resumes(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    with pytest.raises(Refused):
        node.sessions.resume(session.id, ALICE, 0, News())


async def test_a_session_taken_up_elsewhere_is_taken_over(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        old = await edge.connect(session)
        await notice(old, Mark.ATTACHED)
        node.sessions.resume(session.id, ALICE, 0, News())
        new = await edge.connect(session)
        await notice(new, Mark.ATTACHED)
        with pytest.raises(ConnectionClosed):
            await old.recv()
        assert old.close_code == Ending.TAKEN_OVER.code
        await new.send(b"y")
        assert await hears(node.dialer.guest, 1) == b"y"


async def test_leaving_ends_it_and_leaving_again_is_no_fault(node: Core):
    node.grant()
    session = await node.open()
    node.sessions.leave(session.id, ALICE)
    node.sessions.leave(session.id, ALICE)
    assert session.ending is Ending.OPERATOR_LEFT


async def test_nobody_leaves_for_another(node: Core):
    node.grant()
    session = await node.open()
    for _ in range(2):
        with pytest.raises(Refused):
            node.sessions.leave(session.id, BOB)
        node.sessions.end(session, Ending.CONSENT_REVOKED)


# -- keyboard and chords -------------------------------------------------------------------------------------------------


async def test_a_view_only_consent_has_no_keyboard(node: Core):
    node.grant(access=Access.VIEW)
    session = await node.open()
    with pytest.raises(Refused):
        node.sessions.move_keyboard(node.live(session), session.id)
    assert not node.sessions.owns_keyboard(session)


async def test_the_first_has_the_keyboard_and_the_second_may_take_it_openly(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    node.sessions.move_keyboard(node.live(second), second.id)
    await node.settle()
    (record,) = node.records(audit.Event.KEYBOARD)
    assert (node.sessions.owns_keyboard(second), record.facts["by"], record.facts["from"]) == (True, "bob", first.id)


async def test_only_its_owner_gives_it_away(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    with pytest.raises(Refused):
        node.sessions.move_keyboard(node.live(second), first.id)


async def test_the_keyboard_does_not_go_to_another_vm(node: Core):
    node.domains.by_id[vm_id("vm2")] = (Domain(uuid="2" * 36),)
    node.grant()
    node.grant(vm="vm2")
    first, other = await node.open(), await node.open(vm="vm2")
    with pytest.raises(Refused):
        node.sessions.move_keyboard(node.live(first), other.id)


async def test_a_chord_is_recorded_and_pressed(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        await edge.connect(session)
        await asyncio.sleep(0.02)
        await node.sessions.send_chord(node.live(session), (29, 56, 111))
    assert (node.dialer.chords, len(node.records(audit.Event.KEYS_SENT))) == ([(29, 56, 111)], 1)


async def test_a_chord_of_one_who_is_not_attached_is_refused(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    with pytest.raises(Refused):
        await node.sessions.send_chord(node.live(session), (29,))


async def test_a_chord_of_one_without_the_keyboard_is_refused(node: Core):
    node.grant()
    await node.open()
    session = await node.open(operator=BOB)
    with pytest.raises(Refused) as caught:
        await node.sessions.send_chord(node.live(session), (29,))
    assert (caught.value.refusal, node.dialer.chords) == (Refusal.NO_KEYBOARD, [])


async def test_a_chord_in_flight_is_cancelled_by_the_cut_and_the_next_vm_session_may_press(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        await notice(await edge.connect(session), Mark.ATTACHED)
        node.dialer.dialling.clear()
        node.dialer.picked_up.clear()
        pressing = asyncio.ensure_future(node.sessions.send_chord(node.live(session), (29,)))
        await node.dialer.dialling.wait()
        with pytest.raises(Refused):
            await node.sessions.send_chord(node.live(session), (30,))
        node.revoke(one)
        with pytest.raises(Refused):
            await pressing
    assert (node.dialer.chords, node.sessions._chords) == ([], set())


async def test_revoked_while_its_chord_is_recorded_nothing_is_pressed(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        await notice(await edge.connect(session), Mark.ATTACHED)
        await node.settle()
        gate = hold_disk(node)
        pressing = asyncio.ensure_future(node.sessions.send_chord(node.live(session), (29,)))
        await asyncio.sleep(0)
        node.revoke(one)
        gate.set()
        with pytest.raises(Refused):
            await pressing
    assert node.dialer.chords == []


# -- telling -------------------------------------------------------------------------------------------------------------


async def test_operators_are_told_how_long_is_left(node: Core):
    node.grant(seconds=1000)
    news = News()
    await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    live = next(iter(node.sessions._live.values()))
    live.session.deadline = None
    for step in (90, 20, 590, 10):
        node.clock.run(step)
        await node.renew()
        node.sessions.tick(node.clock.now())
    assert [n["remaining_s"] for n in news.of(Event.COUNTDOWN)] == [890, 300]


async def test_a_second_viewer_is_told_of_and_is_no_event_in_the_first_ones_console(node: Core):
    node.grant()
    news = News()
    first = await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    second = await node.open(operator=BOB)
    async with node.edge() as edge:
        await notice(await edge.connect(first), Mark.ATTACHED)
        await notice(await edge.connect(second), Mark.ATTACHED)
    viewers = news.of(Event.VIEWERS)[-1]["viewers"]
    assert [v["account"] for v in viewers] == ["alice", "bob"]  # type: ignore[union-attr, index, call-overload]


async def test_after_the_disk_failed_no_end_is_lost_in_memory(node: Core):
    node.grant()
    session = await node.open()
    node.journal._state.write = lambda _: (_ for _ in ()).throw(sqlite3.OperationalError("full"))  # type: ignore[method-assign]
    node.consents.note_time(node.clock.now())
    async with asyncio.timeout(5):
        while not node.failures:
            await asyncio.sleep(0)
    node.sessions.end_all(Ending.AUDIT_FAILED)
    assert (session.ending, len(node.sessions)) == (Ending.AUDIT_FAILED, 0)
