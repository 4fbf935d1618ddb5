"""broker/watch_desk.py: givers who leave, words that outlive a restart, and what is typed under their eyes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import echo, watch_desk
from broker.rfb_waiting import MAX_WAITING
from broker.session import State
from broker.watching import WATCH_GRACE
from eva.audit import Event as Audited
from eva.consent import Consent, Kind
from eva.control import Event, Refusal, Refused
from eva.watch import WatchMethod
from lab.certificates import Authority
from tests.broker_parts import (
    ALICE,
    BOB,
    PATIENCE,
    Core,
    News,
    console_bytes,
    heard,
    hears,
    hold_disk,
    pass_time,
    refusal,
    shake_hands,
)
from tests.operator_port import unhurried
from tests.rfb_bytes import key, request
from tests.watch_port import Tenant, WatchPort, opened, watch_port


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WatchPort]:
    unhurried(monkeypatch)
    async with watch_port(tmp_path, certificates) as one:
        yield one


async def gone(door: WatchPort) -> None:
    """Nobody watches any more."""
    async with asyncio.timeout(PATIENCE):
        while door.node.watch_desk.watchers:
            await asyncio.sleep(0)


async def minutes(node: Core, seconds: float) -> None:
    """So much time goes by, with leases."""
    await pass_time(node, seconds)
    node.watch_desk.tick(node.clock.now())


# -- only while I watch ------------------------------------------------------------------------------------------------


async def test_nothing_opens_while_nobody_watches(door: WatchPort):
    one = door.node.grant(watched=True)
    assert await refusal(door.node, Kind.SERIAL) is Refusal.NOT_WATCHED
    async with door.watching(one):
        await door.node.open(Kind.SERIAL)


async def test_when_the_giver_leaves_input_is_held_at_once(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.node.edge() as edge:
        async with door.watching(one):
            console = await edge.connect(await door.node.open(Kind.SERIAL))
            await console.send(b"l")
            assert await hears(door.node.dialer.guest, 1) == b"l"
        await gone(door)
        await console.send(b"s")
        door.node.dialer.guest.send(b"l")
        await console_bytes(console, 1)
        assert heard(door.node.dialer.guest) == b""
        async with door.watching(one):  # and goes on when the giver is back
            assert await hears(door.node.dialer.guest, 1) == b"s"


async def test_after_a_minute_the_consent_ends(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one):
        session = await door.node.open(Kind.SERIAL)
    await gone(door)
    await minutes(door.node, WATCH_GRACE - 1)
    assert door.node.standing() == {one.jti}
    await minutes(door.node, 1)
    assert door.node.standing() == set()
    assert session.ending is not None
    await door.node.settle()
    (receipt,) = (r for r in door.node.receipts() if r.event == "deleted")
    assert receipt.fact("account") == "tenant:tenant1"


async def test_one_who_is_back_within_it_keeps_the_consent(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one):
        pass
    await gone(door)
    await minutes(door.node, WATCH_GRACE - 1)
    async with door.watching(one):
        await minutes(door.node, WATCH_GRACE)
        assert door.node.standing() == {one.jti}


async def test_a_second_window_is_enough(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one) as first, door.watching(one):
        await first.websocket.close()
        async with asyncio.timeout(PATIENCE):
            while len(door.node.watch_desk.watchers) > 1:
                await asyncio.sleep(0)
        assert not door.node.watching.rein(one).held
        await minutes(door.node, WATCH_GRACE)
        assert door.node.standing() == {one.jti}


async def test_after_a_restart_the_giver_has_a_minute_to_come_back(door: WatchPort, certificates: Authority):
    one = door.node.grant(watched=True)
    async with door.watching(one):
        pass
    await gone(door)
    again = await door.node.restart()
    try:
        await again.renew()
        await minutes(again, WATCH_GRACE - 1)
        assert again.standing() == {one.jti}
        await minutes(again, 1)
        assert again.standing() == set()
    finally:
        await again.stop()


async def test_a_renewal_to_only_while_i_watch_holds_input_until_the_giver_comes(door: WatchPort):
    one = door.node.grant()
    async with door.node.edge() as edge:
        console = await edge.connect(await door.node.open(Kind.SERIAL))
        after = door.node.renew_consent(one, watched=True)
        await door.node.settle()
        await console.send(b"l")
        door.node.dialer.guest.send(b"$ ")
        await console_bytes(console, 2)
        assert heard(door.node.dialer.guest) == b""
        async with door.watching(after):
            assert await hears(door.node.dialer.guest, 1) == b"l"


async def test_a_renewal_from_only_while_i_watch_lets_go_once_it_is_on_disk(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one):
        session = await door.node.open(Kind.SERIAL)
    await gone(door)
    await door.node.settle()
    gate = hold_disk(door.node)
    try:
        door.node.renew_consent(one, watched=False)
        assert door.node.live(session).gate.rein.held
    finally:
        gate.set()
    await door.node.settle()
    assert not door.node.live(session).gate.rein.held


async def test_a_renewal_to_only_while_i_watch_stands_though_one_before_it_comes_to_the_disk_after(door: WatchPort):
    one = door.node.grant()
    async with door.node.edge() as edge:
        console = await edge.connect(await door.node.open(Kind.SERIAL))
        await door.node.settle()
        gate = hold_disk(door.node)
        try:
            two = door.node.renew_consent(one)
            door.node.renew_consent(two, watched=True)
            await console.send(b"l")
            await (await console.ping())
        finally:
            gate.set()
        await door.node.settle()
        assert door.node.watching.rein(one).held
        assert heard(door.node.dialer.guest) == b""


async def test_of_renewals_in_one_breath_none_lets_go_before_the_last_is_on_disk(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one):
        session = await door.node.open(Kind.SERIAL)
    await gone(door)
    await door.node.settle()
    gate = hold_disk(door.node)
    try:
        two = door.node.renew_consent(one, watched=False)
        door.node.renew_consent(two, watched=False)
        assert door.node.live(session).gate.rein.held
    finally:
        gate.set()
    await door.node.settle()
    assert not door.node.live(session).gate.rein.held


# -- pause, on everything ----------------------------------------------------------------------------------------------


async def test_a_pause_that_came_with_a_moved_consent_outlives_who_watched_and_a_restart(door: WatchPort):
    one = door.node.grant(paused=True)
    async with door.watching(one) as tenant:
        await tenant.told("watch.state", paused=True)
    again = await door.node.restart()
    try:
        (accepted,) = again.consents.ledger.standing(again.clock.now())
        assert again.watching.rein(accepted.consent).paused
    finally:
        await again.stop()


async def test_a_pause_outlives_a_restart(door: WatchPort, certificates: Authority):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
    again = await door.node.restart()
    try:
        await again.renew()
        async with again.edge() as edge, opened(again, certificates) as port:
            console = await edge.connect(await again.open(Kind.SERIAL))
            await console.send(b"ls\r")
            again.dialer.guest.send(b"$ ")
            await console_bytes(console, 2)
            assert heard(again.dialer.guest) == b""
            async with port.watching(one) as tenant:
                await tenant.told("watch.state", paused=True)
                await tenant.ask(WatchMethod.INPUT_RESUME)
            assert await hears(again.dialer.guest, 3) == b"ls\r"
    finally:
        await again.stop()


async def test_a_pause_holds_though_the_disk_does_not_take_it(door: WatchPort, monkeypatch: pytest.MonkeyPatch):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        monkeypatch.setattr(watch_desk, "START_TIMEOUT", 0.1)
        gate = hold_disk(door.node)
        try:
            assert await tenant.refusal(WatchMethod.INPUT_PAUSE) is Refusal.AUDIT_FAILED
            assert door.node.watching.rein(one).held
            assert await tenant.refusal(WatchMethod.INPUT_RESUME) is Refusal.AUDIT_FAILED
            assert door.node.watching.rein(one).held
        finally:
            gate.set()


async def test_the_last_word_counts(door: WatchPort):
    """One window resumes, another pauses while that is on its way to the disk."""
    one = door.node.grant()
    async with door.watching(one) as first, door.watching(one) as second:
        await first.ask(WatchMethod.INPUT_PAUSE)
        gate = hold_disk(door.node)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.ask(WatchMethod.INPUT_RESUME))
            rein = door.node.watching.rein(one)
            async with asyncio.timeout(PATIENCE):
                while not rein.resuming:
                    await asyncio.sleep(0)
            group.create_task(second.ask(WatchMethod.INPUT_PAUSE))
            async with asyncio.timeout(PATIENCE):
                while rein.resuming:
                    await asyncio.sleep(0)
            gate.set()
        assert rein.held
    again = await door.node.restart()
    assert again.watching.rein(one).paused
    await again.stop()


async def test_a_resume_that_was_refused_does_not_come_true_later(door: WatchPort, monkeypatch: pytest.MonkeyPatch):
    """The disk takes it after all; the giver was told that input is still held."""
    one = door.node.grant()
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        monkeypatch.setattr(watch_desk, "START_TIMEOUT", 0.1)
        gate = hold_disk(door.node)
        try:
            assert await tenant.refusal(WatchMethod.INPUT_RESUME) is Refusal.AUDIT_FAILED
        finally:
            gate.set()
        await door.node.settle()
        assert door.node.watching.rein(one).held
        told = [r.event for r in door.node.records(Audited.INPUT_PAUSED, Audited.INPUT_RESUMED)]
        assert told[-1] is Audited.INPUT_PAUSED  # which is what the provider goes by
    again = await door.node.restart()
    try:
        assert again.watching.rein(one).held
    finally:
        await again.stop()


async def test_a_resume_counts_though_its_giver_goes_while_the_disk_writes(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        gate = hold_disk(door.node)
        try:
            await tenant.begin(WatchMethod.INPUT_RESUME)
            rein = door.node.watching.rein(one)
            async with asyncio.timeout(PATIENCE):
                while not rein.resuming:
                    await asyncio.sleep(0)
            tenant.websocket.transport.abort()
            await gone(door)
            assert rein.held
        finally:
            gate.set()
        await door.node.settle()
        assert not rein.held


async def test_two_windows_that_resume_at_once_both_have_resumed(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as first, door.watching(one) as second:
        await first.ask(WatchMethod.INPUT_PAUSE)
        await asyncio.gather(*(window.ask(WatchMethod.INPUT_RESUME) for window in (first, second)))
        assert not door.node.watching.rein(one).held


async def test_the_answer_to_a_pause_says_whether_the_provider_has_it(door: WatchPort):
    """It would go along if the consent moved. A while is waited for that, and not for more than that."""
    async with door.watching(door.node.grant()) as tenant:
        door.node.watch_desk.provider_has = door.node.testimony.is_had
        nobody = await tenant.begin(WatchMethod.INPUT_PAUSE)
        await tenant.told("watch.state", paused=True)  # that comes at once
        assert await tenant.answer(nobody) == {"paused": True, "heard": False}
        async with asyncio.timeout(PATIENCE):
            while len(door.node.told) < 3:  # the consent, the watch, the pause
                await asyncio.sleep(0.01)
        await door.node.renew(receipts=door.node.told[-1].number)
        assert await tenant.ask(WatchMethod.INPUT_PAUSE) == {"paused": True, "heard": True}


async def test_a_pause_that_waits_for_the_provider_holds_no_stop_up(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        waiting = asyncio.Event()

        async def never(_: float) -> bool:
            waiting.set()
            await asyncio.Event().wait()
            return True

        door.node.watch_desk.provider_has = never
        await tenant.begin(WatchMethod.INPUT_PAUSE)
        async with asyncio.timeout(PATIENCE):
            await waiting.wait()
        assert (await tenant.ask(WatchMethod.CONSENT_STOP))["consents"] == 1


async def test_a_pause_comes_back_with_a_consent_that_was_elsewhere_meanwhile(door: WatchPort):
    """It was here and not paused, then at another node, where its giver paused; that one was lost, and it is here again."""
    one = door.node.grant()
    async with door.watching(one):
        pass
    await gone(door)
    door.node.revoke(one)
    after = door.node.renew_consent(one, paused=True)
    assert door.node.watching.rein(after).held
    await door.node.settle()
    again = await door.node.restart()
    try:
        assert again.watching.rein(after).held
    finally:
        await again.stop()


async def test_a_pause_that_nobody_else_heard_of_stands_when_the_consent_comes_back(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        door.node.revoke(one)
        await tenant.told("watch.ended")
    after = door.node.renew_consent(one)
    assert door.node.watching.rein(after).held


async def test_a_pause_holds_the_screens_keys_and_not_its_pictures(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        news = News()
        session = await door.node.open(Kind.GRAPHICS)
        door.node.live(session).listener = news
        screen = await edge.connect(session)
        guest = door.node.dialer.guest
        await shake_hands(screen, guest)
        await screen.send(key(0x61, down=True))
        assert await hears(guest, 8) == key(0x61, down=True)
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        # what is down is let go, so that it does not repeat until the giver resumes
        assert await hears(guest, 8) == key(0x61, down=False)
        await screen.send(key(0x62, down=True) + key(0x62, down=False) + request())
        assert await hears(guest, len(request())) == request()
        assert heard(guest) == b""
        door.node.sessions.tick(door.node.clock.now())
        assert news.of(Event.HELD) == [{"session": session.id, "held": 16, "why": "tenant"}]
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert await hears(guest, 16) == key(0x62, down=True) + key(0x62, down=False)
        door.node.sessions.tick(door.node.clock.now())
        assert news.of(Event.HELD)[-1] == {"session": session.id, "held": 0, "why": ""}


@pytest.mark.parametrize("kind", list(Kind))
async def test_an_operator_is_told_of_a_pause_at_once_also_when_no_input_waits(door: WatchPort, kind: Kind):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        news = News()
        session = await door.node.open(kind)
        door.node.live(session).listener = news
        await edge.connect(session)
        assert news.of(Event.PAUSED) == []
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert news.of(Event.PAUSED) == [{"session": session.id, "paused": True}]
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert [told["paused"] for told in news.of(Event.PAUSED)] == [True, False]


async def test_one_who_comes_during_a_pause_is_told(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        session = await door.node.open(Kind.SERIAL)
        news = door.node.live(session).listener = News()
        await edge.connect(session)
        assert [told["paused"] for told in news.of(Event.PAUSED)] == [True]


async def test_one_who_comes_back_is_told_what_has_changed_meanwhile(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        news = door.node.live(session).listener = News()
        first = await edge.connect(session)
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        first.transport.abort()
        while session.state is not State.DETACHED:
            await asyncio.sleep(0.01)
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert [told["paused"] for told in news.of(Event.PAUSED)] == [True]
        back = News()
        door.node.sessions.resume(session.id, session.operator, 0, back)
        await edge.connect(session)
        assert [told["paused"] for told in back.of(Event.PAUSED)] == [False]


async def test_who_consents_only_while_watching_and_goes_pauses_too(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.node.edge() as edge:
        async with door.watching(one):
            session = await door.node.open(Kind.SERIAL)
            news = door.node.live(session).listener = News()
            await edge.connect(session)
        await gone(door)
        async with door.watching(one):
            assert [told["paused"] for told in news.of(Event.PAUSED)] == [True, False]


async def test_what_waits_in_a_pause_is_bounded(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.GRAPHICS)
        screen = await edge.connect(session)
        await shake_hands(screen, door.node.dialer.guest)
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        stroke = key(0x62, down=True) + key(0x62, down=False)
        for _ in range(4 * MAX_WAITING):
            await screen.send(stroke)
        await (await screen.ping())  # all of it is read: to stop reading would stop the picture
        viewer: Any = door.node.live(session).viewer
        assert viewer.waiting == 8 * MAX_WAITING
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert await hears(door.node.dialer.guest, 8 * MAX_WAITING) == stroke * (MAX_WAITING // 2)
        assert viewer.waiting == 0


async def test_no_chord_is_pressed_in_a_pause(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        live = door.node.live(await door.node.open(Kind.GRAPHICS))
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        with pytest.raises(Refused) as caught:
            await door.node.sessions.hands.send_chord(live, (29, 56, 111))
        assert caught.value.refusal is Refusal.PAUSED
        assert door.node.dialer.chords == []
    await door.node.settle()
    assert door.node.records(Audited.KEYS_SENT) == []


async def test_a_chord_under_way_is_stopped_by_a_pause(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        live = door.node.live(await door.node.open(Kind.GRAPHICS))
        await shake_hands(await edge.connect(live.session), door.node.dialer.guest)
        door.node.dialer.dialling.clear()
        door.node.dialer.picked_up.clear()
        chord = asyncio.ensure_future(door.node.sessions.hands.send_chord(live, (29, 56, 111)))
        await door.node.dialer.dialling.wait()
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        with pytest.raises(Refused) as caught:
            await chord
        assert caught.value.refusal is Refusal.PAUSED
        assert door.node.dialer.chords == []


async def test_a_pause_under_one_consent_holds_nobody_under_another(door: WatchPort):
    mine = door.node.grant(seconds=600)
    async with door.watching(mine) as tenant, door.node.edge() as edge:
        door.node.grant(giver="tenant2", seconds=20_000)
        console = await edge.connect(await door.node.open(Kind.SERIAL))
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        await console.send(b"ls\r")
        assert await hears(door.node.dialer.guest, 3) == b"ls\r"


# -- what is typed -----------------------------------------------------------------------------------------------------


class Scene:
    """An operator types at a guest's serial console, and the consent's giver watches."""

    def __init__(self, door: WatchPort, tenant: Tenant, console: Any, session_id: str) -> None:
        self.door, self.tenant, self.console, self.session = door, tenant, console, session_id

    async def type(self, data: bytes, echo: bytes | None = None) -> None:
        """`echo` None: the guest echoes it as it is."""
        await self.console.send(data)
        await hears(self.door.node.dialer.guest, len(data))
        self.door.node.dialer.guest.send(data if echo is None else echo)

    async def typed(self, count: int) -> list[dict[str, Any]]:
        """The next parts, so many."""
        parts: list[dict[str, Any]] = []
        while len(parts) < count:
            told = await self.tenant.told("watch.typed")
            assert (told["session"], told["account"]) == (self.session, "alice")
            parts += told["parts"]
        return parts


@pytest.fixture
async def scene(door: WatchPort, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(echo, "ECHO_WITHIN", PATIENCE)  # an echo is in time, however long this process stands still before it
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        console = await edge.connect(session)
        async with asyncio.timeout(PATIENCE):
            while door.node.sessions.roster.consoles[door.node.live(session).pin].transcript is None:
                await asyncio.sleep(0)
        yield Scene(door, tenant, console, session.id)


ENTER = {"text": "Enter", "key": True}


async def test_what_the_guest_echoes_is_told(scene: Scene):
    await scene.type(b"uname")
    await scene.type(b"\r", b"\r\nLinux\r\n$ ")
    assert await scene.typed(2) == [{"text": "uname"}, ENTER]


async def test_what_it_does_not_echo_is_a_count(scene: Scene):
    await scene.type(b"secret", b"")
    await scene.type(b"\r", b"\r\n$ ")
    assert await scene.typed(2) == [{"hidden": 6}, ENTER]


async def test_a_masked_entry_is_a_count_though_it_is_echoed(scene: Scene):
    live = scene.door.node.sessions.roster.lives[scene.session]
    scene.door.node.sessions.hands.mask_input(live, 3, 7)
    await scene.type(b"pw=hunter2;")
    assert await scene.typed(3) == [{"text": "pw="}, {"hidden": 7}, {"text": ";"}]


async def test_only_who_typed_it_can_mask(scene: Scene):
    live = scene.door.node.live(await scene.door.node.open(Kind.GRAPHICS, operator=BOB))
    with pytest.raises(Refused) as caught:
        scene.door.node.sessions.hands.mask_input(live, 0, 1)
    assert caught.value.refusal is Refusal.NO_SESSION


async def test_a_pause_is_not_told_as_typed(scene: Scene):
    await scene.tenant.ask(WatchMethod.INPUT_PAUSE)
    await scene.console.send(b"ls")
    scene.door.node.dialer.guest.send(b"$ ")
    await console_bytes(scene.console, 2)
    await scene.tenant.ask(WatchMethod.INPUT_RESUME)
    assert await hears(scene.door.node.dialer.guest, 2) == b"ls"
    scene.door.node.dialer.guest.send(b"ls")
    assert await scene.typed(1) == [{"text": "ls"}]


async def test_what_is_typed_at_the_end_is_told_as_well(scene: Scene):
    await scene.type(b"ls", b"")
    scene.door.node.revoke(scene.door.node.consents.ledger.standing(scene.door.node.clock.now())[0].consent)
    assert await scene.typed(1) == [{"hidden": 2}]


async def test_with_nobody_watching_nothing_is_kept(scene: Scene):
    console = next(iter(scene.door.node.sessions.roster.consoles.values()))
    await scene.tenant.websocket.close()
    await gone(scene.door)
    assert console.transcript is None


async def test_what_is_typed_under_anothers_consent_is_not_told(door: WatchPort):
    mine = door.node.grant(seconds=600)
    async with door.watching(mine) as tenant, door.node.edge() as edge:
        theirs: Consent = door.node.grant(giver="tenant2", seconds=20_000)
        async with door.watching(theirs) as other:
            console = await edge.connect(await door.node.open(Kind.SERIAL, operator=ALICE))
            await other.told("watch.state")
            await console.send(b"ls")
            await hears(door.node.dialer.guest, 2)
            assert (await other.told("watch.typed"))["parts"] == [{"hidden": 2}]
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert "watch.typed" not in [name for name, _ in tenant.notices]


# -- what is forgotten -------------------------------------------------------------------------------------------------


async def test_what_is_over_leaves_nothing_behind(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
    await gone(door)
    await door.node.settle()
    door.node.revoke(one)
    door.node.clock.run(61)
    door.node.consents.note_time(door.node.clock.now())
    door.node.watch_desk.note(door.node.clock.now())
    again = await door.node.restart()
    assert (again.loaded.reins, again.loaded.watches) == ((), {})
    await again.stop()


async def test_what_stands_is_kept(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one):
        pass
    await gone(door)
    door.node.consents.note_time(door.node.clock.now())
    door.node.watch_desk.note(door.node.clock.now())
    again = await door.node.restart()
    assert [rein.cid for rein in again.loaded.reins] == [one.cid]
    assert len(again.loaded.watches) == 1
    await again.stop()
