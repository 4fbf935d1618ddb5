"""broker/serial_console.py over a socketpair and real websockets: one types, many see, nobody sees what is not theirs."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.serial_console import MAX_PENDING, READ
from broker.session import Session, State
from eva import audit
from eva.consent import Access, Principal
from eva.control import Mark, Refused
from eva.ending import Ending
from tests.broker_parts import ALICE, BOB, PATIENCE, Core, News, awake, console_bytes, core, heard, hears, notice


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


async def test_only_the_keyboards_owner_is_heard(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        one, other = await edge.connect(first), await edge.connect(second)
        await other.send(b"no")
        assert (await notice(other, Mark.TAKEN))["taken"] == 2  # so that nobody sends it again
        await one.send(b"yes")
        assert await hears(node.dialer.guest, 3) == b"yes"


async def test_after_the_keyboard_moved_the_other_is_heard(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        one, other = await edge.connect(first), await edge.connect(second)
        node.sessions.hands.move_keyboard(node.live(second), second.id)
        await one.send(b"no")
        await notice(one, Mark.TAKEN)
        await other.send(b"yes")
        assert await hears(node.dialer.guest, 3) == b"yes"


async def test_what_waited_is_dropped_when_the_keyboard_moves(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        one, other = await edge.connect(first), await edge.connect(second)
        await one.send(b"a" * 300)
        await hears(node.dialer.guest, 256)
        node.sessions.hands.move_keyboard(node.live(second), second.id)
        node.dialer.guest.send(b"$ ")
        await other.send(b"b")
        assert await hears(node.dialer.guest, 1) == b"b"
        assert node.live(first).viewer.consumed == 300


async def test_a_cheating_viewer_types_nothing(node: Core):
    node.grant(access=Access.VIEW)
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"rm -rf /\r")
        await notice(client, Mark.TAKEN)
        assert heard(node.dialer.guest) == b""


async def test_256_bytes_go_down_unanswered_and_no_more(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 5000)
        assert (await notice(client, Mark.HELD))["why"] == "no-echo"
        assert len(heard(node.dialer.guest)) == 256


async def test_an_answer_lets_256_more_down(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 5000)
        await hears(node.dialer.guest, 256)
        node.dialer.guest.send(b"x")
        await console_bytes(client, 1)
        assert len(heard(node.dialer.guest)) == 256


async def test_what_the_guest_said_before_is_no_answer(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 256)
        assert len(await hears(node.dialer.guest, 256)) == 256
        # a guest that has been paused, and whose output lies unread still: all of it is there before anything of it is read
        said = node.dialer.guest.send(b"o" * 60_000)
        assert said > 4 * READ
        await client.send(b"y" * 5000)
        assert len(await console_bytes(client, said)) == said
        await until(lambda: node.live(session).viewer.pending)
        assert len(heard(node.dialer.guest)) <= 256


async def test_send_anyway_lets_256_more_down_and_is_recorded(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 5000)
        await hears(node.dialer.guest, 256)
        node.sessions.hands.release_input(node.live(session))
        assert len(heard(node.dialer.guest)) == 256
        assert node.live(session).viewer.stale == 512
    await node.settle()
    assert [r.facts["stale"] for r in node.records(audit.Event.INPUT_RELEASED)] == [256]


async def test_held_input_goes_on_when_the_guest_reads_again(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"x" * 1000)
        await notice(client, Mark.HELD)
        for part in (256, 256, 256, 232):
            await hears(node.dialer.guest, part)
            node.dialer.guest.send(b".")
        while (await notice(client, Mark.HELD))["held"]:  # told again where it took long meanwhile
            pass


async def test_a_stale_lease_holds_and_a_fresh_one_lets_go(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.clock.run(7)
        await client.send(b"ls\r")
        assert (await notice(client, Mark.HELD))["why"] == "lease"
        assert heard(node.dialer.guest) == b""
        await node.renew()
        assert await hears(node.dialer.guest, 3) == b"ls\r"


async def test_an_operator_who_pastes_is_held_and_loses_nothing(node: Core):
    node.grant()
    session = await node.open()
    paste = random.Random(1).randbytes(3 * MAX_PENDING)
    guest, got = node.dialer.guest, b""
    async with node.edge() as edge:
        client = await edge.connect(session)
        sending = asyncio.ensure_future(_send_in_parts(client, paste))
        await until(lambda: len(node.live(session).viewer.pending) >= MAX_PENDING)
        assert len(node.live(session).viewer.pending) < 2 * MAX_PENDING
        async with asyncio.timeout(PATIENCE):
            while len(got) < len(paste):
                got += await hears(guest, 1) + heard(guest)
                guest.send(b".")
        await sending
    assert got == paste


async def _send_in_parts(client, data: bytes) -> None:
    for at in range(0, len(data), 4000):
        await client.send(data[at : at + 4000])


# -- towards the operators -----------------------------------------------------------------------------------------------


async def test_one_who_joins_sees_what_was_shown_under_the_same_consent(node: Core):
    node.grant()
    first = await node.open()
    async with node.edge() as edge:
        node.dialer.guest.send(b"login: ")
        assert await console_bytes(await edge.connect(first), 7) == b"login: "
        second = await node.open(operator=BOB)
        assert await console_bytes(await edge.connect(second), 7) == b"login: "


async def test_nothing_is_shown_under_another_consent(node: Core):
    node.grant(operators=frozenset({Principal(False, "alice")}))
    node.grant(operators=frozenset({Principal(False, "bob")}))
    first = await node.open()
    async with node.edge() as edge:
        one = await edge.connect(first)
        node.dialer.guest.send(b"secret of the first consent")
        await console_bytes(one, 27)
        second = await node.open(operator=BOB)
        other = await edge.connect(second)
        await notice(other, Mark.ATTACHED)
        node.dialer.guest.send(b"for both")
        assert await console_bytes(other, 8) == b"for both"


async def test_one_who_claims_to_have_nothing_is_shown_nothing_of_another_consent(node: Core):
    node.grant(operators=frozenset({Principal(False, "alice")}))
    node.grant(operators=frozenset({Principal(False, "bob")}))
    first = await node.open()
    async with node.edge() as edge:
        node.dialer.guest.send(b"secret of the first consent")
        await console_bytes(await edge.connect(first), 27)
        second = await node.open(operator=BOB)
        node.sessions.resume(second.id, BOB, 0, News())
        assert (await notice(await edge.connect(second), Mark.ATTACHED))["offset"] == 27


async def test_nothing_is_shown_under_a_later_consent_of_the_same_vm(node: Core):
    one = node.grant(operators=frozenset({Principal(False, "alice")}))
    node.grant(operators=frozenset({Principal(False, "bob")}))
    first, second = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        await edge.connect(second)
        client = await edge.connect(first)
        node.dialer.guest.send(b"seen by both of them")
        await console_bytes(client, 20)
        node.revoke(one)
        node.grant(operators=frozenset({Principal(False, "alice")}), reason="again")
        again = await node.open()
        client = await edge.connect(again)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.send(b"new")
        assert await console_bytes(client, 3) == b"new"


async def test_the_scrollback_is_wiped_when_the_consent_ends(node: Core):
    one = node.grant()
    session = await node.open()
    console = node.live(session).viewer._console
    async with node.edge() as edge:
        node.dialer.guest.send(b"secret")
        await console_bytes(await edge.connect(session), 6)
        node.revoke(one)
    assert b"secret" not in bytes(console.scrollback._ring)


async def test_a_lagging_viewer_still_gets_what_the_guest_said_last(node: Core):
    """The line ends while the viewer is behind: its bytes come as they were, not wiped."""
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        viewer = node.live(session).viewer
        shown = viewer.connection
        shown.congested = True  # as pause_writing has it
        node.dialer.guest.send(b"Kernel panic - not syncing")
        node.dialer.guest.close()
        await until(lambda: node.live(session).lost is not None)
        shown.congested = False
        viewer.writable()
        assert await console_bytes(client, 26) == b"Kernel panic - not syncing"


async def test_a_query_reaches_the_keyboards_owner_alone(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        one, other = await edge.connect(first), await edge.connect(second)
        await notice(other, Mark.ATTACHED)
        node.dialer.guest.send(b"\x1b[6n$ ")
        assert (await notice(one, Mark.QUERY))["query"] == "dsr6"
        assert await console_bytes(other, 2) == b"$ "


async def deaf(edge, session: Session) -> socket.socket:
    """An operator who reads nothing, with little room on the way."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", edge.port))
    head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
    await loop.sock_sendall(sock, f"GET /{session.id} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
    await until(lambda: session.state is State.LIVE)
    return sock


async def flood(guest: socket.socket, count: int, session: Session, patience: float) -> int:
    """The guest says so many bytes, as far as it is read within so many seconds each time. Gives how many were taken."""
    loop, sent = asyncio.get_running_loop(), 0
    try:
        while sent < count and session.state is State.LIVE:
            async with asyncio.timeout(patience):
                await loop.sock_sendall(guest, b"x" * 8000)
            sent += 8000
    except TimeoutError:
        pass
    return sent


async def test_a_slow_viewer_is_let_go_and_the_owner_loses_nothing(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(first)
        sock = await deaf(edge, second)
        reading = asyncio.ensure_future(_count(client))
        sent = await flood(guest, 40_000_000, second, PATIENCE)
        assert second.ending is Ending.SLOW_OPERATOR
        await until(lambda: node.live(first).viewer.shown >= sent)
        assert first.state is State.LIVE
        sock.close()
        client.transport.abort()
        await reading


async def _count(client) -> int:
    total = 0
    try:
        async for frame in client:
            total += len(frame)
    except Exception:  # noqa: BLE001 - the end of the connection, whatever it is called
        return total
    return total


async def test_a_slow_owner_slows_the_guest_and_is_cut_all_the_same(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        sock = await deaf(edge, session)
        sent = await flood(node.dialer.guest, 40_000_000, session, 1)
        assert sent < 40_000_000
        connection = node.live(session).viewer.connection
        node.revoke(one)
        async with awake() as seconds, asyncio.timeout(PATIENCE):
            await connection.wait_closed()
            assert seconds() < 1
        sock.close()
    assert session.ending is Ending.CONSENT_REVOKED


# -- resume --------------------------------------------------------------------------------------------------------------


async def test_resume_replays_exactly_whatever_the_drops(node: Core):
    rounds = random.Random(7)
    node.grant()
    session = await node.open()
    said = bytes(rounds.choice(b"abcdefgh\n") for _ in range(20_000))
    got, sent = b"", 0
    async with node.edge() as edge:
        client = await edge.connect(session)
        while len(got) < len(said):
            piece = said[sent : sent + rounds.randrange(1, 3000)]
            node.dialer.guest.send(piece)
            sent += len(piece)
            if rounds.random() < 0.5 and sent < len(said):
                got += await console_bytes(client, rounds.randrange(0, sent - len(got) + 1))
                client.transport.abort()
                await until(lambda: session.state is State.DETACHED)
                node.sessions.resume(session.id, ALICE, len(got), News())
                client = await edge.connect(session)
                assert (await notice(client, Mark.ATTACHED))["offset"] == len(got)
            else:
                got += await console_bytes(client, sent - len(got))
    assert got == said


async def test_input_is_neither_lost_nor_doubled_over_a_drop(node: Core):
    node.grant()
    session = await node.open()
    typed = bytes(range(32, 127)) * 6
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(typed)
        got = await hears(guest, 256)
        client.transport.abort()
        await until(lambda: session.state is State.DETACHED)
        node.sessions.resume(session.id, ALICE, 0, News())
        client = await edge.connect(session)
        taken = (await notice(client, Mark.ATTACHED))["taken"]
        assert taken == 256
        await client.send(typed[taken:])
        async with asyncio.timeout(PATIENCE):
            while len(got) < len(typed):
                guest.send(b".")
                got += await hears(guest, 1) + heard(guest)
    assert got == typed


@pytest.mark.parametrize("received", [10**9, 2**53])
async def test_one_who_says_to_have_more_than_there_was_starts_at_the_end(node: Core, received: int):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        node.dialer.guest.send(b"abc")
        await console_bytes(client, 3)
        node.sessions.resume(session.id, ALICE, received, News())
        assert (await notice(await edge.connect(session), Mark.ATTACHED))["offset"] == 3


async def test_nobody_releases_input_without_the_keyboard(node: Core):
    node.grant()
    await node.open()
    second = await node.open(operator=BOB)
    with pytest.raises(Refused):
        node.sessions.hands.release_input(node.live(second))
