"""What a consent's giver lets operators do while it stands: pause, and "only while I watch". Pure.

A consent (by its cid, so over its renewals) has one rein, which every gate under it asks at every byte. Errors:

    TooManyWatch    the consent has as many watch connections as it may
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from eva.consent import Consent
from eva.control import Refusal
from eva.instant import NS, Instant

WATCH_GRACE = 60.0  # seconds after the last watch connection in which the giver of a watched consent may come back
MOST_WATCHES = 4  # watch connections of one consent: a page loaded anew comes before the old one is missed
MOST_STEPS = 60  # what a giver may do in STEP_SECONDS that is written to the audit
STEP_SECONDS = 60.0


class TooManyWatch(Exception):
    """`count`: how many there are."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count} watch connections")


@dataclass(frozen=True, slots=True)
class StoredRein:
    """What a restart must not forget of a rein."""

    cid: str
    paused: bool
    begun: bool


@dataclass(slots=True)
class Rein:
    """One consent's. `begun`: somebody has watched, so that nobody watching means that the giver has left."""

    cid: str
    watched: bool
    paused: bool = False
    begun: bool = False
    watches: set[str] = field(default_factory=set)
    left_at: int | None = None  # boot clock (ns)
    word: int = 0  # how often pause was said: a resume that was on its way to the disk then counts no more
    resuming: bool = False  # the last word is resume, and on its way to the disk
    steps: deque[int] = field(default_factory=deque)  # boot clock (ns) of the latest

    @property
    def held(self) -> bool:
        """Whether no input may pass."""
        return self.paused or (self.watched and not self.watches)

    @property
    def refusal(self) -> Refusal | None:
        """Why input is refused, if it is."""
        if self.paused:
            return Refusal.PAUSED
        return Refusal.NOT_WATCHED if self.held else None

    def may_step(self, now: Instant) -> bool:
        """Counts one thing more that will be recorded. False where it is too much: a giver may not flood the audit."""
        while self.steps and now.boot - self.steps[0] >= STEP_SECONDS * NS:
            self.steps.popleft()
        if len(self.steps) >= MOST_STEPS:
            return False
        self.steps.append(now.boot)
        return True

    def want(self, *, watched: bool, now: Instant) -> None:
        """The consent was renewed with this. Where it is watched from now on, whoever is on needs its giver to come."""
        if watched and not self.watched and not self.watches:
            self.begun, self.left_at = True, now.boot
        self.watched = watched


class Watching:
    """All reins of a node."""

    def __init__(self, stored: Iterable[StoredRein] = ()) -> None:
        self._stored = {one.cid: one for one in stored}  # of which no consent was met yet
        self._reins: dict[str, Rein] = {}

    def resume(self, consents: Iterable[Consent], now: Instant) -> None:
        """Takes up what a restart has broken off: who watched then may come back, as after a drop."""
        for consent in consents:
            rein = self.rein(consent)
            if rein.watched and rein.begun:
                rein.left_at = now.boot

    def rein(self, consent: Consent) -> Rein:
        """The consent's rein. The first asking makes it."""
        found = self._reins.get(consent.cid)
        if found is None:
            stored = self._stored.pop(consent.cid, StoredRein(consent.cid, paused=consent.paused, begun=False))
            found = self._reins[consent.cid] = Rein(consent.cid, consent.watched, stored.paused, stored.begun)
        return found

    def begin(self, consent: Consent) -> bool:
        """A consent that replaces none here: whether it begins paused.

        What was said of it where it was meanwhile came with it. What was said here before that may be the older word, or one
        that nobody else has heard: in doubt it is held.
        """
        cid = consent.cid
        before = self._reins.pop(cid, None) or self._stored.pop(cid, None)
        paused = consent.paused or (before is not None and before.paused)
        self._stored[cid] = StoredRein(cid, paused, begun=False)
        return paused

    def attended(self, consent: Consent) -> bool:
        """Whether operators may open anything, for all that its giver said about watching."""
        return not consent.watched or bool(self.rein(consent).watches)

    def come(self, rein: Rein, watch: str) -> None:
        """Raises TooManyWatch."""
        if len(rein.watches) >= MOST_WATCHES:
            raise TooManyWatch(len(rein.watches))
        rein.watches.add(watch)
        rein.begun, rein.left_at = True, None

    def go(self, rein: Rein, watch: str, now: Instant) -> None:
        """A watch connection is over."""
        if watch in rein.watches:
            rein.watches.discard(watch)
            rein.left_at = None if rein.watches else now.boot

    def left(self, now: Instant) -> list[str]:
        """The consents (cids) to be ended, each once: only while watched, and their givers have been away for too long."""
        grace = round(WATCH_GRACE * NS)
        left = [x for x in self._reins.values() if x.watched and x.left_at is not None and now.boot - x.left_at >= grace]
        for rein in left:
            rein.left_at = None
        return [rein.cid for rein in left]

    def keep(self, cids: Collection[str]) -> list[str]:
        """Forgets every rein but those of these consents. Gives the forgotten."""
        gone = [cid for cid in (*self._reins, *self._stored) if cid not in cids]
        for cid in gone:
            self._reins.pop(cid, None)
            self._stored.pop(cid, None)
        return gone
