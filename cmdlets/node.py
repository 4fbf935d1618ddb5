"""The node as an operator's command sees it: sign-in, requests and notices on one control connection, consoles on others.

Errors:

    NodeFault
        Unreachable     no connection: nobody answers there, or not as a node does
        Untrusted       its certificate does not verify
        Lost            the connection was there and is gone, or nothing comes over it any more
        Unintelligible  it speaks, but not this language
    eva.control.Refused     the node understood and refuses
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from eva.control import (
    CONSOLE_PATH,
    CONSOLE_SUBPROTOCOLS,
    CONTROL_PATH,
    MAX_MESSAGE,
    SUBPROTOCOL,
    TICKET_PREFIX,
    Answer,
    Event,
    Failure,
    Method,
    Opened,
    Refused,
    Request,
    decode_from_node,
)
from eva.members import BadMember, Json, Members

OPEN_TIMEOUT = 10.0  # seconds from the first packet to the end of the websocket's handshake
ANSWER_TIMEOUT = 20.0  # seconds for one answer; a sign-in may queue behind others
LEAVE_TIMEOUT = 1.0  # seconds for the node to hear that we leave
CLOSE_TIMEOUT = 0.5  # seconds for a closing handshake: the node may be gone
PING_INTERVAL = 5.0  # seconds; with the next, a dead network is known well within a session's 60 s of grace
PING_TIMEOUT = 10.0
LIFE_INTERVAL = 15.0  # seconds between signs of life on a console; the node misses them after 20
MAX_FRAME = 1024 * 1024  # bytes of one console message
MAX_FRAMES = 4  # messages read ahead of the terminal or viewer
MAX_NOTICES = 64  # kinds of notice, times sessions, that may wait

# websockets logs what it sends at debug level, a password among it, and its warnings would fall into a raw terminal
_SILENT = logging.Logger("cmdlets.websocket", level=logging.CRITICAL + 1)


class NodeFault(Exception):
    """`url` and `why`: where, and what is wrong."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = why
        super().__init__(f"{url}: {why}")


class Unreachable(NodeFault):
    pass


class Untrusted(NodeFault):
    pass


class Lost(NodeFault):
    pass


class Unintelligible(NodeFault):
    pass


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account and its password, or neither where the TLS certificate signs in. The password is kept for reconnection."""

    account: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Node:
    """Where the node is and how it is trusted. `url` is wss://host:port."""

    name: str
    url: str
    tls: ssl.SSLContext
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The node's answer: its own name, the account it takes us for, and the address it sees us come from.

    `granted`: whether that address is on its safelist.
    """

    account: str
    node: str
    address: str
    granted: bool


async def _connect(node: Node, path: str, subprotocols: list[str], *, control: bool) -> ClientConnection:
    """Raises Unreachable and Untrusted."""
    parts = urlsplit(node.url)
    try:
        connection = await connect(
            node.url + path,
            ssl=node.tls,
            # named again, so that a redirect to another host is refused; and never through a proxy, which would be the
            # address that the safelist sees
            host=parts.hostname,
            port=parts.port,
            proxy=None,
            subprotocols=[Subprotocol(name) for name in subprotocols],
            compression=None,
            user_agent_header=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            # a console is not read while the terminal is stopped, so pongs on it mean nothing: the control connection watches
            ping_interval=PING_INTERVAL if control else None,
            ping_timeout=PING_TIMEOUT if control else None,
            max_size=MAX_MESSAGE if control else MAX_FRAME,
            max_queue=MAX_FRAMES,
            logger=_SILENT,
        )
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(node.url, error.verify_message) from None
    except InvalidStatus as error:
        raise Unreachable(node.url, f"it answers HTTP {error.response.status_code}") from None
    except (InvalidHandshake, ValueError):  # ValueError: a redirect to elsewhere
        raise Unreachable(node.url, "what answers there is no emergency recovery console node") from None
    except TimeoutError:
        raise Unreachable(node.url, f"no answer in {OPEN_TIMEOUT:.0f} s") from None
    except OSError as error:
        # asyncio's own text repeats the address; a resolver's error has a number below 0, and a good text
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise Unreachable(node.url, why or str(error) or "the connection broke off") from None
    if connection.subprotocol != subprotocols[0]:
        await connection.close()
        raise Unreachable(node.url, "it speaks another version of this protocol")
    return connection


def lost(node: Node, closed: ConnectionClosed) -> Lost:
    """The fault that a closed connection is."""
    if closed.rcvd is not None:
        return Lost(node.url, f"the node closed the connection ({closed.rcvd.code})")
    return Lost(node.url, "the connection broke off")


class Control:
    """One signed-in control connection. Made by `sign_in`."""

    def __init__(self, node: Node, connection: ClientConnection) -> None:
        self.node = node
        self._connection = connection
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[Members]] = {}
        # Only the newest notice of a kind counts, so the reader never waits for a slow terminal, and nothing piles up.
        self._notices: dict[tuple[Event, str], Members] = {}
        self._changed = asyncio.Event()
        self._fault: NodeFault | None = None

    async def ask(self, method: Method, **params: Json) -> Members:
        """The node's answer. Raises Refused, Lost, Unintelligible."""
        if self._fault is not None:
            raise self._fault
        self._asked += 1
        request = Request(self._asked, method, params)
        answer: asyncio.Future[Members] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = answer
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._connection.send(request.encode())
                return await answer
        except ConnectionClosed as closed:
            raise lost(self.node, closed) from None
        except TimeoutError:
            raise Lost(self.node.url, f"no answer in {ANSWER_TIMEOUT:.0f} s") from None
        finally:
            self._waiting.pop(request.id, None)

    def heard(self, event: Event, session: str) -> Members | None:
        """That notice about the session, if it has come and was not taken."""
        return self._notices.pop((event, session), None)

    async def next_notice(self, session: str) -> tuple[Event, Members]:
        """The next notice about this session, newest of its kind. Raises Lost and Unintelligible once none is left."""
        while True:
            for event, about in self._notices:
                if about == session:
                    return event, self._notices.pop((event, about))
            if self._fault is not None:
                raise self._fault
            self._changed.clear()
            await self._changed.wait()

    async def read(self) -> None:
        """Takes in what the node says until the connection ends; the one reader."""
        try:
            while True:
                self._take(await self._connection.recv())
        except ConnectionClosed as closed:
            fault: NodeFault = lost(self.node, closed)
        except BadMember as bad:
            fault = Unintelligible(self.node.url, bad.why)
        self._fault = fault
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(fault)
        self._changed.set()

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            raise BadMember("a binary message")
        said = decode_from_node(message)
        if isinstance(said, Answer | Failure):
            answer = self._waiting.get(said.id) if said.id is not None else None
            if answer is None:
                raise BadMember("an answer to nothing")
            if not answer.done():
                if isinstance(said, Failure):
                    answer.set_exception(Refused(said.refusal, node=said.node))
                else:
                    answer.set_result(Members(said.result))
            return
        members = Members(said.params)
        about = (said.event, members.text("session", 64))
        if about not in self._notices and len(self._notices) >= MAX_NOTICES:
            raise BadMember("notices of too many sessions")
        self._notices[about] = members
        self._changed.set()


@asynccontextmanager
async def sign_in(node: Node) -> AsyncIterator[tuple[Control, SignedIn]]:
    """A signed-in control connection. Raises NodeFault and Refused."""
    connection = await _connect(node, CONTROL_PATH, [SUBPROTOCOL], control=True)
    control = Control(node, connection)
    reader = asyncio.create_task(control.read())
    try:
        who = node.credentials
        params: dict[str, Json] = {} if who.password is None else {"account": who.account, "password": who.password}
        yield control, _signed_in(node, await control.ask(Method.SIGN_IN, **params))
    finally:
        await connection.close()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def leave(control: Control, session: str) -> None:
    """Tells the node that this side ends the session; it would keep it for the whole grace otherwise."""
    with contextlib.suppress(NodeFault, Refused, TimeoutError):
        async with asyncio.timeout(LEAVE_TIMEOUT):
            await control.ask(Method.SESSION_LEAVE, session=session)


@asynccontextmanager
async def leaving(control: Control, session: str) -> AsyncIterator[None]:
    """Leaves the session whenever the block fails of something else than the connection."""
    try:
        yield
    except (Lost, Unreachable):
        raise
    except BaseException:  # whatever it is, a signal (CancelledError) too; raised again
        await leave(control, session)
        raise


def _signed_in(node: Node, members: Members) -> SignedIn:
    try:
        return SignedIn(
            account=members.text("account", 64),
            node=members.text("node", 64),
            address=members.text("address", 64),
            granted=members.truth("granted"),
        )
    except BadMember as bad:
        raise Unintelligible(node.url, bad.why) from None


@asynccontextmanager
async def console(node: Node, opened: Opened) -> AsyncIterator[ClientConnection]:
    """The console that a ticket was given for. Raises Unreachable and Untrusted.

    It is left without a close frame, for that would end the session, which is not over when only the connection is.
    """
    subprotocols = [CONSOLE_SUBPROTOCOLS[opened.kind], TICKET_PREFIX + opened.ticket]
    connection = await _connect(node, CONSOLE_PATH, subprotocols, control=False)
    living = asyncio.create_task(_live(connection))
    try:
        yield connection
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        connection.transport.abort()
        await connection.wait_closed()


async def _live(connection: ClientConnection) -> None:
    """Signs of life (RFC 6455 5.5.3), for the node's pings are not seen while a stopped terminal stops the reading."""
    try:
        while True:
            await asyncio.sleep(LIFE_INTERVAL)
            await connection.pong()
    except ConnectionClosed:
        return  # whoever reads the console is told
