"""Who is on: the sessions that live with the parts that serve them, by id and by VM, and what they are told."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from broker.audit_log import Entry
from broker.clock import Clock
from broker.gate import Gate
from broker.graphics_console import GraphicsViewer
from broker.journal import Journal
from broker.keyboard import Keyboard
from broker.serial_console import SerialConsole, SerialViewer
from broker.session import Operator, Session, State
from eva import audit
from eva.control import Event, Refusal, Refused
from eva.ending import Ending
from eva.ledger import Accepted, Pin
from eva.members import Json

ENDED_KEPT = 1024  # endings remembered for those who come back
VIEWERS_TOLD = 16  # in one notice


class Listener(Protocol):
    """The control channel that a session's news go to."""

    def notify(self, event: Event, params: Mapping[str, Json]) -> None: ...


class Onlookers(Protocol):
    """Those tenants who watch what is done under their consents: broker.watch_desk.WatchDesk. No call waits."""

    def present(self, pin: Pin) -> list[Mapping[str, Json]]: ...
    def changed(self, pin: Pin) -> None: ...
    def renewed(self, before: Accepted, after: Accepted) -> None: ...
    def over(self, jtis: Collection[str], ending: Ending, cut_us: int) -> None: ...


@dataclass(slots=True)
class Live:
    """A session with the parts that serve it."""

    session: Session
    gate: Gate
    viewer: SerialViewer | GraphicsViewer | None = None
    listener: Listener | None = None
    lost: asyncio.TimerHandle | None = None
    chord: asyncio.Task[None] | None = None
    counted: set[int] = field(default_factory=set)  # the marks of the count-down that were told
    held_why: str = ""  # what its operator was told of graphics input that waits
    paused_told: bool | None = False  # what its operator was told of the tenant's rein; None: nothing that can be relied on
    stale: int = 0  # operator bytes that the guest may still receive, as the cut found it

    @property
    def id(self) -> str:
        return self.session.id

    @property
    def account(self) -> str:
        return self.session.operator.account

    @property
    def pin(self) -> Pin:
        return self.session.accepted.pin

    def tell(self, event: Event, params: Mapping[str, Json]) -> None:
        if self.listener is not None:
            self.listener.notify(event, {"session": self.id, **params})

    def tell_paused(self) -> None:
        """Tells an operator at a console that the tenant lets no input pass, and when that is over; whether or not any waits."""
        held = self.gate.rein.held
        if held != self.paused_told and self.session.state is State.LIVE and not self.session.operator.is_tenant:
            self.paused_told = held
            self.tell(Event.PAUSED, {"paused": held})


class Roster:
    """`lives`: by id. The rest by VM, while it has a session; `dialing` is held by whoever opens its serial console."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self.lives: dict[str, Live] = {}
        self.consoles: dict[Pin, SerialConsole] = {}
        self.keyboards: dict[Pin, Keyboard] = {}
        self.dialing: dict[Pin, asyncio.Lock] = {}
        self.onlookers: Onlookers | None = None
        self._ended: OrderedDict[str, tuple[Operator, Mapping[str, Json]]] = OrderedDict()  # the latest

    # -- who ------------------------------------------------------------------------------------------------------

    def mine(self, session_id: str, operator: Operator) -> Live:
        """The session of that id if it is this account's. Raises Refused."""
        live = self.lives.get(session_id)
        if live is None or live.session.operator.account != operator.account:
            raise Refused(Refusal.NO_SESSION)
        return live

    def on(self, pin: Pin) -> list[Live]:
        """The sessions on this VM."""
        return [live for live in self.lives.values() if live.pin == pin]

    def under(self, jti: str) -> list[Live]:
        """The sessions under this consent."""
        return [live for live in self.lives.values() if live.session.accepted.consent.jti == jti]

    def owns_keyboard(self, session: Session) -> bool:
        keyboard = self.keyboards.get(session.accepted.pin)
        return keyboard is not None and keyboard.owner == session.id

    # -- those that ended -----------------------------------------------------------------------------------------

    def remember_end(self, live: Live, params: Mapping[str, Json]) -> None:
        """Tells of the end, and keeps it for one who comes back."""
        live.tell(Event.ENDED, params)
        self._ended[live.id] = (live.session.operator, params)
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def ended_of(self, session_id: str) -> Operator | None:
        """Whose session it was, if it has ended of late."""
        return self._ended.get(session_id, (None, {}))[0]

    def tell_ended(self, session_id: str, operator: Operator, listener: Listener) -> None:
        """One who comes back to a session that was cut meanwhile is told why, before the refusal."""
        whose, params = self._ended.get(session_id, (None, {}))
        if whose == operator:
            listener.notify(Event.ENDED, {"session": session_id, **params})

    # -- telling and recording ------------------------------------------------------------------------------------

    def changed(self, pin: Pin) -> None:
        """Tells those who watch that something is not as it was with this VM's sessions."""
        if self.onlookers is not None:
            self.onlookers.changed(pin)

    def tell_viewers(self, pin: Pin) -> None:
        """Tells all of a VM's sessions, and who watches, who is there and who types."""
        self.changed(pin)
        here = self.on(pin)
        viewers: list[Json] = [
            {
                "session": live.id,
                "account": live.session.operator.account,
                "kind": str(live.session.kind),
                "access": str(live.session.access),
                "attached": live.session.state is State.LIVE,
            }
            for live in here[:VIEWERS_TOLD]
        ]
        if self.onlookers is not None:
            viewers += self.onlookers.present(pin)[: VIEWERS_TOLD - len(viewers)]
        keyboard = self.keyboards.get(pin)
        for live in here:
            live.tell(Event.VIEWERS, {"viewers": viewers, "keyboard": keyboard.owner if keyboard is not None else None})

    def entry(self, session: Session, event: audit.Event, facts: Mapping[str, Json]) -> Entry:
        """A record of the session, in its consent's chain."""
        facts = {"session": session.id, **facts}
        return Entry(session.accepted.consent.cid, event, facts, self._clock.now().wall // 1_000_000)

    def record(self, session: Session, event: audit.Event, facts: Mapping[str, Json]) -> None:
        """Writes it down without waiting."""
        self._journal.post(None, self.entry(session, event, facts))
