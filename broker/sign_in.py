"""Signing in at an OpenID Connect issuer: what is kept between its steps, and whom its word makes. Pure.

What a browser has to bring back is sealed in a cookie of its own, so that one who begins and never comes back costs nothing
here, and nobody else's browser can end what it began. At the end stands a pass: 256 random bits in a cookie, which sign that
browser's control connection in once, within a minute, from the address it was given to. The seal's key and the passes are in
memory: after a restart all are void. Errors:

    NotAdmitted     the issuer's word stands, and makes nobody here: `detail`, for the log
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from broker.accounts import MAX_GROUPS, Account, Accounts
from broker.safelist import Address
from broker.settings import Oidc
from eva.consent import Principal
from eva.instant import NS, Instant
from eva.token import b64, unb64
from oidc.relying_party import Pending

BEGUN_SECONDS: Final = 600  # for a person at the issuer's pages
PASS_SECONDS: Final = 60
FAILED_SECONDS: Final = 60
MAX_PASSES: Final = 256
MAX_USED: Final = 4096  # more than may come back in BEGUN_SECONDS: broker/attempts.py admits 120 a minute
MAX_CLAIMED: Final = 1000  # groups that a person may have at the issuer
SECRET_BYTES: Final = 32

BEGUN_COOKIE: Final = "__Host-eva-sign-in-begun"
PASS_COOKIE: Final = "__Host-eva-sign-in"  # noqa: S105 - its name
FAILED_COOKIE: Final = "__Host-eva-sign-in-failed"


class Way(StrEnum):
    """How an operator signed in; a fact of the audit's."""

    PASSWORD = "password"  # noqa: S105 - a word for one
    CERTIFICATE = "certificate"
    OIDC = "oidc"


class Failed(StrEnum):
    """What a person is told."""

    UNREACHABLE = "unreachable"  # the issuer
    DECLINED = "declined"  # by the issuer, or by the person at its pages
    NOT_ADMITTED = "not-admitted"
    RATE_LIMITED = "rate-limited"
    BROKEN = "broken"  # late, in another browser, or not the issuer's: begin again


class NotAdmitted(Exception):
    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


def admitted(claims: Mapping[str, object], oidc: Oidc, accounts: Accounts) -> Account:
    """The account that verified claims make. Raises NotAdmitted."""
    name, claimed = claims.get(oidc.account_claim), claims.get(oidc.groups_claim)
    try:
        principal = Principal.parse(f"account:{name if isinstance(name, str) else ''}")
    except ValueError:
        raise NotAdmitted(f"the claim {oidc.account_claim} is no account's name") from None
    if accounts.resembles(principal.name):
        raise NotAdmitted(f"{principal.name} is an account of this node's own")
    if not isinstance(claimed, list) or len(claimed) > MAX_CLAIMED:
        raise NotAdmitted(f"{principal.name}: the claim {oidc.groups_claim} is no list of groups")
    groups = {oidc.groups[one] for one in claimed if isinstance(one, str) and one in oidc.groups}
    if not 0 < len(groups) <= MAX_GROUPS:
        raise NotAdmitted(f"{principal.name} has none of the groups that operators.oidc.groups names")
    return Account(principal.name, frozenset(groups), None, frozenset())


def cookies(headers: Iterable[str]) -> Mapping[str, str]:
    """The cookies of a request (RFC 6265 4.2.1). One that is there twice is none: another host's may have come first."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for pair in ";".join(headers).split(";"):
        name, _, text = pair.strip().partition("=")
        if name in found:
            twice.add(name)
        found[name] = text
    return {name: text for name, text in found.items() if name not in twice}


def set_cookie(name: str, text: str, seconds: int, *, strict: bool) -> str:
    """The header's value. Lax where a page of the issuer's sends the browser back to us with it; 0 seconds take it away."""
    return f"{name}={text}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite={'Strict' if strict else 'Lax'}"


class Begun:
    """Sign-ins that were begun and not ended."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes from the system's generator."""
        self._seal = Fernet(urlsafe_b64encode(secret))
        self._used: dict[bytes, int] = {}  # until when (boot time); in the order of lapse

    def seal(self, pending: Pending, now: Instant) -> str:
        return self._seal.encrypt_at_time(pending.to_json().encode(), now.boot // NS).decode()

    def open(self, sealed: str | None, now: Instant) -> Pending | None:
        """What was sealed, unless it is late, was used or is not ours."""
        if sealed is None or len(sealed) > 1024 or not sealed.isascii():
            return None
        try:
            found = Pending.from_json(self._seal.decrypt_at_time(sealed.encode(), BEGUN_SECONDS, now.boot // NS).decode())
        except InvalidToken:
            return None
        return None if _hash(found.state) in self._used else found

    def use(self, pending: Pending, now: Instant) -> None:
        """It is not opened again."""
        while self._used and (len(self._used) >= MAX_USED or next(iter(self._used.values())) <= now.boot):
            del self._used[next(iter(self._used))]
        self._used[_hash(pending.state)] = now.boot + (BEGUN_SECONDS + 1) * NS


@dataclass(frozen=True, slots=True)
class Pass:
    """Whom it signs in. `until_boot`: it is good until then; `lapses`: what it signs in lasts until then (boot time both)."""

    account: Account
    address: Address
    until_boot: int
    lapses: int


class Passes:
    """The passes that are out."""

    def __init__(self) -> None:
        self._issued: dict[bytes, Pass] = {}  # in order of issue, which is that of lapse too

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, random: bytes, account: Account, address: Address, now: Instant, lapses: int) -> str:
        """A pass made of `random`. Only who has signed in gets one, so the oldest may give way."""
        while self._issued and (len(self._issued) >= MAX_PASSES or next(iter(self._issued.values())).until_boot <= now.boot):
            del self._issued[next(iter(self._issued))]
        self._issued[hashlib.sha256(random).digest()] = Pass(account, address, now.boot + PASS_SECONDS * NS, lapses)
        return b64(random)

    def stands(self, text: str | None, address: Address, now: Instant) -> bool:
        """Whether `redeem` would take it."""
        found = self._issued.get(_key(text))
        return found is not None and found.address == address and now.boot < found.until_boot

    def redeem(self, text: str | None, address: Address, now: Instant) -> Pass | None:
        """Whose it is, once. Shown late or from another address it is void from then on: it has leaked."""
        stands = self.stands(text, address, now)
        found = self._issued.pop(_key(text), None)
        return found if stands else None


def _key(text: str | None) -> bytes:
    try:
        return hashlib.sha256(unb64(text or "")).digest()
    except ValueError:
        return b""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
