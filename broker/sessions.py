"""All sessions of a node: they begin (openings), their websockets come and go, their consent is renewed, they end (cut)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from broker.admission import Wish, covers
from broker.clock import Clock
from broker.cut import Cut
from broker.graphics_console import GraphicsViewer
from broker.hands import Hands
from broker.journal import Journal
from broker.lease import Hold, LeaseState
from broker.metrics import Metrics
from broker.openings import Inventory, Openings
from broker.roster import Listener, Live, Roster
from broker.serial_console import SerialViewer
from broker.session import Operator, Session, State, Step
from broker.watching import Rein, Watching
from broker.websocket import Departure, OperatorConnection
from eva import audit
from eva.consent import Kind
from eva.control import Event, Refusal, Refused
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Accepted, Pin
from hypervisor.dialer import Dialer, Host

log = logging.getLogger(__name__)

DROP_GRACE = 60.0  # seconds in which a serial session that dropped may be resumed
LOST_GRACE = 1.0  # seconds to learn from the inventory why a console ended by itself
COUNTDOWN = (900, 300, 60)  # seconds before the end at which operators are told


class Sessions:
    """See the module. `standing` gives the consents in force, `randomness(n)` n random bytes; at `most` so many sessions."""

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
        watching: Watching,
        randomness: Callable[[int], bytes],
        most: int,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._lease = lease
        self._standing = standing
        self._watching = watching
        self.roster = Roster(clock, journal)
        self.hands = Hands(self.roster, journal, dialer, hosts)
        self._cut = Cut(self.roster, clock, metrics)
        self._openings = Openings(
            self.roster,
            self._cut,
            self,
            clock,
            journal,
            lease,
            metrics,
            dialer,
            hosts,
            inventory,
            standing,
            watching,
            randomness,
            most,
        )
        self.stopping = False

    def __len__(self) -> int:
        return len(self.roster.lives)

    async def open(self, wish: Wish, operator: Operator, listener: Listener) -> Session:
        """Opens a console for the operator, as far as it may be. The session then waits for its websocket. Raises Refused."""
        if self.stopping:
            raise Refused(Refusal.STOPPING)
        if self._journal.crowded:
            raise Refused(Refusal.AUDIT_FAILED, "the provider does not take the records")
        return await self._openings.open(wish, operator, listener)

    # -- who is on -----------------------------------------------------------------------------------------------

    def kind_of(self, session_id: str) -> Kind | None:
        live = self.roster.lives.get(session_id)
        return None if live is None else live.session.kind

    def accounts(self) -> frozenset[str]:
        """Whoever has a session."""
        return frozenset(live.session.operator.account for live in self.roster.lives.values())

    # -- the websocket comes and goes ----------------------------------------------------------------------------

    def attach(self, session_id: str, connection: OperatorConnection) -> bool:
        """Shows the console on the connection that redeemed the session's ticket. False if the session cannot be shown."""
        live = self.roster.lives.get(session_id)
        if live is None or live.viewer is None or live.session.state is not State.DETACHED:
            return False
        live.session.take(Step.ATTACH)
        live.viewer.attach(connection)
        self.roster.tell_viewers(live.pin)
        live.tell_paused()
        return True

    def resume(self, session_id: str, operator: Operator, received: int, listener: Listener) -> Session:
        """Readies a serial session for another connection of the same account and address. Raises Refused."""
        self.roster.tell_ended(session_id, operator, listener)
        live = self.roster.mine(session_id, operator)
        viewer = live.viewer
        if live.session.operator != operator or not isinstance(viewer, SerialViewer):
            raise Refused(Refusal.NO_SESSION, "not this operator's, or not one that resumes")
        if live.session.state is State.LIVE:
            connection = viewer.connection
            self._detach(live)
            if connection is not None:
                connection.end(Ending.TAKEN_OVER.code, Ending.TAKEN_OVER.text)
        live.session.operator = operator  # who may have signed in anew since, and so for longer
        viewer.resume_from = received
        live.listener = listener
        live.paused_told = None
        live.session.wait_until(self._clock.now().boot + round(DROP_GRACE * NS))
        self.roster.record(live.session, audit.Event.SESSION_RESUMED, {})
        return live.session

    def departed(self, session: Session, departure: Departure) -> None:
        """The operator's connection is over: a console's Feed calls this."""
        live = self.roster.lives.get(session.id)
        if live is None:
            return
        dropped = departure in (Departure.LOST, Departure.SILENT)
        if departure is Departure.FAULT:
            self._cut.end([live], Ending.PROTOCOL_ERROR)
        elif dropped and session.kind is Kind.SERIAL and session.state is State.LIVE and not session.operator.is_tenant:
            self._detach(live)
            self.roster.tell_viewers(live.pin)
        else:
            self._cut.end([live], Ending.OPERATOR_LEFT)

    def _detach(self, live: Live) -> None:
        live.session.take(Step.DETACH)
        live.session.wait_until(self._clock.now().boot + round(DROP_GRACE * NS))
        if live.viewer is not None:
            live.viewer.detach()

    # -- renewal -------------------------------------------------------------------------------------------------

    def carry_on(self, before: Accepted, after: Accepted) -> int:
        """The consent `before` is replaced by `after`. What that does not admit is cut now; gives how many sessions that is.

        The rest belong to `after` from now on, but last no longer than they would have until `extend` says that it is on disk.
        """
        concerned = self.roster.under(before.consent.jti)
        for live in concerned:
            session = live.session
            if before.pin == after.pin and covers(after.consent, session.operator, session.kind, session.access):
                session.accepted = after
                live.gate.term = live.gate.term.at_most(after.term)
        lost = [live for live in concerned if live.session.accepted is before]
        cut = self._cut.end(lost, Ending.CONSENT_REVOKED)
        # until it is on disk, the strictest of those that are not yet, and of the one that is
        self._rewatch(after, watched=self._watching.rein(before.consent).watched or after.consent.watched)
        if self.roster.onlookers is not None:
            self.roster.onlookers.renewed(before, after)
        return cut

    def extend(self, accepted: Accepted) -> None:
        """The consent that sessions were carried over to is on disk: its end is theirs."""
        now = self._clock.now()
        if any(one is accepted for one in self._standing(now)):  # or another has renewed it meanwhile, and says so itself
            self._rewatch(accepted, watched=accepted.consent.watched)
        remaining = accepted.term.remaining(now)
        told = {"expires_at": accepted.consent.expires_at, "remaining_s": round(remaining)}
        for live in list(self.roster.lives.values()):  # a console that breaks the protocol ends in here
            if live.session.accepted is accepted:
                live.gate.term = accepted.term
                live.counted = {mark for mark in COUNTDOWN if remaining <= mark}
                live.tell(Event.RENEWED, told)
                if live.viewer is not None:
                    live.viewer.wake()

    # -- endings -------------------------------------------------------------------------------------------------

    def end(self, session: Session, ending: Ending) -> None:
        live = self.roster.lives.get(session.id)
        if live is not None:
            self._cut.end([live], ending)

    def end_consents(self, jtis: Iterable[str], ending: Ending) -> int:
        """Cuts every session under these consents. The cut is done when this returns. Gives how many there were."""
        began = time.perf_counter()
        wanted = frozenset(jtis)
        cut = self._end_where(lambda live: live.session.accepted.consent.jti in wanted, ending)
        if self.roster.onlookers is not None:
            self.roster.onlookers.over(wanted, ending, round((time.perf_counter() - began) * 1e6))
        return cut

    def end_domain(self, pin: Pin, ending: Ending) -> int:
        """Cuts every session on this VM."""
        return self._cut.end(self.roster.on(pin), ending)

    def end_workstation(self, account: str, address: str) -> int:
        """Cuts the sessions of this account from this address."""
        whose = (account, address)
        return self._end_where(lambda x: (x.session.operator.account, x.session.operator.address) == whose, Ending.OPERATOR_LEFT)

    def end_accounts(self, accounts: Iterable[str]) -> int:
        """Cuts the sessions of these accounts."""
        gone = frozenset(accounts)
        return self._end_where(lambda live: live.session.operator.account in gone, Ending.OPERATOR_LEFT)

    def end_all(self, ending: Ending) -> int:
        return self._cut.end(list(self.roster.lives.values()), ending)

    def leave(self, session_id: str, operator: Operator) -> None:
        """The operator has had enough. One that has just ended, as with its websocket, is left already. Raises Refused."""
        whose = self.roster.ended_of(session_id)
        if whose is None or whose.account != operator.account:
            self._cut.end([self.roster.mine(session_id, operator)], Ending.OPERATOR_LEFT)

    def line_lost(self, sessions: list[Session]) -> None:
        """A console ended by itself. The gates are closed; the reason comes from the inventory, or it was the console."""
        for session in sessions:
            live = self.roster.lives.get(session.id)
            if live is not None and live.lost is None:
                # its keyboard is free for whoever dials anew meanwhile
                live.stale = live.viewer.stale if live.viewer is not None else 0
                self.roster.keyboards[live.pin].let_go(session.id)
                live.lost = asyncio.get_running_loop().call_later(LOST_GRACE, self.end, session, Ending.CONSOLE_LOST)

    def _end_where(self, is_meant: Callable[[Live], bool], ending: Ending) -> int:
        return self._cut.end([live for live in self.roster.lives.values() if is_meant(live)], ending)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> None:
        """Ends what the lease ends, the operator's absence or the end of their sign-in, and tells how much time is left."""
        if self._lease.hold(now) is Hold.LOST:
            self.end_all(Ending.LEASE_LOST)
        self._end_where(lambda live: live.session.abandoned(now), Ending.OPERATOR_LEFT)
        for live in self.roster.lives.values():
            self._tell_held(live)
            remaining = live.session.accepted.term.remaining(now)
            due = [mark for mark in COUNTDOWN if remaining <= mark and mark not in live.counted]
            if due:
                live.counted.update(due)
                if live.session.accepted.term.remaining(live.session.admitted_at) > min(due):
                    live.tell(Event.COUNTDOWN, {"remaining_s": round(remaining)})

    def _tell_held(self, live: Live) -> None:
        """Tells a graphics session, which has no notices in its stream, that its input waits; and when it no longer does."""
        if not isinstance(live.viewer, GraphicsViewer):
            return
        waiting = live.viewer.waiting
        why = live.gate.held_by if waiting else ""
        if why != live.held_why and (why or not waiting):
            live.held_why = why
            live.tell(Event.HELD, {"held": waiting, "why": why})

    def wake(self) -> None:
        """The lease is fresh again: input that was held goes on."""
        for live in list(self.roster.lives.values()):  # a console that breaks the protocol ends in here
            if live.viewer is not None:
                live.viewer.wake()

    # -- the tenant's rein ---------------------------------------------------------------------------------------

    def heed(self, rein: Rein) -> None:
        """The rein holds input now, or no longer does: keys that are down are let go, and what is under way is stopped."""
        for live in [x for x in self.roster.lives.values() if x.gate.rein is rein]:
            live.tell_paused()
            if not rein.held and live.viewer is not None:
                live.viewer.wake()
            elif rein.held:
                if live.chord is not None:
                    live.chord.cancel()
                if isinstance(live.viewer, GraphicsViewer):
                    live.viewer.rein_in()

    def _rewatch(self, accepted: Accepted, *, watched: bool) -> None:
        rein = self._watching.rein(accepted.consent)
        held = rein.held
        rein.want(watched=watched, now=self._clock.now())
        if rein.held != held:
            self.heed(rein)
