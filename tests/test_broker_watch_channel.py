"""broker/watch_channel.py: what a tenant who watches sees and may do, over real TLS, on consoles that are socketpairs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from broker.watching import MOST_STEPS, MOST_WATCHES
from eva.audit import Event as Audited
from eva.consent import Access, Kind
from eva.control import GRAPHICS_SUBPROTOCOL, MAX_MESSAGE, Event, Refusal
from eva.ending import Ending
from eva.watch import WatchMethod
from lab.certificates import Authority
from tests.broker_parts import (
    PATIENCE,
    Domain,
    News,
    consent,
    console_bytes,
    ends_of,
    heard,
    hears,
    hold_disk,
    shake_hands,
    vm_id,
)
from tests.operator_port import unhurried
from tests.rfb_bytes import key, pointer, request
from tests.watch_port import NotDone, Tenant, WatchPort, closed, watch_port


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WatchPort]:
    unhurried(monkeypatch)
    async with watch_port(tmp_path, certificates) as one:
        yield one


# -- the state ---------------------------------------------------------------------------------------------------------


async def test_the_first_notice_says_how_all_stands(door: WatchPort):
    one = door.node.grant(reason="no network", access=Access.VIEW, kinds=frozenset({Kind.SERIAL}))
    async with door.watching(one) as tenant:
        assert await tenant.told("watch.state") == {
            "consent": one.cid,
            "resource_id": str(one.resource_id),
            "node": "AzS-ERCS01",
            "giver": "tenant1",
            "reason": "no network",
            "kinds": ["serial"],
            "access": "view",
            "watched": False,
            "expires_at": one.expires_at,
            "remaining_s": 28_800,
            "paused": False,
            "running": True,
            "operators": [],
        }


async def test_operators_are_told_as_they_come_and_go(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.told("watch.state")
        session = await door.node.open(Kind.SERIAL)
        (found,) = (await tenant.told("watch.state"))["operators"]
        assert found == {
            "session": session.id,
            "account": "alice",
            "kind": "serial",
            "access": "keyboard",
            "attached": False,
            "keyboard": True,
            "since_ms": session.admitted_at.wall // 1_000_000,
        }
        async with door.node.edge() as edge:
            console = await edge.connect(session)
            assert (await tenant.told("watch.state"))["operators"][0]["attached"] is True
            await console.close()
        assert (await tenant.told("watch.state"))["operators"] == []


async def test_operators_under_anothers_consent_are_not_told(door: WatchPort):
    mine = door.node.grant()
    door.node.grant(giver="tenant2", seconds=20_000)
    async with door.watching(mine) as tenant:
        await tenant.told("watch.state")
        door.node.revoke(mine)
        await tenant.told("watch.ended")
    async with door.watching(door.node.grant(seconds=10_000)) as tenant:
        await door.node.open(Kind.SERIAL)  # the one that lasts longer admits
        assert (await tenant.told("watch.state"))["operators"] == []
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert (await tenant.told("watch.state", paused=True))["operators"] == []


async def test_the_state_is_told_again_within_5_s_unchanged(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.told("watch.state", remaining_s=28_800)
        for _ in range(24):  # as the node's own tick, each 0.2 s
            door.node.clock.run(0.2)
            door.node.watch_desk.tick(door.node.clock.now())
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert [name for name, _ in tenant.notices] == ["watch.state"]
        assert (await tenant.told("watch.state"))["remaining_s"] == 28_795


async def test_a_change_puts_the_next_beat_off(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        door.node.clock.run(4)
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        await tenant.told("watch.state", paused=True)
        door.node.clock.run(4)
        door.node.watch_desk.tick(door.node.clock.now())
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert tenant.notices == []


async def test_a_vm_that_stops_is_told(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.told("watch.state", running=True)
        door.node.domains.by_id[vm_id()] = (Domain(running=False),)
        door.node.watch_desk.changed(door.node.consents.ledger.standing(door.node.clock.now())[0].pin)
        await tenant.told("watch.state", running=False)


async def test_a_renewal_is_told_and_the_connection_goes_on(door: WatchPort):
    one = door.node.grant(seconds=600)
    async with door.watching(one) as tenant:
        await tenant.told("watch.state", expires_at=one.expires_at)
        after = door.node.renew_consent(one)
        assert (await tenant.told("watch.state", expires_at=after.expires_at))["consent"] == one.cid
        door.node.revoke(after)
        assert (await tenant.told("watch.ended"))["reason"] == "consent-revoked"


async def test_a_renewal_by_another_giver_is_not_his_to_watch(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        door.node.renew_consent(one, giver="tenant2")
        await tenant.told("watch.ended", reason="consent-revoked")
        assert await closed(tenant.websocket) == 4002


# -- looking on --------------------------------------------------------------------------------------------------------


async def test_a_console_can_be_seen_with_no_operator_there(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        assert (found["access"], found["keyboard"]) == ("view", False)
        async with door.console(found) as console:
            door.node.dialer.guest.send(b"login: ")
            assert await console_bytes(console, 7) == b"login: "


async def test_it_is_a_session_with_start_and_end(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        await tenant.ask(WatchMethod.WATCH_LEAVE, session=found["session"])
        await tenant.told("session.ended", session=found["session"], reason="operator-left")
    await door.node.settle()
    (start,) = door.node.records(Audited.SESSION_START)
    assert (start.facts["account"], start.facts["access"]) == ("tenant:tenant1", "view")
    (end,) = door.node.records(Audited.SESSION_END)
    assert (end.facts["reason"], end.facts["to_guest"]) == ("operator-left", 0)


async def test_operators_see_that_somebody_watches(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        await edge.connect(session)
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        async with door.console(found):
            told = await tenant.told("session.viewers")
            async with asyncio.timeout(PATIENCE):
                while ("tenant:tenant1", True) not in {(v["account"], v["attached"]) for v in told["viewers"]}:
                    told = await tenant.told("session.viewers")
            assert told["keyboard"] == session.id


async def test_operators_see_it_also_of_one_who_has_no_console_open(door: WatchPort):
    """What is typed is told all the same."""
    news, one = News(), door.node.grant()
    session = await door.node.open(Kind.SERIAL)
    door.node.live(session).listener = news
    async with door.watching(one):
        viewers = news.of(Event.VIEWERS)[-1]["viewers"]
        assert {(v["account"], v["access"], v["kind"]) for v in viewers} == {  # type: ignore[index,union-attr]  # they are
            ("alice", "keyboard", "serial"),
            ("tenant:tenant1", "view", "graphics"),
        }
    async with asyncio.timeout(PATIENCE):
        while len(news.of(Event.VIEWERS)[-1]["viewers"]) > 1:  # type: ignore[arg-type]  # a list
            await asyncio.sleep(0)


async def test_who_watches_is_no_event_for_who_types(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        console = await edge.connect(session)
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        async with door.console(found) as watched:
            await console.send(b"ls\r")
            assert await hears(door.node.dialer.guest, 3) == b"ls\r"
            await watched.send(b"rm -rf /\r")
            door.node.dialer.guest.send(b"ls\r\nfile\r\n")
            assert await console_bytes(watched, 10) == b"ls\r\nfile\r\n"
            assert await console_bytes(console, 10) == b"ls\r\nfile\r\n"
            await console.send(b"id\r")
            assert await hears(door.node.dialer.guest, 3) == b"id\r"
        assert door.node.live(session).session is session
    await door.node.settle()
    assert heard(door.node.dialer.guest) == b""


async def test_a_screen_is_seen_and_not_touched(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="graphics")
        async with door.console(found, GRAPHICS_SUBPROTOCOL) as screen:
            guest = door.node.dialer.guest
            await shake_hands(screen, guest)
            await screen.send(key(0x61, down=True) + pointer(1, 2, 1) + request())
            assert await hears(guest, len(request())) == request()
        await tenant.told("session.ended")
        assert heard(guest) == b""


async def test_a_console_that_breaks_the_protocol_ends_alone(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="graphics")
        async with door.console(found, GRAPHICS_SUBPROTOCOL) as screen:
            await screen.send("text")
            await tenant.told("session.ended", reason="protocol-error")
        await tenant.ask(WatchMethod.INPUT_PAUSE)


async def test_another_look_takes_the_place_of_the_one_before(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        first = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        second = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        await tenant.told("session.ended", session=first["session"])
        assert list(door.node.sessions.roster.lives) == [second["session"]]


async def test_with_the_connection_its_consoles_go(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        console = await tenant.ask(WatchMethod.WATCH_OPEN, kind="graphics")
        async with door.console(console, GRAPHICS_SUBPROTOCOL) as screen:
            tenant.websocket.transport.abort()
            assert await closed(screen) == Ending.OPERATOR_LEFT.code
    assert not door.node.sessions.roster.lives


async def test_a_dropped_console_does_not_wait_for_a_resume(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        console = await door.console(found)
        console.transport.abort()
        await tenant.told("session.ended", reason="operator-left")


async def test_a_kind_that_was_not_consented_to_is_not_shown(door: WatchPort):
    async with door.watching(door.node.grant(kinds=frozenset({Kind.SERIAL}))) as tenant:
        assert await tenant.refusal(WatchMethod.WATCH_OPEN, kind="graphics") is Refusal.NOT_CONSENTED


async def test_who_watches_takes_no_operators_place(tmp_path: Path, certificates: Authority):
    async with watch_port(tmp_path, certificates, most=1) as door, door.watching(door.node.grant()) as tenant:
        await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        assert await tenant.refusal(WatchMethod.WATCH_OPEN, kind="graphics") is Refusal.TOO_MANY
        await door.node.open(Kind.SERIAL)


async def test_a_slow_watcher_does_not_slow_an_operator_who_looks_only(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        # with a buffer of its own that is small: the kernel's would take megabytes
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", door.number))
        slow = await door.console(found, sock=sock, server_hostname="127.0.0.1")
        slow.transport.pause_reading()
        session = await door.node.open(Kind.SERIAL, access=Access.VIEW)
        console = await edge.connect(session)
        guest, line, count = door.node.dialer.guest, b"x" * 1023 + b"\n", 8 * 1024
        loop = asyncio.get_running_loop()

        async def pour() -> None:
            for _ in range(count):
                await loop.sock_sendall(guest, line)

        had = 0
        async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
            group.create_task(pour())
            while had < count * len(line):
                frame = await console.recv()
                had += len(frame) if isinstance(frame, bytes) else 0
        await tenant.told("session.ended", session=found["session"], reason="slow-operator")  # lagged, and was let go
        slow.transport.abort()


# -- pause -------------------------------------------------------------------------------------------------------------


async def test_pause_holds_what_is_typed_until_it_is_resumed(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        console = await edge.connect(session)
        assert await tenant.ask(WatchMethod.INPUT_PAUSE) == {"paused": True, "heard": False}
        await tenant.told("watch.state", paused=True)
        await console.send(b"ls\r")
        door.node.dialer.guest.send(b"$ ")
        assert await console_bytes(console, 2) == b"$ "  # what the guest says is shown all the same
        assert heard(door.node.dialer.guest) == b""
        assert await tenant.ask(WatchMethod.INPUT_RESUME) == {"paused": False}
        assert await hears(door.node.dialer.guest, 3) == b"ls\r"
    await door.node.settle()
    events = [r.event for r in door.node.records(Audited.INPUT_PAUSED, Audited.INPUT_RESUMED)]
    assert events == [Audited.INPUT_PAUSED, Audited.INPUT_RESUMED]


async def test_a_pause_is_told_to_who_types(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant, door.node.edge() as edge:
        console = await edge.connect(await door.node.open(Kind.SERIAL))
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        await console.send(b"ls\r")
        async with asyncio.timeout(PATIENCE):
            while '"held"' not in (frame := await console.recv()):  # type: ignore[operator]
                pass
        assert json.loads(frame) == {"notice": "held", "held": 3, "why": "tenant"}
        await tenant.ask(WatchMethod.INPUT_RESUME)
        async with asyncio.timeout(PATIENCE):
            while '"held"' not in (frame := await console.recv()):  # type: ignore[operator]
                pass
        assert json.loads(frame) == {"notice": "held", "held": 0, "why": ""}


async def test_pause_twice_is_recorded_once(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        for _ in range(2):
            assert await tenant.ask(WatchMethod.INPUT_PAUSE) == {"paused": True, "heard": False}
        for _ in range(2):
            assert await tenant.ask(WatchMethod.INPUT_RESUME) == {"paused": False}
    await door.node.settle()
    assert len(door.node.records(Audited.INPUT_PAUSED, Audited.INPUT_RESUMED)) == 2


async def test_a_pause_stays_when_its_giver_goes(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        await tenant.ask(WatchMethod.INPUT_PAUSE)
    async with door.watching(one) as tenant:
        await tenant.told("watch.state", paused=True)


async def test_pause_and_resume_cannot_flood_the_audit(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        for _ in range(MOST_STEPS):
            await tenant.ask(WatchMethod.INPUT_PAUSE)
            refused = await tenant.refusal(WatchMethod.INPUT_RESUME)
            if refused is not None:
                break
        assert refused is Refusal.RATE_LIMITED
        assert door.node.watching.rein(door.node.consents.ledger.standing(door.node.clock.now())[0].consent).paused


# -- while a console opens ---------------------------------------------------------------------------------------------


async def hanging(door: WatchPort, tenant: Tenant, kind: Kind = Kind.SERIAL) -> int:
    """Asks for a console of a hypervisor that does not answer. Gives the call's number."""
    door.node.dialer.dialling.clear()
    door.node.dialer.picked_up.clear()
    number = await tenant.begin(WatchMethod.WATCH_OPEN, kind=str(kind))
    async with asyncio.timeout(PATIENCE):
        await door.node.dialer.dialling.wait()
    return number


@pytest.mark.parametrize("kind", list(Kind))
async def test_pause_and_resume_wait_for_no_console(door: WatchPort, kind: Kind):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        number = await hanging(door, tenant, kind)
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert door.node.watching.rein(one).held
        await tenant.ask(WatchMethod.INPUT_RESUME)
        assert not door.node.watching.rein(one).held
        door.node.dialer.picked_up.set()
        assert (await tenant.answer(number))["kind"] == str(kind)


@pytest.mark.parametrize("kind", list(Kind))
async def test_nor_does_stop_which_ends_the_connection_before_it_is_open(door: WatchPort, kind: Kind):
    async with door.watching(door.node.grant()) as tenant:
        await hanging(door, tenant, kind)
        assert (await tenant.ask(WatchMethod.CONSENT_STOP))["sessions"] == 1
        assert await closed(tenant.websocket) == Ending.CONSENT_REVOKED.code
    assert not door.node.sessions.roster.lives


async def test_nor_does_leaving(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="graphics")
        await hanging(door, tenant)
        await tenant.ask(WatchMethod.WATCH_LEAVE, session=found["session"])


async def test_a_giver_who_goes_while_a_console_opens_is_missed_at_once(door: WatchPort):
    one = door.node.grant(watched=True)
    async with door.watching(one) as tenant:
        await hanging(door, tenant)
        tenant.websocket.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while door.node.watch_desk.watchers:
                await asyncio.sleep(0)
        assert door.node.watching.rein(one).held
        assert not door.node.sessions.roster.lives  # nor does the console open for nobody


async def test_of_two_consoles_of_a_kind_that_open_at_once_the_second_is_shown(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        first = await hanging(door, tenant)
        second = await tenant.begin(WatchMethod.WATCH_OPEN, kind="serial")
        with pytest.raises(NotDone) as caught:
            await tenant.answer(first)
        assert caught.value.refusal == Refusal.NO_SESSION
        door.node.dialer.picked_up.set()
        assert list(door.node.sessions.roster.lives) == [(await tenant.answer(second))["session"]]
        third = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")  # which is missed when it goes, as any
        assert list(door.node.sessions.roster.lives) == [third["session"]]


async def test_the_kinds_open_beside_each_other(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        numbers = [await tenant.begin(WatchMethod.WATCH_OPEN, kind=str(kind)) for kind in Kind]
        assert {(await tenant.answer(number))["kind"] for number in numbers} == {"serial", "graphics"}


async def test_a_flood_of_looks_is_refused_and_holds_no_word_up(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        door.node.dialer.picked_up.clear()
        numbers = [await tenant.begin(WatchMethod.WATCH_OPEN, kind="serial") for _ in range(2 * MOST_STEPS)]
        await tenant.ask(WatchMethod.INPUT_PAUSE)
        assert door.node.watching.rein(one).held
        assert len(door.node.sessions.roster.lives) <= 1
        with pytest.raises(NotDone) as caught:
            await tenant.answer(numbers[-1])
        assert caught.value.refusal == Refusal.RATE_LIMITED
    await door.node.settle()
    assert len(door.node.records(Audited.SESSION_START)) <= MOST_STEPS


# -- stop --------------------------------------------------------------------------------------------------------------


async def test_stop_cuts_all_and_says_so(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant, door.node.edge() as edge:
        session = await door.node.open(Kind.SERIAL)
        console = await edge.connect(session)
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        async with door.console(found) as watched:
            answer = await tenant.ask(WatchMethod.CONSENT_STOP)
            assert (answer["consents"], answer["sessions"]) == (1, 2)
            assert answer["cut_us"] < 3_000_000  # at most a second, and what a busy machine takes meanwhile
            ended = await tenant.told("watch.ended")
            assert (ended["reason"], ended["text"]) == ("consent-revoked", "The consent was withdrawn.")
            for end in (console, watched):
                assert await closed(end) == Ending.CONSENT_REVOKED.code
        assert await closed(tenant.websocket) == Ending.CONSENT_REVOKED.code
    await door.node.settle()
    assert door.node.standing() == set()
    (receipt,) = (r for r in door.node.receipts() if r.event == "deleted")
    assert (receipt.about, receipt.fact("account")) == (one.jti, "tenant:tenant1")
    (end,) = door.node.records(Audited.CONSENT_ENDED)
    assert end.facts["by"] == "tenant:tenant1"
    assert ends_of(door.node, session) == ["consent-revoked"]


async def test_what_ends_a_consent_is_told_to_who_watches(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one) as tenant:
        door.node.revoke(one)
        ended = await tenant.told("watch.ended")
        assert (ended["reason"], ended["at_ms"]) == ("consent-revoked", door.node.clock.now().wall // 1_000_000)
        assert isinstance(ended["cut_us"], int)
        assert await closed(tenant.websocket) == 4002


async def test_its_expiry_too(door: WatchPort):
    async with door.watching(door.node.grant(seconds=10)) as tenant:
        door.node.clock.run(10)
        door.node.consents.tick(door.node.clock.now())
        await tenant.told("watch.ended", reason="consent-expired")


# -- the language ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("watch.open", {}),
        ("watch.open", {"kind": "power"}),
        ("watch.open", {"kind": "serial", "access": "keyboard"}),
        ("watch.leave", {}),
        ("input.pause", {"session": "x"}),
        ("input.resume", {"session": "x"}),
        ("consent.stop", {"consent": "x"}),
        ("session.open", {"resource_id": "x", "kind": "serial"}),
        ("sign_in", {"account": "alice", "password": "x"}),
        ("keys.send", {"session": "x", "chord": [29]}),
    ],
)
async def test_what_is_no_request_here_is_refused(door: WatchPort, method: str, params: dict[str, str]):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.websocket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        await tenant.told("watch.state")
        async with asyncio.timeout(PATIENCE):
            answer = json.loads(await tenant.websocket.recv())
        assert answer["error"]["data"]["reason"] == "bad-request"
        await tenant.ask(WatchMethod.INPUT_PAUSE)  # and the connection goes on


async def test_anothers_session_is_not_his_to_leave(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        session = await door.node.open(Kind.SERIAL)
        assert await tenant.refusal(WatchMethod.WATCH_LEAVE, session=session.id) is Refusal.NO_SESSION


@pytest.mark.parametrize("frame", [b"binary", "x" * (MAX_MESSAGE + 1)])
async def test_a_frame_of_another_sort_ends_it(door: WatchPort, frame: str | bytes):
    async with door.watching(door.node.grant()) as tenant:
        await tenant.websocket.send(frame)
        assert await closed(tenant.websocket) == 1003


async def test_so_many_connections_and_no_more(door: WatchPort):
    one = door.node.grant()
    kept = [await door.come(door.token(one)) for _ in range(MOST_WATCHES)]
    for websocket in kept:
        await Tenant(websocket).told("watch.state")
    async with door.come(door.token(one)) as more:
        assert await closed(more) == 1013
    for websocket in kept:
        await websocket.close()


# -- the audit ---------------------------------------------------------------------------------------------------------


async def test_who_watches_is_in_the_consents_chain(door: WatchPort):
    one = door.node.grant()
    async with door.watching(one):
        pass
    async with asyncio.timeout(PATIENCE):
        while door.node.watch_desk.watchers:
            await asyncio.sleep(0)
    await door.node.settle()
    start, end = door.node.records(Audited.WATCH_START, Audited.WATCH_END)
    assert (start.chain, end.chain) == (one.cid, one.cid)
    assert start.facts == {"watch": end.facts["watch"], "account": "tenant:tenant1", "address": "127.0.0.1"}


async def test_nothing_is_told_before_it_is_on_disk(door: WatchPort):
    one = door.node.grant()
    async with door.come(door.token(one)) as websocket:
        await Tenant(websocket).told("watch.state")
        assert [r.event for r in door.node.records(Audited.WATCH_START)] == [Audited.WATCH_START]


async def test_without_a_disk_nobody_watches(door: WatchPort):
    one = door.node.grant()
    await door.node.settle()
    await door.node.journal.stop()
    async with door.come(door.token(one)) as websocket:
        assert await closed(websocket) == 1013
    assert not door.node.watching.rein(one).watches


async def test_one_who_has_gone_while_the_disk_wrote_lets_nothing_pass(door: WatchPort):
    """Only while I watch: what waits at the gate would pass with the first turn in which somebody seems to watch."""
    one = door.node.grant(watched=True)
    async with door.node.edge() as edge:
        async with door.watching(one):
            console = await edge.connect(await door.node.open(Kind.SERIAL))
        async with asyncio.timeout(PATIENCE):
            while door.node.watch_desk.watchers:
                await asyncio.sleep(0)
        await console.send(b"ls\r")
        door.node.dialer.guest.send(b"$ ")
        await console_bytes(console, 2)
        gate = hold_disk(door.node)
        try:
            async with door.come(door.token(one)) as websocket:
                websocket.transport.abort()
            async with asyncio.timeout(PATIENCE):
                while door.listener._server.connections:  # type: ignore[union-attr]  # it is open
                    await asyncio.sleep(0)
        finally:
            gate.set()
        await door.node.settle()
        async with asyncio.timeout(PATIENCE):
            while len(door.node.records(Audited.WATCH_END)) < 2:
                await door.node.settle()
        assert heard(door.node.dialer.guest) == b""


async def test_of_a_consent_that_ends_while_the_disk_writes_nothing_is_told(door: WatchPort):
    one = consent(issued_at=door.node.clock.now().wall_seconds)
    door.node.grant(one)
    token = door.token(one)
    begin = door.node.watch_desk._write

    async def slow(*args: object) -> None:
        door.node.revoke(one)
        await begin(*args)  # type: ignore[arg-type]

    door.node.watch_desk._write = slow  # type: ignore[method-assign]
    async with door.come(token) as websocket:
        with pytest.raises(ConnectionClosed):
            await Tenant(websocket).told("watch.state")
