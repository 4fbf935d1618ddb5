"""What all watch connections of a node share: whom a token lets in, who watches now, and what a giver's word does.

What holds or ends something is done at once, in the call that brought it; only then comes the disk. What lets input pass again
comes after the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.audit_log import Entry
from broker.clock import Clock
from broker.consents import Consents
from broker.echo import Hidden
from broker.journal import Journal, JournalFailed
from broker.metrics import Metrics
from broker.openings import START_TIMEOUT, Inventory
from broker.session import TENANT, Session, State
from broker.sessions import Sessions
from broker.state import Change
from broker.tickets import Tickets
from broker.transcript import Parts, Transcript
from broker.watching import Rein, TooManyWatch, Watching
from eva import audit
from eva.consent import Access
from eva.control import Refusal, Refused
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.ledger import Accepted, Pin
from eva.members import Json
from eva.watch import Watch

HEARD_WITHIN = 1.0  # seconds that the answer to a pause waits for the provider to have it
MOST_TAKEN = 10_000  # watch tokens remembered, each for a minute or so
OPERATORS_TOLD = 32  # in one notice

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admission:
    """What a token that was taken lets its bearer watch."""

    watch: Watch
    accepted: Accepted


class Watcher(Protocol):
    """One watch connection: broker.watch_channel.WatchChannel. `id`: of this connection, in the audit."""

    id: str
    accepted: Accepted

    @property
    def has_console(self) -> bool: ...
    @property
    def is_here(self) -> bool: ...
    def tell_state(self) -> None: ...
    def beat(self, now: Instant) -> None: ...
    def tell_typed(self, session: Session, parts: list[Json]) -> None: ...
    def over(self, ending: Ending, at_ms: int, cut_us: int) -> None: ...
    def sign_out(self, ending: Ending) -> None: ...


class WatchDesk:
    """See the module. `taken`: the watch tokens that were taken before, and until when each would be in time."""

    def __init__(
        self,
        node: str,
        clock: Clock,
        journal: Journal,
        sessions: Sessions,
        consents: Consents,
        inventory: Inventory,
        watching: Watching,
        metrics: Metrics,
        randomness: Callable[[int], bytes],
        taken: Mapping[str, int],
    ) -> None:
        self.node = node
        self.clock = clock
        self.sessions = sessions
        self.metrics = metrics
        self.randomness = randomness
        self.tickets = Tickets()
        self.watchers: dict[str, Watcher] = {}
        self.provider_has: Callable[[float], Awaitable[bool]] = _nobody_knows  # what is on disk now: broker.testimony
        self._journal = journal
        self._consents = consents
        self._inventory = inventory
        self._watching = watching
        self._taken = dict(taken)
        self._begun: set[str] = set()  # the connections whose START is written, or under way
        self._stale: set[Pin] = set()
        sessions.roster.onlookers = self

    # -- who watches ---------------------------------------------------------------------------------------------

    def admit(self, token: str) -> Admission | None:
        """What this token lets its bearer watch; it is used up. None: nothing."""
        watch = self._consents.take_watch(token)
        # taken before anything waits: of many who come at once with one token, one finds it good
        if watch is None or watch.jti in self._taken or len(self._taken) >= MOST_TAKEN:
            return None
        self._taken[watch.jti] = watch.expires_at
        accepted = self._consents.of(watch.cid)
        if accepted is None:
            return None
        consent = accepted.consent
        return Admission(watch, accepted) if (consent.giver, consent.resource_id) == (watch.giver, watch.resource_id) else None

    async def begin(self, watcher: Watcher, watch: Watch, address: str) -> None:
        """Lets one watch, once that is on disk. Raises Refused. Whoever calls this calls `done` in every case."""
        now, rein = self.clock.now(), self.rein(watcher)
        if not rein.may_step(now):
            raise Refused(Refusal.RATE_LIMITED, "this giver's watch connections")
        change = Change().watch(watch.jti, watch.expires_at).watch_begun(watch.cid)
        if rein.paused:
            change = change.pause(rein.cid, paused=True)  # it may have come so, with the consent
        facts: dict[str, Json] = {"watch": watcher.id, "account": TENANT + watch.giver, "address": address}
        self._begun.add(watcher.id)
        await self._write(change, self._entry(watcher, audit.Event.WATCH_START, facts))
        current = self._consents.of(watch.cid)
        if current is None or not _is_of(current, watch.giver, watcher.accepted.pin):
            raise Refused(Refusal.NO_CONSENT, "it ended meanwhile")
        if not watcher.is_here:
            raise Refused(Refusal.NO_SESSION, "the connection went meanwhile")  # nobody sees what would pass now
        watcher.accepted = current
        held = rein.held
        try:
            self._watching.come(rein, watcher.id)
        except TooManyWatch as error:
            raise Refused(Refusal.TOO_MANY, str(error)) from error
        self.watchers[watcher.id] = watcher
        self.metrics.watches.set(len(self.watchers))
        if rein.held != held:
            self.sessions.heed(rein)
        self._listen(current.pin)
        self.sessions.roster.tell_viewers(current.pin)

    def done(self, watcher: Watcher) -> None:
        """The connection is over, or came to nothing."""
        now, rein = self.clock.now(), self.rein(watcher)
        held = rein.held
        self._watching.go(rein, watcher.id, now)
        if rein.held != held:
            self.sessions.heed(rein)
        self.watchers.pop(watcher.id, None)
        self.metrics.watches.set(len(self.watchers))
        self._listen(watcher.accepted.pin)
        self.sessions.roster.tell_viewers(watcher.accepted.pin)
        if watcher.id in self._begun:
            self._begun.discard(watcher.id)
            self._journal.post(None, self._entry(watcher, audit.Event.WATCH_END, {"watch": watcher.id}))

    def rein(self, watcher: Watcher) -> Rein:
        return self._watching.rein(watcher.accepted.consent)

    def sign_out(self, ending: Ending) -> None:
        """Ends every connection."""
        for watcher in list(self.watchers.values()):
            watcher.sign_out(ending)

    # -- the giver's word ----------------------------------------------------------------------------------------

    async def pause(self, watcher: Watcher) -> bool:
        """Holds all operators' input, also over a restart. Raises Refused where the disk did not take it; it holds even so.

        Gives whether the provider has it by now, so that it goes along if the consent moves. A while is waited for that.
        """
        rein = self.rein(watcher)
        if not rein.paused or rein.resuming:
            await self._written(self._hold(rein, watcher))
        return await self.provider_has(HEARD_WITHIN)

    def _hold(self, rein: Rein, watcher: Watcher) -> Awaitable[None]:
        rein.paused, rein.resuming, rein.word = True, False, rein.word + 1
        self.sessions.heed(rein)
        self.changed(watcher.accepted.pin)
        change = Change().pause(rein.cid, paused=True)
        return self._journal.post(change, self._entry(watcher, audit.Event.INPUT_PAUSED, _by(watcher)))

    async def resume(self, watcher: Watcher) -> None:
        """Lets input pass again, once that is on disk, also if the giver has gone by then. Raises Refused."""
        rein = self.rein(watcher)
        if not rein.paused:
            return
        if self._journal.crowded or not rein.may_step(self.clock.now()):
            raise Refused(Refusal.RATE_LIMITED, "pause and resume")
        rein.resuming, word = True, rein.word

        def on_disk() -> None:
            if rein.word == word:  # nobody paused meanwhile
                rein.paused, rein.resuming = False, False
                self.sessions.heed(rein)
                self.changed(watcher.accepted.pin)

        change = Change().pause(rein.cid, paused=False)
        entry = self._entry(watcher, audit.Event.INPUT_RESUMED, _by(watcher))
        try:
            await self._written(self._journal.post(change, entry, then=on_disk))
        except Refused:
            if rein.word == word and rein.resuming:
                self._hold(rein, watcher)  # what was refused is not to come true when the disk takes it after all
            raise

    async def stop(self, watcher: Watcher) -> Mapping[str, Json]:
        """Ends the consent here for good: a cut, a tombstone, and the provider hears of it. Raises Refused."""
        now, accepted = self.clock.now(), self._consents.of(watcher.accepted.consent.cid)
        if accepted is None:
            raise Refused(Refusal.NO_CONSENT)
        cut, seconds = self._consents.delete([accepted], TENANT + accepted.consent.giver)
        await self._write()  # keeps its place behind the tombstone: when it returns that is on disk
        return {"consents": 1, "sessions": cut, "cut_us": round(seconds * 1e6), "at_ms": now.wall // 1_000_000}

    def tick(self, now: Instant) -> None:
        """Ends the consents whose givers have left and wanted to watch; lets those who watch know that the line is alive."""
        for cid in self._watching.left(now):
            accepted = self._consents.of(cid)
            if accepted is not None:
                log.info("consent %s: its giver has left, and consented only while watching", cid)
                self._consents.delete([accepted], TENANT + accepted.consent.giver)
        for watcher in list(self.watchers.values()):
            watcher.beat(now)
        self.tickets.sweep(now)

    def note(self, now: Instant) -> None:
        """Forgets what no longer matters. Call it behind Consents.note_time, which puts the wall clock on disk."""
        seen = self._consents.ledger.wall_seen // NS
        self._taken = {jti: until for jti, until in self._taken.items() if until > seen}
        standing = {one.consent.cid for one in self._consents.ledger.standing(now)}
        self._journal.post(Change().forget_watches(seen).forget_reins(self._watching.keep(standing)))

    # -- Onlookers -----------------------------------------------------------------------------------------------

    def present(self, pin: Pin) -> list[Mapping[str, Json]]:
        """Who watches this VM with no console open, as a viewer: operators are to know that what they type is seen."""
        return [
            {
                "session": watcher.id,
                "account": TENANT + watcher.accepted.consent.giver,
                "kind": min(map(str, watcher.accepted.consent.kinds)),
                "access": str(Access.VIEW),
                "attached": True,
            }
            for watcher in self.watchers.values()
            if watcher.accepted.pin == pin and not watcher.has_console
        ]

    def changed(self, pin: Pin) -> None:
        """Soon tells those who watch this VM how all stands; many such calls make one notice."""
        if not self.watchers:
            return
        if not self._stale:
            asyncio.get_running_loop().call_soon(self._refresh)
        self._stale.add(pin)

    def renewed(self, before: Accepted, after: Accepted) -> None:
        for watcher in list(self.watchers.values()):
            if watcher.accepted.consent.jti != before.consent.jti:
                continue
            if _is_of(after, before.consent.giver, before.pin):
                watcher.accepted = after
                self.changed(after.pin)
            else:
                watcher.over(Ending.CONSENT_REVOKED, self.clock.now().wall // 1_000_000, 0)

    def over(self, jtis: Collection[str], ending: Ending, cut_us: int) -> None:
        at_ms = self.clock.now().wall // 1_000_000
        for watcher in list(self.watchers.values()):
            if watcher.accepted.consent.jti in jtis:
                watcher.over(ending, at_ms, cut_us)

    # -- what is told --------------------------------------------------------------------------------------------

    def state(self, accepted: Accepted) -> dict[str, Json]:
        """How all stands under a consent."""
        consent, roster = accepted.consent, self.sessions.roster
        sessions = [
            live.session
            for live in roster.under(consent.jti)
            if not live.session.operator.is_tenant and live.session.state in (State.LIVE, State.DETACHED)
        ]
        return {
            "consent": consent.cid,
            "resource_id": str(consent.resource_id),
            "node": self.node,
            "giver": consent.giver,
            "reason": consent.reason,
            "kinds": sorted(map(str, consent.kinds)),
            "access": str(consent.access),
            "watched": consent.watched,
            "expires_at": consent.expires_at,
            "remaining_s": int(accepted.term.remaining(self.clock.now())),
            "paused": self._watching.rein(consent).paused,
            "running": any(d.uuid == accepted.pin.uuid and d.running for d in self._inventory.find(consent.resource_id)),
            "operators": [
                {
                    "session": session.id,
                    "account": session.operator.account,
                    "kind": str(session.kind),
                    "access": str(session.access),
                    "attached": session.state is State.LIVE,
                    "keyboard": roster.owns_keyboard(session),
                    "since_ms": session.admitted_at.wall // 1_000_000,
                }
                for session in sessions[:OPERATORS_TOLD]
            ],
        }

    def _refresh(self) -> None:
        pins, self._stale = self._stale, set()
        for pin in pins:
            self._listen(pin)
        for watcher in list(self.watchers.values()):
            if watcher.accepted.pin in pins:
                watcher.tell_state()

    def _listen(self, pin: Pin) -> None:
        """Has what is typed on this VM's serial console told, or no longer."""
        console = self.sessions.roster.consoles.get(pin)
        if console is None or console.closed:
            return
        watched = any(watcher.accepted.pin == pin for watcher in self.watchers.values())
        if watched != (console.transcript is not None):
            console.listen(Transcript(self._typed) if watched else None)

    def _typed(self, session: Session, parts: Parts) -> None:
        told: list[Json] = []
        for part in parts:
            if isinstance(part, Hidden):
                told.append({"hidden": part.count})
            else:
                told.append({"text": part.text, "key": True} if part.is_key else {"text": part.text})
        for watcher in list(self.watchers.values()):
            if watcher.accepted.consent.cid == session.accepted.consent.cid:
                watcher.tell_typed(session, told)

    # -- inside --------------------------------------------------------------------------------------------------

    def _entry(self, watcher: Watcher, event: audit.Event, facts: Mapping[str, Json]) -> Entry:
        return Entry(watcher.accepted.consent.cid, event, facts, self.clock.now().wall // 1_000_000)

    async def _write(self, change: Change | None = None, *entries: Entry) -> None:
        """Raises Refused."""
        await self._written(self._journal.post(change, *entries))

    @staticmethod
    async def _written(written: Awaitable[None]) -> None:
        """Raises Refused. Cancelled, the writing still happens."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await asyncio.shield(written)
        except (JournalFailed, TimeoutError) as error:
            raise Refused(Refusal.AUDIT_FAILED, str(error)) from error


async def _nobody_knows(_: float) -> bool:
    return False


def _is_of(accepted: Accepted, giver: str, pin: Pin) -> bool:
    """Whether it is this giver's, for this very VM."""
    return accepted.consent.giver == giver and accepted.pin == pin


def _by(watcher: Watcher) -> Mapping[str, Json]:
    return {"by": TENANT + watcher.accepted.consent.giver, "watch": watcher.id}
