"""All sessions of a node: from admission through one console to the one recorded ending.

A cut goes in this order, whatever it is for: every gate is shut; keys that are down are let go; every line is cut, socket
and worker; the websockets are told; the records are written. The first three never wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from broker.admission import Domain, Wish, admit
from broker.audit_log import Entry
from broker.clock import Clock
from broker.gate import Gate
from broker.graphics_console import GraphicsViewer
from broker.journal import Journal, JournalFailed
from broker.keyboard import Keyboard
from broker.lease import Hold, LeaseState
from broker.metrics import Metrics
from broker.serial_console import SerialConsole, SerialViewer
from broker.session import Operator, Session, State, Step
from broker.websocket import Departure, OperatorConnection
from eva import audit
from eva.consent import Access, Kind
from eva.control import Event, Refusal, Refused
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Accepted, Pin
from eva.members import Json
from eva.resource_id import ResourceId
from hypervisor.dialer import Dialer, DialError, Host, Line

log = logging.getLogger(__name__)

TICKET_GRACE = 30.0  # seconds to redeem a ticket
DROP_GRACE = 60.0  # seconds in which a serial session that dropped may be resumed
LOST_GRACE = 1.0  # seconds to learn from the inventory why a console ended by itself
START_TIMEOUT = 5.0  # seconds for the START record to reach the disk
ENDED_KEPT = 1024  # endings remembered for those who come back
COUNTDOWN = (900, 300, 60)  # seconds before the end at which operators are told


class Listener(Protocol):
    """The control channel that a session's news go to."""

    def notify(self, event: Event, params: Mapping[str, Json]) -> None: ...


class Inventory(Protocol):
    """What is known of the domains: hypervisor.inventory.Watch is one."""

    def find(self, resource_id: ResourceId) -> tuple[Domain, ...]: ...


@dataclass(slots=True)
class Live:
    """A session with the parts that serve it."""

    session: Session
    gate: Gate
    viewer: SerialViewer | GraphicsViewer | None = None
    listener: Listener | None = None
    lost: asyncio.TimerHandle | None = None
    chord: asyncio.Task[None] | None = None
    counted: set[int] = field(default_factory=set)
    held_told: bool = False
    stale: int = 0  # operator bytes that the guest may still receive, as the cut found it

    @property
    def id(self) -> str:
        return self.session.id


class Sessions:
    """See the module. `randomness(n)` gives n random bytes."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        lease: LeaseState,
        metrics: Metrics,
        dialer: Dialer,
        hosts: Mapping[str, Host],
        inventory: Inventory,
        standing: Callable[[Instant], list[Accepted]],
        randomness: Callable[[int], bytes],
        most: int,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._lease = lease
        self._metrics = metrics
        self._dialer = dialer
        self._hosts = hosts
        self._inventory = inventory
        self._standing = standing
        self._randomness = randomness
        self._most = most
        self._live: dict[str, Live] = {}
        self._consoles: dict[Pin, SerialConsole] = {}
        self._keyboards: dict[Pin, Keyboard] = {}
        self._dialing: dict[Pin, asyncio.Lock] = {}
        self._chords: set[Pin] = set()
        self._ended: OrderedDict[str, tuple[Operator, Mapping[str, Json]]] = OrderedDict()  # the latest
        self.stopping = False

    def __len__(self) -> int:
        return len(self._live)

    # -- opening -------------------------------------------------------------------------------------------------

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
            self._end([live], Ending.AUDIT_FAILED if error.refusal is Refusal.AUDIT_FAILED else Ending.CONSOLE_LOST)
            raise
        except BaseException:  # the operator's connection went while this was under way
            self._end([live], Ending.OPERATOR_LEFT)
            raise
        if session.state is not State.OPENING:
            raise Refused(Refusal.NO_CONSENT, "it ended while it opened")
        session.take(Step.OPENED)
        session.wait_until(self._clock.now().boot + round(TICKET_GRACE * NS))
        self._metrics.opening.labels(session.kind).observe(time.perf_counter() - began)
        log.info(
            "session %s opened: %s %s for %s at %s", session.id, session.kind, session.access, operator.account, operator.address
        )
        return session

    def _admit(self, wish: Wish, operator: Operator, listener: Listener) -> Live:
        now = self._clock.now()
        if self.stopping:
            raise Refused(Refusal.STOPPING)
        if not self._lease.is_open(now):
            raise Refused(Refusal.LEASE_STALE)
        if len(self._live) >= self._most:
            raise Refused(Refusal.TOO_MANY)
        admitted = admit(wish, operator, self._standing(now), self._inventory.find(wish.resource_id))
        session = Session(self._randomness(16).hex(), operator, admitted.accepted, wish.kind, admitted.access, now)
        live = Live(session, Gate(self._clock, admitted.accepted.term, self._lease), listener=listener)
        session.take(Step.ADMIT)
        self._live[session.id] = live
        self._metrics.sessions.labels(session.kind).inc()
        return live

    async def _record_start(self, session: Session) -> None:
        facts: dict[str, Json] = {
            "session": session.id,
            "account": session.operator.account,
            "address": session.operator.address,
            "kind": str(session.kind),
            "access": str(session.access),
            "uuid": session.accepted.pin.uuid,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._journal.write(None, self._entry(session, audit.Event.SESSION_START, facts))
        except (JournalFailed, TimeoutError) as error:
            raise Refused(Refusal.AUDIT_FAILED, str(error)) from error

    async def _connect(self, live: Live) -> None:
        """Gives the session its viewer, dialling if the VM's console is not open yet. Raises Refused."""
        session, pin = live.session, live.session.accepted.pin
        keyboard = self._keyboards.setdefault(pin, Keyboard())
        if session.kind is Kind.GRAPHICS:
            line = await self._dial(pin, Kind.GRAPHICS)
            if session.state is not State.OPENING:
                line.cut()
                return
            live.viewer = GraphicsViewer(session, live.gate, line, keyboard, self._metrics, self)
        else:
            async with self._dialing.setdefault(pin, asyncio.Lock()):
                console = self._consoles.get(pin)
                if console is None or console.closed:
                    line = await self._dial(pin, Kind.SERIAL)
                    if session.state is not State.OPENING:
                        line.cut()
                        return
                    console = self._consoles[pin] = SerialConsole(line, keyboard, self._clock, self._metrics, self)
                if session.state is State.OPENING:
                    live.viewer = console.admit(session, live.gate)
        if live.viewer is not None and session.access is Access.KEYBOARD:
            keyboard.claim_free(session.id)

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

    # -- the websocket comes and goes ----------------------------------------------------------------------------

    def attach(self, session_id: str, connection: OperatorConnection) -> bool:
        """Shows the console on the connection that redeemed the session's ticket. False if the session cannot be shown."""
        live = self._live.get(session_id)
        if live is None or live.viewer is None or live.session.state is not State.DETACHED:
            return False
        live.session.take(Step.ATTACH)
        live.viewer.attach(connection)
        self._tell_viewers(live.session.accepted.pin)
        return True

    def resume(self, session_id: str, operator: Operator, received: int, listener: Listener) -> Session:
        """Readies a serial session for another connection of the same account and address. Raises Refused."""
        self._tell_ended(session_id, operator, listener)
        live = self.mine(session_id, operator)
        viewer = live.viewer
        if live.session.operator != operator or not isinstance(viewer, SerialViewer):
            raise Refused(Refusal.NO_SESSION, "not this operator's, or not one that resumes")
        if live.session.state is State.LIVE:
            connection = viewer.connection
            self._detach(live, DROP_GRACE)
            if connection is not None:
                connection.end(Ending.TAKEN_OVER.code, Ending.TAKEN_OVER.text)
        viewer.resume_from = received
        live.listener = listener
        live.session.wait_until(self._clock.now().boot + round(DROP_GRACE * NS))
        self._record(live.session, audit.Event.SESSION_RESUMED, {})
        return live.session

    def departed(self, session: Session, departure: Departure) -> None:
        """The operator's connection is over: a console's Feed calls this."""
        live = self._live.get(session.id)
        if live is None:
            return
        dropped = departure in (Departure.LOST, Departure.SILENT)
        if departure is Departure.FAULT:
            self._end([live], Ending.PROTOCOL_ERROR)
        elif dropped and session.kind is Kind.SERIAL and session.state is State.LIVE:
            self._detach(live, DROP_GRACE)
            self._tell_viewers(session.accepted.pin)
        else:
            self._end([live], Ending.OPERATOR_LEFT)

    def _detach(self, live: Live, grace: float) -> None:
        live.session.take(Step.DETACH)
        live.session.wait_until(self._clock.now().boot + round(grace * NS))
        if live.viewer is not None:
            live.viewer.detach()

    # -- endings -------------------------------------------------------------------------------------------------

    def end(self, session: Session, ending: Ending) -> None:
        live = self._live.get(session.id)
        if live is not None:
            self._end([live], ending)

    def end_consents(self, jtis: Iterable[str], ending: Ending) -> int:
        """Cuts every session under these consents. The cut is done when this returns. Gives how many there were."""
        wanted = frozenset(jtis)
        return self._end([x for x in self._live.values() if x.session.accepted.consent.jti in wanted], ending)

    def end_domain(self, pin: Pin, ending: Ending) -> int:
        """Cuts every session on this VM."""
        return self._end([x for x in self._live.values() if x.session.accepted.pin == pin], ending)

    def end_workstation(self, account: str, address: str) -> int:
        """Cuts the sessions of this account from this address."""
        mine = [x for x in self._live.values() if (x.session.operator.account, x.session.operator.address) == (account, address)]
        return self._end(mine, Ending.OPERATOR_LEFT)

    def end_accounts(self, accounts: Iterable[str]) -> int:
        """Cuts the sessions of these accounts."""
        gone = frozenset(accounts)
        return self._end([x for x in self._live.values() if x.session.operator.account in gone], Ending.OPERATOR_LEFT)

    def end_all(self, ending: Ending) -> int:
        return self._end(list(self._live.values()), ending)

    def line_lost(self, sessions: list[Session]) -> None:
        """A console ended by itself. The gates are closed; the reason comes from the inventory, or it was the console."""
        for session in sessions:
            live = self._live.get(session.id)
            if live is not None and live.lost is None:
                # its keyboard is free for whoever dials anew meanwhile
                live.stale = live.viewer.stale if live.viewer is not None else 0
                self._keyboards[session.accepted.pin].let_go(session.id)
                live.lost = asyncio.get_running_loop().call_later(LOST_GRACE, self.end, session, Ending.CONSOLE_LOST)

    def _end(self, lives: Iterable[Live], ending: Ending) -> int:
        """The cut: see the module for its order."""
        ended = [live for live in lives if live.gate.shut(ending)]
        for live in ended:
            self._let_go(live)
        self._cut_lines(ended)
        for live in ended:
            self._close(live, ending)
        for live in ended:
            self._book(live, ending)
        for pin in {live.session.accepted.pin for live in ended}:
            self._tidy(pin)
        return len(ended)

    def _let_go(self, live: Live) -> None:
        """Stops what is under way for the session, and lets go of its keys."""
        self._live.pop(live.id, None)
        if live.chord is not None:
            live.chord.cancel()
        if live.lost is not None:
            live.lost.cancel()
        if live.viewer is not None:
            live.stale = max(live.stale, live.viewer.stale)
            live.viewer.release_keys()

    def _cut_lines(self, ended: Iterable[Live]) -> None:
        """Cuts each line that no other session uses."""
        for live in ended:
            if isinstance(live.viewer, GraphicsViewer):
                live.viewer.cut()
        gone = frozenset(live.id for live in ended)
        for console in self._consoles.values():
            if console.viewers.keys() <= gone:
                console.close()

    def _close(self, live: Live, ending: Ending) -> None:
        """Tells the operator: the close frame."""
        live.session.take(Step.END, ending)
        keyboard = self._keyboards.get(live.session.accepted.pin)
        if keyboard is not None:
            keyboard.let_go(live.id)
        if live.viewer is not None:
            live.viewer.close(ending)

    def _book(self, live: Live, ending: Ending) -> None:
        """Records the end, and tells the control channel."""
        session, viewer, stale = live.session, live.viewer, live.stale
        now = self._clock.now()
        self._metrics.sessions.labels(session.kind).dec()
        self._metrics.endings.labels(session.kind, ending.word).inc()
        facts: dict[str, Json] = {
            "reason": ending.word,
            "to_guest": live.gate.passed,
            "to_operator": viewer.shown if viewer is not None else 0,
            "stale_at_most": stale,
            "lasted_ms": (now.boot - session.admitted_at.boot) // 1_000_000,
        }
        self._record(session, audit.Event.SESSION_END, facts)
        log.info("session %s ended: %s", session.id, ending.word)
        params: dict[str, Json] = {"session": session.id, "reason": ending.word, "text": ending.text}
        params |= {"at_ms": now.wall // 1_000_000, "stale_bytes": stale}
        if live.listener is not None:
            live.listener.notify(Event.ENDED, params)
        self._ended[session.id] = (session.operator, params)
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def _tell_ended(self, session_id: str, operator: Operator, listener: Listener) -> None:
        """One who comes back to a session that was cut meanwhile is told why, before the refusal."""
        whose, params = self._ended.get(session_id, (None, {}))
        if whose == operator:
            listener.notify(Event.ENDED, params)

    def _tidy(self, pin: Pin) -> None:
        """Forgets what belonged to a VM that has no session any more, and tells those that remain who is left."""
        if any(live.session.accepted.pin == pin for live in self._live.values()):
            self._tell_viewers(pin)
            return
        console = self._consoles.pop(pin, None)
        if console is not None:
            console.close()
        self._keyboards.pop(pin, None)
        lock = self._dialing.get(pin)
        if lock is not None and not lock.locked():
            del self._dialing[pin]

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> None:
        """Ends what the lease or the operator's absence ends, and tells how much time is left."""
        if self._lease.hold(now) is Hold.LOST:
            self.end_all(Ending.LEASE_LOST)
        absent = [x for x in self._live.values() if x.session.deadline is not None and now.boot >= x.session.deadline]
        self._end(absent, Ending.OPERATOR_LEFT)
        for live in self._live.values():
            self._tell_held(live, now)
            remaining = live.session.accepted.term.remaining(now)
            due = [mark for mark in COUNTDOWN if remaining <= mark and mark not in live.counted]
            if due:
                live.counted.update(due)
                if live.session.accepted.term.remaining(live.session.admitted_at) > min(due):
                    self._tell(live, Event.COUNTDOWN, {"remaining_s": round(remaining)})

    def _tell_held(self, live: Live, now: Instant) -> None:
        """Tells a graphics session, which has no notices in its stream, that its input waits; and when it no longer does."""
        if not isinstance(live.viewer, GraphicsViewer):
            return
        waiting = live.viewer.waiting
        if (waiting and not live.held_told and not self._lease.is_open(now)) or (live.held_told and not waiting):
            live.held_told = bool(waiting)
            self._tell(live, Event.HELD, {"held": waiting, "why": "lease" if waiting else ""})

    def wake(self) -> None:
        """The lease is fresh again: input that was held goes on."""
        for live in list(self._live.values()):  # a console that breaks the protocol ends in here
            if live.viewer is not None:
                live.viewer.wake()

    # -- what operators do ---------------------------------------------------------------------------------------

    def mine(self, session_id: str, operator: Operator) -> Live:
        """The session of that id if it is this account's. Raises Refused."""
        live = self._live.get(session_id)
        if live is None or live.session.operator.account != operator.account:
            raise Refused(Refusal.NO_SESSION)
        return live

    def kind_of(self, session_id: str) -> Kind | None:
        live = self._live.get(session_id)
        return None if live is None else live.session.kind

    def leave(self, session_id: str, operator: Operator) -> None:
        """The operator has had enough. One that has just ended, as with its websocket, is left already. Raises Refused."""
        whose, _ = self._ended.get(session_id, (None, {}))
        if whose is None or whose.account != operator.account:
            self._end([self.mine(session_id, operator)], Ending.OPERATOR_LEFT)

    def accounts(self) -> frozenset[str]:
        """Whoever has a session."""
        return frozenset(live.session.operator.account for live in self._live.values())

    def under(self, jti: str) -> int:
        """How many sessions there are under a consent."""
        return sum(live.session.accepted.consent.jti == jti for live in self._live.values())

    def owns_keyboard(self, session: Session) -> bool:
        keyboard = self._keyboards.get(session.accepted.pin)
        return keyboard is not None and keyboard.owner == session.id

    def move_keyboard(self, live: Live, to: str) -> None:
        """Gives the VM's keyboard to the session `to`: openly, recorded, and told to all. Raises Refused."""
        target = self._live.get(to)
        pin = live.session.accepted.pin
        if target is None or target.session.accepted.pin != pin or target.session.access is not Access.KEYBOARD:
            raise Refused(Refusal.NO_KEYBOARD)
        if target is not live and not self.owns_keyboard(live.session):
            raise Refused(Refusal.NO_KEYBOARD)
        before = self._keyboards[pin].take(to)
        self._record(target.session, audit.Event.KEYBOARD, {"by": live.session.operator.account, "from": before or ""})
        for other in self._on(pin):
            if isinstance(other.viewer, GraphicsViewer):
                other.viewer.keyboard_moved()
        if pin in self._consoles:
            self._consoles[pin].keyboard_moved()
        self._tell_viewers(pin)

    def release_input(self, live: Live) -> None:
        """The operator's "send anyway", recorded. Raises Refused."""
        console = self._consoles.get(live.session.accepted.pin)
        if console is None or not isinstance(live.viewer, SerialViewer) or not self.owns_keyboard(live.session):
            raise Refused(Refusal.NO_KEYBOARD)
        self._record(live.session, audit.Event.INPUT_RELEASED, {"stale": console.allowance.stale})
        console.release_held()

    async def send_chord(self, live: Live, chord: tuple[int, ...]) -> None:
        """Presses a chord in the guest, through the gate, one at a time for each VM, recorded before. Raises Refused."""
        session, pin = live.session, live.session.accepted.pin
        if not self.owns_keyboard(session) or pin in self._chords:
            raise Refused(Refusal.NO_KEYBOARD, "not the owner, or a chord is under way")
        self._chords.add(pin)
        try:
            try:
                await self._journal.write(
                    None, self._entry(session, audit.Event.KEYS_SENT, {"session": session.id, "keys": len(chord)})
                )
            except JournalFailed as error:
                raise Refused(Refusal.AUDIT_FAILED, str(error)) from error
            if not live.gate.open() or not self.owns_keyboard(session):
                raise Refused(Refusal.LEASE_STALE, "the gate is closed")
            live.chord = asyncio.ensure_future(self._dialer.send_keys(self._hosts[pin.host], pin.uuid, chord))
            await live.chord
        except (DialError, asyncio.CancelledError) as error:
            if live.gate.ending is None and isinstance(error, asyncio.CancelledError):
                raise
            raise Refused(Refusal.CONSOLE_FAILED, str(error)) from error
        finally:
            live.chord = None
            self._chords.discard(pin)

    # -- telling -------------------------------------------------------------------------------------------------

    def _on(self, pin: Pin) -> list[Live]:
        return [live for live in self._live.values() if live.session.accepted.pin == pin]

    def _tell_viewers(self, pin: Pin) -> None:
        """Tells all of a VM's sessions who is there and who types."""
        here = self._on(pin)
        viewers: list[Json] = [
            {
                "session": live.id,
                "account": live.session.operator.account,
                "kind": str(live.session.kind),
                "access": str(live.session.access),
                "attached": live.session.state is State.LIVE,
            }
            for live in here[:16]
        ]
        keyboard = self._keyboards.get(pin)
        for live in here:
            self._tell(live, Event.VIEWERS, {"viewers": viewers, "keyboard": keyboard.owner if keyboard is not None else None})

    @staticmethod
    def _tell(live: Live, event: Event, params: Mapping[str, Json]) -> None:
        if live.listener is not None:
            live.listener.notify(event, {"session": live.id, **params})

    def _entry(self, session: Session, event: audit.Event, facts: Mapping[str, Json]) -> Entry:
        return Entry(session.accepted.consent.jti, event, facts, self._clock.now().wall // 1_000_000)

    def _record(self, session: Session, event: audit.Event, facts: Mapping[str, Json]) -> None:
        self._journal.post(None, self._entry(session, event, {"session": session.id, **facts}))
