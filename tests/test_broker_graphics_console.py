"""broker/graphics_console.py over a socketpair and real websockets: QEMU's bytes down, only what may pass up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eva.consent import Access, Kind
from eva.ending import Ending
from tests.broker_parts import BOB, Core, console_bytes, core, heard, hears, shake_hands
from tests.rfb_bytes import VERSION, guest_cut_text, key, pointer, rectangle, request, update


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


async def test_a_qemu_that_does_not_read_gets_256_bytes_and_no_more(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest = node.dialer.guest
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        await client.send((key(0x61, down=True) + key(0x61, down=False)) * 100)
        await (await client.ping())
        await asyncio.sleep(0.05)
        got = heard(guest)
        assert 200 < len(got) <= 256  # the handshake may count until the kernel is asked
        async with asyncio.timeout(5):
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


# -- the giver's rein ----------------------------------------------------------------------------------------------------


async def test_a_key_that_waited_when_input_was_held_is_known_to_be_down(node: Core):
    """It is written when input is let go; an operator who leaves then leaves nothing down."""
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    guest, live = node.dialer.guest, node.live(session)
    async with node.edge() as edge:
        client = await edge.connect(session)
        await shake_hands(client, guest)
        node.clock.run(7)
        await client.send(key(0x61, down=True))
        await (await client.ping())
        for paused in (True, False):
            live.gate.rein.paused = paused
            node.sessions.heed(live.gate.rein)
        await node.renew()
        assert await hears(guest, 16) == key(0x61, down=False) + key(0x61, down=True)
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
