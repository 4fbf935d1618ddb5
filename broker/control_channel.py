"""One operator's control connection: JSON-RPC 2.0 in, answers and notices out (eva/control.py has the language).

Nothing but sign-in is served before sign-in, nothing beside it, and nothing but the safelist's own two requests before this
workstation is on the safelist. After that a request that waits for a hypervisor, a provider or a disk keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from broker.accounts import Account, Accounts
from broker.admission import Wish
from broker.attempts import Attempts
from broker.audit_log import Entry
from broker.calls import Calls
from broker.clock import Clock
from broker.consents import Consents
from broker.journal import Journal, JournalFailed
from broker.lobby import Seat
from broker.masks import MAX_MASKED
from broker.metrics import Metrics
from broker.openings import Inventory
from broker.proof import Proof, hashing_queues
from broker.reentry import Reentries, key_of
from broker.safelist import Address, Safelist, SafelistFull
from broker.session import Operator, Session, opened
from broker.sessions import Sessions
from broker.sign_in import SECRET_BYTES, Passes, Way
from broker.state import Change
from broker.tickets import Tickets, TicketsFull
from broker.websocket import Departure, OperatorConnection
from broker.whereabouts import Inquiry
from eva import audit
from eva.consent import Access, Kind
from eva.control import (
    MAX_CHORD,
    MAX_MESSAGE,
    Answer,
    Event,
    Failure,
    Method,
    Notice,
    Refusal,
    Refused,
    Request,
)
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.members import BadMember, Json, Members
from eva.resource_id import ResourceId

log = logging.getLogger(__name__)

SIGN_IN_SECONDS = 5.0  # from the open websocket to a sign-in
LAPSED = "the sign-in at the issuer has run out: sign in again"
LEAVING = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)  # what a client closes with that does not mean to come back
CONNECTED_TOLD = 8  # in one row of a listing
MAX_LISTING = MAX_MESSAGE - 1024  # characters of the consents in one answer


@dataclass(slots=True)
class Desk:
    """What every control channel of a node shares."""

    node: str
    clock: Clock
    journal: Journal
    sessions: Sessions
    consents: Consents
    inventory: Inventory
    accounts: Accounts
    safelist: Safelist
    attempts: Attempts
    tickets: Tickets
    inquiry: Inquiry
    metrics: Metrics
    randomness: Callable[[int], bytes]
    passes: Passes = field(default_factory=Passes)
    reentries: Reentries = field(default_factory=Reentries)
    hashing: Mapping[bool, asyncio.Semaphore] = field(default_factory=hashing_queues)
    channels: set[ControlChannel] = field(default_factory=set)

    def is_signed_in_from(self, address: Address) -> bool:
        """Whether somebody at this address is signed in now."""
        return any(channel.account is not None and channel.address == address for channel in self.channels)

    def tick(self, now: Instant) -> None:
        """Signs out whoever's sign-in has run out."""
        for channel in list(self.channels):
            if channel.lapses is not None and now.boot >= channel.lapses:
                channel.sign_out(LAPSED)

    async def keep_safelist(self, *entries: Entry) -> None:
        """Writes the safelist and a record of its change. Raises Refused."""
        try:
            await self.journal.write(Change().workstations(self.safelist.to_rows()), *entries)
        except JournalFailed as error:
            raise Refused(Refusal.AUDIT_FAILED, str(error)) from error


class ControlChannel:
    """See the module."""

    def __init__(self, desk: Desk, connection: OperatorConnection, address: Address, seat: Seat) -> None:
        self._desk = desk
        self._connection = connection
        self.address = address
        self._seat = seat
        self.account: Account | None = None
        self._way: Way | None = None
        self.lapses: int | None = None  # the boot time at which this sign-in runs out, if it does
        self.reentry: bytes | None = None  # the key of what this sign-in left for the next
        self._over = False  # whatever is still queued is not served
        self._calls = Calls()
        self._serve: dict[Method, Callable[[Account, Members], Awaitable[Mapping[str, Json]]]] = {
            Method.WORKSTATION_GRANT: self._grant_workstation,
            Method.WORKSTATION_REVOKE: self._revoke_workstation,
            Method.CONSENTS_LIST: self._list_consents,
            Method.SESSION_OPEN: self._open,
            Method.SESSION_RESUME: self._resume,
            Method.SESSION_LEAVE: self._leave,
            Method.SESSION_DELETE: self._delete,
            Method.KEYBOARD_TAKE: self._take_keyboard,
            Method.KEYBOARD_GIVE: self._give_keyboard,
            Method.KEYS_SEND: self._send_keys,
            Method.INPUT_RELEASE: self._release_input,
            Method.INPUT_MASK: self._mask_input,
        }

    async def run(self) -> None:
        """Serves until the connection is over."""
        late = asyncio.get_running_loop().call_later(SIGN_IN_SECONDS, self.sign_out, "sign in first")
        self._desk.channels.add(self)
        try:
            async with self._calls:
                await self._listen(late)
        finally:
            late.cancel()
            self._seat.leave()
            self._desk.channels.discard(self)
            self._part()

    async def _listen(self, late: asyncio.TimerHandle) -> None:
        try:
            async for text in self._connection:
                if self._over:
                    return
                if not isinstance(text, str) or len(text) > MAX_MESSAGE:
                    self._connection.end(CloseCode.UNSUPPORTED_DATA, "text messages of at most 16384 characters")
                    return
                if self.account is not None:
                    await self._calls.begin(self._call(text))
                    continue
                late.cancel()  # from here on it is we who take our time
                await self._call(text)
                if self.account is None:
                    self.sign_out("not signed in")
        except ConnectionClosed:
            return

    async def _call(self, text: str) -> None:
        answer = await self._answer(text)
        if not self._over:
            self._connection.send_notice(answer.encode())

    def _part(self) -> None:
        """Whoever was dropped may sign in again by what the last sign-in left; who left, or was sent away, may not."""
        connection, reentries = self._connection, self._desk.reentries
        if self.reentry is None:
            return
        dropped = connection.departure in (Departure.LOST, Departure.SILENT)
        given_up = connection.departure is Departure.LEFT and connection.close_code not in LEAVING
        if (dropped or given_up) and not self._over:
            reentries.dropped(self.reentry, self._desk.clock.now())
        else:
            reentries.void(self.reentry)

    def notify(self, event: Event, params: Mapping[str, Json]) -> None:
        """Tells the operator; one who does not read is let go."""
        if self._connection.congested:
            self._connection.end(CloseCode.TRY_AGAIN_LATER, "notices were not read")
            return
        self._connection.send_notice(Notice(event, params).encode())

    def sign_out(self, why: str) -> None:
        """Ends the connection, and serves nothing more that came by it: its operator is none, or no longer what it was."""
        self._over = True
        if self.reentry is not None:
            self._desk.reentries.void(self.reentry)  # now: a peer that answers no close frame keeps `run` for a while
        self._connection.end(CloseCode.POLICY_VIOLATION, why)

    # -- requests ------------------------------------------------------------------------------------------------

    async def _answer(self, text: str) -> Answer | Failure:
        number: int | None = None
        try:
            request = Request.decode(text)
            number = request.id
            params = Members(request.params)
            if request.method is Method.SIGN_IN:
                return Answer(number, await self._sign_in(params))
            account = self.account
            if account is None:
                raise Refused(Refusal.NOT_SIGNED_IN)
            if request.method not in (Method.WORKSTATION_GRANT, Method.WORKSTATION_REVOKE):
                self._check_safelist(account)
            serve = self._serve.get(request.method)
            if serve is None:
                raise BadMember(f"{request.method} is not served here")
            return Answer(number, await serve(account, params))
        except BadMember as error:
            return self._refuse(number, Refused(Refusal.BAD_REQUEST, error.why))
        except Refused as error:
            return self._refuse(number, error)

    async def _no_consent(self, account: Account, resource_id: ResourceId, error: Refused) -> Refused:
        """The same refusal, with the node to go to where no consent for the VM is here for anybody."""
        desk = self._desk
        if error.refusal is not Refusal.NO_CONSENT or desk.consents.has(resource_id):
            return error
        return Refused(error.refusal, error.detail, await desk.inquiry.find(account.name, resource_id))

    def _refuse(self, number: int | None, error: Refused) -> Failure:
        self._desk.metrics.refused.labels(error.refusal).inc()
        account = self.account.name if self.account is not None else "-"
        log.info("refused %s at %s: %s", account, self.address, error)
        return Failure(number, error.refusal, error.node)

    def _check_safelist(self, account: Account) -> None:
        if not self._desk.safelist.admits(self.address, account.name, self._desk.clock.now()):
            raise Refused(Refusal.NOT_SAFELISTED)

    async def _sign_in(self, params: Members) -> Mapping[str, Json]:
        desk = self._desk
        if self.account is not None:
            raise Refused(Refusal.BAD_REQUEST, "signed in already")
        proven = await Proof(desk, self._connection, self.address).take(params)
        account, way = proven.account, proven.way
        self.account, self._way, self.lapses = account, way, proven.lapses
        self._connection.vouched = True
        self._seat.leave()
        granted = desk.safelist.admits(self.address, account.name, desk.clock.now())
        log.info("%s signed in from %s by %s", account.name, self.address, way)
        again = desk.reentries.issue(
            desk.randomness(SECRET_BYTES), account, way, self.address, desk.clock.now(), lapses=proven.lapses
        )
        self.reentry = key_of(again)
        return {
            "account": account.name,
            "groups": sorted(account.groups),
            "node": desk.node,
            "address": str(self.address),
            "granted": granted,
            "again": again,
        }

    # -- the safelist --------------------------------------------------------------------------------------------

    async def _grant_workstation(self, account: Account, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        desk, now = self._desk, self._desk.clock.now()
        try:
            until = desk.safelist.grant(self.address, account.name, now)
        except SafelistFull as error:
            raise Refused(Refusal.TOO_MANY, str(error)) from error
        try:
            await desk.keep_safelist(self._workstation_entry(account, "granted"))
        except Refused:
            desk.safelist.revoke(self.address, account.name)  # what is not on disk is not granted
            raise
        return {"address": str(self.address), "until": until.wall // NS}

    async def _revoke_workstation(self, account: Account, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        desk = self._desk
        desk.safelist.revoke(self.address, account.name)
        cut = desk.sessions.end_workstation(account.name, str(self.address))
        await desk.keep_safelist(self._workstation_entry(account, "revoked"))
        return {"address": str(self.address), "cut": cut}

    def _workstation_entry(self, account: Account, what: str) -> Entry:
        facts: dict[str, Json] = {"what": what, "account": account.name, "address": str(self.address)}
        return Entry("", audit.Event.WORKSTATION, facts, self._desk.clock.now().wall // 1_000_000)

    # -- consents ------------------------------------------------------------------------------------------------

    async def _list_consents(self, account: Account, params: Members) -> Mapping[str, Json]:
        params.nothing_else()
        desk, now = self._desk, self._desk.clock.now()
        mine = [a for a in desk.consents.ledger.standing(now) if a.consent.admits(account.name, account.groups)]
        listed: list[Json] = []
        room = MAX_LISTING
        for one in sorted(mine, key=lambda a: a.term.wall):
            consent, under = one.consent, desk.sessions.roster.under(one.consent.jti)
            row: dict[str, Json] = {
                "consent": consent.cid,
                "resource_id": str(consent.resource_id),
                "giver": consent.giver,
                "kinds": sorted(map(str, consent.kinds)),
                "access": str(consent.access),
                "watched": consent.watched,
                "expires_at": consent.expires_at,
                "remaining_s": int(one.term.remaining(now)),
                "reason": consent.reason,
                "running": any(d.uuid == one.pin.uuid and d.running for d in desk.inventory.find(consent.resource_id)),
                "sessions": len(under),
                "connected": [{"account": x.account, "kind": str(x.session.kind)} for x in under[:CONNECTED_TOLD]],
            }
            room -= len(json.dumps(row)) + 1
            if room < 0:
                break
            listed.append(row)
        return {"consents": listed, "more": len(mine) - len(listed)}

    async def _delete(self, account: Account, params: Members) -> Mapping[str, Json]:
        desk = self._desk
        resource_id = params.resource_id()
        params.nothing_else()
        now = desk.clock.now()
        mine = [
            a
            for a in desk.consents.ledger.standing(now)
            if a.consent.resource_id == resource_id and a.consent.admits(account.name, account.groups)
        ]
        if not mine:
            raise await self._no_consent(account, resource_id, Refused(Refusal.NO_CONSENT))
        cut, seconds = desk.consents.delete(mine, account.name)
        try:
            await desk.journal.write()  # keeps its place behind the tombstones: when it returns they are on disk
        except JournalFailed as error:
            raise Refused(Refusal.AUDIT_FAILED, str(error)) from error
        return {"consents": len(mine), "sessions": cut, "cut_us": round(seconds * 1e6), "at_ms": now.wall // 1_000_000}

    # -- sessions ------------------------------------------------------------------------------------------------

    def _operator(self, account: Account) -> Operator:
        return Operator(account.name, account.groups, str(self.address), str(self._way), self.lapses)

    async def _open(self, account: Account, params: Members) -> Mapping[str, Json]:
        access = params.convert("access", Access) if params.has("access") else None
        wish = Wish(params.resource_id(), params.convert("kind", Kind), access)
        params.nothing_else()
        try:
            with self._calls.slow():
                session = await self._desk.sessions.open(wish, self._operator(account), self)
        except Refused as error:
            raise await self._no_consent(account, wish.resource_id, error) from None
        return self._opened(account, session)

    async def _resume(self, account: Account, params: Members) -> Mapping[str, Json]:
        name, received = params.text("session", 64), params.integer("received")
        params.nothing_else()
        return self._opened(account, self._desk.sessions.resume(name, self._operator(account), received, self))

    def _opened(self, account: Account, session: Session) -> Mapping[str, Json]:
        desk, now = self._desk, self._desk.clock.now()
        try:
            ticket = desk.tickets.issue(desk.randomness(32), session.id, account.name, self.address, now)
        except TicketsFull as error:
            desk.sessions.end(session, Ending.OPERATOR_LEFT)  # nobody could come for it
            raise Refused(Refusal.TOO_MANY, str(error)) from error
        return opened(session, ticket, desk.node, now, keyboard=desk.sessions.roster.owns_keyboard(session)).to_members()

    async def _leave(self, account: Account, params: Members) -> Mapping[str, Json]:
        session = params.text("session", 64)
        params.nothing_else()
        self._desk.sessions.leave(session, self._operator(account))
        return {}

    async def _take_keyboard(self, account: Account, params: Members) -> Mapping[str, Json]:
        live = self._desk.sessions.roster.mine(params.text("session", 64), self._operator(account))
        params.nothing_else()
        self._desk.sessions.hands.move_keyboard(live, live.id)
        return {"keyboard": True}

    async def _give_keyboard(self, account: Account, params: Members) -> Mapping[str, Json]:
        live = self._desk.sessions.roster.mine(params.text("session", 64), self._operator(account))
        to = params.text("to", 64)
        params.nothing_else()
        self._desk.sessions.hands.move_keyboard(live, to)
        return {"keyboard": to == live.id}

    async def _send_keys(self, account: Account, params: Members) -> Mapping[str, Json]:
        live = self._desk.sessions.roster.mine(params.text("session", 64), self._operator(account))
        chord = params.integers("chord", least=1, greatest=255, most=MAX_CHORD)
        params.nothing_else()
        with self._calls.slow():
            await self._desk.sessions.hands.send_chord(live, tuple(chord))
        return {}

    async def _release_input(self, account: Account, params: Members) -> Mapping[str, Json]:
        live = self._desk.sessions.roster.mine(params.text("session", 64), self._operator(account))
        params.nothing_else()
        self._desk.sessions.hands.release_input(live)
        return {}

    async def _mask_input(self, account: Account, params: Members) -> Mapping[str, Json]:
        live = self._desk.sessions.roster.mine(params.text("session", 64), self._operator(account))
        start, count = params.integer("from"), params.integer("count", least=1, most=MAX_MASKED)
        params.nothing_else()
        self._desk.sessions.hands.mask_input(live, start, count)
        return {}
