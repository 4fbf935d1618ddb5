"""The order-free ledger of consents and what ended them. Pure: the caller keeps it on disk and reads the clocks.

Consents and endings only grow, so the order in which they come, and how often, changes nothing: revocation wins. A consent
stands while it was accepted, is unexpired on both clocks, its key stands, its jti is not ended, no watermark covers it, and no
later one of its cid was accepted: that one renews it, and has ended it for good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from eva.consent import MAX_AHEAD, MAX_SECONDS, Consent, Revocation
from eva.ending import Ending
from eva.instant import NS, Instant
from eva.resource_id import ResourceId

KEEP_SECONDS = 24 * 3600  # how long after its consent's end an ending is remembered


class Reject(StrEnum):
    """Why a consent that is well signed does not stand here; a receipt's fact and a metric's label."""

    TIME = "time"
    REVOKED = "revoked"
    KEY = "key"
    VM_UNKNOWN = "vm-unknown"
    VM_AMBIGUOUS = "vm-ambiguous"


class Rejected(Exception):
    def __init__(self, reject: Reject) -> None:
        self.reject = reject
        super().__init__(str(reject))


@dataclass(frozen=True, slots=True)
class Pin:
    """The one domain that a consent's resource ID meant when it was accepted: never gone by name again."""

    host: str
    uuid: str
    generation: int


@dataclass(frozen=True, slots=True)
class Term:
    """The end of a consent: `wall` ns since the epoch, `boot` ns since boot. The earlier one ends it."""

    wall: int
    boot: int

    def over(self, now: Instant) -> bool:
        return now.wall >= self.wall or now.boot >= self.boot

    def at_most(self, other: Term) -> Term:
        """The earlier of both ends, on each clock."""
        return Term(min(self.wall, other.wall), min(self.boot, other.boot))

    def remaining(self, now: Instant) -> float:
        """Seconds until it is over, 0 at the least."""
        return max(0, min(self.wall - now.wall, self.boot - now.boot)) / NS


@dataclass(frozen=True, slots=True)
class Accepted:
    consent: Consent
    pin: Pin
    term: Term


@dataclass(frozen=True, slots=True)
class Ended:
    """A consent's ending, remembered until `keep_until` (Unix seconds)."""

    jti: str
    ending: Ending
    keep_until: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """Every consent for this VM issued at or before `issued_by` (Unix seconds) is ended."""

    resource_id: ResourceId
    issued_by: int
    ending: Ending
    keep_until: int


def renewed(accepted: Accepted) -> Ended:
    """The ending of a consent that a later one of its cid has replaced."""
    return Ended(accepted.consent.jti, Ending.CONSENT_REVOKED, accepted.consent.expires_at + KEEP_SECONDS)


class Ledger:
    """See the module. Methods that end consents give back those that stood until then, so that the caller cuts them."""

    def __init__(self) -> None:
        self._accepted: dict[str, Accepted] = {}
        self._latest: dict[str, Consent] = {}  # by cid, of those accepted
        self._ended: dict[str, Ended] = {}
        self._watermarks: dict[ResourceId, Watermark] = {}
        self._kids: frozenset[str] = frozenset()
        self._seq = 0
        self._ahead: set[int] = set()
        self._wall_seen = 0

    # -- what stands ---------------------------------------------------------------------------------------------

    def why_ended(self, consent: Consent) -> Ending | None:
        """What ended this consent whatever the time is, or None."""
        if (ending := self._revoked(consent)) is not None:
            return ending
        if consent.kid not in self._kids or self._is_outdated(consent):
            return Ending.CONSENT_REVOKED
        return None

    def _is_outdated(self, consent: Consent) -> bool:
        """Whether another of its cid was accepted that is no older, or means another VM: a cid never does."""
        latest = self._latest.get(consent.cid)
        if latest is None or latest.jti == consent.jti:
            return False
        return consent.issued_at <= latest.issued_at or consent.resource_id != latest.resource_id

    def _revoked(self, consent: Consent) -> Ending | None:
        if ended := self._ended.get(consent.jti):
            return ended.ending
        mark = self._watermarks.get(consent.resource_id)
        return mark.ending if mark is not None and consent.issued_at <= mark.issued_by else None

    def knows(self, consent: Consent) -> bool:
        """Whether this very consent, or what ended it, has come before."""
        return consent.jti in self._accepted or self._revoked(consent) is not None

    def standing(self, now: Instant) -> list[Accepted]:
        """Every consent that stands now."""
        now = self._not_before_seen(now)
        return [a for a in self._accepted.values() if not a.term.over(now) and self.why_ended(a.consent) is None]

    def standing_as(self, cid: str, now: Instant) -> Accepted | None:
        """What stands now of the consent that people know by this cid."""
        latest = self._latest.get(cid)
        if latest is None or self.why_ended(latest) is not None:
            return None
        accepted = self._accepted[latest.jti]
        return None if accepted.term.over(self._not_before_seen(now)) else accepted

    def get(self, jti: str) -> Accepted | None:
        return self._accepted.get(jti)

    def renewed_by(self, consent: Consent) -> Accepted | None:
        """What stands here with the consent's cid, and would end if the consent was accepted."""
        latest = self._latest.get(consent.cid)
        if latest is None or latest.jti == consent.jti or self.why_ended(latest) is not None:
            return None
        return self._accepted[latest.jti]

    def watermark_of(self, resource_id: ResourceId) -> Watermark:
        """The watermark of this VM. Raises KeyError where there is none."""
        return self._watermarks[resource_id]

    def covered_by(self, mark: Watermark) -> list[Accepted]:
        """The consents that a watermark ends, whether they stood or not."""
        return [
            a
            for a in self._accepted.values()
            if a.consent.resource_id == mark.resource_id and a.consent.issued_at <= mark.issued_by
        ]

    @property
    def seq(self) -> int:
        """Every revocation up to this number is applied."""
        return self._seq

    @property
    def wall_seen(self) -> int:
        """The latest wall clock (ns) that was noted; what was forgotten was judged by it."""
        return self._wall_seen

    # -- what grows ----------------------------------------------------------------------------------------------

    def check(self, consent: Consent, now: Instant) -> None:
        """Raises Rejected if this consent cannot be accepted at `now`, for a reason that has nothing to do with a VM."""
        now = self._not_before_seen(now)
        if consent.time_fault(now.wall_seconds) is not None:
            raise Rejected(Reject.TIME)
        if consent.kid not in self._kids:
            raise Rejected(Reject.KEY)
        if self.why_ended(consent) is not None:
            raise Rejected(Reject.REVOKED)

    def accept(self, consent: Consent, pin: Pin, now: Instant) -> Accepted:
        """Lets the consent stand for the VM that `pin` names, and ends the one that it renews: `renewed_by` gives that before.

        The same one again changes nothing. Raises Rejected.
        """
        self.check(consent, now)
        if consent.jti in self._accepted:
            return self._accepted[consent.jti]
        now = self._not_before_seen(now)
        # a signer's clock that runs ahead must not give more than the signed span
        seconds = min(consent.expires_at - now.wall_seconds, consent.expires_at - consent.issued_at, MAX_SECONDS)
        accepted = Accepted(consent, pin, Term(consent.expires_at * NS, now.boot + seconds * NS))
        if (before := self.renewed_by(consent)) is not None:
            self.end([renewed(before)])
        self.restore(accepted)
        return accepted

    def restore(self, accepted: Accepted) -> None:
        """Takes a consent back from disk as it was accepted."""
        consent = accepted.consent
        self._accepted[consent.jti] = accepted
        latest = self._latest.get(consent.cid)
        if latest is None or latest.issued_at < consent.issued_at:
            self._latest[consent.cid] = consent

    def end(self, ended: Iterable[Ended]) -> list[Accepted]:
        """Ends consents, known or yet to come. The first reason stays."""
        stood: list[Accepted] = []
        for one in ended:
            accepted = self._accepted.get(one.jti)
            if accepted is not None and self.why_ended(accepted.consent) is None:
                stood.append(accepted)
            self._ended.setdefault(one.jti, one)
        return stood

    def revoke(self, revocation: Revocation) -> list[Accepted]:
        """Applies a revocation, however late, early or often."""
        self._count(revocation.seq)
        keep_until = revocation.consent_expires_at + KEEP_SECONDS
        if revocation.consent is not None:
            return self.end([Ended(revocation.consent, revocation.reason, keep_until)])
        if revocation.resource_id is None or revocation.issued_by is None:
            raise ValueError("a revocation of nothing")
        # a watermark's consents may have been signed up to MAX_AHEAD into its future
        keep_until = max(keep_until, revocation.issued_by + MAX_SECONDS + MAX_AHEAD + KEEP_SECONDS)
        return self.raise_watermark(Watermark(revocation.resource_id, revocation.issued_by, revocation.reason, keep_until))

    def raise_watermark(self, mark: Watermark) -> list[Accepted]:
        held = self._watermarks.get(mark.resource_id)
        if held is not None and held.issued_by >= mark.issued_by:
            return []
        stood = [a for a in self.covered_by(mark) if self.why_ended(a.consent) is None]
        self._watermarks[mark.resource_id] = mark
        return stood

    def use_keys(self, kids: Collection[str]) -> list[Accepted]:
        """From now on only these keys stand; what others signed is ended."""
        was = [a for a in self._accepted.values() if self.why_ended(a.consent) is None]
        self._kids = frozenset(kids)
        return [a for a in was if a.consent.kid not in self._kids]

    def resume_at(self, seq: int, wall_seen: int) -> None:
        """Takes up the count of revocations and the latest wall clock (ns) from disk."""
        self._wall_seen = max(self._wall_seen, wall_seen)
        for number in range(self._seq + 1, seq + 1):
            self._ahead.discard(number)
        self._seq = max(self._seq, seq)
        self._count(self._seq)

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[Accepted]:
        """Notes the wall clock and gives the consents that have run out since; each once."""
        now = self._not_before_seen(now)
        self._wall_seen = now.wall
        over = [a for a in self._accepted.values() if a.term.over(now) and a.consent.jti not in self._ended]
        for one in over:
            ending = self.why_ended(one.consent) or Ending.CONSENT_EXPIRED
            self._ended[one.consent.jti] = Ended(one.consent.jti, ending, one.consent.expires_at + KEEP_SECONDS)
        return [one for one in over if self._ended[one.consent.jti].ending is Ending.CONSENT_EXPIRED]

    def prune(self, now: Instant) -> list[str]:
        """Forgets what ended longer ago than it could matter. Gives the jtis forgotten."""
        # what is forgotten here must be over for good: from now on it is no earlier than this
        self._wall_seen = max(self._wall_seen, now.wall)
        wall = self._wall_seen // NS
        gone = [jti for jti, ended in self._ended.items() if ended.keep_until < wall]
        for jti in gone:
            del self._ended[jti]
            self._accepted.pop(jti, None)
        for jti, accepted in list(self._accepted.items()):
            if accepted.consent.expires_at + KEEP_SECONDS < wall:
                del self._accepted[jti]
                gone.append(jti)
        self._latest = {cid: latest for cid, latest in self._latest.items() if latest.jti in self._accepted}
        self._watermarks = {r: m for r, m in self._watermarks.items() if m.keep_until >= wall}
        return gone

    def _not_before_seen(self, now: Instant) -> Instant:
        """A wall clock that was set back is read as the latest one seen: nothing forgotten can come back to life."""
        return now if now.wall >= self._wall_seen else Instant(self._wall_seen, now.boot)

    def _count(self, seq: int) -> None:
        if seq > self._seq:
            self._ahead.add(seq)
        while self._seq + 1 in self._ahead:
            self._seq += 1
            self._ahead.discard(self._seq)
