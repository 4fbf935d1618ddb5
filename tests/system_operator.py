"""The system's tests' operator, who need not be polite: no cmdlet between him and the node.

async with signed_in(cloud) as alice:
    console = await alice.console(guest.resource_id)     a session of its own, attached and read all the time
    await console.type(b"uname\\n")
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from eva.control import (
    CONSOLE_PATH,
    CONSOLE_SUBPROTOCOLS,
    CONTROL_PATH,
    SUBPROTOCOL,
    TICKET_PREFIX,
    Failure,
    Mark,
    Method,
    Notice,
    Opened,
    Refusal,
    Refused,
    Request,
    decode_from_node,
    decode_mark,
)
from eva.members import Json, Members
from lab.cloud import OPERATOR, PASSWORD, Cloud
from lab.framebuffer import VERSION
from tests.rfb_bytes import key, request, set_encodings

NODE = "AzS-ERCS01"
AGAIN = 5.0  # seconds after which a command that shows no effect is typed once more
RETURN, SHIFT = 0xFF0D, 0xFFE1  # X11 keysyms
PATIENCE = 60.0  # seconds for what takes milliseconds on a machine that is not busy
LOOK = 0.02  # seconds between two looks at what cannot be awaited: /proc, a file
# Of a node that got no processor the lease is old until it has asked; libvirtd hears late of a worker's end.
PASSING = frozenset({Refusal.LEASE_STALE, Refusal.CONSOLE_BUSY})


def trusting(cloud: Cloud) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cloud.authority.ca))


class Console:
    """An attached console. `data`: all that came; `start`: the offset of its first byte; `code`: of its close.

    `typed`: bytes that were sent; `before`: of these, before what the test counts.
    """

    def __init__(self, websocket: ClientConnection, opened: Opened) -> None:
        self.websocket = websocket
        self.opened = opened
        self.data = bytearray()
        self.marks: list[tuple[Mark, Members]] = []
        self.start = 0
        self.taken = 0
        self.typed = 0
        self.before = 0
        self.code: int | None = None
        self.ended_at: float | None = None  # time.monotonic()
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def read(self) -> None:
        """Begin to read: until then the operator is stalled."""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self.websocket:
                if isinstance(message, bytes):
                    self.data += message
                else:
                    self._mark(*decode_mark(message))
                self._news.set()
        except ConnectionClosed:
            pass  # the code is taken below either way
        finally:
            self.code = self.websocket.close_code
            self.ended_at = time.monotonic()
            self._news.set()

    def _mark(self, mark: Mark, members: Members) -> None:
        self.marks.append((mark, members))
        if mark is Mark.ATTACHED:
            self.start = members.integer("offset")
        if mark in (Mark.ATTACHED, Mark.TAKEN):
            self.taken = members.integer("taken")

    async def type(self, data: bytes) -> None:
        """Send it as one frame. Raises ConnectionClosed."""
        self.typed += len(data)
        await self.websocket.send(data)

    async def wait(self, true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Returns once it holds, looked at whenever something has come."""
        try:
            async with asyncio.timeout(patience):
                while not true():
                    assert self.code is None or self.ended_at is None, f"closed with {self.code} before: {what}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not in {patience:g} s: {what}; the end of it: {bytes(self.data[-200:])!r}") from None

    async def shows(self, text: bytes, *, after: int = 0, patience: float = PATIENCE) -> int:
        """Wait until this has come, behind `after`; give the place behind it."""
        await self.wait(lambda: self.data.find(text, after) >= 0, f"{text!r} on the screen", patience)
        return self.data.find(text, after) + len(text)

    async def ask(self, command: str, *, patience: float = PATIENCE) -> bytes:
        """Run a command at the guest's shell and give what it printed."""
        after = len(self.data)
        name = os.urandom(4).hex()
        await self.type(f"printf 'be%s-%s\\n' gin {name}; {command}; printf 'e%s-%s\\n' nd {name}\n".encode())
        begin = await self.shows(f"begin-{name}\r\n".encode(), after=after, patience=patience)
        end = await self.shows(f"end-{name}\r\n".encode(), after=begin, patience=patience)
        return bytes(self.data[begin : end - len(f"end-{name}\r\n")]).replace(b"\r\n", b"\n")

    async def ended(self, patience: float = PATIENCE) -> int | None:
        """Wait for its end; give the close code."""
        assert self._reader is not None
        async with asyncio.timeout(patience):
            await asyncio.shield(self._reader)
        return self.code

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        self.websocket.transport.abort()
        await self.websocket.wait_closed()


class Operator:
    """A control connection that is signed in, from a workstation that is granted. `notices`: all that the node told."""

    def __init__(self, cloud: Cloud, port: int, websocket: ClientConnection) -> None:
        self.notices: list[Notice] = []
        self.port = port
        self._cloud = cloud
        self._websocket = websocket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Members]] = {}
        self._consoles: list[Console] = []
        self._reader = asyncio.create_task(self._read())

    @property
    def over(self) -> bool:
        return self._reader.done()

    async def _read(self) -> None:
        try:
            async for text in self._websocket:
                said = decode_from_node(str(text))
                if isinstance(said, Notice):
                    self.notices.append(said)
                    continue
                answer = self._answers.pop(said.id or 0)
                if isinstance(said, Failure):
                    answer.set_exception(Refused(said.refusal, node=said.node))
                else:
                    answer.set_result(Members(said.result))
        except ConnectionClosed:
            pass  # whoever waits is told below
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the control connection is over"))

    async def ask(self, method: Method, **params: Json) -> Members:
        """Raises Refused, ConnectionError, ConnectionClosed, TimeoutError."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._websocket.send(Request(self._number, method, params).encode())
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def open(self, resource_id: str | None, kind: str = "serial", access: str | None = None) -> Opened:
        """Asked again where it is refused for what passes by itself. Raises Refused."""
        extra: dict[str, Json] = {} if access is None else {"access": access}
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = await self.ask(Method.SESSION_OPEN, resource_id=str(resource_id), kind=kind, **extra)
            except Refused as error:
                if error.refusal not in PASSING or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK)
            else:
                return Opened.from_members(found)

    async def resume(self, opened: Opened, received: int) -> Opened:
        """Raises Refused."""
        return Opened.from_members(await self.ask(Method.SESSION_RESUME, session=opened.session, received=received))

    async def attach(self, opened: Opened, *, stalled: bool = False) -> Console:
        """The console of an open session; `stalled`: with a small receive buffer, and nothing read."""
        sock = socket.socket()
        if stalled:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        websocket = await connect(
            f"wss://localhost:{self.port}{CONSOLE_PATH}",
            ssl=trusting(self._cloud),
            sock=sock,
            subprotocols=[Subprotocol(CONSOLE_SUBPROTOCOLS[opened.kind]), Subprotocol(TICKET_PREFIX + opened.ticket)],
            compression=None,
            max_size=None,
            max_queue=4 if stalled else 1024,
            ping_interval=None,
            open_timeout=PATIENCE,
        )
        console = Console(websocket, opened)
        self._consoles.append(console)
        if not stalled:
            console.read()
        return console

    async def console(self, resource_id: str | None, kind: str = "serial", access: str | None = None) -> Console:
        """Open and attach."""
        return await self.attach(await self.open(resource_id, kind, access))

    async def close(self) -> None:
        for console in self._consoles:
            await console.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self._websocket.transport.abort()
        await self._websocket.wait_closed()


@contextlib.asynccontextmanager
async def signed_in(
    cloud: Cloud, account: str = OPERATOR, *, node: str = NODE, port: int | None = None, grant: bool = True
) -> AsyncIterator[Operator]:
    """An operator at this node, or at a port that leads to it."""
    port = cloud.nodes[node].port if port is None else port
    websocket = await connect(
        f"wss://localhost:{port}{CONTROL_PATH}",
        ssl=trusting(cloud),
        host="127.0.0.1",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        ping_interval=None,
        open_timeout=PATIENCE,
    )
    operator = Operator(cloud, port, websocket)
    try:
        await operator.ask(Method.SIGN_IN, account=account, password=PASSWORD)
        if grant:
            await operator.ask(Method.WORKSTATION_GRANT)
        yield operator
    finally:
        await operator.close()


async def until_refused(alice: Operator, resource_id: str | None, refusal: Refusal = Refusal.NO_CONSENT) -> None:
    """The node hears of it a moment later than we."""
    found = None
    deadline = time.monotonic() + PATIENCE
    while found is not refusal:
        assert time.monotonic() < deadline, f"it is {found or 'admitted'}"
        try:
            opened = await alice.open(resource_id, "graphics")
        except Refused as error:
            found = error.refusal
        else:
            with contextlib.suppress(Refused):  # cut meanwhile
                await alice.ask(Method.SESSION_LEAVE, session=opened.session)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def doing(work: Awaitable[None]) -> AsyncIterator[None]:
    """Something that goes on beside the test, until its connection or the block is over."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            await task


async def typing(console: Console, line: bytes, every: float = 0.02) -> None:
    """Type this again and again, whatever happens, until the connection is over."""
    while True:
        await console.type(line)
        await asyncio.sleep(every)


# --- the screen


async def shown(console: Console) -> Console:
    """Come as a VNC client that wants the whole screen to itself; returns with the first picture."""
    await console.shows(VERSION)
    await console.type(VERSION)
    await console.wait(lambda: len(console.data) >= 14, "the security types")
    await console.type(b"\x01")
    await console.wait(lambda: len(console.data) >= 18, "the security result")
    await console.type(b"\x00")
    await console.wait(lambda: len(console.data) >= 42, "ServerInit")
    await console.type(set_encodings(0) + request())
    await console.wait(lambda: len(console.data) > 100_000, "pixels")
    return console


def pressed(text: str) -> bytes:
    """The key events that type this on an American keyboard."""
    events = b""
    for character in text:
        shift = character.isupper() or character in '~!@#$%^&*()_+{}|:"<>?'
        code = RETURN if character == "\n" else ord(character)
        stroke = key(code, down=True) + key(code, down=False)
        events += key(SHIFT, down=True) + stroke + key(SHIFT, down=False) if shift else stroke
    return events


async def run_on_screen(console: Console, command: str, is_seen: Callable[[], object]) -> None:
    """Run a command at the screen's shell, once it is seen to have run: of a guest that gets no processor QEMU drops keys."""
    deadline = time.monotonic() + PATIENCE
    while True:
        await type_on_screen(console, f"{command}\n")
        again = time.monotonic() + AGAIN
        while time.monotonic() < again:
            if is_seen():
                return
            await asyncio.sleep(LOOK)
        assert time.monotonic() < deadline, f"it does not run: {command}"


async def type_on_screen(console: Console, text: str) -> None:
    """As fast as a keyboard controller's queue of 16 takes it."""
    for character in text:
        await console.type(pressed(character))
        await asyncio.sleep(0.03)
