"""Who may make a request: api-version, bearer token, role and rate, in this order, before anything of its body is read."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import Request

from provider.rest.arm import ArmError, Versions, api_version, not_authorized, throttled
from provider.rest.bearer import BadBearer, Fault, bearer, parse, verify
from provider.rest.caller import Caller
from provider.rest.front import exchange
from provider.rest.jwks import Keys, Unreachable
from provider.rest.roles import Action, Assignment, RoleBooks, permitted
from provider.rest.scope import CLOUD, BadScope, Scope
from provider.rest.settings import ApiListener, Identity
from provider.rest.throttle import Throttle
from provider.store.store import StoreThread

MAX_BODY = 65_536
BODY_SECONDS = 5.0


class Keychain:
    """Every issuer's keys; both endpoints share one."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.issuers = {issuer.name: issuer for issuer in identity.issuers}
        self.keys = {issuer.name: Keys(issuer) for issuer in identity.issuers}

    async def caller(self, token: str, audiences: tuple[str, ...]) -> Caller:
        """Whom this access token names. Raises BadBearer, Unreachable."""
        found = parse(token, self.issuers)
        key = await self.keys[found.issuer.name].key(found.kid, found.algorithm)
        if key is None:
            raise BadBearer(Fault.INVALID, "The access token is invalid: its issuer has no such key.")
        return verify(found, key, audiences, int(time.time()))


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who calls, with which api-version, and those of his assignments that were looked up."""

    caller: Caller
    version: str
    assignments: tuple[Assignment, ...]


class Admission:
    """One endpoint's."""

    def __init__(self, listener: ApiListener, region: str, keychain: Keychain, store: StoreThread) -> None:
        self._audiences = listener.audiences
        self._region = region
        self._keychain = keychain
        self._store = store
        self._reads = Throttle(listener.reads_per_hour)
        self._writes = Throttle(listener.writes_per_hour)

    async def admit(self, request: Request, versions: Versions, action: Action, scope: Scope) -> Admitted:
        """For what is done to one scope. Raises ArmError, StoreDown."""
        version, caller = await self._known(request, versions)
        assignments = await self._assignments(caller, scope)
        allowed = permitted(assignments, action, scope)
        # what a caller has no right to is counted as one: he must not have a bucket for each GUID that he makes up
        self._count(request, caller, (scope.in_subscription or "") if allowed else "")
        if not allowed:
            raise not_authorized(caller.name, caller.principal, str(action), scope.text)
        return Admitted(caller, version, tuple(assignments))

    async def admit_anywhere(self, request: Request, versions: Versions) -> Admitted:
        """For what anybody may ask whom an issuer vouches for, with all his assignments."""
        version, caller = await self._known(request, versions)
        self._count(request, caller, "")
        return Admitted(caller, version, tuple(await self._assignments(caller, None)))

    async def admit_within(self, request: Request, versions: Versions, action: Action, scope: Scope) -> Admitted:
        """For a subscription as such: whoever has a right to anything in it may know of it, as ARM has it."""
        version, caller = await self._known(request, versions)
        assignments = await self._assignments(caller, None)
        allowed = any(scope.holds(one.scope) or one.permits(action, scope) for one in assignments)
        self._count(request, caller, (scope.in_subscription or "") if allowed else "")
        if not allowed:
            raise not_authorized(caller.name, caller.principal, str(action), scope.text)
        return Admitted(caller, version, tuple(assignments))

    async def _known(self, request: Request, versions: Versions) -> tuple[str, Caller]:
        version = api_version(request.query_params.multi_items())
        caller = await self._caller(request)
        exchange(request).caller = caller.principal
        versions.check(version, self._region)
        return version, caller

    async def _caller(self, request: Request) -> Caller:
        try:
            return await self._keychain.caller(bearer(request.headers.getlist("authorization")), self._audiences)
        except BadBearer as error:
            raise self._unauthenticated(error) from None
        except Unreachable:
            why = "The keys of the token's issuer cannot be read now: try again."
            raise ArmError(503, "ServiceUnavailable", why, headers={"retry-after": "10"}) from None

    def _unauthenticated(self, error: BadBearer) -> ArmError:
        identity = self._keychain.identity
        described = error.detail.replace('"', "'")
        challenge = (
            f'Bearer authorization_uri="{identity.login_endpoint}/{identity.tenant}", error="invalid_token", '
            f'error_description="{described}"'
        )
        return ArmError(401, str(error.fault), error.detail, headers={"www-authenticate": challenge})

    async def _assignments(self, caller: Caller, scope: Scope | None) -> list[Assignment]:
        return await self._store.read(lambda connection: RoleBooks(connection).of(caller.principals(), scope))

    def _count(self, request: Request, caller: Caller, subscription: str) -> None:
        reads = request.method == "GET"
        throttle, operation = (self._reads, "read") if reads else (self._writes, "write")
        verdict = throttle.take(caller.principal, subscription, time.monotonic_ns())
        level = "subscription" if subscription else "tenant"
        exchange(request).headers[f"x-ms-ratelimit-remaining-{level}-{operation}s"] = str(verdict.remaining)
        if not verdict.admitted:
            raise throttled(subscription, operation, caller.principal, verdict.retry_after)


def subscription_scope(request: Request) -> Scope:
    """The subscription that the path names. Raises ArmError."""
    guid = request.path_params["subscriptionId"]
    try:
        return Scope.subscription(guid)
    except BadScope:
        why = f"The provided subscription identifier '{guid}' is malformed or invalid."
        raise ArmError(400, "InvalidSubscriptionId", why, "subscriptionId") from None


def visible_subscriptions(assignments: tuple[Assignment, ...], every: set[str]) -> list[str]:
    """The subscriptions in which a caller has a right to anything; `every`: those the cloud knows, for who has it everywhere."""
    named = {found.lower(): one.scope.text.split("/")[2] for one in assignments if (found := one.scope.in_subscription)}
    if permitted(assignments, Action.SUBSCRIPTION_READ, CLOUD):
        named = {guid.lower(): guid for guid in sorted(every)} | named
    return [named[key] for key in sorted(named)]


async def body(request: Request) -> bytes:
    """The request's JSON. Raises ArmError, ClientDisconnect."""
    closing = {"connection": "close"}  # what is left of it is not read
    too_long = ArmError(413, "RequestEntityTooLarge", f"The request content is longer than {MAX_BODY} bytes.", headers=closing)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise too_long
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > MAX_BODY:
                    raise too_long
    except TimeoutError:
        raise ArmError(408, "RequestTimeout", "The request content did not come in time.", headers=closing) from None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw.strip() and kind != "application/json":
        raise ArmError(415, "UnsupportedMediaType", "The request content is taken as application/json only.", "Content-Type")
    return bytes(raw)
