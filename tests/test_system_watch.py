"""The tenant who watches, on real parts: sees both consoles, holds input and ends it, and can type nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from broker.echo import ECHO_WITHIN
from broker.watching import WATCH_GRACE
from eva.audit import Event as Audited
from eva.control import CONSOLE_SUBPROTOCOLS, TICKET_PREFIX, Event, Mark, Method, Opened, Refusal, Refused
from eva.members import Members
from eva.watch import TOKEN_PREFIX, WATCH_SUBPROTOCOL, WatchMethod
from lab.libvirt_host import Guest
from tests.rfb_bytes import request
from tests.system_operator import (
    LOOK,
    NODE,
    PATIENCE,
    Console,
    doing,
    pressed,
    shown,
    signed_in,
    trusting,
    type_on_screen,
    typing,
)
from tests.system_parts import PROMISE, SLACK, assert_silence_after, audit_of, count_in, end_of, listening, until, well
from tests.watch_parts import STRANGER, WatchedCloud
from tests.watch_port import NotDone, Tenant

OPENS = 5.0  # seconds that a console may take to open


class Watcher(Tenant):
    """A tenant at a node's watch listener; `url`: of its console endpoint."""

    def __init__(self, websocket: ClientConnection, trust: ssl.SSLContext, url: str) -> None:
        super().__init__(websocket)
        self._trust = trust
        self._url = url
        self.consoles: list[Console] = []

    async def look(self, kind: str) -> Console:
        """One of the VM's consoles, read all the time."""
        opened = Opened.from_members(Members(await self.ask(WatchMethod.WATCH_OPEN, kind=kind)))
        websocket = await connect(
            self._url,
            ssl=self._trust,
            subprotocols=[Subprotocol(CONSOLE_SUBPROTOCOLS[opened.kind]), Subprotocol(TICKET_PREFIX + opened.ticket)],
            compression=None,
            max_size=None,
            max_queue=1024,
            ping_interval=None,
            open_timeout=PATIENCE,
            proxy=None,
        )
        console = Console(websocket, opened)
        self.consoles.append(console)
        console.read()
        return console


@pytest.fixture(autouse=True)
async def _well(watched: WatchedCloud, vm: Guest) -> None:  # the guest first: to boot one takes a busy machine its time
    await well(watched.cloud)


def token(watched: WatchedCloud, vm: Guest) -> tuple[str, str]:
    """A watch token of the provider's, and where to take it."""
    answer = watched.ask(vm, "watchVmAccess")
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()["watchToken"], answer.json()["watchUrl"]


def come(watched: WatchedCloud, url: str, token: str) -> connect:
    names = [Subprotocol(WATCH_SUBPROTOCOL), Subprotocol(TOKEN_PREFIX + token)]
    trust = trusting(watched.cloud)
    return connect(
        url,
        ssl=trust,
        subprotocols=names,
        compression=None,
        max_queue=None,
        open_timeout=PATIENCE,
        ping_interval=None,
        proxy=None,
    )


@contextlib.asynccontextmanager
async def watching(watched: WatchedCloud, vm: Guest) -> AsyncIterator[Watcher]:
    """The giver watches; the first state has come."""
    word, url = await asyncio.to_thread(token, watched, vm)
    async with come(watched, url, word) as websocket:
        tenant = Watcher(websocket, trusting(watched.cloud), url.replace("/v1/watch", "/v1/console"))
        tenant.notices.append(("watch.state", await tenant.told("watch.state")))
        try:
            yield tenant
        finally:
            for console in tenant.consoles:
                await console.close()


async def typed(tenant: Watcher, until: str) -> str:
    """What was typed, one text with keys and counts in brackets, to where this stands in it."""
    text, hidden = "", 0
    while until not in text:
        for part in (await tenant.told("watch.typed"))["parts"]:
            hidden += part.get("hidden", 0)  # a count that comes in parts is one count
            if "hidden" not in part:
                text += f"[{hidden}]" if hidden else ""
                text += f"<{part['text']}>" if part.get("key") else part["text"]
                hidden = 0
    return text


async def told_of(tenant: Watcher, console: Console, *pieces: bytes) -> str | None:
    """What is told of a line that cat gets in these pieces, each typed when the one before was echoed.

    None where an echo came so late that it is taken for none: the guest got no processor.
    """
    begun, slowest = len(console.data), 0.0
    for piece in pieces:
        after, typed_at = len(console.data), time.monotonic()
        await console.type(piece)
        await console.shows(piece.replace(b"\r", b"\r\n"), after=after)
        slowest = max(slowest, time.monotonic() - typed_at)
    line = b"".join(pieces).replace(b"\r", b"\r\n")
    # what cat says of it: none of that is an echo of what comes next
    await console.shows(line, after=await console.shows(line, after=begun))
    told = await typed(tenant, "<Enter>")
    return told if slowest < ECHO_WITHIN else None


# -- looking on --------------------------------------------------------------------------------------------------------


async def test_who_watches_sees_what_the_operator_sees(watched: WatchedCloud, vm: Guest) -> None:
    consent = await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        state = await tenant.told("watch.state")
        assert (state["consent"], state["running"], state["operators"]) == (consent.cid, True, [])
        seen = await tenant.look("serial")
        console = await alice.console(vm.resource_id)
        assert await console.ask("echo $((40+2))") == b"42\n"
        await seen.shows(b"\n42\r\n")
        (row,) = (await tenant.told("watch.state", operators=[operator_row(console.opened)]))["operators"]
        assert row["account"] == "alice"
        assert any(
            viewer.text("account") == f"tenant:{state['giver']}"
            for notice in alice.notices
            if notice.event is Event.VIEWERS
            for viewer in Members(notice.params).tables("viewers", 16)
        )


def operator_row(opened: Opened) -> object:
    """Equal to what the state says of this session, whenever it began."""

    class Row:
        def __eq__(self, other: object) -> bool:
            return (
                isinstance(other, dict)
                and (other["session"], other["attached"], other["keyboard"]) == (opened.session, True, True)
                and abs(other["since_ms"] / 1000 - time.time()) < 60
            )

        __hash__ = None  # type: ignore[assignment]  # it is compared, and no more

    return Row()


async def test_who_watches_the_screen_sees_it_change_and_touches_nothing(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        mine = await shown(await alice.console(vm.resource_id, "graphics"))
        seen = await shown(await tenant.look("graphics"))
        before = len(seen.data)
        await type_on_screen(seen, "echo intruder-was-here\n")  # dropped at the broker
        await seen.type(request(incremental=True))
        await type_on_screen(mine, "echo shown\n")
        await seen.wait(lambda: len(seen.data) > before + 100, "the screen after the operator's keys")
    assert (await end_of(watched.cloud.nodes[NODE], seen.opened))["to_operator"] > 100_000
    assert "intruder" not in vm.serial.content(0).decode(errors="replace")


async def test_a_watcher_who_cheats_types_nothing(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        seen = await tenant.look("serial")
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        for _ in range(20):
            await seen.type(b"Z\r")
        with pytest.raises(NotDone) as caught:
            await tenant.ask("keyboard.take", session=seen.opened.session)
        assert caught.value.refusal == Refusal.BAD_REQUEST
        with pytest.raises(Refused):
            await alice.ask(Method.KEYBOARD_GIVE, session=console.opened.session, to=seen.opened.session)
        await console.type(b"Q\n")
        await until(lambda: count_in(vm, b"Q", after) == 1, "what the operator typed, echoed by the guest")
        assert count_in(vm, b"Z", after) == 0


async def test_a_token_opens_one_connection_of_many(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    word, url = await asyncio.to_thread(token, watched, vm)
    slots = asyncio.Semaphore(8)

    async def attempt() -> bool:
        async with slots:
            try:
                async with come(watched, url, word) as websocket:
                    await Tenant(websocket).told("watch.state")
            except InvalidStatus:
                return False
            return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(100)))) == 1


async def test_another_tenant_gets_no_token(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    answer = await asyncio.to_thread(watched.ask, vm, "watchVmAccess", person=STRANGER)
    assert answer.status_code == HTTPStatus.FORBIDDEN


# -- what is typed -----------------------------------------------------------------------------------------------------


async def test_what_is_typed_is_told_and_what_is_hidden_is_a_count(watched: WatchedCloud, vm: Guest) -> None:
    """A real terminal driver echoes, and does not; a masked entry is a count even so."""
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.type(b"cat\r")
        await typed(tenant, "<Enter>")  # from here on the terminal driver takes lines, and echoes them
        while (told := await told_of(tenant, console, *(bytes([key]) for key in b"uname\r"))) is None:
            pass
        assert told == "uname<Enter>"
        told = None
        while told is None:
            await console.wait(lambda: console.taken == console.typed, "all that was typed is taken")
            await alice.ask(Method.INPUT_MASK, session=console.opened.session, count=6, **{"from": console.typed + 3})
            told = await told_of(tenant, console, b"pw=secret;x\r")
        assert told == "pw=[6];x<Enter>"


async def test_a_password_that_is_read_without_echo_is_never_told(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        console = await alice.console(vm.resource_id)
        await console.type(b"printf 'sec''ret? '; read -s word; echo; echo \"got ${#word}\"\r")
        await console.shows(b"secret? ")
        await typed(tenant, "<Enter>")
        for key in b"Sw0rdf1sh":
            await console.type(bytes([key]))
        await console.type(b"\r")
        await console.shows(b"got 9\r\n")
        assert await typed(tenant, "<Enter>") == "[9]<Enter>"
        after = len(console.data)
        await console.type(b"read -s word; echo; echo go''t ${#word}\rSw0rdf1sh\r")  # and as one piece
        await console.shows(b"got 9\r\n", after=after)
        told = await typed(tenant, "<Enter>")
        told += await typed(tenant, "<Enter>") if told.count("<Enter>") < 2 else ""
        assert "Sw0rd" not in told


# -- pause and stop ----------------------------------------------------------------------------------------------------


async def test_pause_holds_keys_on_serial_and_screen_also_over_a_kill(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    node = watched.cloud.nodes[NODE]
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        assert await tenant.ask(WatchMethod.INPUT_PAUSE) == {"paused": True, "heard": True}  # it would move along
        await console.type(b"Q\n")
        await console.wait(lambda: any(mark is Mark.HELD for mark, _ in console.marks), "word that it is held")
        assert count_in(vm, b"Q", after) == 0
        with pytest.raises(Refused) as caught:
            await alice.ask(Method.KEYS_SEND, session=console.opened.session, chord=[29, 56, 111])
        assert caught.value.refusal is Refusal.PAUSED
    node.program.kill()
    node.start()  # in this thread: it dies with the one that started it
    async with signed_in(watched.cloud) as alice:
        console = await opened_again(alice, vm)
        screen = await shown(await alice.console(vm.resource_id, "graphics"))
        await alice.ask(Method.KEYBOARD_TAKE, session=console.opened.session)
        await console.type(b"Q\n")
        await console.wait(lambda: any(mark is Mark.HELD for mark, _ in console.marks), "word that it is held")
        assert count_in(vm, b"Q", after) == 0
        async with watching(watched, vm) as tenant:
            await tenant.told("watch.state", paused=True)
            await tenant.ask(WatchMethod.INPUT_RESUME)
            await until(lambda: count_in(vm, b"Q", after) == 1, "what was held, echoed by the guest")
            await alice.ask(Method.KEYBOARD_TAKE, session=screen.opened.session)
            await tenant.ask(WatchMethod.INPUT_PAUSE)
            await screen.type(pressed("\n"))  # which leaves nothing on the line of the guest's screen
            await until(lambda: any(n.event is Event.HELD and n.params["why"] == "tenant" for n in alice.notices), "word of it")
            await tenant.ask(WatchMethod.INPUT_RESUME)
            await until(lambda: [n.params["held"] for n in alice.notices if n.event is Event.HELD][-1] == 0, "word that it went")

    def steps() -> list[Audited]:
        return [r.event for r in audit_of(node).records if r.event in (Audited.INPUT_PAUSED, Audited.INPUT_RESUMED)]

    await until(lambda: steps()[-4:] == [Audited.INPUT_PAUSED, Audited.INPUT_RESUMED] * 2, "each of them in the audit")


async def test_no_word_waits_for_a_libvirtd_that_hangs(watched: WatchedCloud, vm: Guest) -> None:
    """Neither the giver's, while their consoles open, nor the operator's."""
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        vm.host.freeze()
        try:
            opening = asyncio.ensure_future(alice.open(vm.resource_id, "graphics"))
            await tenant.begin(WatchMethod.WATCH_OPEN, kind="graphics")
            asked = time.monotonic()
            await alice.ask(Method.KEYBOARD_TAKE, session=console.opened.session)
            await tenant.ask(WatchMethod.INPUT_PAUSE)
            await tenant.ask(WatchMethod.INPUT_RESUME)
            assert (await tenant.ask(WatchMethod.CONSENT_STOP))["sessions"] == 3
            assert await console.ended() == 4002
            assert console.ended_at is not None
            assert console.ended_at - asked < OPENS
            with pytest.raises(Refused):
                await opening
        finally:
            vm.host.thaw()


async def opened_again(alice: object, vm: Guest) -> Console:
    """A console, once the node that was started has a lease and knows the VM."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await alice.console(vm.resource_id)  # type: ignore[attr-defined,no-any-return]  # an Operator
        except Refused:
            assert time.monotonic() < deadline
            await asyncio.sleep(LOOK)


async def test_stop_cuts_operator_and_watcher_within_a_second(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm)
    async with watching(watched, vm) as tenant, signed_in(watched.cloud) as alice:
        seen = await tenant.look("serial")
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 20, "what is typed in the guest")
            asked = time.monotonic()
            answer = await tenant.ask(WatchMethod.CONSENT_STOP)
            assert (answer["consents"], answer["sessions"]) == (1, 2)
            assert answer["cut_us"] < PROMISE * 1e6
            assert (await tenant.told("watch.ended"))["reason"] == "consent-revoked"
            assert [await console.ended(), await seen.ended()] == [4002, 4002]
            assert console.ended_at is not None
            assert console.ended_at - asked < PROMISE + SLACK
            await assert_silence_after(watched.cloud.nodes[NODE], console, vm, asked, after)
        async with asyncio.timeout(PATIENCE):
            await tenant.websocket.wait_closed()
        with pytest.raises(Refused) as caught:
            await alice.open(vm.resource_id)
        assert caught.value.refusal is Refusal.NO_CONSENT
    # the provider has heard of it, and answers with a revocation of its own
    await until(lambda: watched.ask(vm, "vmAccess", "GET").json()["state"] != "Enabled", "the provider's word that it is over")


# -- only while I watch ------------------------------------------------------------------------------------------------


async def test_only_while_i_watch(watched: WatchedCloud, vm: Guest) -> None:
    await watched.consent(vm, onlyWhileWatched=True)
    async with signed_in(watched.cloud) as alice:
        with pytest.raises(Refused) as caught:
            await alice.open(vm.resource_id)
        assert caught.value.refusal is Refusal.NOT_WATCHED
        async with watching(watched, vm) as tenant:
            assert (await tenant.told("watch.state"))["watched"] is True
            console = await alice.console(vm.resource_id)
            await listening(console)
        # the tenant's page is gone before its node has noticed
        await until(
            lambda: any(one.event is Event.PAUSED and one.params["paused"] for one in alice.notices), "word that she left"
        )
        after = vm.serial.size()
        await console.type(b"Q\n")
        await console.wait(lambda: any(mark is Mark.HELD for mark, _ in console.marks), "word that it is held")
        assert count_in(vm, b"Q", after) == 0
        async with watching(watched, vm):
            await until(lambda: count_in(vm, b"Q", after) == 1, "what was held, echoed by the guest")


@pytest.mark.faults
async def test_a_minute_after_the_giver_has_left_it_is_over(watched: WatchedCloud, vm: Guest) -> None:
    """By the machine's own clock; tests/test_broker_watch_desk.py moves one."""
    await watched.consent(vm, onlyWhileWatched=True)
    async with signed_in(watched.cloud) as alice:
        async with watching(watched, vm):
            console = await alice.console(vm.resource_id)
            await listening(console)
        left = time.monotonic()
        assert await console.ended(WATCH_GRACE + PATIENCE) == 4002
        assert console.ended_at is not None
        assert WATCH_GRACE - PROMISE < console.ended_at - left < WATCH_GRACE + PROMISE + SLACK
    await until(lambda: watched.ask(vm, "vmAccess", "GET").json()["state"] != "Enabled", "the provider's word that it is over")
