"""How a session begins: admitted, recorded, and given its console."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from broker.admission import Domain, Wish, admit
from broker.clock import Clock
from broker.cut import Cut
from broker.gate import Gate
from broker.graphics_console import GraphicsViewer
from broker.journal import Journal, JournalFailed
from broker.keyboard import Keyboard
from broker.lease import LeaseState
from broker.metrics import Metrics
from broker.roster import Listener, Live, Roster
from broker.serial_console import Owner, SerialConsole
from broker.session import Operator, Session, State, Step
from broker.watching import Watching
from eva import audit
from eva.consent import Access, Kind
from eva.control import Refusal, Refused
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Accepted, Pin
from eva.members import Json
from eva.resource_id import ResourceId
from hypervisor.dialer import Dialer, DialError, Host, Line

log = logging.getLogger(__name__)

TICKET_GRACE = 30.0  # seconds to redeem a ticket
START_TIMEOUT = 5.0  # seconds for the START record to reach the disk


class Inventory(Protocol):
    """What is known of the domains: hypervisor.inventory.Watch is one."""

    def find(self, resource_id: ResourceId) -> tuple[Domain, ...]: ...


class Openings:
    """`owner` is who owns the consoles. `standing` gives the consents in force, `randomness(n)` n random bytes."""

    def __init__(
        self,
        roster: Roster,
        cut: Cut,
        owner: Owner,
        clock: Clock,
        journal: Journal,
        lease: LeaseState,
        metrics: Metrics,
        dialer: Dialer,
        hosts: Mapping[str, Host],
        inventory: Inventory,
        standing: Callable[[Instant], list[Accepted]],
        watching: Watching,
        randomness: Callable[[int], bytes],
        most: int,
    ) -> None:
        self._roster = roster
        self._cut = cut
        self._owner = owner
        self._clock = clock
        self._journal = journal
        self._lease = lease
        self._metrics = metrics
        self._dialer = dialer
        self._hosts = hosts
        self._inventory = inventory
        self._standing = standing
        self._watching = watching
        self._randomness = randomness
        self._most = most

    async def open(self, wish: Wish, operator: Operator, listener: Listener) -> Session:
        """Admits the operator, records it, and opens the console. The session then waits for its websocket. Raises Refused."""
        began = time.perf_counter()
        live = self._admit(wish, operator, listener)
        session = live.session
        try:
            await self._record_start(session)
            # what was true at admission may have ended while the disk wrote: only what is still OPENING goes on
            if session.state is State.OPENING:
                await self._connect(live)
        except Refused as error:
            self._cut.end([live], Ending.AUDIT_FAILED if error.refusal is Refusal.AUDIT_FAILED else Ending.CONSOLE_LOST)
            raise
        except BaseException:  # the operator's connection went while this was under way
            self._cut.end([live], Ending.OPERATOR_LEFT)
            raise
        if session.state is not State.OPENING:
            raise Refused(Refusal.NO_CONSENT, "it ended while it opened")
        session.take(Step.OPENED)
        session.wait_until(self._clock.now().boot + round(TICKET_GRACE * NS))
        self._metrics.opening.labels(session.kind).observe(time.perf_counter() - began)
        self._roster.changed(live.pin)
        log.info(
            "session %s opened: %s %s for %s at %s", session.id, session.kind, session.access, operator.account, operator.address
        )
        return session

    def _admit(self, wish: Wish, operator: Operator, listener: Listener) -> Live:
        now = self._clock.now()
        if not self._lease.is_open(now):
            raise Refused(Refusal.LEASE_STALE)
        # who watches takes no operator's place
        like = sum(live.session.operator.is_tenant == operator.is_tenant for live in self._roster.lives.values())
        if like >= self._most:
            raise Refused(Refusal.TOO_MANY)
        domains = self._inventory.find(wish.resource_id)
        admitted = admit(wish, operator, self._standing(now), domains, self._watching.attended)
        accepted = admitted.accepted
        session = Session(self._randomness(16).hex(), operator, accepted, wish.kind, admitted.access, now)
        gate = Gate(self._clock, accepted.term, self._lease, self._watching.rein(accepted.consent))
        live = Live(session, gate, listener=listener)
        session.take(Step.ADMIT)
        self._roster.lives[session.id] = live
        self._metrics.sessions.labels(session.kind).inc()
        return live

    async def _record_start(self, session: Session) -> None:
        facts: dict[str, Json] = {
            "account": session.operator.account,
            "address": session.operator.address,
            "way": session.operator.way,
            "kind": str(session.kind),
            "access": str(session.access),
            "uuid": session.accepted.pin.uuid,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._journal.write(None, self._roster.entry(session, audit.Event.SESSION_START, facts))
        except (JournalFailed, TimeoutError) as error:
            raise Refused(Refusal.AUDIT_FAILED, str(error)) from error

    async def _connect(self, live: Live) -> None:
        """Gives the session its viewer, dialling if the VM's console is not open yet. Raises Refused."""
        session, pin = live.session, live.pin
        keyboard = self._roster.keyboards.setdefault(pin, Keyboard())
        if session.kind is Kind.GRAPHICS:
            line = await self._dial(pin, Kind.GRAPHICS)
            if session.state is not State.OPENING:
                line.cut()
                return
            live.viewer = GraphicsViewer(session, live.gate, line, keyboard, self._metrics, self._owner)
        else:
            async with self._roster.dialing.setdefault(pin, asyncio.Lock()):
                if session.state is State.OPENING:  # it may have ended while others dialled
                    await self._attend(live, keyboard)
        if live.viewer is not None and session.access is Access.KEYBOARD:
            keyboard.claim_free(session.id)

    async def _attend(self, live: Live, keyboard: Keyboard) -> None:
        """Gives the session its place at the VM's serial console, dialling if nobody has. Raises Refused."""
        session, pin = live.session, live.pin
        console = self._roster.consoles.get(pin)
        if console is None or console.closed:
            line = await self._dial(pin, Kind.SERIAL)
            if session.state is not State.OPENING:
                line.cut()
                return
            console = SerialConsole(line, keyboard, self._clock, self._metrics, self._owner)
            self._roster.consoles[pin] = console
        if session.state is State.OPENING:
            live.viewer = console.admit(session, live.gate)

    async def _dial(self, pin: Pin, kind: Kind) -> Line:
        host = self._hosts.get(pin.host)
        if host is None:
            raise Refused(Refusal.CONSOLE_FAILED, f"host {pin.host} is not in the settings")
        try:
            return await self._dialer.dial(host, pin.uuid, kind)
        except DialError as error:
            log.warning("domain %s on %s: no %s console: %s", pin.uuid, pin.host, kind, error)
            busy = error.failure.value == "busy"
            raise Refused(Refusal.CONSOLE_BUSY if busy else Refusal.CONSOLE_FAILED, str(error)) from error
