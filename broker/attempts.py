"""How often a password may be tried. Pure.

A guesser is slowed, and cannot lock the operator out of the places where the operator works:

- A *familiar* pair, an address from which this account has signed in within a week, has a bucket of its own. What anyone
  tries elsewhere, or here for other accounts, takes nothing from it.
- Everyone else spends from three: the address's, the account's and the whole node's. A try that finds one of them empty
  spends nothing from the others, so one address cannot empty an account's bucket with refused tries.
- A sign-in over an issuer names no account before it succeeds: it spends from the address's and the node's, and where anybody
  has signed in from that address, from a familiar bucket of its own.
- A sign-in that succeeds gives its token back. Unknown accounts count like known ones. Client certificates count nothing:
  TLS has proved them before we are asked.

What is left to a guesser with many addresses: an account's bucket can be kept empty for addresses not familiar to it, which
then wait, or come with a certificate. An IPv6 address counts as its /64, which one host may fill. All state is in memory and
bounded, and the bound forgets nothing: the node's bucket admits too few strangers to push a bucket out before it is full again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from broker.safelist import Address
from eva.instant import NS, Instant

FAMILIAR_SECONDS: Final = 7 * 86_400
MAX_FAMILIAR: Final = 2048  # pairs and addresses
MAX_BUCKETS: Final = 2048  # addresses, accounts and familiar pairs each

_PREFIX_BITS: Final = 64  # of IPv6 (RFC 4291 2.5.4)


def place_of(address: Address) -> int:
    """What of an address is counted: of IPv6 its /64. IPv4 and IPv6 do not meet: the upper half is made negative."""
    return ~(int(address) >> _PREFIX_BITS) if isinstance(address, IPv6Address) else int(address)


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's shape: it holds `burst` tokens and one comes back every `every_seconds`."""

    burst: int
    every_seconds: float

    @property
    def every(self) -> int:
        return round(self.every_seconds * NS)


BY_ADDRESS: Final = Rate(5, 12)  # 5 a minute
BY_ACCOUNT: Final = Rate(20, 3)  # 20 a minute
BY_NODE: Final = Rate(60, 0.5)  # 120 a minute: what the password hashing of strangers may cost this host
BY_FAMILIAR: Final = Rate(20, 12)  # 5 a minute, and room for a script that opens many consoles at once


class Buckets:
    """Token buckets of one rate by key, each kept as one number: the boot time at which it will be full again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full_at: OrderedDict[object, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def has_token(self, key: object, now: Instant) -> bool:
        return self._after(key, now) - now.boot <= self._rate.burst * self._rate.every

    def spend(self, key: object, now: Instant) -> None:
        self._full_at[key] = self._after(key, now)
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)

    def give_back(self, key: object, now: Instant) -> None:
        full_at = self._full_at.get(key, 0) - self._rate.every
        if full_at > now.boot:
            self._full_at[key] = full_at
        else:
            self._full_at.pop(key, None)

    def _after(self, key: object, now: Instant) -> int:
        return max(self._full_at.get(key, 0), now.boot) + self._rate.every


@dataclass(frozen=True, slots=True)
class Attempt:
    """One admitted try, to be handed back if it succeeds. `account`: None where it is not known before."""

    address: Address
    account: str | None
    familiar: bool


class Attempts:
    """The tries at passwords on this node."""

    def __init__(self) -> None:
        self._by_address = Buckets(BY_ADDRESS)
        self._by_account = Buckets(BY_ACCOUNT)
        self._by_node = Buckets(BY_NODE)
        self._by_familiar = Buckets(BY_FAMILIAR)
        self._last_success: OrderedDict[tuple[int, str | None], int] = OrderedDict()  # boot time; account None: any

    def admit(self, address: Address, account: str | None, now: Instant) -> Attempt | None:
        """Spends a token, before the password is looked at, or the issuer asked; None: refuse without doing so."""
        familiar = self._is_familiar((place_of(address), account), now)
        attempt = Attempt(address, account, familiar)
        purses = self._purses(attempt)
        if not all(buckets.has_token(key, now) for buckets, key in purses):
            return None
        for buckets, key in purses:
            buckets.spend(key, now)
        return attempt

    def succeeded(self, attempt: Attempt, now: Instant, account: str) -> None:
        """It was the account's: gives the token back and makes the address familiar for the account."""
        for buckets, key in self._purses(attempt):
            buckets.give_back(key, now)
        self.remember(attempt.address, account, now)

    def remember(self, address: Address, account: str, now: Instant) -> None:
        """Makes the address familiar for the account; at start, with what the stored safelist holds."""
        for key in ((place_of(address), account), (place_of(address), None)):
            self._last_success[key] = now.boot
            self._last_success.move_to_end(key)
        while len(self._last_success) > MAX_FAMILIAR:
            self._last_success.popitem(last=False)

    def is_familiar(self, address: Address, now: Instant) -> bool:
        """Whether anybody has signed in from this address within a week: for `Lobby.enter`."""
        return self._is_familiar((place_of(address), None), now)

    def _is_familiar(self, key: tuple[int, str | None], now: Instant) -> bool:
        at = self._last_success.get(key)
        return at is not None and now.boot - at < FAMILIAR_SECONDS * NS

    def _purses(self, attempt: Attempt) -> tuple[tuple[Buckets, object], ...]:
        place = place_of(attempt.address)
        if attempt.familiar:
            return ((self._by_familiar, (place, attempt.account)),)
        whole = ((self._by_address, place), (self._by_node, None))
        return whole if attempt.account is None else (*whole, (self._by_account, attempt.account))
