"""Signing in again after a drop: what each sign-in leaves in the client's hands for the next one. Pure.

256 random bits, handed out in the answer of a sign-in, sign the same account in once more: by the same way, from the same
address, while the control connection that they were handed out on lives and, where that drops, for as long as a session
waits for its operator. Who uses them gets others. They are kept hashed and in memory alone: a restart makes all void.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from broker.accounts import Account
from broker.safelist import Address
from broker.sign_in import Way
from eva.instant import NS, Instant
from eva.token import b64, unb64

AFTER_DROP_SECONDS: Final = 60  # as broker/sessions.py keeps a session
MAX_KEPT: Final = 1024
MAX_KEPT_EACH: Final = 32  # of one account: nobody pushes out what others need


@dataclass(slots=True)
class Kept:
    """Whose one is. `lapses`: the boot time at which the first sign-in runs out, if it does; `until_boot`: None while its
    connection lives."""

    account: Account
    way: Way
    address: Address
    lapses: int | None
    until_boot: int | None = None


def key_of(text: str) -> bytes:
    """What is kept of it; what cannot be one has a key that none has."""
    try:
        return hashlib.sha256(unb64(text)).digest()
    except ValueError:
        return b""


class Reentries:
    """Those that are out."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Kept] = {}  # in order of issue

    def __len__(self) -> int:
        return len(self._kept)

    def issue(self, random: bytes, account: Account, way: Way, address: Address, now: Instant, lapses: int | None = None) -> str:
        """One made of `random`. Past a bound the oldest gives way: its owner signs in by the way of the first time."""
        self._kept = {key: one for key, one in self._kept.items() if one.until_boot is None or now.boot < one.until_boot}
        own = [key for key, one in self._kept.items() if one.account.name == account.name]
        if len(own) >= MAX_KEPT_EACH:
            del self._kept[own[0]]
        elif len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[hashlib.sha256(random).digest()] = Kept(account, way, address, lapses)
        return b64(random)

    def dropped(self, key: bytes, now: Instant) -> None:
        """The connection that it was handed out on is lost: from now on its time runs."""
        found = self._kept.get(key)
        if found is not None:
            found.until_boot = now.boot + AFTER_DROP_SECONDS * NS

    def void(self, key: bytes) -> None:
        self._kept.pop(key, None)

    def redeem(self, text: str, address: Address, now: Instant) -> Kept | None:
        """Whose it is, once. Shown late or from another address it is void from then on: it has leaked."""
        found = self._kept.pop(key_of(text), None)
        if found is None or found.address != address:
            return None
        ends = [end for end in (found.until_boot, found.lapses) if end is not None]
        return found if all(now.boot < end for end in ends) else None
