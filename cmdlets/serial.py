"""A serial session from its opening to its end, over as many connections as it takes.

What is typed goes into a bounded buffer and from there to whichever attachment there is; what comes is counted, so that
after a drop the node goes on at that very byte (cmdlets/stream.py). Who is there, the time left and the end come over the
control connection; the console's own marks tell what belongs to its bytes.

Errors, beside those of cmdlets.node:

    Gone            the connection could not be made again in time, or the node no longer knows the session
    KeyboardLost    a script cannot go on, since somebody else has the keyboard
    Undelivered     the script's input is at its end, and the VM did not take all of it
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from cmdlets.clock import boot_s, wall_ms
from cmdlets.escapes import HELP_LINES, Command, Escapes
from cmdlets.node import Control, Lost, NodeFault, SignedIn, Unintelligible, Unreachable, console, leaving, lost
from cmdlets.race import first_of
from cmdlets.standing import Ended, Standing
from cmdlets.stream import Inbound, Outbound, OutOfStep
from cmdlets.terminal import Seat
from eva.consent import Access, Kind
from eva.control import CTRL_ALT_DEL, QUERIES, Event, Mark, Method, Opened, Refusal, Refused, decode_mark
from eva.ending import Ending
from eva.members import BadMember, Json, Members
from eva.resource_id import ResourceId

GRACE = 60.0  # seconds that a node keeps a session whose connection dropped
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds between attempts; the last one repeats
CHUNK = 16 * 1024  # bytes of one message of input
TITLE_INTERVAL = 20.0  # seconds
FIRST_MARK = 10.0  # seconds from attachment to the node's first mark
DRAIN = 1.0  # seconds for the last output once the node said that the session ended
LAST_NOTICE = 0.5  # seconds for the control connection to say why a console was closed, or the other way round
INTERRUPT = b"\x03"  # Ctrl+C, which a raw terminal sends as a byte
STUCK = 10.0  # seconds of silence after which a script's untaken input, or the VM's first answer to it, is given up
PASSING = frozenset({Refusal.RATE_LIMITED, Refusal.LEASE_STALE, Refusal.STOPPING})  # refusals worth another attempt

SignIn = Callable[[], AbstractAsyncContextManager[tuple[Control, SignedIn]]]


class Gone(Exception):
    """`why` for a person."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class KeyboardLost(Exception):
    pass


class Undelivered(Exception):
    """`count` bytes were not taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count} bytes")


class SerialSession:
    """One session at one seat. `linger_s`: seconds of silence after a script's last byte, then it leaves."""

    def __init__(self, sign_in: SignIn, seat: Seat, resource_id: ResourceId, access: Access | None, linger_s: float) -> None:
        self._sign_in = sign_in
        self._seat = seat
        self._asked_for: dict[str, Json] = {"resource_id": str(resource_id), "kind": str(Kind.SERIAL)}
        if access is not None:
            self._asked_for["access"] = str(access)
        self._linger_s = linger_s
        self._inbound = Inbound()
        self._outbound = Outbound()
        self._typed = asyncio.Event()
        self._room = asyncio.Event()
        self._over = asyncio.Event()  # the control connection has told the end, or will tell nothing more
        self._standing: Standing | None = None
        self._control: Control | None = None  # the connection of the attachment there is
        self._lost_at: float | None = None
        self._attempts = 0
        self._moved_at = boot_s()
        self._motion = asyncio.Event()
        self._told_to_hold = False
        self._greeted = False
        self._answered = False

    async def run(self) -> Ended:
        """To the end of the session. Raises Gone, KeyboardLost, Undelivered, Vacant, Refused, NodeFault."""
        return await first_of(self._attend(), self._type())

    # the node's side

    async def _attend(self) -> Ended:
        """Keeps the session attached."""
        opened: Opened | None = None
        while True:
            try:
                async with self._sign_in() as (control, _):
                    try:
                        opened = await self._ticket(control, opened)
                    except Refused:
                        if (ended := self._ended_meanwhile(control)) is not None:
                            return ended
                        raise
                    return await self._attach(control, opened, self._stand(opened))
            except (Unreachable, Lost) as fault:
                if opened is None:
                    raise
                if self._lost_at is None:
                    self._lost_at = boot_s()
                    self._seat.tell(f"{fault.why}; connecting again ...")
            except Refused as refused:
                if opened is None:
                    raise
                if refused.refusal not in PASSING:
                    raise Gone(f"the connection dropped, and the session did not go on: {refused.text}") from None
            finally:
                self._control = None
            if self._lost_at is not None and boot_s() - self._lost_at > GRACE:
                raise Gone(f"the connection dropped and did not come back within {GRACE:.0f} s")
            await asyncio.sleep(PAUSES[min(self._attempts, len(PAUSES) - 1)])
            self._attempts += 1

    async def _ticket(self, control: Control, before: Opened | None) -> Opened:
        if before is None:
            answer = await control.ask(Method.SESSION_OPEN, **self._asked_for)
        else:
            answer = await control.ask(Method.SESSION_RESUME, session=before.session, received=self._inbound.received)
        try:
            return Opened.from_members(answer)
        except BadMember as bad:
            raise Unintelligible(control.node.url, bad.why) from None

    def _ended_meanwhile(self, control: Control) -> Ended | None:
        """The end of a session that was cut while we were away: the node tells it before it refuses to resume."""
        standing = self._standing
        if standing is None or (told := control.heard(Event.ENDED, standing.session)) is None:
            return None
        standing.apply(Event.ENDED, told, boot_s())
        return standing.ended

    def _stand(self, opened: Opened) -> Standing:
        if self._standing is None:
            self._standing = Standing(opened, boot_s())
        else:
            self._standing.resumed(opened, boot_s())
        return self._standing

    async def _attach(self, control: Control, opened: Opened, standing: Standing) -> Ended:
        """One attachment. Gives the session's end; raises Lost when only the connection ended."""
        async with leaving(control, opened.session), console(control.node, opened) as connection:
            try:
                async with asyncio.timeout(FIRST_MARK):
                    first = await connection.recv()
            except ConnectionClosed as closed:
                return await self._closed(control, standing, closed)
            except TimeoutError:
                raise Lost(control.node.url, "the console did not start") from None
            self._attached(control, first)
            self._greet(standing)
            self._mind_keyboard(standing)
            return await first_of(
                self._receive(control, standing, connection),
                self._send(control, standing, connection),
                self._watch(control, standing),
                self._show_title(standing),
            )

    def _attached(self, control: Control, first: str | bytes) -> None:
        """Takes in the first mark, which says where both streams go on. Raises Unintelligible."""
        try:
            mark, members = decode_mark(first if isinstance(first, str) else "")
            if mark is not Mark.ATTACHED:
                raise BadMember("the first mark is another")
            gap = self._inbound.attach(members.integer("offset"))
            self._outbound.attach(members.integer("taken"))
        except (BadMember, OutOfStep) as bad:
            raise Unintelligible(control.node.url, str(bad)) from None
        if self._lost_at is not None:
            self._seat.tell(f"connected again; {gap} bytes of output are lost." if gap else "connected again.")
        self._control, self._lost_at, self._attempts = control, None, 0
        self._over.clear()
        self._moved()
        self._typed.set()

    def _greet(self, standing: Standing) -> None:
        if not self._greeted:
            self._greeted = True
            for line in standing.opening(boot_s()):
                self._seat.tell(line)
            if self._seat.interactive:
                self._seat.tell("~? at the start of a line shows the keys, ~. leaves.")

    async def _receive(self, control: Control, standing: Standing, connection: ClientConnection) -> Ended:
        """Output, as fast as the seat takes it."""
        try:
            while True:
                await self._seat.drained()
                message = await connection.recv()
                # From here to the next wait nothing can be cancelled: what is counted is also kept for the seat.
                if isinstance(message, bytes):
                    self._seat.show(self._inbound.feed(message))
                    self._answered = self._answered or self._outbound.begun
                else:
                    self._note(standing, *decode_mark(message))
                self._moved()
        except ConnectionClosed as closed:
            return await self._closed(control, standing, closed)
        except (BadMember, OutOfStep) as bad:
            raise Unintelligible(control.node.url, str(bad)) from None

    def _note(self, standing: Standing, mark: Mark, members: Members) -> None:
        """A mark among the output. Those that the control connection tells too are passed over."""
        if mark is Mark.TAKEN:
            self._outbound.taken(members.integer("taken"))
            self._room.set()
        elif mark is Mark.QUERY:
            self._seat.query(members.convert("query", QUERIES.__getitem__))
        elif mark is Mark.HELD:
            for line in standing.hold(members.integer("held"), members.text("why", 32)):
                self._seat.tell(line)

    async def _send(self, control: Control, standing: Standing, connection: ClientConnection) -> Ended:
        """Input, as fast as the node takes it."""
        try:
            while True:
                if chunk := self._outbound.next(CHUNK):
                    await connection.send(chunk)
                else:
                    self._typed.clear()
                    await self._typed.wait()
        except ConnectionClosed as closed:
            return await self._closed(control, standing, closed)

    async def _watch(self, control: Control, standing: Standing) -> Ended:
        """What the node tells by itself."""
        try:
            while standing.ended is None:
                event, members = await control.next_notice(standing.session)
                for line in standing.apply(event, members, boot_s()):
                    self._seat.tell(line)
                self._seat.title(standing.title(boot_s()))
                self._mind_keyboard(standing)
        except BadMember as bad:
            raise Unintelligible(control.node.url, bad.why) from None
        except Lost:
            self._over.set()
            await asyncio.sleep(LAST_NOTICE)  # the console's close code may be on its way, and says more
            raise
        self._over.set()
        await asyncio.sleep(DRAIN)
        return standing.ended

    async def _closed(self, control: Control, standing: Standing, closed: ConnectionClosed) -> Ended:
        """What the end of the console's connection means: the session's end, or raises Lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_NOTICE):
                await self._over.wait()
        if standing.ended is not None:
            return standing.ended
        try:
            return Ended(Ending.of_code(closed.rcvd.code if closed.rcvd else 0), wall_ms())
        except KeyError:
            raise lost(control.node, closed) from None

    async def _show_title(self, standing: Standing) -> Ended:
        while True:
            self._seat.title(standing.title(boot_s()))
            await asyncio.sleep(TITLE_INTERVAL)

    def _moved(self) -> None:
        self._moved_at = boot_s()
        self._motion.set()

    def _mind_keyboard(self, standing: Standing) -> None:
        """Without the keyboard nothing more goes out; a script ends there."""
        if standing.has_keyboard or standing.access is Access.VIEW:
            return
        if not self._seat.interactive:
            raise KeyboardLost
        if dropped := self._outbound.forget_unsent():
            self._seat.tell(f"{dropped} bytes of your input were not sent.")

    # the operator's side

    async def _type(self) -> Ended:
        """What is typed, until the operator leaves."""
        if not self._seat.interactive and self._asked_for.get("access") == Access.VIEW:
            await asyncio.Event().wait()  # a script that only looks: its input is nobody's
        escapes = Escapes()
        while True:
            while self._outbound.room < 2:  # a tilde that was held back comes out beside the next byte
                self._room.clear()
                await self._room.wait()
            typed = await self._seat.read(self._outbound.room - 1)
            if not typed:
                return await self._linger()
            if self._standing is None and self._seat.interactive and INTERRUPT in typed:
                return Ended.left(wall_ms())
            for part in escapes.feed(typed) if self._seat.interactive else [typed]:
                if part is Command.LEAVE:
                    return Ended.left(wall_ms())
                if isinstance(part, Command):
                    await self._obey(part)
                else:
                    self._enter(part)

    def _enter(self, keys: bytes) -> None:
        standing = self._standing
        if standing is None or standing.has_keyboard:
            self._outbound.add(keys)
            self._typed.set()
            self._told_to_hold = False
        elif not self._seat.interactive:
            raise KeyboardLost
        elif not self._told_to_hold:
            self._told_to_hold = True
            view = standing.access is Access.VIEW
            self._seat.tell("this session is for viewing only." if view else "the keyboard is not yours: ~k takes it.")

    async def _obey(self, command: Command) -> None:
        if command is Command.HELP:
            lines = list(HELP_LINES)
        elif command is Command.STATUS and self._standing is not None:
            lines = self._standing.status(boot_s())
        elif self._control is None or self._standing is None:
            lines = ["not connected just now."]
        else:
            lines = await self._request(command, self._control, self._standing)
        for line in lines:
            self._seat.tell(line)

    async def _request(self, command: Command, control: Control, standing: Standing) -> list[str]:
        params: dict[str, Json] = {"session": standing.session}
        if command is Command.CTRL_ALT_DEL:
            params["chord"] = CTRL_ALT_DEL
        try:
            await control.ask(_METHODS[command], **params)
        except Refused as refused:
            return [refused.text]
        except NodeFault:
            return []  # the attachment has seen the same and says so
        if command is Command.TAKE_KEYBOARD:
            standing.keyboard_taken()
        return [_DONE[command]]

    async def _linger(self) -> Ended:
        """After the end of input: until all is taken, the VM has begun to answer, and has been silent for a while."""
        self._moved()
        while not self._seat.interactive:
            if self._control is None:
                self._moved()
            # a slow VM's first sign may take longer than its pauses; who asks for no silence at all wants no answer
            mute = self._outbound.begun and not self._answered and self._linger_s > 0
            patience = max(self._linger_s, STUCK) if self._outbound.untaken or mute else self._linger_s
            silent = boot_s() - self._moved_at
            if silent < patience:
                self._motion.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience - silent):
                        await self._motion.wait()
            elif self._outbound.untaken:
                raise Undelivered(self._outbound.untaken)
            else:
                break
        return Ended.left(wall_ms())


_METHODS = {
    Command.CTRL_ALT_DEL: Method.KEYS_SEND,
    Command.TAKE_KEYBOARD: Method.KEYBOARD_TAKE,
    Command.SEND_ANYWAY: Method.INPUT_RELEASE,
}
_DONE = {
    Command.CTRL_ALT_DEL: "Ctrl+Alt+Del sent.",
    Command.TAKE_KEYBOARD: "the keyboard is yours.",
    Command.SEND_ANYWAY: "the held input may go now.",
}
