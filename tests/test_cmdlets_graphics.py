"""cmdlets/graphics.py: a toy RFB server behind the node, a plain socket for the viewer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cmdlets.graphics import CannotListen, GraphicsSession, LoopbackPort, listening, owner_of
from cmdlets.node import Credentials, Lost, Node, sign_in
from cmdlets.standing import Ended
from eva.consent import Access
from eva.control import Event, Method
from eva.ending import Ending
from eva.resource_id import ResourceId
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.scripted_node import ACCOUNT, PASSWORD, VM, PlayedSession, ScriptedNode, server_tls

RFB = b"RFB 003.008\n"
LOOPBACK = LoopbackPort()


@pytest.fixture
async def node(certificates: Authority) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        node.prepare = lambda session: session.output.extend(RFB)
        yield node


@dataclass
class Run:
    task: asyncio.Task[Ended]
    lines: list[str]
    opened: list[str] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, command: str) -> None:
        self.opened.append(command)
        self.ready.set()

    @property
    def port(self) -> int:
        return int(self.opened[0].rpartition("::")[2])

    async def viewer(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert await asyncio.wait_for(reader.readexactly(len(RFB)), PATIENCE_S) == RFB
        return reader, writer


@contextlib.asynccontextmanager
async def running(
    node: ScriptedNode, authority: Authority, place: LoopbackPort | Path = LOOPBACK, access: Access | None = None
) -> AsyncIterator[tuple[Run, PlayedSession]]:
    tls = ssl.create_default_context(cafile=authority.ca)
    where = Node("AzS-ERCS01", f"wss://localhost:{node.port}", tls, Credentials(ACCOUNT, PASSWORD))

    async def work() -> Ended:
        async with sign_in(where) as (control, _):
            return await GraphicsSession(control, place, run.lines.append, run.take).run(ResourceId.parse(VM), access)

    task = asyncio.ensure_future(work())
    assert isinstance(task, asyncio.Task)
    run = Run(task, [])
    try:
        ready = asyncio.create_task(run.ready.wait())
        await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        yield run, await node.session()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_bytes_pass_both_ways_unchanged(node: ScriptedNode, certificates: Authority):
    pixels, keys = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(500_000)
    async with running(node, certificates) as (run, session):
        session.on_input = lambda _: b""
        node.chunk = lambda: 65536
        reader, writer = await run.viewer()
        await session.say(pixels)
        writer.write(keys)
        assert await asyncio.wait_for(reader.readexactly(len(pixels)), PATIENCE_S) == pixels
        await session.until(lambda: bytes(session.input) == keys)
        writer.close()
        assert (await run.task).ending is Ending.OPERATOR_LEFT
    assert node.methods()[-1] is Method.SESSION_LEAVE
    assert node.asked[1].params["kind"] == "graphics"


async def test_a_second_viewer_is_refused_while_the_first_is_there_and_after(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, _):
        _, writer = await run.viewer()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", run.port)
        writer.close()
        await run.task
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", run.port)


async def test_two_viewers_at_once_are_one(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, _):
        pairs = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", run.port) for _ in range(3)), return_exceptions=True)
        got = []
        for pair in pairs:
            if not isinstance(pair, BaseException):
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    got.append(await asyncio.wait_for(pair[0].readexactly(len(RFB)), PATIENCE_S))
        assert got == [RFB]


async def test_a_cut_closes_the_viewer(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, session):
        reader, writer = await run.viewer()
        await session.end(Ending.CONSENT_REVOKED)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert (await run.task).ending is Ending.CONSENT_REVOKED
        writer.close()


async def test_a_cut_is_seen_before_any_viewer_came(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, session):
        await session.end(Ending.CONSENT_EXPIRED, notice=False)
        assert (await run.task).ending is Ending.CONSENT_EXPIRED
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", run.port)


async def test_a_cut_reaches_a_viewer_that_does_not_read(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, session):
        node.chunk = lambda: 65536
        with socket.create_connection(("127.0.0.1", run.port)):
            await session.say(bytes(30_000_000))
            await session.until(lambda: session.spoken > 1_000_000)
            await session.notify(Event.ENDED, reason="consent-revoked", text="", at_ms=1_700_000_000_000)
            assert (await asyncio.wait_for(run.task, PATIENCE_S)).ending is Ending.CONSENT_REVOKED


async def test_a_viewer_that_does_not_read_stops_the_node(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, session):
        node.chunk = lambda: 65536
        viewer = socket.create_connection(("127.0.0.1", run.port))
        await session.say(bytes(64_000_000))
        before = -1
        while before != (before := session.spoken):
            await asyncio.sleep(0.3)  # until it gets no further
        assert session.spoken < 32_000_000
        viewer.close()


async def test_a_lost_node_is_an_error(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, session):
        _, writer = await run.viewer()
        session.drop()
        with pytest.raises(Lost):
            await run.task
        writer.close()


async def test_a_unix_socket_is_the_operators_own_and_goes_away(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    path = tmp_path / "vm.sock"
    async with running(node, certificates, path, Access.VIEW) as (run, _):
        assert run.opened == [f"vncviewer {path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.readexactly(len(RFB)) == RFB
        writer.close()
        await run.task
    assert not path.exists()
    assert node.asked[1].params["access"] == "view"


def test_a_path_that_exists_is_not_replaced(tmp_path: Path):
    path = tmp_path / "there"
    path.write_text("mine")
    with pytest.raises(CannotListen, match="in use"), listening(path):
        pass
    assert path.read_text() == "mine"


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to be")
async def test_another_users_connection_is_turned_away(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as (run, _):
        other = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{run.port} && echo connected && cat <&3"],
            user=65534,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert "connected" in other.stdout
        assert "RFB" not in other.stdout
        _, writer = await run.viewer()
        writer.close()
    assert any("another user" in line for line in run.lines)


async def test_the_command_prints_how_to_open_it_and_leaves_by_signal(
    node: ScriptedNode, certificates: Authority, tmp_path: Path
):
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    given = ["-resourceid", VM, "--ercs", f"wss://localhost:{node.port}", "--ca", str(certificates.ca), "-graphics"]
    given += ["--account", ACCOUNT, "--password-file", str(secret)]
    program = "from cmdlets.connect import main; main()"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *given, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode()
    assert line.startswith("vncviewer 127.0.0.1::")
    reader, _ = await asyncio.open_connection("127.0.0.1", int(line.rpartition("::")[2]))
    assert await reader.readexactly(len(RFB)) == RFB
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 128 + signal.SIGINT
    await node.left()


@pytest.mark.parametrize(
    ("text", "address", "port"), [("127.0.0.1:5901", "127.0.0.1", 5901), ("[::1]:0", "::1", 0), ("5901", "127.0.0.1", 5901)]
)
def test_a_place_to_listen(text: str, address: str, port: int):
    found = LoopbackPort.parse(text)
    assert (str(found.address), found.port) == (address, port)


@pytest.mark.parametrize("text", ["0.0.0.0:5901", "192.0.2.1:1", "[::]:1", "127.0.0.1:", "127.0.0.1:65536", "localhost:1", ""])
def test_a_place_that_is_not_this_host_alone_is_refused(text: str):
    with pytest.raises(ValueError, match=r"."):
        LoopbackPort.parse(text)


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 11 1
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12 1
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1001        0 13 1
   3: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is a little-endian host's")
@pytest.mark.parametrize(("port", "owner"), [(50000, 1000), (50001, None), (50002, None)])
def test_the_owner_of_a_connection(port: int, owner: int | None):
    assert owner_of(TABLE, ("127.0.0.1", port), ("127.0.0.1", 8080)) == owner
