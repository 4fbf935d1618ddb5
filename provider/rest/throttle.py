"""How many requests a caller may make: a bucket of reads and one of writes for each caller and subscription. Pure.

As Azure Resource Manager does it: a bucket holds an hour's worth at most and fills steadily, so a pause is never an hour
long. Kept in memory by each provider, as Azure's own are by each of its instances: a restart forgets, and two
providers let twice as much through. Bounded: the bucket longest unused is forgotten, and begins full if it comes again. The
`limits` package was looked at: it keeps every key for its whole window, and starts a thread to expire them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from eva.instant import NS

HOUR = 3600 * NS
MAX_BUCKETS = 16_384


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining`: whole requests left. `retry_after`: seconds until there is one; 0 where this one was let through."""

    remaining: int
    retry_after: int

    @property
    def admitted(self) -> bool:
        return self.retry_after == 0


class Throttle:
    """`per_hour`: what a bucket holds, and what flows into it in an hour."""

    def __init__(self, per_hour: int, most: int = MAX_BUCKETS) -> None:
        self._every = HOUR // per_hour
        self._depth = self._every * per_hour
        self._most = most
        # when each bucket is full again, in whole nanoseconds: a sum of fractions would let one through late
        self._full_at: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, caller: str, subscription: str, now: int) -> Verdict:
        """One request. `now`: nanoseconds on a clock that never goes back; `subscription`: empty for what is in none."""
        key = (caller, subscription)
        full_at = max(self._full_at.pop(key, now), now)
        late = full_at + self._every - self._depth - now
        if late <= 0:
            full_at += self._every
        self._full_at[key] = full_at
        if len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
        if late > 0:
            return Verdict(0, -(-late // NS))
        return Verdict((self._depth - (full_at - now)) // self._every, 0)
