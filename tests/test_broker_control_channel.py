"""broker/control_channel.py over a real port: sign-in, safelist, and requests of every sort, well-formed or not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from broker import whereabouts
from broker.admission import Wish
from broker.attempts import BY_ADDRESS
from broker.calls import MOST_SLOW
from broker.masks import MAX_MASKED, MAX_MASKS
from broker.reentry import AFTER_DROP_SECONDS
from broker.session import Operator, State
from eva import audit
from eva.consent import Access, Kind, Principal
from eva.control import Event, Failure, Mark, Method, Notice, Refusal, Refused, decode_from_node
from eva.whereabouts import Whereabouts
from eva.wire import Event as ReceiptEvent
from lab.certificates import Authority
from tests.answering_provider import AnsweringProvider, answering_provider
from tests.broker_parts import BOB, PATIENCE, News, hears, notice, vm_id
from tests.operator_port import PASSWORD, Port, accounts, ask, port, refusal, unhurried


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        yield one


async def open_serial(client, **other):
    return await ask(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(Kind.SERIAL), **other)


async def notice_of(client, event: Event):
    async with asyncio.timeout(PATIENCE):
        while True:
            found = decode_from_node(await client.recv())
            if isinstance(found, Notice) and found.event is event:
                return found.params


# -- sign-in -------------------------------------------------------------------------------------------------------------


async def test_sign_in_says_who_and_from_where(door: Port):
    async with door.control() as client:
        answer = await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD)
    assert (answer["account"], answer["address"], answer["granted"]) == ("alice", "127.0.0.1", False)


@pytest.mark.parametrize(("account", "password"), [("alice", "wrong"), ("mallory", PASSWORD), ("alice", ""), ("Alice", PASSWORD)])
async def test_wrong_credentials_close_the_connection(door: Port, account: str, password: str):
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN, account=account, password=password) is Refusal.WRONG_CREDENTIALS
        with pytest.raises(ConnectionClosed):
            await client.recv()


@pytest.mark.parametrize("method", [m for m in Method if m is not Method.SIGN_IN])
async def test_nothing_is_served_before_sign_in(door: Port, method: Method):
    async with door.control() as client:
        assert await refusal(client, method) is Refusal.NOT_SIGNED_IN


async def test_nobody_signs_in_twice_on_one_connection(door: Port):
    async with door.signed_in() as client:
        assert await refusal(client, Method.SIGN_IN, account="bob", password=PASSWORD) is Refusal.BAD_REQUEST


async def test_guessing_is_rated(door: Port):
    for _ in range(BY_ADDRESS.burst):
        async with door.control() as client:
            assert await refusal(client, Method.SIGN_IN, account="alice", password="wrong") is Refusal.WRONG_CREDENTIALS
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN, account="alice", password=PASSWORD) is Refusal.RATE_LIMITED
    async with door.control(source="127.0.0.2") as client:
        assert (await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD))["account"] == "alice"


async def test_no_certificate_is_no_proof(door: Port):
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN) is Refusal.WRONG_CREDENTIALS


class SlowAccounts:
    """Accounts whose hash takes until the test says so."""

    def __init__(self, real) -> None:
        self.real, self.asked, self.go = real, threading.Event(), threading.Event()

    def verify(self, account: str, password: str):
        self.asked.set()
        self.go.wait(PATIENCE)
        return self.real.verify(account, password)

    def get(self, name: str):
        return self.real.get(name)


@pytest.mark.parametrize("after", [accounts("bob"), accounts("alice", groups="other")])
async def test_an_account_changed_during_the_hash_does_not_sign_in(door: Port, after):
    door.desk.accounts = slow = SlowAccounts(door.desk.accounts)
    async with door.control() as client:
        trying = asyncio.ensure_future(refusal(client, Method.SIGN_IN, account="alice", password=PASSWORD))
        assert await asyncio.to_thread(slow.asked.wait, PATIENCE)
        door.desk.accounts = after
        slow.go.set()
        assert await trying is Refusal.WRONG_CREDENTIALS


async def test_one_who_is_signed_out_has_nothing_more_served(door: Port):
    async with door.control() as client:
        await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD)
        (channel,) = door.desk.channels
        for number in range(1, 10):
            await client.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "workstation.grant", "params": {}}))
        await asyncio.sleep(0)
        channel.sign_out("the account was changed")
        await client.wait_closed()
        rows = len(door.desk.safelist.to_rows())
        await asyncio.sleep(0.1)
        assert len(door.desk.safelist.to_rows()) == rows
        assert len(door.node.records(audit.Event.WORKSTATION)) <= 1


# -- signing in again ----------------------------------------------------------------------------------------------------


async def left_by(door: Port, *, code: int | None = None) -> str:
    """What a sign-in left, whose connection was closed with this, or dropped."""
    async with door.control() as client:
        again = (await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD))["again"]
        (channel,) = door.desk.channels
        if code is None:
            client.transport.abort()
        else:
            await client.close(code)
    async with asyncio.timeout(PATIENCE):
        while channel in door.desk.channels:
            await asyncio.sleep(0.01)
    assert isinstance(again, str)
    return again


async def comes_back(door: Port, again: str, **other: Any) -> str | Refusal:
    """What the next connection's sign-in by it leaves, or why it is refused."""
    async with door.control(**other) as client:
        try:
            found = await ask(client, Method.SIGN_IN, again=again)
        except Refused as error:
            return error.refusal
        assert found["account"] == "alice"
        return str(found["again"])


async def test_one_who_dropped_signs_in_again_without_a_password_and_may_drop_again(door: Port):
    again = await left_by(door)
    async with door.control() as client:
        found = await ask(client, Method.SIGN_IN, again=again)
        assert (found["account"], found["groups"]) == ("alice", ["cloudadmin"])
        client.transport.abort()
    assert found["again"] != again
    assert await comes_back(door, again) is Refusal.WRONG_CREDENTIALS
    assert isinstance(await comes_back(door, str(found["again"])), str)


async def test_one_who_gives_a_silent_connection_up_signs_in_again(door: Port):
    assert not isinstance(await comes_back(door, await left_by(door, code=4100)), Refusal)


@pytest.mark.parametrize("code", [1000, 1001])
async def test_one_who_left_does_not(door: Port, code: int):
    assert await comes_back(door, await left_by(door, code=code)) is Refusal.WRONG_CREDENTIALS


async def test_one_who_was_signed_out_does_not(door: Port):
    async with door.control() as client:
        again = str((await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD))["again"])
        (channel,) = door.desk.channels
        channel.sign_out("the account was changed")
        await client.wait_closed()
    assert await comes_back(door, again) is Refusal.WRONG_CREDENTIALS


async def test_nor_before_the_old_connection_is_closed(door: Port):
    async with door.control() as first, door.control() as second:
        again = str((await ask(first, Method.SIGN_IN, account="alice", password=PASSWORD))["again"])
        first.transport.pause_reading()  # as one that answers no close frame
        (channel,) = (one for one in door.desk.channels if one.account is not None)
        channel.sign_out("the account was changed")
        assert await refusal(second, Method.SIGN_IN, again=again) is Refusal.WRONG_CREDENTIALS
        first.transport.abort()


async def test_one_who_broke_the_protocol_does_not(door: Port):
    async with door.control() as client:
        again = str((await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD))["again"])
        await client.send(b"bytes")
        await client.wait_closed()
    assert await comes_back(door, again) is Refusal.WRONG_CREDENTIALS


async def test_the_time_after_a_drop_runs_out(door: Port):
    again = await left_by(door)
    door.node.clock.run(AFTER_DROP_SECONDS)
    assert await comes_back(door, again) is Refusal.WRONG_CREDENTIALS


async def test_a_drop_that_only_the_client_knows_of_ends_the_old_connection(door: Port):
    async with door.control() as first:
        again = str((await ask(first, Method.SIGN_IN, account="alice", password=PASSWORD))["again"])
        async with door.control() as second:
            await ask(second, Method.SIGN_IN, again=again)
            await first.wait_closed()
            assert first.close_code == 1008
            await ask(second, Method.WORKSTATION_GRANT)


async def test_from_another_workstation_it_is_none_and_void(door: Port):
    again = await left_by(door)
    for source in ("127.0.0.2", "127.0.0.1"):
        assert await comes_back(door, again, source=source) is Refusal.WRONG_CREDENTIALS


@pytest.mark.parametrize("after", [accounts("bob"), accounts("alice", groups="other")])
async def test_a_changed_account_does_not_come_back(door: Port, after):
    again = await left_by(door)
    door.desk.accounts = after
    assert await comes_back(door, again) is Refusal.WRONG_CREDENTIALS


async def test_guessing_it_is_rated_with_the_passwords(door: Port):
    for _ in range(BY_ADDRESS.burst):
        async with door.control() as client:
            assert await refusal(client, Method.SIGN_IN, again="A" * 43) is Refusal.WRONG_CREDENTIALS
            with pytest.raises(ConnectionClosed):
                await client.recv()
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN, account="alice", password=PASSWORD) is Refusal.RATE_LIMITED


async def test_it_goes_with_nothing_else(door: Port):
    again = await left_by(door)
    async with door.control() as client:
        assert await refusal(client, Method.SIGN_IN, again=again, account="alice") is Refusal.BAD_REQUEST
    assert not isinstance(await comes_back(door, again), Refusal)


# -- the safelist --------------------------------------------------------------------------------------------------------


SAFELIST_FREE = {Method.SIGN_IN, Method.WORKSTATION_GRANT, Method.WORKSTATION_REVOKE}


@pytest.mark.parametrize("method", [m for m in Method if m not in SAFELIST_FREE])
async def test_nothing_is_served_to_a_workstation_that_is_not_granted(door: Port, method: Method):
    async with door.control() as client:
        await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD)
        assert await refusal(client, method) is Refusal.NOT_SAFELISTED


async def test_a_grant_is_for_one_address_and_one_account(door: Port):
    async with door.signed_in():
        pass
    for account, source in (("bob", "127.0.0.1"), ("alice", "127.0.0.2")):
        async with door.control(source=source) as client:
            await ask(client, Method.SIGN_IN, account=account, password=PASSWORD)
            assert await refusal(client, Method.CONSENTS_LIST) is Refusal.NOT_SAFELISTED


async def test_a_grant_lasts_eight_hours(door: Port):
    async with door.signed_in() as client:
        await ask(client, Method.CONSENTS_LIST)
        door.node.clock.run(28_800)
        assert await refusal(client, Method.CONSENTS_LIST) is Refusal.NOT_SAFELISTED


async def test_a_grant_that_is_not_on_disk_is_none(door: Port):
    async with door.control() as client:
        await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD)
        door.node.journal._state.write = lambda _: (_ for _ in ()).throw(sqlite3.OperationalError("disk full"))
        assert await refusal(client, Method.WORKSTATION_GRANT) is Refusal.AUDIT_FAILED
        assert await refusal(client, Method.CONSENTS_LIST) is Refusal.NOT_SAFELISTED
    assert door.desk.safelist.to_rows() == ()


async def test_taking_it_off_cuts_its_sessions(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        await open_serial(client)
        assert (await ask(client, Method.WORKSTATION_REVOKE))["cut"] == 1
        assert await refusal(client, Method.CONSENTS_LIST) is Refusal.NOT_SAFELISTED


async def test_grants_are_recorded(door: Port):
    async with door.signed_in() as client:
        await ask(client, Method.WORKSTATION_REVOKE)
    assert [r.facts["what"] for r in door.node.records(audit.Event.WORKSTATION)] == ["granted", "revoked"]


# -- consents and sessions -----------------------------------------------------------------------------------------------


async def test_one_sees_the_consents_for_oneself_and_no_others(door: Port):
    mine = door.node.grant(operators=frozenset({Principal(False, "alice")}))
    door.node.grant(operators=frozenset({Principal(False, "bob")}))
    async with door.signed_in() as client:
        listed = (await ask(client, Method.CONSENTS_LIST))["consents"]
    assert [c["consent"] for c in listed] == [mine.jti]


async def test_one_sees_who_is_on(door: Port):
    one = door.node.grant()
    door.node.grant(giver="tenant2", seconds=600)
    await door.node.open(Kind.SERIAL, operator=BOB)
    wish = Wish(one.resource_id, Kind.GRAPHICS, Access.VIEW, one.cid)
    await door.node.sessions.open(wish, Operator.tenant(one.giver, "127.0.0.1"), News())
    async with door.signed_in() as client:
        listed = (await ask(client, Method.CONSENTS_LIST))["consents"]
    assert [(row["sessions"], row["connected"]) for row in listed] == [
        (0, []),
        (2, [{"account": "bob", "kind": "serial"}, {"account": "tenant:tenant1", "kind": "graphics"}]),
    ]


async def test_masked_input_is_announced(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        assert await ask(client, Method.INPUT_MASK, session=found["session"], count=8, **{"from": 3}) == {}
    viewer: Any = door.node.sessions.roster.lives[found["session"]].viewer
    assert list(viewer.masks.split(0, b"pw=hunter2!;")) == [(b"pw=", False), (b"hunter2!", True), (b";", False)]


@pytest.mark.parametrize(
    "params",
    [
        {"from": -1, "count": 1},
        {"from": 0, "count": 0},
        {"from": 0, "count": MAX_MASKED + 1},
        {"from": 0},
        {"from": 0, "count": 1, "more": 1},
    ],
)
async def test_a_mask_that_means_nothing_is_refused(door: Port, params: dict[str, int]):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        assert await refusal(client, Method.INPUT_MASK, session=found["session"], **params) is Refusal.BAD_REQUEST


async def test_a_mask_may_be_as_long_as_a_long_password(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        assert await ask(client, Method.INPUT_MASK, session=found["session"], count=MAX_MASKED, **{"from": 0}) == {}


async def test_masks_are_few(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        for start in range(MAX_MASKS):
            await ask(client, Method.INPUT_MASK, session=found["session"], count=1, **{"from": start})
        assert await refusal(client, Method.INPUT_MASK, session=found["session"], count=1, **{"from": 99}) is Refusal.TOO_MANY


async def test_anothers_session_is_not_ones_to_mask(door: Port):
    door.node.grant()
    session = await door.node.open(Kind.SERIAL, operator=BOB)
    async with door.signed_in() as client:
        assert await refusal(client, Method.INPUT_MASK, session=session.id, count=1, **{"from": 0}) is Refusal.NO_SESSION


async def test_the_whole_way_from_sign_in_to_the_guest(door: Port):
    door.node.grant()
    async with door.signed_in() as client, door.console(await open_serial(client)) as console:
        await notice(console, Mark.ATTACHED)
        await console.send(b"ls\r")
        assert await hears(door.node.dialer.guest, 3) == b"ls\r"


async def test_delete_cuts_and_is_receipted(door: Port):
    one = door.node.grant()
    async with door.signed_in() as client:
        await open_serial(client)
        answer = await ask(client, Method.SESSION_DELETE, resource_id=str(vm_id()))
    assert (answer["consents"], answer["sessions"], door.node.standing()) == (1, 1, set())
    assert (ReceiptEvent.DELETED, one.jti) in [(r.event, r.about) for r in door.node.receipts()]


async def test_nobody_deletes_what_is_not_for_them(door: Port):
    one = door.node.grant(operators=frozenset({Principal(False, "bob")}))
    async with door.signed_in() as client:
        assert await refusal(client, Method.SESSION_DELETE, resource_id=str(vm_id())) is Refusal.NO_CONSENT
    assert door.node.standing() == {one.jti}


async def test_leaving_a_session_that_has_just_ended_is_no_fault(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        async with door.console(found) as console:
            await notice(console, Mark.ATTACHED)
        await notice_of(client, Event.ENDED)
        assert await ask(client, Method.SESSION_LEAVE, session=found["session"]) == {}
    assert "no-session" not in door.refusals()


@pytest.mark.parametrize(
    "method", ["session.leave", "session.resume", "keyboard.take", "keyboard.give", "keys.send", "input.release"]
)
async def test_nobody_touches_anothers_session(door: Port, method: str):
    door.node.grant()
    more = {"session.resume": {"received": 0}, "keyboard.give": {"to": "x"}, "keys.send": {"chord": [29]}}.get(method, {})
    async with door.signed_in() as client, door.signed_in("bob") as other:
        found = await open_serial(client)
        assert await refusal(other, method, session=found["session"], **more) is Refusal.NO_SESSION
    (session,) = [live.session for live in door.node.sessions.roster.lives.values()]
    assert session.state is State.DETACHED


async def test_a_session_is_resumed_with_a_new_ticket(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        console = await door.console(found)
        await notice(console, Mark.ATTACHED)
        console.transport.abort()
        again = await ask(client, Method.SESSION_RESUME, session=found["session"], received=0)
        async with door.console(again) as console:
            await notice(console, Mark.ATTACHED)


async def test_view_only_is_told_and_has_no_keyboard(door: Port):
    door.node.grant(access=Access.VIEW)
    async with door.signed_in() as client:
        found = await open_serial(client)
        assert (found["access"], found["keyboard"]) == ("view", False)
        assert await refusal(client, Method.KEYBOARD_TAKE, session=found["session"]) is Refusal.NO_KEYBOARD
        assert await refusal(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind="serial", access="keyboard")


@pytest.mark.parametrize("chord", [[], [0], [256], [29] * 6, ["29"], [True], 29, None])
async def test_no_chord_of_another_shape_reaches_the_guest(door: Port, chord):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        assert await refusal(client, Method.KEYS_SEND, session=found["session"], chord=chord) is Refusal.BAD_REQUEST


# -- while a console opens -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hanging(door: Port, count: int = 1) -> AsyncIterator[ClientConnection]:
    """A signed-in operator, with a serial session and so many screens under way at a hypervisor that does not answer."""
    door.node.grant()
    async with door.signed_in() as client:
        await open_serial(client)
        door.node.dialer.dialling.clear()
        door.node.dialer.picked_up.clear()
        for number in range(count):
            params = {"resource_id": str(vm_id()), "kind": "graphics"}
            await client.send(json.dumps({"jsonrpc": "2.0", "id": 10**6 + number, "method": "session.open", "params": params}))
        async with asyncio.timeout(PATIENCE):
            await door.node.dialer.dialling.wait()
        yield client
        door.node.dialer.picked_up.set()


@pytest.mark.parametrize("method", ["session.leave", "keyboard.take", "input.release", "input.mask"])
async def test_what_is_asked_of_another_session_waits_for_no_console(door: Port, method: str):
    async with hanging(door) as client:
        (session,) = [live.id for live in door.node.sessions.roster.lives.values() if live.session.kind is Kind.SERIAL]
        more = {"from": 0, "count": 1} if method == "input.mask" else {}
        await ask(client, method, session=session, **more)


async def test_delete_waits_for_no_console(door: Port):
    async with hanging(door) as client:
        assert (await ask(client, Method.SESSION_DELETE, resource_id=str(vm_id())))["sessions"] == 2
        door.node.dialer.picked_up.set()
        async with asyncio.timeout(PATIENCE):
            while not isinstance(found := decode_from_node(await client.recv()), Failure):
                assert isinstance(found, Notice)
        assert found.refusal is Refusal.NO_CONSENT  # it ended while it opened
    assert not door.node.sessions.roster.lives


async def test_so_many_consoles_open_at_once_and_others_do_not_wait_for_them(door: Port):
    async with hanging(door, MOST_SLOW) as client:
        async with asyncio.timeout(PATIENCE):
            while len(door.node.sessions.roster.lives) < 1 + MOST_SLOW:
                await asyncio.sleep(0)
        assert await refusal(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind="graphics") is Refusal.TOO_MANY
        await ask(client, Method.CONSENTS_LIST)


async def test_answers_come_as_they_are_due(door: Port):
    async with hanging(door) as client:
        await ask(client, Method.CONSENTS_LIST)
        door.node.dialer.picked_up.set()
        async with asyncio.timeout(PATIENCE):
            while isinstance(found := decode_from_node(await client.recv()), Notice):
                pass
        assert found.id == 10**6


async def test_a_console_does_not_open_for_one_who_has_gone(door: Port):
    async with hanging(door) as client:
        client.transport.abort()
        async with asyncio.timeout(PATIENCE):
            while any(live.session.kind is Kind.GRAPHICS for live in door.node.sessions.roster.lives.values()):
                await asyncio.sleep(0)
    assert [line.kind for line in door.node.dialer.lines] == [Kind.SERIAL]


async def test_a_delete_counts_though_the_connection_closes_right_behind_it(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        request = {"jsonrpc": "2.0", "id": 1, "method": "session.delete", "params": {"resource_id": str(vm_id())}}
        await client.send(json.dumps(request))
        await client.close()
    async with asyncio.timeout(PATIENCE):
        while door.desk.channels:
            await asyncio.sleep(0)
    assert door.node.standing() == set()
    await door.node.settle()
    assert [r.event for r in door.node.receipts() if r.event == ReceiptEvent.DELETED] == [ReceiptEvent.DELETED]


async def test_calls_take_effect_in_the_order_in_which_they_were_asked(door: Port):
    """Each keyboard.take is recorded at once: of many in one breath the last stands."""
    door.node.grant()
    async with door.signed_in() as client:
        sessions = [str((await open_serial(client))["session"]) for _ in range(3)]
        wanted = sessions * 5
        for number, session in enumerate(wanted):
            request = {"jsonrpc": "2.0", "id": number, "method": "keyboard.take", "params": {"session": session}}
            await client.send(json.dumps(request))
        async with asyncio.timeout(PATIENCE):
            answers: list[int | None] = []
            while len(answers) < len(wanted):
                found = decode_from_node(await client.recv())
                answers += [] if isinstance(found, Notice) else [found.id]
    await door.node.settle()
    taken = [r.facts["session"] for r in door.node.records(audit.Event.KEYBOARD)]
    assert taken[-len(wanted) :] == wanted


# -- where the consent is ------------------------------------------------------------------------------------------------


@pytest.fixture
async def provider(certificates: Authority) -> AsyncIterator[AnsweringProvider]:
    async with answering_provider(certificates) as one:
        one.answer = (200, Whereabouts("AzS-ERCS02").encode())
        yield one


@pytest.fixture
async def asking(
    tmp_path: Path, certificates: Authority, provider: AnsweringProvider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Port]:
    """A port whose node can ask a provider."""
    unhurried(monkeypatch)
    monkeypatch.setattr(whereabouts, "SECONDS", PATIENCE)
    async with port(tmp_path, certificates, provider.settings) as one:
        yield one


@pytest.mark.parametrize("method", [Method.SESSION_OPEN, Method.SESSION_DELETE])
async def test_who_comes_to_the_wrong_node_is_told_the_right_one(asking: Port, method: Method):
    params = {"kind": "serial"} if method is Method.SESSION_OPEN else {}
    async with asking.signed_in() as client:
        with pytest.raises(Refused) as caught:
            await ask(client, method, resource_id=str(vm_id()), **params)
    assert (caught.value.refusal, caught.value.node) == (Refusal.NO_CONSENT, "AzS-ERCS02")


async def test_where_there_is_a_consent_for_others_nobody_is_sent_away(asking: Port, provider: AnsweringProvider):
    asking.node.grant(operators=frozenset({Principal(False, "bob")}))
    async with asking.signed_in() as client:
        with pytest.raises(Refused) as caught:
            await open_serial(client)
    assert (caught.value.refusal, caught.value.node, provider.asked) == (Refusal.NO_CONSENT, None, [])


async def test_one_who_waits_for_the_provider_keeps_nobody_waiting(asking: Port, provider: AnsweringProvider):
    provider.go.clear()
    async with asking.signed_in() as client, asking.signed_in("bob") as other:
        waiting = asyncio.ensure_future(refusal(client, Method.SESSION_DELETE, resource_id=str(vm_id())))
        await provider.came.wait()
        await ask(other, Method.CONSENTS_LIST)
        assert not waiting.done()
        provider.go.set()
        assert await waiting is Refusal.NO_CONSENT


# -- renewal -------------------------------------------------------------------------------------------------------------


async def test_what_people_see_is_the_cid(door: Port):
    one = door.node.grant()
    door.node.renew_consent(one)
    async with door.signed_in() as client:
        (listed,) = (await ask(client, Method.CONSENTS_LIST))["consents"]
        assert (listed["consent"], (await open_serial(client))["consent"]) == (one.cid, one.cid)


async def test_a_renewal_is_told(door: Port):
    one = door.node.grant(seconds=600)
    async with door.signed_in() as client:
        session = (await open_serial(client))["session"]
        again = door.node.renew_consent(one)
        told = await notice_of(client, Event.RENEWED)
    assert (told["session"], told["expires_at"], told["remaining_s"]) == (session, again.expires_at, 28_800)


# -- whatever comes ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers(0, 99) | JSON,
        "method": st.sampled_from([str(m) for m in Method if m is not Method.WORKSTATION_REVOKE]) | JSON,
    },
    optional={
        "params": st.dictionaries(st.sampled_from(["session", "resource_id", "kind", "chord", "to", "received", "x"]), JSON)
    },
)
MESSAGES = st.one_of(
    st.text(max_size=50),
    REQUESTS.map(json.dumps),
    st.sampled_from(["[" * 16_000, "{" * 16_000, '{"a":' * 3000, "1" * 16_000, '"\\ud800"', "[]", "null"]),
)


async def test_rubbish_is_answered_and_closes_nothing(door: Port):
    door.node.grant()
    async with door.signed_in() as client:
        found = await open_serial(client)
        messages: list[str] = []

        @settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
        @given(MESSAGES)
        def collect(text: str) -> None:
            messages.append(text)

        collect()
        for text in messages:
            await client.send(text)
            async with asyncio.timeout(PATIENCE):
                assert "jsonrpc" in str(await client.recv())
        assert (await ask(client, Method.CONSENTS_LIST))["more"] == 0
    assert door.node.sessions.kind_of(str(found["session"])) is Kind.SERIAL


async def test_a_binary_message_ends_the_connection_alone(door: Port):
    async with door.signed_in() as client, door.signed_in("bob") as other:
        await client.send(b"\0")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        await ask(other, Method.CONSENTS_LIST)


async def test_no_metric_names_a_vm_or_a_person(door: Port):
    one = door.node.grant()
    async with door.signed_in() as client, door.console(await open_serial(client)) as console:
        await notice(console, Mark.ATTACHED)
        await refusal(client, Method.SESSION_LEAVE, session="nobody")
        door.node.revoke(one)
    text = door.node.metrics.text().decode()
    assert not [word for word in ("alice", "vm1", "rg1", "127.0.0.1", one.jti, one.giver, "1111-2222") if word in text]
