"""What the operators' page asks under /sign-in/: which ways there are, and the way over an OpenID Connect issuer and back.

No parameter of a request says where to go next: every redirect is to the issuer's endpoint, to `/` or to `operators.oidc.url`.
"""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Coroutine
from typing import Any, Final

from broker.control_channel import Desk
from broker.pages import PLAIN, Field, PlainRequest, Reply
from broker.safelist import Address
from broker.settings import Oidc
from broker.sign_in import (
    BEGUN_COOKIE,
    BEGUN_SECONDS,
    FAILED_COOKIE,
    FAILED_SECONDS,
    PASS_COOKIE,
    PASS_SECONDS,
    SECRET_BYTES,
    Begun,
    Failed,
    NotAdmitted,
    admitted,
    cookies,
    set_cookie,
)
from eva.control import Refusal
from eva.instant import NS
from oidc.answer import Answer
from oidc.failure import Declined, NotBelieved, SignInFailed
from oidc.relying_party import RelyingParty

WAYS: Final = "/sign-in/ways"
BEGIN: Final = "/sign-in/oidc"
CALLBACK: Final = "/sign-in/oidc/callback"

log = logging.getLogger(__name__)


def relying_party(settings: Oidc) -> RelyingParty:
    """Reads the files that the settings name. Raises OSError, ssl.SSLError, BadSettings."""
    return RelyingParty(settings.registration.load(), f"{settings.url}{CALLBACK}")


class OidcSignIn:
    """The sign-in over one issuer."""

    def __init__(self, settings: Oidc, desk: Desk) -> None:
        """Asks nobody anything yet. Raises as `relying_party`."""
        self.settings = settings
        self._desk = desk
        self._party = relying_party(settings)
        self._begun = Begun(desk.randomness(SECRET_BYTES))

    async def begin(self, host: str) -> Reply:
        """Sends the browser to the issuer; first to our own right name, if it called us by another: its cookie is for one."""
        if host != self.settings.host:
            return _see(f"{self.settings.url}{BEGIN}")
        try:
            begun = await self._party.begin()
        except SignInFailed as error:
            log.warning("no sign-in at %s: %s", self.settings.registration.client.issuer, error)
            self._count(Failed.UNREACHABLE)
            return _failed(Failed.UNREACHABLE)
        sealed = self._begun.seal(begun.pending, self._desk.clock.now())
        return _see(begun.url, set_cookie(BEGUN_COOKIE, sealed, BEGUN_SECONDS, strict=False))

    async def finish(self, query: str, sealed: str | None, address: Address) -> Reply:
        """Gives the browser a pass, or the word why not."""
        now = self._desk.clock.now()
        pending = self._begun.open(sealed, now)
        try:
            answer = Answer.parse(query)
        except NotBelieved as error:
            return self._refuse(address, Failed.BROKEN, str(error))
        if pending is None or answer.state != pending.state:
            # the cookie stays: whoever sent this browser here may not end what it has begun
            return self._refuse(address, Failed.BROKEN, "it answers nothing that this browser has begun", forget=False)
        attempt = self._desk.attempts.admit(address, None, now)
        if attempt is None:
            return self._refuse(address, Failed.RATE_LIMITED, "too many attempts")
        self._begun.use(pending, now)
        try:
            tokens = await self._party.finish(pending, answer.code, answer.state, answer.iss, answer.error)
            account = admitted(tokens.id_claims, self.settings, self._desk.accounts)
        except (SignInFailed, NotAdmitted) as error:
            return self._refuse(address, _why(error), error.detail)
        now = self._desk.clock.now()
        self._desk.attempts.succeeded(attempt, now, account.name)
        lapses = now.boot + self.settings.hours * 3600 * NS
        text = self._desk.passes.issue(self._desk.randomness(SECRET_BYTES), account, address, now, lapses)
        return _see("/", set_cookie(PASS_COOKIE, text, PASS_SECONDS, strict=True), _away(BEGUN_COOKIE))

    def _refuse(self, address: Address, why: Failed, detail: str, *, forget: bool = True) -> Reply:
        log.info("refused a sign-in over %s from %s: %s", self.settings.name, address, detail)
        self._count(why)
        return _failed(why, *([_away(BEGUN_COOKIE)] if forget else []))

    def _count(self, why: Failed) -> None:
        """By the words that the other ways of signing in are refused with; `issuer`: it gave no answer, or none as it should."""
        match why:
            case Failed.UNREACHABLE:
                word = "issuer"
            case Failed.RATE_LIMITED:
                word = Refusal.RATE_LIMITED
            case _:
                word = Refusal.WRONG_CREDENTIALS
        self._desk.metrics.refused.labels(word).inc()


class SignInPages:
    """All under /sign-in/. `oidc`: None where no issuer is in the settings."""

    def __init__(self, oidc: OidcSignIn | None, desk: Desk, *, certificate: bool) -> None:
        self._oidc = oidc
        self._desk = desk
        self._certificate = certificate

    def serves(self, target: str) -> bool:
        """Only the callback has a query that is read."""
        if self._oidc is None:
            return target == WAYS
        return target in (WAYS, BEGIN) or target.partition("?")[0] == CALLBACK

    def answer(self, request: PlainRequest, address: Address) -> Reply | Coroutine[Any, Any, Reply]:
        """For a target that is served."""
        if request.method != "GET":
            return Reply(http.HTTPStatus.METHOD_NOT_ALLOWED, (*PLAIN, ("Allow", "GET")), last=True)
        brought = cookies(request.all("cookie"))
        if self._oidc is None or request.target == WAYS:
            return self._ways(brought.get(PASS_COOKIE), brought.get(FAILED_COOKIE), address)
        if request.target == BEGIN:
            return self._oidc.begin("".join(request.all("host")).lower())
        return self._oidc.finish(request.target.partition("?")[2], brought.get(BEGUN_COOKIE), address)

    def _ways(self, text: str | None, failed: str | None, address: Address) -> Reply:
        told = {
            "password": True,
            "certificate": self._certificate,
            "oidc": self._oidc.settings.name if self._oidc is not None else None,
            "signed_in": self._desk.passes.stands(text, address, self._desk.clock.now()),
            "failed": failed if failed in tuple(Failed) else None,
        }
        fields = [(name, text) for name, text in PLAIN if name != "Content-Type"]
        fields.append(("Content-Type", "application/json"))
        if failed is not None:
            fields.append(("Set-Cookie", _away(FAILED_COOKIE)))
        return Reply(http.HTTPStatus.OK, tuple(fields), json.dumps(told).encode())


def _why(error: SignInFailed | NotAdmitted) -> Failed:
    match error:
        case NotAdmitted():
            return Failed.NOT_ADMITTED
        case Declined():
            return Failed.DECLINED
        case NotBelieved():
            return Failed.BROKEN
        case _:
            return Failed.UNREACHABLE


def _see(location: str, *set_cookies: str) -> Reply:
    fields: list[Field] = [*PLAIN, ("Location", location)]
    return Reply(http.HTTPStatus.SEE_OTHER, (*fields, *(("Set-Cookie", text) for text in set_cookies)))


def _failed(why: Failed, *set_cookies: str) -> Reply:
    return _see("/", set_cookie(FAILED_COOKIE, str(why), FAILED_SECONDS, strict=True), *set_cookies)


def _away(name: str) -> str:
    return set_cookie(name, "", 0, strict=True)
