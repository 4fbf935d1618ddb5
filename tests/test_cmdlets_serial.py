"""cmdlets/serial.py with real pipes, against a node over real TLS and a network that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from cmdlets import serial
from cmdlets.node import Credentials, Node, Unreachable, sign_in
from cmdlets.serial import Gone, KeyboardLost, SerialSession, Undelivered
from cmdlets.standing import Ended
from cmdlets.stream import LIMIT
from cmdlets.terminal import Pipes, Vacant
from eva.consent import Access
from eva.control import Mark, Method, Refusal, Refused
from eva.ending import Ending
from eva.resource_id import ResourceId
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.scripted_node import ACCOUNT, PASSWORD, VM, BreakingRelay, PlayedSession, ScriptedNode, letters, server_tls


@pytest.fixture
async def node(certificates: Authority) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        yield node


@pytest.fixture
def tls(certificates: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca)


class Clock:
    """What a session takes for the time since boot: it stands still until a test moves it, whatever the machine does."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(serial, "boot_s", clock)
    return clock


class Script:
    """The far ends of a command's pipes."""

    def __init__(self) -> None:
        self._stdin, self.keys = os.pipe()
        self.output, self._stdout = os.pipe()
        self.lines: list[str] = []
        self.pipes = Pipes(self._stdin, self._stdout, self.lines.append)
        self.got = bytearray()
        self._open = {self._stdin, self.keys, self.output, self._stdout}

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self._open):
            if end in self._open:
                self._open.remove(end)
                os.close(end)

    async def write(self, data: bytes, *, end: bool = True) -> None:
        await asyncio.to_thread(self._write, data)
        if end:
            self.close(self.keys)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.keys, data) :]

    def read(self) -> None:
        """Takes what is there; meant for add_reader."""
        self.got += os.read(self.output, 65536)

    def drain(self) -> None:
        self.close(self._stdout)
        while more := os.read(self.output, 65536):
            self.got += more


@dataclass
class Run:
    script: Script
    task: asyncio.Task[Ended]

    async def fails(self, kind: type[Exception]) -> Exception:
        with pytest.raises(kind) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await self.task
        return caught.value

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until it holds, or the command has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition() and not self.task.done():
                await asyncio.sleep(0.005)

    async def hears(self, count: int) -> None:
        await self.until(lambda: len(self.script.got) >= count)

    async def leaves(self, clock: Clock) -> Ended:
        """Lets time pass until the command has had enough of the silence."""
        while not self.task.done():
            clock.now_s += 0.25
            await asyncio.wait([self.task], timeout=0.05)
        return self.task.result()


@contextlib.asynccontextmanager
async def running(
    port: int, tls: ssl.SSLContext, *, linger_s: float = 0.2, access: Access | None = None, reading: bool = True
) -> AsyncIterator[Run]:
    where = Node("AzS-ERCS01", f"wss://localhost:{port}", tls, Credentials(ACCOUNT, PASSWORD))
    script = Script()
    session = SerialSession(lambda: sign_in(where), script.pipes, ResourceId.parse(VM), access, linger_s)
    task = asyncio.create_task(session.run())
    loop = asyncio.get_running_loop()
    if reading:
        loop.add_reader(script.output, script.read)
    try:
        yield Run(script, task)
    finally:
        loop.remove_reader(script.output)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await script.pipes.last_words()
        if reading:
            script.drain()
        script.close()


async def test_a_script_talks_and_leaves(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        await run.script.write(b"uname -a\n")
        ended = await run.task
    assert ended.ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == b"uname -a\n"
    assert node.methods() == [Method.SIGN_IN, Method.SESSION_OPEN, Method.SESSION_LEAVE]


async def test_a_script_waits_for_the_vm_to_be_silent(node: ScriptedNode, tls: ssl.SSLContext, clock: Clock):
    async with running(node.port, tls, linger_s=0.1) as run:
        await run.script.write(b"x")
        session = await node.session()
        for heard in range(1, 6):
            await run.hears(heard)
            clock.now_s += 0.09  # a VM that speaks now and then, more often than the silence is long
            await session.say(b"y")
        await run.hears(6)
        assert (await run.leaves(clock)).ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == b"xyyyyy"


async def test_a_script_waits_longer_for_the_first_answer(node: ScriptedNode, tls: ssl.SSLContext):
    node.prepare = lambda session: setattr(session, "on_input", lambda _: b"")
    async with running(node.port, tls, linger_s=0.1) as run:
        await run.script.write(b"x")
        session = await node.session()
        await asyncio.sleep(1.0)  # a VM that is ten times slower than the silence is long
        await session.say(b"y")
        assert (await run.task).ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == b"y"


@pytest.mark.parametrize("seed", range(6))
async def test_broken_connections_lose_and_double_nothing(
    seed: int, certificates: Authority, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    chance = random.Random(seed)
    monkeypatch.setattr(serial, "PAUSES", (0.01,))
    monkeypatch.setattr(serial, "LAST_NOTICE", 0.01)
    monkeypatch.setattr(serial, "STUCK", 2.0)  # for a VM that has said all before it is asked anything
    typed, said = letters(chance, 200_000), letters(chance, 400_000)
    breaks = 30

    budgets = itertools.chain((None, 20_000), (chance.randint(1, 60_000) for _ in range(breaks)), itertools.repeat(None))

    def prepare(session: PlayedSession) -> None:
        session.output += said
        session.rewind = chance.choice((0, 0, 3, 5000))
        session.on_input = lambda _: b""

    async with ScriptedNode(chunk=lambda: chance.randint(1, 9000)).serving(server_tls(certificates)) as node:
        node.prepare = prepare
        async with BreakingRelay(node.port, budgets.__next__).serving() as port, running(port, tls) as run:
            await run.script.write(typed)
            await run.hears(len(said))
            session = next(iter(node.sessions.values()))
            await run.until(lambda: len(session.input) >= len(typed))
            ended = await run.leaves(clock)
    assert ended.ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == said
    assert bytes(session.input) == typed
    assert session.attachments > 5


async def test_a_drop_while_nobody_reads_loses_and_doubles_nothing(
    node: ScriptedNode, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    monkeypatch.setattr(serial, "PAUSES", (0.01,))
    monkeypatch.setattr(serial, "LAST_NOTICE", 0.01)
    said = letters(random.Random(1), 1_000_000)
    async with running(node.port, tls, reading=False) as run:
        for attachments in range(1, 6):
            session = await node.session(attachments)
            await session.say(said[(attachments - 1) * 200_000 : attachments * 200_000])
            # the pipe holds 64 KiB, so the output of this attachment stands half written when it breaks
            await asyncio.sleep(0.1)
            if attachments < 5:
                session.drop()
        asyncio.get_running_loop().add_reader(run.script.output, run.script.read)
        run.script.close(run.script.keys)
        await run.hears(len(said))
        await run.leaves(clock)
    assert bytes(run.script.got) == said


async def test_a_stopped_reader_stops_the_node(node: ScriptedNode, tls: ssl.SSLContext):
    said = bytes(64_000_000)
    async with running(node.port, tls, reading=False) as run:
        session = await node.session()
        node.chunk = lambda: 65536
        await session.say(said)
        before = -1
        while before != (before := session.spoken):
            await asyncio.sleep(0.3)  # until it gets no further
        assert session.spoken < 16_000_000
        assert not run.task.done()


async def test_a_node_that_takes_nothing_stops_the_script(node: ScriptedNode, tls: ssl.SSLContext):
    typed = letters(random.Random(2), 1_000_000)
    node.prepare = lambda session: setattr(session, "taking", False)
    async with running(node.port, tls) as run:
        session = await node.session()
        writing = asyncio.create_task(run.script.write(typed))
        await asyncio.wait([writing], timeout=1.0)
        assert not writing.done()
        session.taking = True
        await session.wake()
        await writing
        assert (await run.task).ending is Ending.OPERATOR_LEFT
    assert bytes(session.input) == typed


async def test_input_is_kept_within_its_bound(node: ScriptedNode, tls: ssl.SSLContext):
    node.prepare = lambda session: setattr(session, "taking", False)
    async with running(node.port, tls) as run:
        await node.session()
        os.set_blocking(run.script.keys, False)
        went = idle = 0
        while went < LIMIT or idle < 10:
            idle += 1
            with contextlib.suppress(BlockingIOError):
                while True:
                    went += os.write(run.script.keys, bytes(4096))
                    idle = 0
            await asyncio.sleep(0.05)
        assert LIMIT <= went <= LIMIT + 65536 + 8192  # ours, the pipe's, one read
        assert not run.task.done()


@pytest.mark.parametrize(("notice", "code"), [(True, True), (True, False), (False, True)])
async def test_a_cut_is_known_by_either_connection(node: ScriptedNode, tls: ssl.SSLContext, notice: bool, code: bool):
    async with running(node.port, tls) as run:
        session = await node.session()
        await session.say(b"last words")
        await session.end(Ending.CONSENT_REVOKED, notice=notice, code=code)
        ended = await run.task
    assert ended.ending is Ending.CONSENT_REVOKED
    assert bytes(run.script.got) == b"last words"
    assert Method.SESSION_LEAVE not in node.methods()


async def test_a_control_connection_that_goes_first_does_not_hide_the_reason(
    node: ScriptedNode, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serial, "LAST_NOTICE", PATIENCE_S)
    async with running(node.port, tls) as run:
        session = await node.session()
        assert session.control is not None
        session.control.transport.abort()
        await asyncio.sleep(0.1)
        await session.end(Ending.NODE_STOPPING, notice=False)
        assert (await run.task).ending is Ending.NODE_STOPPING


async def test_a_script_without_the_keyboard_ends(node: ScriptedNode, tls: ssl.SSLContext):
    node.prepare = lambda session: setattr(session, "keyboard", False)
    async with running(node.port, tls) as run:
        await run.fails(KeyboardLost)
    assert node.methods()[-1] is Method.SESSION_LEAVE


async def test_a_script_whose_keyboard_is_taken_ends(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        await session.viewers(session.id)
        await session.viewers("of-naomi", "naomi")
        await run.fails(KeyboardLost)


async def test_a_script_that_only_looks_needs_no_keyboard_and_no_input(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls, access=Access.VIEW) as run:
        run.script.close(run.script.keys)
        session = await node.session()
        await session.say(b"seen")
        await session.end(Ending.CONSENT_EXPIRED)
        assert (await run.task).ending is Ending.CONSENT_EXPIRED
    assert bytes(run.script.got) == b"seen"
    assert node.asked[1].params["access"] == "view"


async def test_input_that_the_vm_does_not_take_is_an_error(
    node: ScriptedNode, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serial, "STUCK", 0.3)
    node.prepare = lambda session: setattr(session, "taking", False)
    async with running(node.port, tls) as run:
        await run.script.write(b"12345")
        error = await run.fails(Undelivered)
    assert isinstance(error, Undelivered)
    assert error.count == 5


async def test_held_input_is_told_and_a_query_is_not(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        await session.mark(Mark.HELD, held=120, why="no-echo")
        await session.mark(Mark.QUERY, query="dsr6")
        await session.say(b"out")
        await session.end(Ending.VM_STOPPED)
        await run.task
    assert "120 bytes of your input wait" in "\n".join(run.script.lines)
    assert bytes(run.script.got) == b"out"  # a query is no output, and there is nobody to answer


async def test_a_refusal_is_raised(node: ScriptedNode, tls: ssl.SSLContext):
    node.refusals[Method.SESSION_OPEN] = Refusal.NO_CONSENT
    async with running(node.port, tls) as run:
        error = await run.fails(Refused)
    assert isinstance(error, Refused)
    assert error.refusal is Refusal.NO_CONSENT


async def test_no_node_is_unreachable_at_once(tls: ssl.SSLContext):
    async with running(1, tls) as run:
        error = await run.fails(Unreachable)
    # of a name with two addresses asyncio tells each one's error, by number
    assert any(word in str(error) for word in ("Connection refused", f"Errno {errno.ECONNREFUSED}"))


async def test_a_session_that_is_no_more_is_gone(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        session.ended = True
        session.drop()
        error = await run.fails(Gone)
    assert "There is no such session" in str(error)


async def test_one_cut_while_the_connection_was_away_says_why(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        session.ended, session.ended_away = True, Ending.CONSENT_REVOKED
        session.drop()
        assert (await run.task).ending is Ending.CONSENT_REVOKED


async def test_the_grace_has_an_end(node: ScriptedNode, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serial, "GRACE", 0.3)
    async with running(node.port, tls) as run:
        session = await node.session()
        node.refusals[Method.SIGN_IN] = Refusal.STOPPING
        session.drop()
        await run.fails(Gone)


async def test_a_passing_refusal_is_tried_again(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        node.refusals[Method.SESSION_RESUME] = Refusal.LEASE_STALE
        session.drop()
        while Method.SESSION_RESUME not in node.methods():
            await asyncio.sleep(0.01)
        node.refusals.clear()
        await node.session(2)
        await run.script.write(b"x")
        assert (await run.task).ending is Ending.OPERATOR_LEFT


async def test_lost_output_is_told(node: ScriptedNode, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch):
    async with running(node.port, tls) as run:
        session = await node.session()
        session.output += b"x" * 20
        session.rewind = -7
        session.drop()
        session = await node.session(2)
        await session.end(Ending.VM_STOPPED)
        await run.task
    assert "7 bytes of output are lost" in "\n".join(run.script.lines)


async def test_one_lost_connection_of_the_two_is_made_again(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        session = await node.session()
        assert session.control is not None
        session.control.transport.abort()
        session = await node.session(2)
        await run.script.write(b"x")
        assert (await run.task).ending is Ending.OPERATOR_LEFT
    assert bytes(session.input) == b"x"


async def test_a_cancelled_command_leaves_the_session(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        await node.session()
        run.task.cancel()
        await asyncio.wait([run.task])
    assert node.methods()[-1] is Method.SESSION_LEAVE


async def test_a_reader_that_is_gone_leaves_the_session(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls, reading=False) as run:
        session = await node.session()
        run.script.close(run.script.output)
        await session.say(b"x")
        await run.fails(Vacant)
    assert node.methods()[-1] is Method.SESSION_LEAVE


async def test_a_wrong_password_is_told_and_not_repeated(node: ScriptedNode, tls: ssl.SSLContext):
    where = Node("AzS-ERCS01", f"wss://localhost:{node.port}", tls, Credentials(ACCOUNT, "wrong-secret"))
    with pytest.raises(Refused) as caught:
        async with sign_in(where):
            pass
    assert caught.value.refusal is Refusal.WRONG_CREDENTIALS
    assert "wrong-secret" not in repr(caught.value) + repr(where)
    assert len(node.asked) == 1
