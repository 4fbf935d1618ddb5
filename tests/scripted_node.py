"""A small node that speaks eva.control over real TLS websockets, and whose consoles a test plays; and a TCP relay that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from eva.consent import Access, Kind
from eva.control import (
    CONSOLE_PATH,
    CONSOLE_SUBPROTOCOLS,
    MAX_MESSAGE,
    SUBPROTOCOL,
    TICKET_PREFIX,
    Answer,
    Event,
    Failure,
    Mark,
    Method,
    Notice,
    Opened,
    Refusal,
    Refused,
    Request,
    encode_mark,
)
from eva.ending import Ending
from eva.members import Json
from lab.certificates import Authority
from lab.transcript import PATIENCE_S

VM = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/web-01"
ACCOUNT, PASSWORD = "ruth", "correct horse battery"
NAME = "AzS-ERCS01"


@dataclass(eq=False)
class PlayedSession:
    """A session of the node. `output` is its console's stream, `input` what the node has taken of the operator's."""

    id: str
    kind: Kind
    access: Access
    output: bytearray = field(default_factory=bytearray)
    input: bytearray = field(default_factory=bytearray)
    offset: int = 0  # where the next attachment starts
    rewind: int = 0  # how many bytes before that it starts all the same
    taking: bool = True  # whether input is taken
    keyboard: bool = True
    attached: ServerConnection | None = None
    attachments: int = 0
    spoken: int = 0  # bytes that the network has taken of the output
    said: int = 0  # where in the output this attachment is
    control: ServerConnection | None = None
    ended: bool = False
    ended_away: Ending | None = None  # told to one who comes back to it
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    on_input: Callable[[bytes], bytes] = bytes  # what the guest answers; bytes() is an echo

    async def wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def say(self, output: bytes) -> None:
        self.output += output
        await self.wake()

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)

    async def notify(self, event: Event, **params: Json) -> None:
        assert self.control is not None
        await self.control.send(Notice(event, {"session": self.id, **params}).encode())

    async def mark(self, mark: Mark, **members: Json) -> None:
        assert self.attached is not None
        await self.attached.send(encode_mark(mark, **members))

    async def viewers(self, keyboard: str | None, *others: str) -> None:
        seen = [{"session": self.id, "account": ACCOUNT, "access": str(self.access)}]
        seen += [{"session": f"of-{name}", "account": name, "access": "keyboard"} for name in others]
        await self.notify(Event.VIEWERS, viewers=seen, keyboard=keyboard)

    async def end(self, ending: Ending, *, notice: bool = True, code: bool = True) -> None:
        await self.until(lambda: ending is Ending.OPERATOR_LEFT or self.said == len(self.output))
        self.ended = True
        if notice:
            at_ms = time.time_ns() // 1_000_000
            await self.notify(Event.ENDED, reason=ending.word, text=ending.text, at_ms=at_ms)
        if code and self.attached is not None:
            await self.attached.close(ending.code, ending.word)
        await self.wake()

    def drop(self) -> None:
        """Both connections break, without a word."""
        for connection in (self.attached, self.control):
            if connection is not None:
                connection.transport.abort()


class ScriptedNode:
    """`asked`: every request, in order. `refusals`: what is refused and how. `prepare` is called with each new session."""

    def __init__(self, *, chunk: Callable[[], int] = lambda: 4096) -> None:
        self.asked: list[Request] = []
        self.sessions: dict[str, PlayedSession] = {}
        self.refusals: dict[Method, Refusal] = {}
        self.whereabouts: str | None = None  # the node that a refusal names
        self.prepare: Callable[[PlayedSession], None] = lambda _: None
        self.certificates_seen: list[str] = []
        self.remaining_s = 8 * 3600
        self.chunk = chunk
        self.port = 0
        self._tickets: dict[str, PlayedSession] = {}
        self._opened: asyncio.Condition = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext) -> AsyncIterator[ScriptedNode]:
        protocols = [SUBPROTOCOL, *CONSOLE_SUBPROTOCOLS.values()]
        async with serve(
            self._serve, "127.0.0.1", 0, ssl=tls, subprotocols=protocols, compression=None, max_size=65536, close_timeout=1
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def session(self, attachments: int = 1) -> PlayedSession:
        """The latest session, once it has been attached so often."""

        def found() -> PlayedSession | None:
            latest = list(self.sessions.values())[-1:]
            return latest[0] if latest and latest[0].attachments >= attachments and latest[0].attached else None

        async with asyncio.timeout(PATIENCE_S), self._opened:
            await self._opened.wait_for(lambda: found() is not None)
        session = found()
        assert session is not None
        return session

    def methods(self) -> list[Method]:
        return [request.method for request in self.asked]

    async def left(self) -> None:
        """Waits until the last word is that somebody leaves; who says so and ends does not wait for a slow reader."""
        async with asyncio.timeout(PATIENCE_S):
            while self.methods()[-1:] != [Method.SESSION_LEAVE]:
                await asyncio.sleep(0.01)

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        with contextlib.suppress(ConnectionClosed):
            if connection.request.path == CONSOLE_PATH:
                await self._console(connection)
            else:
                await self._control(connection)

    async def _control(self, connection: ServerConnection) -> None:
        account: str | None = None
        async for text in connection:
            assert isinstance(text, str)
            assert len(text) <= MAX_MESSAGE
            request = Request.decode(text)
            self.asked.append(request)
            try:
                if request.method in self.refusals:
                    raise Refused(self.refusals[request.method])
                if request.method is Method.SIGN_IN:
                    account = self._sign_in(connection, request)
                elif account is None:
                    raise Refused(Refusal.NOT_SIGNED_IN)
                result = self._answer(connection, request)
            except Refused as refused:
                await self._tell_ended(connection, request)
                await connection.send(Failure(request.id, refused.refusal, self.whereabouts).encode())
                continue
            await connection.send(Answer(request.id, result).encode())
            if request.method is Method.SESSION_LEAVE:
                await self.sessions[str(request.params["session"])].end(Ending.OPERATOR_LEFT)

    async def _tell_ended(self, connection: ServerConnection, request: Request) -> None:
        session = self.sessions.get(str(request.params.get("session")))
        if session is not None and session.ended_away is not None:
            session.control = connection
            ending = session.ended_away
            await session.notify(Event.ENDED, reason=ending.word, text=ending.text, at_ms=int(time.time() * 1000), stale_bytes=0)

    def _sign_in(self, connection: ServerConnection, request: Request) -> str:
        shown = connection.transport.get_extra_info("peercert")
        if not request.params and shown:
            self.certificates_seen.append(dict(part[0] for part in shown["subject"])["commonName"])
            return ACCOUNT
        if (request.params.get("account"), request.params.get("password")) != (ACCOUNT, PASSWORD):
            raise Refused(Refusal.WRONG_CREDENTIALS)
        return ACCOUNT

    def _answer(self, connection: ServerConnection, request: Request) -> dict[str, Json]:
        now_s = int(time.time())
        plain: dict[Method, dict[str, Json]] = {
            Method.SIGN_IN: {"account": ACCOUNT, "groups": ["cloudadmin"], "node": NAME, "address": "127.0.0.1", "granted": True},
            Method.SESSION_DELETE: {"consents": 1, "sessions": 2, "cut_us": 840, "at_ms": now_s * 1000},
            Method.KEYBOARD_TAKE: {"keyboard": True},
            Method.WORKSTATION_GRANT: {"address": "127.0.0.1", "until": now_s + 28_800},
            Method.WORKSTATION_REVOKE: {"address": "127.0.0.1", "cut": 1},
        }
        if request.method is Method.SESSION_OPEN:
            kind = Kind(str(request.params["kind"]))
            access = Access(str(request.params.get("access", "keyboard")))
            session = PlayedSession(secrets.token_hex(4), kind, access, keyboard=access is Access.KEYBOARD)
            self.prepare(session)
            self.sessions[session.id] = session
            return self._ticket(session, connection)
        if request.method is Method.SESSION_RESUME:
            return self._ticket(self._resumed(request), connection)
        return plain.get(request.method, {})

    def _resumed(self, request: Request) -> PlayedSession:
        session = self.sessions[str(request.params["session"])]
        if session.ended:
            raise Refused(Refusal.NO_SESSION)
        session.attached = None
        received = request.params["received"]
        assert isinstance(received, int)
        session.offset = max(0, received - session.rewind)
        return session

    def _ticket(self, session: PlayedSession, control: ServerConnection) -> dict[str, Json]:
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = session
        session.control = control
        return Opened(
            session=session.id,
            ticket=ticket,
            kind=session.kind,
            access=session.access,
            keyboard=session.keyboard,
            consent="c" * 32,
            resource_id=VM,
            node=NAME,
            giver="tenant@example.org",
            reason="no network",
            expires_at=int(time.time()) + self.remaining_s,
            remaining_s=self.remaining_s,
        ).to_members()

    async def _console(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        offered = connection.request.headers["Sec-WebSocket-Protocol"].split(", ")
        session = self._tickets.pop(offered[1].removeprefix(TICKET_PREFIX))
        assert offered[0] == CONSOLE_SUBPROTOCOLS[session.kind]
        session.attached = connection
        session.attachments += 1
        serial = session.kind is Kind.SERIAL
        if serial:
            await connection.send(encode_mark(Mark.ATTACHED, offset=session.offset, taken=len(session.input)))
        async with self._opened:
            self._opened.notify_all()
        speaking = asyncio.create_task(self._speak(session, connection))
        try:
            async for data in connection:
                assert isinstance(data, bytes)
                await session.until(lambda: session.taking or session.ended or session.attached is not connection)
                if session.ended or session.attached is not connection:
                    return  # what comes here now is not taken
                session.input += data
                if serial:
                    await connection.send(encode_mark(Mark.TAKEN, taken=len(session.input)))
                await session.say(session.on_input(data))
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
            if connection.protocol.close_rcvd is not None and session.attached is connection:
                session.ended = True  # a close frame is the operator's leave; without one the session waits
            await session.wake()

    async def _speak(self, session: PlayedSession, connection: ServerConnection) -> None:
        sent = session.offset
        while True:
            start = sent
            await session.until(lambda start=start: len(session.output) > start, 3600)
            piece = bytes(session.output[sent : sent + self.chunk()])
            sent += len(piece)
            await connection.send(piece)
            session.spoken += len(piece)
            session.said = sent
            await session.wake()


def server_tls(authority: Authority) -> ssl.SSLContext:
    """Asks for a client's certificate and takes none too."""
    pair = authority.server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class BreakingRelay:
    """Passes TCP on, and breaks each connection after a number of bytes, both ways together, that `budget` gives."""

    def __init__(self, target: int, budget: Callable[[], int | None]) -> None:
        self._target = target
        self._budget = budget
        self.broken = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._budget()
        out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            while data := await source.read(8192):
                if left is not None:
                    data, left = data[:left], left - len(data)
                sink.write(data)
                await sink.drain()
                if left is not None and left <= 0:
                    self.broken += 1
                    return

        halves = [asyncio.create_task(pump(reader, out_writer)), asyncio.create_task(pump(out_reader, writer))]
        await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        for half in halves:
            half.cancel()
        await asyncio.gather(*halves, return_exceptions=True)
        for sink in (writer, out_writer):
            sink.transport.abort()


def letters(random_: random.Random, count: int) -> bytes:
    """Random printable bytes, in lines."""
    return bytes(random_.choices(b"abcdefghijklmnopqrstuvwxyz0123456789 \n", k=count))
