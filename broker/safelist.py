"""The safelist: which operator may come from which workstation, each entry for 8 hours. Pure.

An entry binds a workstation's address to one account; loopback needs one like any other. The address is the TCP peer's,
never a header's. Errors:

    BadAddress      the text names no one workstation
    SafelistFull    no room, for the account or in all
    BadRow          a stored entry is not one that this file wrote
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from eva.instant import NS, Instant

ENTRY_SECONDS: Final = 28_800  # the 8 hours
MAX_ENTRIES: Final = 1024
MAX_ADDRESSES_EACH: Final = 8  # of one account: a desk, a laptop, a jump host, and some to spare

Address: TypeAlias = IPv4Address | IPv6Address


class BadAddress(ValueError):
    """`text` is cut to 64 characters."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text[:64]
        self.why = why
        super().__init__(f"not a workstation's address ({why}): {self.text!r}")


class SafelistFull(Exception):
    """`account` holds as many entries as it may, or the whole list does (`whole`)."""

    def __init__(self, account: str, *, whole: bool) -> None:
        self.account = account
        self.whole = whole
        super().__init__(f"no room on the safelist for {account} (whole list: {whole})")


class BadRow(ValueError):
    """`place`: which row, from 0. Raised at start: a node does not open with state that it cannot read."""

    def __init__(self, place: int, why: str) -> None:
        self.place = place
        self.why = why
        super().__init__(f"safelist row {place}: {why}")


def parse_address(text: str) -> Address:
    """The one spelling of a workstation's address: an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) is the IPv4 one.

    Raises BadAddress for link-local addresses and scope ids too: such an address names a workstation only together with a
    link, which a socket's peer name does not carry, and its namesake on another link would pass.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise BadAddress(text, "no IP address") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise BadAddress(text, "with a scope id")
        address = address.ipv4_mapped or address
    if address.is_link_local:
        raise BadAddress(text, "link-local")
    if address.is_unspecified or address.is_multicast:
        raise BadAddress(text, "of no single host")
    return address


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it is stored. Clocks in nanoseconds; `until_boot` means something only in the boot called `boot_id`."""

    address: str
    account: str
    until_wall: int
    until_boot: int
    boot_id: str


class Safelist:
    """The entries in force at this node. `boot_id`: this boot's, as /proc/sys/kernel/random/boot_id gives it."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._until: dict[tuple[Address, str], Instant] = {}

    @classmethod
    def from_rows(cls, rows: Iterable[Row], boot_id: str, now: Instant) -> Safelist:
        """The list as stored before a restart, less what has lapsed. Raises BadRow.

        In the same boot both ends stand. After a reboot the boot clock's end is made anew from the wall clock's, and an
        entry whose end now lies more than 8 hours ahead is dropped: the wall clock has been put back behind its grant.
        """
        safelist = cls(boot_id)
        for place, row in enumerate(rows):
            if place >= MAX_ENTRIES:
                raise BadRow(place, f"over {MAX_ENTRIES} rows")
            try:
                address = parse_address(row.address)
            except BadAddress as error:
                raise BadRow(place, error.why) from None
            if str(address) != row.address or not row.account or (address, row.account) in safelist._until:
                raise BadRow(place, "an address not as written here, no account, or an entry twice")
            left = row.until_wall - now.wall
            until = Instant(row.until_wall, row.until_boot if row.boot_id == boot_id else now.boot + left)
            if _in_force(until, now) and max(left, until.boot - now.boot) <= ENTRY_SECONDS * NS:
                safelist._until[address, row.account] = until
        return safelist

    def to_rows(self) -> tuple[Row, ...]:
        return tuple(
            Row(str(address), account, until.wall, until.boot, self._boot_id) for (address, account), until in self._until.items()
        )

    def grant(self, address: Address, account: str, now: Instant) -> Instant:
        """Puts the workstation on the list for 8 hours from now and gives the end; a standing entry is renewed.

        Raises SafelistFull, and then changes nothing but that lapsed entries are gone.
        """
        self.sweep(now)
        key = (address, account)
        if key not in self._until:
            if sum(other == account for _, other in self._until) >= MAX_ADDRESSES_EACH:
                raise SafelistFull(account, whole=False)
            if len(self._until) >= MAX_ENTRIES:
                raise SafelistFull(account, whole=True)
        self._until[key] = until = now.later(ENTRY_SECONDS)
        return until

    def revoke(self, address: Address, account: str) -> bool:
        """Takes the entry off; whether there was one. Its sessions are the caller's to cut."""
        return self._until.pop((address, account), None) is not None

    def admits(self, address: Address, account: str, now: Instant) -> bool:
        """Whether this account may come from this workstation now."""
        until = self._until.get((address, account))
        return until is not None and _in_force(until, now)

    def sweep(self, now: Instant) -> tuple[tuple[Address, str], ...]:
        """Forgets what has lapsed and gives it. Never needed for `admits` to be right: a clock put back revives nothing that
        was swept, and what was not is still bound by the boot clock."""
        lapsed = tuple(key for key, until in self._until.items() if not _in_force(until, now))
        for key in lapsed:
            del self._until[key]
        return lapsed


def _in_force(until: Instant, now: Instant) -> bool:
    return now.wall < until.wall and now.boot < until.boot
