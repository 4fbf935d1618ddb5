"""cmdlets/serial.py with real pipes, against a node over real TLS and a network that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from cmdlets import serial
from cmdlets.node import Credentials, Lost, Node, sign_in
from cmdlets.serial import Gone, KeyboardLost, SerialSession, Undelivered
from cmdlets.standing import Ended
from cmdlets.stream import LIMIT
from cmdlets.terminal import Pipes, Vacant
from eva.consent import Access
from eva.control import Event, Method, Refusal, Refused
from eva.ending import Ending
from eva.resource_id import ResourceId
from lab.certificates import Authority
from tests.scripted_node import ACCOUNT, PASSWORD, VM, BreakingRelay, PlayedSession, ScriptedNode, letters, server_tls


@pytest.fixture
async def node(certificates: Authority) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        yield node


@pytest.fixture
def tls(certificates: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca)


class Script:
    """The far ends of a command's pipes."""

    def __init__(self) -> None:
        self._stdin, self.keys = os.pipe()
        self.output, self._stdout = os.pipe()
        self.lines = io.StringIO()
        self.pipes = Pipes(self._stdin, self._stdout, self.lines)
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


@dataclass
class Run:
    script: Script
    task: asyncio.Task[Ended]


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
        script.close()


async def test_a_script_talks_and_leaves(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls) as run:
        await run.script.write(b"uname -a\n")
        ended = await run.task
    assert ended.ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == b"uname -a\n"
    assert node.methods() == [Method.SIGN_IN, Method.SESSION_OPEN, Method.SESSION_LEAVE]


async def test_a_script_waits_for_the_vm_to_be_silent(node: ScriptedNode, tls: ssl.SSLContext):
    async with running(node.port, tls, linger_s=0.5) as run:
        await run.script.write(b"x")
        session = await node.session()
        for _ in range(5):
            await asyncio.sleep(0.2)  # a VM that speaks now and then, more often than the silence is long
            await session.say(b"y")
        assert (await run.task).ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == b"xyyyyy"


@pytest.mark.parametrize("seed", range(6))
async def test_broken_connections_lose_and_double_nothing(
    seed: int, certificates: Authority, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    chance = random.Random(seed)
    monkeypatch.setattr(serial, "PAUSES", (0.01,))
    monkeypatch.setattr(serial, "LAST_NOTICE", 0.01)
    typed, said = letters(chance, 200_000), letters(chance, 400_000)
    breaks = 30

    def budget() -> int | None:
        return chance.randint(1, 60_000) if relay.broken < breaks else None

    def prepare(session: PlayedSession) -> None:
        session.output += said
        session.rewind = chance.choice((0, 0, 3, 5000))
        session.on_input = lambda _: b""

    async with ScriptedNode(chunk=lambda: chance.randint(1, 9000)).serving(server_tls(certificates)) as node:
        node.prepare = prepare
        relay = BreakingRelay(node.port, budget)
        async with relay.serving() as port:
            async with running(port, tls, linger_s=1.0) as run:
                while not node.sessions and run.task.done() is False:
                    await asyncio.sleep(0.01)
                    if run.task.done() and isinstance(run.task.exception(), Lost):
                        break
                await run.script.write(typed)
                ended = await run.task
        session = next(iter(node.sessions.values()))
    assert ended.ending is Ending.OPERATOR_LEFT
    assert bytes(run.script.got) == said
    assert bytes(session.input) == typed
    assert session.attachments > 3
