"""A tenant's sign-in for one consent: at the issuer, and then whether it is he who gave it, and may still read there."""

from __future__ import annotations

import logging
from dataclasses import replace

from oidc.answer import Answer
from oidc.failure import Declined, SignInFailed, Unreachable
from oidc.relying_party import RelyingParty
from provider.consent.watching import Watchable, Watching
from provider.rest.admission import Keychain
from provider.rest.bearer import BadBearer
from provider.rest.caller import Caller
from provider.rest.jwks import Unreachable as KeysUnreachable
from provider.rest.roles import Action, RoleBooks, permitted
from provider.rest.scope import Scope
from provider.store.store import StoreThread
from provider.watch.session import MAX_GROUPS, SESSION_SECONDS, Outcome, Session, SignIn, Verdict

MOST_EXCHANGES = 16  # with the issuer at once, which may take its time for each

log = logging.getLogger("provider.watch.sign_in")


class NoRole(Exception):
    """No role of the caller's lets him watch there."""


class Gatekeeper:
    """Whether a caller may watch a consent, asked at each request: roles that are taken away count no more at once."""

    def __init__(self, store: StoreThread) -> None:
        self._store = store

    async def narrowed(self, caller: Caller, found: Watchable) -> Caller:
        """The caller with those of his groups that give him a right to this VM. Raises NoRole, StoreDown."""
        scope = Scope.of(found.consent.resource_id)
        assignments = await self._store.read(lambda connection: RoleBooks(connection).of(caller.principals(), scope))
        if not permitted(assignments, Action.WATCH_ACCESS, scope):
            raise NoRole
        helping = {one.principal for one in assignments if one.permits(Action.WATCH_ACCESS, scope)}
        helping -= replace(caller, groups=frozenset()).principals()
        groups = [group for group in sorted(caller.groups) if replace(caller, groups=frozenset({group})).principals() & helping]
        return replace(caller, groups=frozenset(groups[:MAX_GROUPS]))


class Desk:
    """`issuer`: whose word it takes; `audiences`: the tenants' REST's, by whose rules an access token is judged."""

    def __init__(
        self,
        party: RelyingParty,
        issuer: str,
        keychain: Keychain,
        audiences: tuple[str, ...],
        watching: Watching,
        gate: Gatekeeper,
    ) -> None:
        self._party = party
        self._issuer = issuer
        self._keychain = keychain
        self._audiences = audiences
        self._watching = watching
        self._gate = gate
        self._exchanges = 0

    async def begin(self, cid: str) -> tuple[str, SignIn] | Outcome:
        """Where to send the browser, and what it is to keep meanwhile."""
        try:
            begun = await self._party.begin()
        except SignInFailed as error:
            return self._failed(cid, error)
        return begun.url, SignIn(cid, begun.pending)

    async def finish(self, sign_in: SignIn, answer: Answer, now: int) -> Session | Outcome:
        """`answer` has the state of `sign_in`. Raises StoreDown."""
        if self._exchanges >= MOST_EXCHANGES:
            return Outcome(sign_in.cid, Verdict.UNREACHABLE, "")
        self._exchanges += 1
        try:
            caller = await self._caller(sign_in, answer)
        except (SignInFailed, BadBearer, KeysUnreachable) as error:
            return self._failed(sign_in.cid, error)
        finally:
            self._exchanges -= 1
        return await self._judged(sign_in.cid, caller, now)

    async def _caller(self, sign_in: SignIn, answer: Answer) -> Caller:
        """Raises SignInFailed, BadBearer, KeysUnreachable."""
        tokens = await self._party.finish(sign_in.pending, answer.code, answer.state, answer.iss, answer.error)
        caller = await self._keychain.caller(tokens.access_token, self._audiences)
        if caller.issuer != self._issuer:
            raise SignInFailed(f"its access token is of {caller.issuer}")
        return caller

    async def _judged(self, cid: str, caller: Caller, now: int) -> Session | Outcome:
        found = await self._watching.find(cid)
        if found is None or not caller.gave(found.consent.giver):
            # of a consent that is none nobody is told more than of another's
            return self._turned_away(cid, caller, Verdict.NOT_GIVER)
        try:
            caller = await self._gate.narrowed(caller, found)
        except NoRole:
            return self._turned_away(cid, caller, Verdict.NO_ROLE)
        if found.over is not None:
            return self._turned_away(cid, caller, Verdict.OVER)
        log.info("%s signed in to watch consent %s", caller.principal, cid)
        return Session(cid, caller, min(now + SESSION_SECONDS, found.consent.expires_at))

    @staticmethod
    def _turned_away(cid: str, caller: Caller, verdict: Verdict) -> Outcome:
        log.warning("%s signed in to watch consent %s, and may not: %s", caller.principal, cid, verdict)
        return Outcome(cid, verdict, caller.name or caller.id)

    @staticmethod
    def _failed(cid: str, error: SignInFailed | BadBearer | KeysUnreachable) -> Outcome:
        log.warning("a sign-in to watch consent %s failed: %s", cid, error)
        match error:
            case Declined():
                return Outcome(cid, Verdict.DECLINED, "")
            case Unreachable() | KeysUnreachable():
                return Outcome(cid, Verdict.UNREACHABLE, "")
            case _:
                return Outcome(cid, Verdict.FAILED, "")
