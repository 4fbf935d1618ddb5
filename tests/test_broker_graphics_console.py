"""broker/graphics_console.py over a socketpair and real websockets: QEMU's bytes down, only what may pass up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.rfb_keys import MAX_KEYS
from broker.rfb_waiting import MAX_WAITING
from broker.session import Session
from eva.consent import Access, Kind
from eva.ending import Ending
from tests.broker_parts import BOB, PATIENCE, Core, console_bytes, core, heard, hears, shake_hands
from tests.rfb_bytes import VERSION, extended_key, guest_cut_text, key, pointer, rectangle, request, update


def rein_in(node: Core, session: Session, *, paused: bool = True) -> None:
    rein = node.live(session).gate.rein
    rein.paused = paused
    node.sessions.heed(rein)


def dropped_by_the_rein(node: Core, sort: str) -> float:
    return node.metrics.registry.get_sample_value("eva_filtered_total", {"filter": "rein", "sort": sort}) or 0.0


@asynccontextmanager
async def pressing(node: Core, press: bytes, release: bytes) -> AsyncIterator[tuple[Session, Session, socket.socket]]:
    """A session that has pressed something, and whose release of it waits for the lease; and another session."""
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    other = await node.open(Kind.GRAPHICS, BOB)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        await client.send(press)
        assert await hears(guest, len(press)) == press
        node.clock.run(7)
        await client.send(release)
        await (await client.ping())
        yield session, other, guest


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


async def test_the_screen_comes_down_whole(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    picture = update(*[rectangle(0, bytes(range(128)))] * 50)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        node.dialer.guest.send(picture)
        assert await console_bytes(client, len(picture)) == picture


async def test_the_guests_clipboard_does_not(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    picture = update(rectangle(0, bytes(128)))
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        node.dialer.guest.send(guest_cut_text(b"stolen") + picture)
        assert await console_bytes(client, len(picture)) == picture


async def test_each_viewer_has_a_line_of_its_own(node: Core):
    node.grant()
    await node.open(Kind.GRAPHICS)
    await node.open(Kind.GRAPHICS, BOB)
    assert len(node.dialer.guests) == 2


@pytest.mark.parametrize("message", [key(0x61, down=True), pointer(1, 5, 5)])
async def test_a_view_only_client_that_cheats_changes_nothing(node: Core, message: bytes):
    node.grant(access=Access.VIEW)
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        await client.send(message + request(incremental=True))
        assert await hears(node.dialer.guest, 10) == request(incremental=True)


async def test_a_viewer_without_the_keyboard_changes_nothing(node: Core):
    node.grant()
    await node.open(Kind.GRAPHICS)
    session = await node.open(Kind.GRAPHICS, BOB)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        await client.send(key(0x61, down=True) + request(incremental=True))
        assert await hears(node.dialer.guest, 10) == request(incremental=True)


@pytest.mark.parametrize("message", [key(0x61, down=True), pointer(1, 5, 5), extended_key(0x61, 0x1E, down=True)])
@pytest.mark.parametrize("access", [Access.VIEW, Access.KEYBOARD])
async def test_a_message_by_itself_of_who_may_not_type_changes_nothing(node: Core, message: bytes, access: Access):
    node.grant(access=access)
    if access is Access.KEYBOARD:
        await node.open(Kind.GRAPHICS, BOB)  # who has the keyboard
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        await client.send(message)
        await client.send(request(incremental=True))
        assert await hears(node.dialer.guest, 10) == request(incremental=True)


async def test_what_there_is_room_for_does_not_overtake_what_waits_for_room(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest, allowance = node.dialer.guest, node.live(session).viewer._allowance
    long, short = extended_key(0x61, 0x1E, down=True), pointer(0, 3, 4)  # 12 bytes and 6
    written = []
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        while allowance.fits(12):
            written.append(key(len(written), down=True) if allowance.fits(20) else short)
            await client.send(written[-1])
            await (await client.ping())
        assert allowance.fits(6)
        for message in (long, short):
            await client.send(message)
        await (await client.ping())
        assert node.live(session).viewer.waiting == 18
        whole = b"".join((*written, long, short))
        assert await hears(guest, len(whole)) == whole


async def test_a_qemu_that_does_not_read_gets_256_bytes_of_keys_one_by_one(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, node.dialer.guest)
        for number in range(60):
            await client.send(key(number, down=True))
        await (await client.ping())
        assert len(node.dialer.guest.recv(4096)) <= 256


async def test_a_qemu_that_does_not_read_gets_256_bytes_and_no_more(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        await client.send((key(0x61, down=True) + key(0x61, down=False)) * 100)
        await (await client.ping())
        async with asyncio.timeout(PATIENCE):
            while len(guest.recv(4096, socket.MSG_PEEK)) <= 200:  # the handshake may count until the kernel is asked
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        got = heard(guest)
        assert len(got) <= 256
        async with asyncio.timeout(PATIENCE):
            while len(got) < 1600:
                got += await hears(guest, 8)
    assert got == (key(0x61, down=True) + key(0x61, down=False)) * 100


async def test_a_stale_lease_holds_keys_and_a_fresh_one_lets_them_go(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        node.clock.run(7)
        await client.send(key(0x61, down=True))
        await (await client.ping())
        assert (heard(guest), node.live(session).viewer.waiting) == (b"", 8)
        await node.renew()
        assert await hears(guest, 8) == key(0x61, down=True)


@pytest.mark.parametrize("side", ["guest", "operator"])
async def test_who_breaks_the_protocol_ends_this_session_alone(node: Core, side: str):
    node.grant()
    session, other = await node.open(Kind.GRAPHICS), await node.open(Kind.GRAPHICS, BOB)
    async with node.edge() as edge:
        client = await edge.connect(session)
        if side == "guest":
            node.dialer.guests[0].send(b"HTTP/1.1 200 OK\r\n")
        else:
            node.dialer.guests[0].send(VERSION)
            await console_bytes(client, len(VERSION))
            await client.send(b"RFB 009.009\n")
        await client.wait_closed()
    assert (session.ending, other.ending, len(node.sessions)) == (Ending.PROTOCOL_ERROR, None, 1)


# -- what is down ------------------------------------------------------------------------------------------------------

PRESSES = [(key(0x61, down=True), key(0x61, down=False)), (pointer(1, 5, 6), pointer(0, 5, 6))]


@pytest.mark.parametrize(("press", "release"), PRESSES)
async def test_what_is_down_while_its_release_waits_is_let_go_by_the_cut(node: Core, press: bytes, release: bytes):
    async with pressing(node, press, release) as (session, _, guest):
        node.sessions.end(session, Ending.LEASE_LOST)
        assert heard(guest) == release


@pytest.mark.parametrize(("press", "release"), PRESSES)
async def test_what_is_down_while_its_release_waits_is_let_go_when_the_giver_pauses(node: Core, press: bytes, release: bytes):
    async with pressing(node, press, release) as (session, _, guest):
        rein_in(node, session)
        await node.renew()
        assert await hears(guest, len(release)) == release


@pytest.mark.parametrize(("press", "release"), PRESSES)
async def test_what_is_down_while_its_release_waits_is_let_go_when_another_types(node: Core, press: bytes, release: bytes):
    async with pressing(node, press, release) as (_, other, guest):
        node.sessions.hands.move_keyboard(node.live(other), other.id)
        await node.renew()
        assert await hears(guest, len(release)) == release


async def test_what_a_pause_lets_go_is_let_go_by_the_cut_that_comes_first(node: Core):
    async with pressing(node, key(0x61, down=True), b"") as (session, _, guest):
        rein_in(node, session)
        node.sessions.end(session, Ending.LEASE_LOST)
        assert heard(guest) == key(0x61, down=False)


async def test_what_waits_to_be_pressed_is_not_let_go(node: Core):
    async with pressing(node, b"", key(0x61, down=True)) as (session, _, guest):
        node.sessions.end(session, Ending.LEASE_LOST)
        assert heard(guest) == b""


async def test_one_key_too_many_lets_the_oldest_go(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    presses = b"".join(key(0x1000 + number, down=True) for number in range(MAX_KEYS + 2))
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        await client.send(presses)
        oldest, next_oldest = key(0x1000, down=False), key(0x1001, down=False)
        assert await hears(guest, len(presses) + 16) == presses[:-8] + oldest + presses[-8:] + next_oldest


# -- the giver's rein ----------------------------------------------------------------------------------------------------


async def test_a_key_that_waited_when_input_was_held_is_known_to_be_down(node: Core):
    """It is written, once, when input is let go; an operator who leaves then leaves nothing down."""
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        node.clock.run(7)
        await client.send(key(0x61, down=True))
        await (await client.ping())
        for paused in (True, False):
            rein_in(node, session, paused=paused)
        await node.renew()
        assert await hears(guest, 8) == key(0x61, down=True)
        node.sessions.end(session, Ending.OPERATOR_LEFT)
        assert await hears(guest, 8) == key(0x61, down=False)


async def test_input_that_is_held_holds_no_request(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest, live = node.dialer.guest, node.live(session)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        live.gate.rein.paused = True
        await client.send(key(0x61, down=True) + request(incremental=True))
        assert await hears(guest, 10) == request(incremental=True)
        assert live.viewer.waiting == 8


async def test_a_moved_pointer_does_not_freeze_the_picture_of_an_operator_who_is_held(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        rein_in(node, session)
        for x in range(100):
            await client.send(pointer(0, x, 5))
        await client.send(request(incremental=True))
        assert await hears(guest, 10) == request(incremental=True)
        rein_in(node, session, paused=False)
        assert await hears(guest, 12) == pointer(0, 0, 5) + pointer(0, 99, 5)


@pytest.mark.parametrize("frames", [1, 200])
async def test_keys_past_the_bound_freeze_no_picture_either(node: Core, frames: int):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    typed = key(0x61, down=True) + key(0x61, down=False)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        rein_in(node, session)
        for _ in range(frames):
            await client.send(typed * (200 // frames))
        await client.send(request(incremental=True))
        assert await hears(guest, 10) == request(incremental=True)
        assert node.live(session).viewer.waiting == MAX_WAITING * 8
        assert dropped_by_the_rein(node, "key") == 400 - MAX_WAITING
        rein_in(node, session, paused=False)
        assert await hears(guest, MAX_WAITING * 8) == typed * (MAX_WAITING // 2)


async def test_a_pause_reads_an_operator_again_who_waited_for_the_lease(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        node.clock.run(7)
        await client.send(key(0x61, down=True) * (MAX_WAITING + 1))
        await (await client.ping())
        await client.send(request(incremental=True))  # not read
        rein_in(node, session)
        await node.renew()
        assert await hears(guest, 10) == request(incremental=True)


async def test_an_operator_who_waits_for_the_lease_is_not_read_and_nothing_is_lost(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    typed = (key(0x61, down=True) + key(0x61, down=False)) * 100
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        node.clock.run(7)
        for at in range(0, len(typed), 8):
            await client.send(typed[at : at + 8])
        assert node.live(session).viewer.waiting <= (MAX_WAITING + 1) * 8
        await node.renew()
        assert await hears(guest, len(typed)) == typed


async def test_a_button_that_waits_past_the_bound_is_let_go_with_what_waited(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        rein_in(node, session)
        await client.send(pointer(1, 5, 5) + key(0x61, down=False) * 100 + pointer(3, 7, 7) + pointer(0, 8, 8))
        await client.send(request(incremental=True))
        await hears(guest, 10)
        assert (dropped_by_the_rein(node, "key"), dropped_by_the_rein(node, "pointer")) == (37, 1)
        rein_in(node, session, paused=False)
        assert (await hears(guest, 6 + 63 * 8 + 6))[-6:] == pointer(0, 8, 8)
