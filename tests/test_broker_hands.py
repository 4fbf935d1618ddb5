"""broker/hands.py over socketpairs: the keyboard moves openly, a chord is recorded before it is pressed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.session import State
from eva import audit
from eva.consent import Access, Kind
from eva.control import Mark, Refusal, Refused
from tests.broker_parts import (
    BOB,
    PATIENCE,
    Core,
    Domain,
    core,
    hears,
    hold_disk,
    notice,
    shake_hands,
    vm_id,
)
from tests.rfb_bytes import key, request


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


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
        node.sessions.hands.move_keyboard(node.live(second), second.id)
        released = await hears(guest, 40 * 8)
        assert {released[i : i + 8] for i in range(0, len(released), 8)} == {key(0x100 + n, down=False) for n in range(40)}
        await client.send(request(incremental=True))
        assert await hears(guest, 10) == request(incremental=True)


async def test_a_view_only_consent_has_no_keyboard(node: Core):
    node.grant(access=Access.VIEW)
    session = await node.open()
    with pytest.raises(Refused):
        node.sessions.hands.move_keyboard(node.live(session), session.id)
    assert not node.sessions.roster.owns_keyboard(session)


async def test_the_first_has_the_keyboard_and_the_second_may_take_it_openly(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    node.sessions.hands.move_keyboard(node.live(second), second.id)
    await node.settle()
    (record,) = node.records(audit.Event.KEYBOARD)
    assert (node.sessions.roster.owns_keyboard(second), record.facts["by"], record.facts["from"]) == (True, "bob", first.id)


async def test_only_its_owner_gives_it_away(node: Core):
    node.grant()
    first, second = await node.open(), await node.open(operator=BOB)
    with pytest.raises(Refused):
        node.sessions.hands.move_keyboard(node.live(second), first.id)


async def test_the_keyboard_does_not_go_to_another_vm(node: Core):
    node.domains.by_id[vm_id("vm2")] = (Domain(uuid="2" * 36),)
    node.grant()
    node.grant(vm="vm2")
    first, other = await node.open(), await node.open(vm="vm2")
    with pytest.raises(Refused):
        node.sessions.hands.move_keyboard(node.live(first), other.id)


async def test_a_chord_is_recorded_and_pressed(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        await edge.connect(session)
        async with asyncio.timeout(PATIENCE):
            while session.state is not State.LIVE:
                await asyncio.sleep(0)
        await node.sessions.hands.send_chord(node.live(session), (29, 56, 111))
    assert (node.dialer.chords, len(node.records(audit.Event.KEYS_SENT))) == ([(29, 56, 111)], 1)


async def test_a_chord_of_one_who_is_not_attached_is_refused(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    with pytest.raises(Refused):
        await node.sessions.hands.send_chord(node.live(session), (29,))


async def test_a_chord_of_one_without_the_keyboard_is_refused(node: Core):
    node.grant()
    await node.open()
    session = await node.open(operator=BOB)
    with pytest.raises(Refused) as caught:
        await node.sessions.hands.send_chord(node.live(session), (29,))
    assert (caught.value.refusal, node.dialer.chords) == (Refusal.NO_KEYBOARD, [])


async def test_a_chord_in_flight_is_cancelled_by_the_cut_and_the_next_vm_session_may_press(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        await notice(await edge.connect(session), Mark.ATTACHED)
        node.dialer.dialling.clear()
        node.dialer.picked_up.clear()
        pressing = asyncio.ensure_future(node.sessions.hands.send_chord(node.live(session), (29,)))
        await node.dialer.dialling.wait()
        with pytest.raises(Refused):
            await node.sessions.hands.send_chord(node.live(session), (30,))
        node.revoke(one)
        with pytest.raises(Refused):
            await pressing
    assert (node.dialer.chords, node.sessions.hands._chords) == ([], set())


async def test_a_chord_that_waits_is_not_pressed_once_another_has_the_keyboard(node: Core):
    node.grant()
    session, other = await node.open(), await node.open(operator=BOB)
    async with node.edge() as edge:
        await notice(await edge.connect(session), Mark.ATTACHED)
        node.dialer.dialling.clear()
        node.dialer.picked_up.clear()
        pressing = asyncio.ensure_future(node.sessions.hands.send_chord(node.live(session), (29,)))
        await node.dialer.dialling.wait()
        node.sessions.hands.move_keyboard(node.live(other), other.id)
        node.dialer.picked_up.set()
        with pytest.raises(Refused):
            await pressing
    assert node.dialer.chords == []


async def test_revoked_while_its_chord_is_recorded_nothing_is_pressed(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        await notice(await edge.connect(session), Mark.ATTACHED)
        await node.settle()
        gate = hold_disk(node)
        pressing = asyncio.ensure_future(node.sessions.hands.send_chord(node.live(session), (29,)))
        await asyncio.sleep(0)
        node.revoke(one)
        gate.set()
        with pytest.raises(Refused):
            await pressing
    assert node.dialer.chords == []
