"""cmdlets/terminal.py and the ConnectTo-TenantVm command at a real pseudo-terminal, against a node over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import sys
import termios
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cmdlets.node import OPEN_TIMEOUT
from eva.control import CTRL_ALT_DEL, Event, Mark, Method, Refusal
from eva.ending import Ending
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.scripted_node import ACCOUNT, PASSWORD, VM, PlayedSession, ScriptedNode, server_tls

LAST = b"\0last\0"  # what no command writes
COMMAND = "from cmdlets.connect import main; main()"


@pytest.fixture
async def node(certificates: Authority) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        yield node


class Desk:
    """A command with a pseudo-terminal as its controlling terminal and its three streams."""

    def __init__(self, arguments: list[str], environment: dict[str, str], program: str) -> None:
        self.master, self.terminal = pty.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.seen = bytearray()
        self.command_line = [sys.executable, "-c", program, *arguments]
        self.environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environment}
        self._more = asyncio.Event()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.command_line,
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=self.environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.set_blocking(self.master, False)
        self.read_on()

    def read_on(self) -> None:
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.seen += os.read(self.master, 65536)
        self._more.set()

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    async def see(self, text: bytes) -> None:
        """Waits until `text` was written, and forgets what came up to its end."""
        await self._shown(text)
        del self.seen[: self.seen.index(text) + len(text)]

    async def exit(self) -> int:
        """Waits for the command's end and all that it wrote, which a pseudo-terminal passes on in its own time."""
        async with asyncio.timeout(PATIENCE_S):
            status = await self.process.wait()
        await asyncio.to_thread(os.write, self.terminal, LAST)
        await self._shown(LAST)
        del self.seen[self.seen.index(LAST) :]
        return status

    async def _shown(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.seen:
                self._more.clear()
                await self._more.wait()

    def raw(self) -> bool:
        return not termios.tcgetattr(self.terminal)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def restored(self) -> bool:
        return termios.tcgetattr(self.terminal) == self.before


@contextlib.asynccontextmanager
async def desk(
    node: ScriptedNode,
    certificates: Authority,
    tmp_path: Path,
    *arguments: str,
    password_file: bool = True,
    program: str = COMMAND,
    **options: str,
) -> AsyncIterator[Desk]:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    given = ["-ResourceID", VM, "--ercs", f"wss://localhost:{node.port}", "--ca", str(certificates.ca), *arguments]
    if "--certificate" not in arguments:
        given += ["--account", ACCOUNT]
    environment = {"HOME": str(tmp_path), **({"EVA_PASSWORD_FILE": str(secret)} if password_file else {}), **options}
    found = Desk(given, environment, program)
    await found.start()
    try:
        yield found
    finally:
        found.stop_reading()
        if found.process.returncode is None:
            found.process.kill()
            await found.process.wait()
        os.close(found.master)
        os.close(found.terminal)


@pytest.fixture
async def at_desk(node: ScriptedNode, certificates: Authority, tmp_path: Path) -> AsyncIterator[tuple[Desk, PlayedSession]]:
    async with desk(node, certificates, tmp_path) as found:
        session = await node.session()
        await found.see(b"~. leaves")
        await session.say(b"login: ")
        await found.see(b"login: ")
        assert found.raw()
        yield found, session


async def test_keys_go_to_the_guest_as_they_are(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    found.type(b"root\r\x03\x1a\x04\x1b[A")
    await session.until(lambda: bytes(session.input) == b"root\r\x03\x1a\x04\x1b[A")


async def test_leaving_restores_the_terminal(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode):
    found, _ = at_desk
    found.type(b"\r~.")
    assert await found.exit() == 0
    assert found.restored()
    await node.left()
    assert b"You left the console." in found.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
async def test_a_signal_restores_the_terminal(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode, number: signal.Signals):
    found, session = at_desk
    await session.say(b"\x1b[?1049h\x1b[31m\x1b[?25l")
    await found.see(b"\x1b[?25l")
    found.process.send_signal(number)
    assert await found.exit() == 128 + number
    assert found.restored()
    assert b"\x1b[?1049l\x1b[0m" in found.seen
    assert b"\x1b[?25h" in found.seen
    await node.left()


@pytest.mark.parametrize("ending", [Ending.CONSENT_REVOKED, Ending.CONSENT_EXPIRED, Ending.LEASE_LOST, Ending.TAKEN_OVER])
async def test_a_cut_restores_the_terminal_and_tells_why(at_desk: tuple[Desk, PlayedSession], ending: Ending):
    found, session = at_desk
    await session.end(ending)
    assert await found.exit() == 4
    assert found.restored()
    assert ending.text.encode() in found.seen
    assert ending.word.encode() in found.seen


async def test_a_node_that_breaks_the_language_restores_the_terminal(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    assert session.attached is not None
    await session.attached.send('{"notice":"taken","taken":99}')
    assert await found.exit() == 3
    assert found.restored()
    assert b"speaks another language" in found.seen
    assert b"Traceback" not in found.seen


async def test_a_fault_in_the_program_restores_the_terminal(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    crash = f"import cmdlets.serial as s; s.Inbound.feed = lambda *_: 1 / 0; {COMMAND}"
    async with desk(node, certificates, tmp_path, program=crash) as found:
        await found.see(b"~. leaves")
        session = await node.session()
        assert found.raw()
        await session.say(b"x")
        assert await found.exit() == 70
        assert found.restored()
        assert b"ZeroDivisionError" in found.seen
        assert PASSWORD.encode() not in found.seen


async def test_a_terminal_that_nobody_reads_is_left_all_the_same(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    found.stop_reading()
    await session.say(bytes(b"a" * 1_000_000))
    await session.until(lambda: session.spoken > 30_000)
    found.process.send_signal(signal.SIGTERM)
    assert await found.process.wait() == 128 + signal.SIGTERM
    assert found.restored()


async def test_a_terminal_that_hangs_up_leaves_the_session(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode):
    found, session = at_desk
    found.stop_reading()
    os.close(found.master)
    found.master = os.open(os.devnull, os.O_RDWR)
    async with asyncio.timeout(PATIENCE_S):
        assert await found.process.wait() in (0, 128 + signal.SIGHUP)  # the end of input and the signal race
    await session.until(lambda: session.ended)


async def test_what_was_typed_and_not_taken_does_not_reach_the_shell(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    session.taking = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):  # until the command reads no more and the terminal is full
            while True:
                with contextlib.suppress(BlockingIOError):
                    found.type(b"rm -rf x\n" * 100)
                await asyncio.sleep(0.01)
    await session.end(Ending.CONSENT_REVOKED)
    assert await found.exit() == 4
    os.set_blocking(found.terminal, False)
    with pytest.raises(BlockingIOError):
        os.read(found.terminal, 100)


async def test_a_shells_mode_after_a_stop_is_replaced(at_desk: tuple[Desk, PlayedSession]):
    found, _ = at_desk
    termios.tcsetattr(found.terminal, termios.TCSANOW, found.before)
    found.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE_S):
        while not found.raw():
            await asyncio.sleep(0.01)
    found.type(b"\r~.")
    await found.exit()
    assert found.restored()


@pytest.mark.parametrize(
    ("keys", "method", "line"),
    [
        (b"~d", Method.KEYS_SEND, b"Ctrl+Alt+Del sent."),
        (b"~k", Method.KEYBOARD_TAKE, b"the keyboard is yours."),
        (b"~s", Method.INPUT_RELEASE, b"the held input may go now."),
    ],
)
async def test_escape_keys_ask_the_node(
    at_desk: tuple[Desk, PlayedSession], node: ScriptedNode, keys: bytes, method: Method, line: bytes
):
    found, session = at_desk
    found.type(b"\r" + keys)
    await found.see(line)
    assert node.asked[-1].method is method
    assert node.asked[-1].params["session"] == session.id
    assert node.asked[-1].params.get("chord") == (list(CTRL_ALT_DEL) if method is Method.KEYS_SEND else None)
    found.type(b"x")
    await session.until(lambda: bytes(session.input) == b"\rx")


async def test_a_refused_key_is_told_and_nothing_ends(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode):
    found, session = at_desk
    node.refusals[Method.KEYS_SEND] = Refusal.NO_KEYBOARD
    found.type(b"\r~d")
    await found.see(b"You do not hold the keyboard")
    await session.say(b"still here")
    await found.see(b"still here")


async def test_help_and_status_stay_here(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    found.type(b"\r~?")
    await found.see(b"~~  send a tilde")
    found.type(b"~i")
    await found.see(b"web-01 at AzS-ERCS01: 7 h 59 min left")
    found.type(b"x")
    await session.until(lambda: bytes(session.input) == b"\rx")


async def test_the_count_down_is_told_on_a_line_of_its_own(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    for seconds, text in ((900, b"15 minutes"), (300, b"5 minutes"), (60, b"60 seconds")):
        await session.notify(Event.COUNTDOWN, remaining_s=seconds)
        await found.see(b"\r\neva: " + text + b" until the consent runs out and the console closes.\r\n")


async def test_our_lines_do_not_tear_the_guests_sequences(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode):
    found, session = at_desk
    await session.say(b"red\x1b[3")
    await found.see(b"red")
    await session.mark(Mark.HELD, held=9, why="no-echo")
    await found.see(b"~s sends it anyway.\r\n")
    await session.say(b"1m!")
    await found.see(b"\x1b[31m!")


async def test_a_query_is_asked_of_the_terminal_and_its_answer_typed(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    await session.say(b"~ # ")
    await found.see(b"~ # ")
    await session.mark(Mark.QUERY, query="dsr6")
    await found.see(b"\x1b[6n")
    found.type(b"\x1b[24;5R")
    await session.until(lambda: bytes(session.input) == b"\x1b[24;5R")


async def test_a_query_that_is_none_ends_the_connection(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    await session.mark(Mark.QUERY, query="dsr99")
    assert await found.exit() == 3


async def test_the_title_is_ours_and_is_taken_back(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    await session.viewers(session.id, "naomi")
    await found.see(b"\x1b]2;web-01 at AzS-ERCS01: 7 h 59 min left, 2 viewers, the keyboard is yours\x07")
    found.type(b"\r~.")
    await found.exit()
    assert b"\x1b[23;2t" in found.seen


async def test_a_terminal_without_a_title_gets_none(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    async with desk(node, certificates, tmp_path, TERM="linux") as found:
        await found.see(b"~. leaves")
        found.type(b"\r~.")
        await found.exit()
        assert b"\x1b" not in found.seen


async def test_without_the_keyboard_nothing_is_sent_until_it_is_taken(at_desk: tuple[Desk, PlayedSession]):
    found, session = at_desk
    await session.viewers(session.id)
    await session.viewers("of-naomi", "naomi")
    await found.see(b"Now naomi has the keyboard")
    found.type(b"ls\r")
    await found.see(b"the keyboard is not yours: ~k takes it.")
    found.type(b"~k")
    await found.see(b"the keyboard is yours.")
    found.type(b"pwd")
    await session.until(lambda: bytes(session.input) == b"pwd")


async def test_a_view_says_so_and_sends_nothing(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    async with desk(node, certificates, tmp_path, "-View") as found:
        session = await node.session()
        await found.see(b"view only")
        found.type(b"x")
        await found.see(b"this session is for viewing only.")
        assert bytes(session.input) == b""


async def test_a_dropped_connection_is_made_again(at_desk: tuple[Desk, PlayedSession], node: ScriptedNode):
    found, session = at_desk
    session.drop()
    await found.see(b"connecting again ...")
    found.type(b"ab")
    await found.see(b"connected again.")
    session = await node.session(2)
    await session.until(lambda: bytes(session.input) == b"ab")
    assert found.raw()


async def test_what_was_typed_while_disconnected_is_dropped_if_the_keyboard_went(
    at_desk: tuple[Desk, PlayedSession], node: ScriptedNode
):
    found, session = at_desk
    node.refusals[Method.SESSION_RESUME] = Refusal.LEASE_STALE
    session.drop()
    await found.see(b"connecting again ...")
    found.type(b"ab\r~i")
    await found.see(b"7 h 59 min left")
    session.keyboard = False
    node.refusals.clear()
    await found.see(b"3 bytes of your input were not sent.")
    assert bytes(session.input) == b""


async def test_a_password_is_asked_for_without_echo(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    async with desk(node, certificates, tmp_path, password_file=False) as found:
        await found.see(b"Password of ruth at localhost: ")
        found.type(PASSWORD.encode() + b"\r")
        await found.see(b"~. leaves")
        pid = found.process.pid
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        found.type(b"~.")
        assert await found.exit() == 0
        assert PASSWORD.encode() not in found.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_at_the_password_restores_the_echo(
    node: ScriptedNode, certificates: Authority, tmp_path: Path, number: signal.Signals
):
    async with desk(node, certificates, tmp_path, password_file=False) as found:
        await found.see(b"Password of ruth")
        found.process.send_signal(number)
        assert await found.exit() == 128 + number
        assert found.restored()
        assert b"Traceback" not in found.seen


async def test_control_c_ends_a_node_that_does_not_answer(certificates: Authority, tmp_path: Path):
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    node = ScriptedNode()
    node.port = silent.sockets[0].getsockname()[1]
    async with silent, desk(node, certificates, tmp_path) as found:
        async with asyncio.timeout(PATIENCE_S):
            while not found.raw():
                await asyncio.sleep(0.01)
        started = time.monotonic()
        found.type(b"\x03")
        assert await found.exit() in (0, 130)
        assert time.monotonic() - started < OPEN_TIMEOUT
        assert found.restored()


async def test_a_client_certificate_signs_in_without_a_password(node: ScriptedNode, certificates: Authority, tmp_path: Path):
    pair = certificates.client("ruth")
    given = ("--certificate", str(pair.certificate), "--key", str(pair.key))
    async with desk(node, certificates, tmp_path, *given, password_file=False) as found:
        await found.see(b"~. leaves")
        assert node.certificates_seen == ["ruth"]
        assert dict(node.asked[0].params) == {}
