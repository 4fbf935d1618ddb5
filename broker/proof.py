"""How an operator proves at a control connection who it is: by a password, a client certificate, the pass of a sign-in over
an issuer, or what its last sign-in here left it (broker/reentry.py)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.accounts import Account, CannotVerify
from broker.reentry import key_of
from broker.safelist import Address
from broker.sign_in import PASS_COOKIE, Way, cookies
from broker.websocket import OperatorConnection
from eva.control import MAX_SECRET, Refusal, Refused
from eva.members import Members

if TYPE_CHECKING:
    from broker.control_channel import Desk  # which asks us

MAX_AGAIN = 64  # characters
HASHES_AT_ONCE = 2  # argon2 takes a core and its memory each


def hashing_queues() -> Mapping[bool, asyncio.Semaphore]:
    """By whether a try is familiar: a crowd of strangers keeps no operator waiting at an accustomed place."""
    return {familiar: asyncio.Semaphore(HASHES_AT_ONCE) for familiar in (False, True)}


@dataclass(frozen=True, slots=True)
class Proven:
    """Who signs in, and how. `lapses`: the boot time at which that is over, None for as long as the connection lives."""

    account: Account
    way: Way
    lapses: int | None = None


class Proof:
    """One connection's."""

    def __init__(self, desk: Desk, connection: OperatorConnection, address: Address) -> None:
        self._desk = desk
        self._connection = connection
        self._address = address

    async def take(self, params: Members) -> Proven:
        """Whom the parameters of `sign_in` and the connection prove. Raises Refused, BadMember."""
        if params.has("again"):
            again = params.text("again", MAX_AGAIN)
            params.nothing_else()
            found = self._by_again(again)
        elif params.has("password"):
            name, password = params.text("account", 64), params.text("password", MAX_SECRET)
            params.nothing_else()
            account = await self._by_password(name, password)
            found = Proven(account, Way.PASSWORD) if account is not None else None
        else:
            params.nothing_else()
            found = self._by_browser()
        if found is None:
            raise Refused(Refusal.WRONG_CREDENTIALS)
        return found

    async def _by_password(self, name: str, password: str) -> Account | None:
        desk = self._desk
        attempt = desk.attempts.admit(self._address, name, desk.clock.now())
        if attempt is None:
            raise Refused(Refusal.RATE_LIMITED, f"account {name}")
        async with desk.hashing[attempt.familiar]:
            try:
                account = await asyncio.to_thread(desk.accounts.verify, name, password)
            except CannotVerify as error:
                raise Refused(Refusal.WRONG_CREDENTIALS, error.why) from error
        if account is not None:
            desk.attempts.succeeded(attempt, desk.clock.now(), name)
            if desk.accounts.get(name) != account:
                return None  # the users file was read again meanwhile, and this account is not what it was
        return account

    def _by_again(self, again: str) -> Proven | None:
        desk, now = self._desk, self._desk.clock.now()
        attempt = desk.attempts.admit(self._address, None, now)  # as one over an issuer: whose it is comes out at the end
        if attempt is None:
            raise Refused(Refusal.RATE_LIMITED, "signing in again")
        kept = desk.reentries.redeem(again, self._address, now)
        if kept is None or not self._is_as_it_was(kept.account, kept.way):
            return None
        desk.attempts.succeeded(attempt, now, kept.account.name)
        for channel in list(desk.channels):  # a drop that only the client knows of yet
            if channel.reentry == key_of(again):
                channel.sign_out("signed in again by another connection")
        return Proven(kept.account, kept.way, kept.lapses)

    def _is_as_it_was(self, account: Account, way: Way) -> bool:
        """The users file may have been read again meanwhile."""
        match way:
            case Way.OIDC:
                return not self._desk.accounts.resembles(account.name)
            case Way.CERTIFICATE:  # which is at hand at every connection, and so has to come with this one
                return self._by_certificate() == account
            case _:
                return self._desk.accounts.get(account.name) == account

    def _by_browser(self) -> Proven | None:
        """By what a browser brings by itself."""
        if (account := self._by_certificate()) is not None:
            self._desk.attempts.remember(self._address, account.name, self._desk.clock.now())
            return Proven(account, Way.CERTIFICATE)
        return self._by_pass()

    def _by_certificate(self) -> Account | None:
        tls = self._connection.transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if not der:
            return None
        subject = (tls.getpeercert() or {}).get("subject", ())
        names = [value for part in subject for key, value in part if key == "commonName"]
        name = names[0] if len(names) == 1 else None
        return self._desk.accounts.by_certificate(name, hashlib.sha256(der).hexdigest())

    def _by_pass(self) -> Proven | None:
        """By the cookie that came with the upgrade: the browser signed in at the issuer a moment ago."""
        desk, request = self._desk, self._connection.request
        text = cookies(request.headers.get_all("Cookie")).get(PASS_COOKIE) if request is not None else None
        found = desk.passes.redeem(text, self._address, desk.clock.now())
        if found is None or desk.accounts.resembles(found.account.name):  # the users file may have been read again meanwhile
            return None
        return Proven(found.account, Way.OIDC, found.lapses)
