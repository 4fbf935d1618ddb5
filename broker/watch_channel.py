"""One tenant's watch connection: JSON-RPC 2.0 as on the control channel, with the words of eva/watch.py.

Its token was taken in the handshake. Whoever holds it sees what is done under one consent, and may hold and end it: nothing
that is asked here lets an operator do more than the consent says. No word of the giver's waits for a console to open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import cast

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from broker.admission import Wish
from broker.calls import Calls
from broker.safelist import Address
from broker.session import Operator, Session, opened
from broker.tickets import TicketsFull
from broker.watch_desk import Admission, WatchDesk
from broker.websocket import OperatorConnection
from eva.consent import Access, Kind
from eva.control import MAX_MESSAGE, Answer, Failure, Refusal, Refused, encode_notice
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.members import BadMember, Json, Members
from eva.watch import WatchEvent, WatchMethod, WatchRequest

BEAT = 4.5  # seconds after which a state is told again: with the tick of node.py the page hears one at least every 5

log = logging.getLogger(__name__)


class WatchChannel:
    """See the module."""

    def __init__(self, desk: WatchDesk, connection: OperatorConnection, address: Address, admission: Admission) -> None:
        self.id = desk.randomness(16).hex()
        self.accepted = admission.accepted
        self._watch = admission.watch
        self._desk = desk
        self._connection = connection
        self._address = address
        self._operator = Operator.tenant(admission.watch.giver, str(address))
        self._calls = Calls(self._sign_out_if_over)
        self._shown: dict[Kind, Session] = {}
        self._opening: dict[Kind, asyncio.Task[object]] = {}  # the calls
        self._told: dict[str, Json] = {}  # the last state, but for the time left
        self._told_at = 0  # boot clock (ns)
        self._ending: Ending | None = None  # the consent's, which closes the connection
        self._serve: dict[WatchMethod, Callable[[Members], Awaitable[Mapping[str, Json]]]] = {
            WatchMethod.WATCH_OPEN: self._open,
            WatchMethod.WATCH_LEAVE: self._leave,
            WatchMethod.INPUT_PAUSE: self._pause,
            WatchMethod.INPUT_RESUME: self._resume,
            WatchMethod.CONSENT_STOP: self._stop,
        }

    async def run(self) -> None:
        """Serves until the connection is over."""
        try:
            await self._desk.begin(self, self._watch, str(self._address))
            log.info("%s watches from %s", self._operator.account, self._address)
            self.tell_state()
            async with self._calls:
                await self._listen()
        except Refused as error:
            self._refuse(None, error)
            self._connection.end(CloseCode.TRY_AGAIN_LATER, error.text)
        finally:
            self._desk.done(self)
            for session in self._shown.values():
                self._desk.sessions.end(session, Ending.OPERATOR_LEFT)

    async def _listen(self) -> None:
        try:
            async for text in self._connection:
                if self._ending is not None:
                    continue  # an answer is due; then the connection closes
                if not isinstance(text, str) or len(text) > MAX_MESSAGE:
                    self._connection.end(CloseCode.UNSUPPORTED_DATA, "text messages of at most 16384 characters")
                    return
                await self._calls.begin(self._call(text))
        except ConnectionClosed:
            return

    async def _call(self, text: str) -> None:
        answer = await self._answer(text)
        self._connection.send_notice(answer.encode())

    async def _answer(self, text: str) -> Answer | Failure:
        number: int | None = None
        try:
            request = WatchRequest.decode(text)
            number = request.id
            return Answer(number, await self._serve[request.method](Members(request.params)))
        except BadMember as error:
            return self._refuse(number, Refused(Refusal.BAD_REQUEST, error.why))
        except Refused as error:
            return self._refuse(number, error)

    def _refuse(self, number: int | None, error: Refused) -> Failure:
        self._desk.metrics.refused.labels(error.refusal).inc()
        log.info("refused %s at %s: %s", self._operator.account, self._address, error)
        return Failure(number, error.refusal)

    @property
    def is_here(self) -> bool:
        return self._connection.departure is None and self._connection.state is State.OPEN

    @property
    def has_console(self) -> bool:
        return any(session.ending is None for session in self._shown.values())

    # -- what is told --------------------------------------------------------------------------------------------

    def notify(self, event: StrEnum, params: Mapping[str, Json]) -> None:
        """Tells who watches; one who does not read is let go."""
        if self._connection.congested:
            self._connection.end(CloseCode.TRY_AGAIN_LATER, "notices were not read")
            return
        self._connection.send_notice(encode_notice(event, params))

    def tell_state(self) -> None:
        """Tells how all stands, if it is not as it was."""
        state = self._desk.state(self.accepted)
        lasting = {name: value for name, value in state.items() if name != "remaining_s"}
        if lasting != self._told and self._ending is None:
            self._told, self._told_at = lasting, self._desk.clock.now().boot
            self.notify(WatchEvent.STATE, state)

    def beat(self, now: Instant) -> None:
        """Tells how all stands if it was not told for long: a script sees no ping, so to a page silence is a dead line."""
        if now.boot - self._told_at >= BEAT * NS:
            self._told = {}
            self.tell_state()

    def tell_typed(self, session: Session, parts: list[Json]) -> None:
        self.notify(WatchEvent.TYPED, {"session": session.id, "account": session.operator.account, "parts": parts})

    def over(self, ending: Ending, at_ms: int, cut_us: int) -> None:
        """The consent is over: that is told, and after the answers that are due the connection closes."""
        if self._ending is not None:
            return
        self._ending = ending
        self.notify(WatchEvent.ENDED, {"reason": ending.word, "text": ending.text, "at_ms": at_ms, "cut_us": cut_us})
        for opening in self._opening.values():
            opening.cancel()  # there is nothing to be shown
        if not self._calls:
            self.sign_out(ending)

    def _sign_out_if_over(self) -> None:
        if self._ending is not None:
            self.sign_out(self._ending)

    def sign_out(self, ending: Ending) -> None:
        self._connection.end(ending.code, ending.text)

    # -- requests ------------------------------------------------------------------------------------------------

    async def _open(self, params: Members) -> Mapping[str, Json]:
        """One console of each kind at a time: the one before of this kind is left."""
        kind = params.convert("kind", Kind)
        params.nothing_else()
        desk, now = self._desk, self._desk.clock.now()
        if not desk.rein(self).may_step(now):
            raise Refused(Refusal.RATE_LIMITED, "this giver's consoles")
        if kind in self._opening:
            self._opening[kind].cancel()
        before = self._shown.pop(kind, None)
        if before is not None:
            desk.sessions.end(before, Ending.OPERATOR_LEFT)
        session = self._shown[kind] = await self._opened(kind)
        try:
            ticket = desk.tickets.issue(desk.randomness(32), session.id, self._operator.account, self._address, desk.clock.now())
        except TicketsFull as error:
            desk.sessions.end(session, Ending.OPERATOR_LEFT)  # nobody could come for it
            raise Refused(Refusal.TOO_MANY, str(error)) from error
        return opened(session, ticket, desk.node, desk.clock.now(), keyboard=False).to_members()

    async def _opened(self, kind: Kind) -> Session:
        """Raises Refused, also where another of the kind took its place before it was open."""
        consent = self.accepted.consent
        call = self._opening[kind] = cast("asyncio.Task[object]", asyncio.current_task())
        try:
            wish = Wish(consent.resource_id, kind, Access.VIEW, consent.cid)
            return await self._desk.sessions.open(wish, self._operator, self)
        except asyncio.CancelledError:
            if self._opening.get(kind) is call:
                raise
            raise Refused(Refusal.NO_SESSION, "another took its place") from None
        finally:
            if self._opening.get(kind) is call:
                del self._opening[kind]

    async def _leave(self, params: Members) -> Mapping[str, Json]:
        session = params.text("session", 64)
        params.nothing_else()
        self._desk.sessions.leave(session, self._operator)
        return {}

    async def _pause(self, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        return {"paused": True, "heard": await self._desk.pause(self)}

    async def _resume(self, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        await self._desk.resume(self)
        return {"paused": False}

    async def _stop(self, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        return await self._desk.stop(self)
