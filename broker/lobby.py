"""How many connections a port bears at once that have not got as far as they must. Pure.

Each has a seat. An address has so many and no more, an IPv6 address counting as its /64. Where no seat is left, the address
that has most loses its oldest to one that has fewer: a flood, from few addresses or many, ends its own connections, and an
operator whose address is calm gets in. Addresses that somebody has signed in from are familiar, and some seats are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broker.attempts import place_of
from broker.safelist import Address


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seats: in all, of one address, and for those whose address is not familiar."""

    most: int
    each: int
    strangers: int


UNSECURED: Final = Bounds(1024, 128, 768)  # before the end of TLS' handshake: some 64 KiB and a descriptor each
UNSIGNED: Final = Bounds(256, 16, 192)  # before a sign-in


@dataclass(slots=True, eq=False)
class Seat:
    """One connection's place, to be left when it is as far as it must be or gone, whichever is first."""

    _crowd: Crowd
    _place: int
    give_way: Callable[[], None]
    _taken: bool = field(default=True)

    def leave(self) -> None:
        """A second call changes nothing."""
        if self._taken:
            self._taken = False
            self._crowd.vacate(self._place, self)


@dataclass(slots=True)
class Crowd:
    """The seats of the familiar, or those of the strangers. `places`: each one's, the oldest first; none of them is empty."""

    places: dict[int, dict[Seat, None]] = field(default_factory=dict)
    count: int = 0

    def at(self, place: int) -> int:
        return len(self.places.get(place, ()))

    def seat(self, place: int, give_way: Callable[[], None]) -> Seat:
        seat = Seat(self, place, give_way)
        self.places.setdefault(place, {})[seat] = None
        self.count += 1
        return seat

    def vacate(self, place: int, seat: Seat) -> None:
        """For Seat.leave alone."""
        self.count -= 1
        del self.places[place][seat]
        if not self.places[place]:
            del self.places[place]

    def thin(self, fewer: int) -> bool:
        """Takes a seat from the place that has most, if that has more than `fewer`."""
        busiest = max(self.places.values(), key=len, default={})
        if len(busiest) <= fewer:
            return False
        oldest = next(iter(busiest))
        oldest.leave()
        oldest.give_way()
        return True


class Lobby:
    """The seats of one port. `lost` hears of each connection that got none, or lost its own."""

    def __init__(self, bounds: Bounds, lost: Callable[[], None]) -> None:
        self._bounds = bounds
        self._lost = lost
        self._familiar, self._strangers = Crowd(), Crowd()

    def __len__(self) -> int:
        return self._familiar.count + self._strangers.count

    def enter(self, address: Address, give_way: Callable[[], None], *, familiar: bool = False) -> Seat | None:
        """A seat, or None: close the connection unread. `give_way` closes it later; `familiar`: as Attempts.is_familiar says."""
        place, bounds = place_of(address), self._bounds
        here = self._familiar.at(place) + self._strangers.at(place)
        fits = here < bounds.each
        if fits and not familiar and self._strangers.count >= bounds.strangers:
            fits = self._thin(self._strangers, here)
        if fits and len(self) >= bounds.most:
            fits = self._thin(self._strangers, here) or self._thin(self._familiar, here)
        if not fits:
            self._lost()
            return None
        return (self._familiar if familiar else self._strangers).seat(place, give_way)

    def _thin(self, crowd: Crowd, fewer: int) -> bool:
        thinned = crowd.thin(fewer)
        if thinned:
            self._lost()
        return thinned
