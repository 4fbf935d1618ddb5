"""broker/sessions.py over socketpairs: websockets come and go, consents are renewed, and what ends a session."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from broker import sessions
from broker.admission import Wish
from broker.session import Operator, Session, State
from broker.sessions import DROP_GRACE, LOST_GRACE
from eva.consent import Access, Kind, Principal
from eva.control import Event, Mark, Refusal, Refused
from eva.ending import Ending
from eva.instant import NS
from tests.broker_parts import (
    ALICE,
    BOB,
    PATIENCE,
    PIN,
    Core,
    Domain,
    News,
    awake,
    console_bytes,
    core,
    ends_of,
    heard,
    hears,
    hold_disk,
    notice,
    pass_time,
    vm_id,
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


# -- what ends them ----------------------------------------------------------------------------------------------------


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


async def test_a_line_that_ends_is_the_consoles_loss(node: Core):
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        async with awake() as seconds:
            assert (await notice(client, Mark.ENDED))["reason"] == "console-lost"
            assert seconds() < LOST_GRACE + 1


async def test_whoever_dials_anew_after_a_loss_has_the_keyboard(node: Core, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "LOST_GRACE", 10 * PATIENCE)
    node.grant()
    lost = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(lost)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        while node.live(lost).lost is None:
            await asyncio.sleep(0)
        assert node.sessions.roster.owns_keyboard(await node.open())
        assert node.live(lost).session is lost  # which has not ended by itself meanwhile


async def test_a_line_that_ends_is_the_vms_stop_when_the_inventory_says_so(node: Core, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "LOST_GRACE", 10 * PATIENCE)
    node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.dialer.guest.close()
        async with asyncio.timeout(PATIENCE):
            while (lost := node.live(session).lost) is None:
                await asyncio.sleep(0)
        node.sessions.end_domain(PIN, Ending.VM_STOPPED)
        assert (await notice(client, Mark.ENDED))["reason"] == "vm-stopped"
    assert lost.cancelled()
    await node.settle()
    assert ends_of(node, session) == ["vm-stopped"]


# -- renewal -----------------------------------------------------------------------------------------------------------


async def test_a_session_lives_through_a_renewal(node: Core):
    one = node.grant(seconds=600)
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await client.send(b"a")
        await hears(node.dialer.guest, 1)
        again = node.renew_consent(one)
        await node.settle()
        await pass_time(node, 700)
        node.consents.tick(node.clock.now())
        await client.send(b"b")
        assert await hears(node.dialer.guest, 1) == b"b"
        node.dialer.guest.send(b"and back")
        assert await console_bytes(client, 8) == b"and back"
    assert session.accepted.consent.jti == again.jti


@pytest.mark.parametrize("seconds", [60, 3600])
async def test_it_ends_when_the_renewal_does(node: Core, seconds: int):
    one = node.grant(seconds=600)
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        node.renew_consent(one, seconds=seconds)
        await node.settle()
        await pass_time(node, seconds - 5)
        still = node.live(session).gate.open()
        node.clock.run(5)
        await client.send(b"late")
        await (await client.ping())
        assert (still, heard(node.dialer.guest)) == (True, b"")
        node.consents.tick(node.clock.now())
        assert (await notice(client, Mark.ENDED))["reason"] == "consent-expired"


async def test_before_the_renewal_is_on_disk_nobody_types_past_the_old_end(node: Core):
    one = node.grant(seconds=60)
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        await notice(client, Mark.ATTACHED)
        await node.settle()
        gate = hold_disk(node)
        node.renew_consent(one)
        node.answer(node.question())
        node.clock.run(60)
        node.answer(node.question())
        node.consents.tick(node.clock.now())
        await client.send(b"x")
        await (await client.ping())
        too_early = heard(node.dialer.guest)
        gate.set()
        assert (await hears(node.dialer.guest, 1), too_early) == (b"x", b"")


async def test_of_two_renewals_at_once_the_last_counts(node: Core):
    one = node.grant(seconds=60)
    session = await node.open()
    await node.settle()
    gate = hold_disk(node)
    two = node.renew_consent(one)
    node.renew_consent(two, seconds=120)
    held = node.live(session).gate.term.remaining(node.clock.now())
    gate.set()
    await node.settle()
    assert (held, node.live(session).gate.term.remaining(node.clock.now())) == (60, 120)


async def test_a_renewal_leaves_sessions_under_another_consent_as_they_are(node: Core):
    longer, other = node.grant(seconds=600), node.grant(seconds=300)
    news = News()
    session = await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    node.renew_consent(node.renew_consent(other), access=Access.VIEW)
    await node.settle()
    assert session.accepted.consent.jti == longer.jti
    assert node.live(session).gate.term.remaining(node.clock.now()) == 600
    assert news.of(Event.RENEWED) == []


async def test_a_renewal_for_a_domain_made_anew_carries_nobody_over(node: Core):
    one = node.grant()
    session = await node.open()
    node.domains.by_id[vm_id()] = (Domain(generation=PIN.generation + 1),)
    node.renew_consent(one)
    await node.settle()
    assert ends_of(node, session) == ["consent-revoked"]


@pytest.mark.parametrize(
    "narrower",
    [
        {"operators": frozenset({Principal(False, "bob")})},
        {"kinds": frozenset({Kind.GRAPHICS})},
        {"access": Access.VIEW},
    ],
    ids=lambda narrower: next(iter(narrower)),
)
async def test_what_the_renewal_does_not_admit_is_cut(node: Core, narrower: dict[str, object]):
    one = node.grant()
    session = await node.open()
    node.renew_consent(one, **narrower)
    await node.settle()
    assert ends_of(node, session) == ["consent-revoked"]


async def test_who_only_looks_goes_on_under_a_renewal_for_viewing(node: Core):
    one = node.grant()
    typing, looking = await node.open(), await node.open(operator=BOB, access=Access.VIEW)
    node.renew_consent(one, access=Access.VIEW)
    await node.settle()
    assert (ends_of(node, typing), ends_of(node, looking), looking.state) == (["consent-revoked"], [], State.DETACHED)


async def test_the_revocation_of_the_renewal_cuts_what_was_carried_over(node: Core):
    one = node.grant()
    session = await node.open()
    node.revoke(node.renew_consent(one))
    await node.settle()
    assert ends_of(node, session) == ["consent-revoked"]


async def test_one_that_opens_while_the_consent_is_renewed_goes_on(node: Core):
    one = node.grant()
    node.dialer.picked_up.clear()
    opening = asyncio.ensure_future(node.open())
    await node.dialer.dialling.wait()
    again = node.renew_consent(one)
    node.dialer.picked_up.set()
    session = await opening
    assert (session.accepted.consent.jti, session.state) == (again.jti, State.DETACHED)


async def test_the_operator_is_told_of_a_renewal_and_of_its_end_in_turn(node: Core):
    one = node.grant(seconds=1200)
    news = News()
    await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    async with node.edge() as edge:
        await edge.connect(next(iter(node.sessions.roster.lives.values())).session)
        await pass_time(node, 400)
        again = node.renew_consent(one, seconds=1000)
        await node.settle()
        (told,) = news.of(Event.RENEWED)
        assert (told["expires_at"], told["remaining_s"]) == (again.expires_at, 1000)
        await pass_time(node, 200)
    assert [params["remaining_s"] for params in news.of(Event.COUNTDOWN)] == [900, 900]  # once under each


async def test_who_is_told_of_a_renewal_is_not_told_the_same_time_again(node: Core):
    one = node.grant(seconds=1200)
    news = News()
    await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    await pass_time(node, 10)
    node.renew_consent(one, seconds=900)
    await node.settle()
    node.sessions.tick(node.clock.now())
    assert ([told["remaining_s"] for told in news.of(Event.RENEWED)], news.of(Event.COUNTDOWN)) == ([900], [])


async def test_what_was_said_before_a_renewal_is_still_replayed(node: Core):
    one = node.grant()
    session = await node.open()
    async with node.edge() as edge:
        client = await edge.connect(session)
        node.dialer.guest.send(b"before")
        await console_bytes(client, 6)
        node.renew_consent(one)
        client.transport.abort()
        while session.state is State.LIVE:
            await asyncio.sleep(0)
        node.sessions.resume(session.id, ALICE, 0, News())
        again = await edge.connect(session)
        assert await console_bytes(again, 6) == b"before"


# -- dropped and resumed -----------------------------------------------------------------------------------------------


async def drop(node: Core, session: Session, client) -> None:
    client.transport.abort()
    async with asyncio.timeout(PATIENCE):
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
        async with asyncio.timeout(PATIENCE):
            while session.state is not State.ENDED:
                await asyncio.sleep(0)
    assert session.ending is Ending.OPERATOR_LEFT


async def test_a_graphics_session_that_drops_is_over(node: Core):
    node.grant()
    session = await node.open(Kind.GRAPHICS)
    async with node.edge() as edge:
        client = await edge.connect(session)
        async with asyncio.timeout(PATIENCE):
            while session.state is not State.LIVE:
                await asyncio.sleep(0)
        client.transport.abort()
        async with asyncio.timeout(PATIENCE):
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


async def test_a_session_is_over_with_its_operators_sign_in(node: Core):
    node.grant()
    now = node.clock.now()
    soon = await node.open(operator=replace(ALICE, lapses=now.boot + 5 * NS))
    late = await node.open(operator=replace(BOB, lapses=now.boot + 6 * NS))
    node.sessions.tick(node.clock.run(5))
    assert (soon.ending, late.ending) == (Ending.OPERATOR_LEFT, None)


async def test_who_signed_in_anew_and_resumes_it_keeps_it(node: Core):
    node.grant()
    now = node.clock.now()
    session = await node.open(operator=replace(ALICE, lapses=now.boot + 5 * NS))
    node.sessions.resume(session.id, replace(ALICE, lapses=now.boot + 6 * NS), 0, News())
    node.sessions.tick(node.clock.run(5))
    assert session.ending is None


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


# -- telling -----------------------------------------------------------------------------------------------------------


async def test_operators_are_told_how_long_is_left(node: Core):
    node.grant(seconds=1000)
    news = News()
    await node.sessions.open(Wish(vm_id(), Kind.SERIAL), ALICE, news)
    live = next(iter(node.sessions.roster.lives.values()))
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
    async with asyncio.timeout(PATIENCE):
        while not node.failures:
            await asyncio.sleep(0)
    node.sessions.end_all(Ending.AUDIT_FAILED)
    assert (session.ending, len(node.sessions)) == (Ending.AUDIT_FAILED, 0)
