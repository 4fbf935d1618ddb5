"""What the page of a signed-in giver asks for: who he is here, a watch token, and the end of his consent.

Each request is judged anew: the consent may be over, its giver another one since a renewal, a role taken away.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from eva.token import is_jti
from provider.consent.registrar import Registrar
from provider.consent.watching import Watchable
from provider.rest.admission import body
from provider.rest.arm import ArmError, not_authorized, nothing_at, throttled
from provider.rest.front import exchange
from provider.rest.request_body import Body
from provider.rest.roles import Action
from provider.rest.settings import Issuer
from provider.rest.shapes import DisabledAnswer, Shape, Time, WatchAnswer, secret, when
from provider.rest.throttle import Throttle
from provider.watch.jar import Jar
from provider.watch.same_origin import is_ours
from provider.watch.session import Outcome, Session, Verdict, session_cookie
from provider.watch.sign_in import Gatekeeper, NoRole


class SessionAnswer(Shape):
    """`connect`: the origins of nodes' websockets that the page's policy lets it reach."""

    resource_id: str
    giver: str
    node: str
    expires_at: Time
    connect: list[str]


@dataclass(frozen=True, slots=True)
class Known:
    """Who asks, and for which consent, which stands and is his."""

    session: Session
    found: Watchable


class Counter:
    """`issuer`: where givers sign in; `origin`: the page's own, and what comes from elsewhere is refused."""

    def __init__(self, registrar: Registrar, gate: Gatekeeper, jar: Jar, issuer: Issuer, origin: str, throttle: Throttle) -> None:
        self._watching = registrar.watching
        self._issuer = issuer
        self._gate = gate
        self._jar = jar
        self._origin = origin
        self._throttle = throttle

    async def known(self, request: Request) -> Known:
        """Raises ArmError, StoreDown."""
        cid: str = request.path_params["cid"]
        if not is_jti(cid):
            raise nothing_at(request.scope["path"])
        headers = request.headers
        if not is_ours(self._origin, headers.getlist("origin"), headers.getlist("sec-fetch-site")):
            raise ArmError(403, "AuthorizationFailed", "The request does not come from the page of this consent.")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # no form can send it, and no other origin's script without leave
            raise ArmError(415, "UnsupportedMediaType", "The request content is taken as application/json only.", "Content-Type")
        session = self._jar.session(request, cid)
        if session is None or (session.caller.issuer, session.caller.home) != (self._issuer.name, self._issuer.home):
            # also one of an issuer whose word counts no more, or counted for more
            raise self._signed_out(self._jar.outcome(request, cid), cid)
        self._count(request, session)
        Body.parse(await body(request)).nothing_else()
        return Known(session, await self._his(session))

    def _count(self, request: Request, session: Session) -> None:
        principal = session.caller.principal
        exchange(request).caller = principal
        verdict = self._throttle.take(principal, session.cid, time.monotonic_ns())
        if not verdict.admitted:
            raise throttled("", "write", principal, verdict.retry_after)

    async def _his(self, session: Session) -> Watchable:
        """The consent, while it stands and is the caller's. Raises ArmError, StoreDown."""
        found = await self._watching.find(session.cid)
        if found is None:
            raise ArmError(404, "ConsentNotFound", "There is no such consent.")
        if not session.caller.gave(found.consent.giver):
            raise refusal(Verdict.NOT_GIVER, session.caller.name or session.caller.id)
        try:
            await self._gate.narrowed(session.caller, found)
        except NoRole:
            caller, scope = session.caller, str(found.consent.resource_id)
            raise not_authorized(caller.name, caller.principal, str(Action.WATCH_ACCESS), scope) from None
        if found.over is not None:
            raise ArmError(410, "ConsentEnded", f"This consent is over: {found.over}.")
        return found

    def _signed_out(self, outcome: Outcome | None, cid: str) -> ArmError:
        if outcome is None:
            return ArmError(401, "AuthenticationFailed", "Sign in to watch.")
        error = refusal(outcome.verdict, outcome.who)
        error.headers["set-cookie"] = session_cookie(cid, "", 0)  # told once
        return error


def refusal(verdict: Verdict, who: str) -> ArmError:
    """What a sign-in that opened nothing is told as, and `who` signed in."""
    match verdict:
        case Verdict.DECLINED:
            return ArmError(401, "SignInFailed", "You are not signed in: the sign-in service declined.")
        case Verdict.FAILED:
            return ArmError(401, "SignInFailed", "The sign-in failed: try again.")
        case Verdict.UNREACHABLE:
            again = {"retry-after": "5"}
            return ArmError(503, "ServiceUnavailable", "The sign-in service cannot be reached now: try again.", headers=again)
        case Verdict.NOT_GIVER:
            return ArmError(403, "AuthorizationFailed", f"Only who gave this consent may watch, and {who} did not.")
        case Verdict.NO_ROLE:
            return ArmError(403, "AuthorizationFailed", f"No role of {who} gives a right to this virtual machine any more.")
        case Verdict.OVER:
            return ArmError(410, "ConsentEnded", "This consent is over.")


def serve_counter(app: FastAPI, registrar: Registrar, counter: Counter) -> None:
    """Raises nothing; its handlers what Counter and the registrar do."""

    @app.post("/watch/{cid}/session", include_in_schema=False)
    async def session(request: Request) -> Response:
        known = await counter.known(request)
        node, _ = known.found.reached()
        consent = known.found.consent
        return secret(
            SessionAnswer(
                resource_id=str(consent.resource_id),
                giver=consent.giver,
                node=node,
                expires_at=when(consent.expires_at * 1000),
                connect=await registrar.watching.sockets(known.session.cid),
            )
        )

    @app.post("/watch/{cid}/token", include_in_schema=False)
    async def token(request: Request) -> Response:
        known = await counter.known(request)
        return secret(WatchAnswer.of(await registrar.watching.admit(known.session.cid, known.session.caller.gave)))

    @app.post("/watch/{cid}/withdraw", include_in_schema=False)
    async def withdraw(request: Request) -> Response:
        known = await counter.known(request)
        return secret(DisabledAnswer.of(await registrar.revoke_consent(known.session.cid)))
