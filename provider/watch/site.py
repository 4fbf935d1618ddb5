"""The tenants' page at the tenants' endpoint, its files, and the way to the issuer and back.

A page's path and nothing else says which consent it is for: no query is read but the callback's.
"""

from __future__ import annotations

import asyncio
import logging
import time

from fastapi import FastAPI, Request, Response

from eva.token import is_jti
from oidc.answer import Answer
from oidc.failure import NotBelieved
from oidc.relying_party import RelyingParty
from oidc.settings import Client
from provider.consent.registrar import Registrar
from provider.rest.admission import Keychain
from provider.rest.arm import ArmError, nothing_at
from provider.rest.front import plain_app
from provider.rest.settings import Rest
from provider.rest.throttle import Throttle
from provider.store.store import StoreThread
from provider.watch.counter import Counter, serve_counter
from provider.watch.files import Seats, address, file, page
from provider.watch.jar import Jar
from provider.watch.same_origin import origin_of
from provider.watch.session import Outcome, session_path, sign_in_cookie
from provider.watch.sign_in import Desk, Gatekeeper
from web.assets import Site

CALLBACK = "/watch/callback"
SIGN_INS_PER_HOUR = 600  # begun or finished by one address; a whole company may have one
LOOKUPS = 8  # of strangers in the store at once: nodes' leases wait in the same line
GENTLY = {"cache-control": "no-store", "referrer-policy": "no-referrer", "content-security-policy": "default-src 'none'"}

log = logging.getLogger("provider.watch.site")


def watch_app(rest: Rest, client: Client, site: Site, registrar: Registrar, store: StoreThread, keychain: Keychain) -> FastAPI:
    """All below /watch/. `client`: `rest.watch` with its secret. Raises OSError, ssl.SSLError for its CA file."""
    app = plain_app("Emergency VM Access: watching", "The page of a consent's giver.")
    party = RelyingParty(client, f"{rest.tenant.url}{CALLBACK}")
    gate = Gatekeeper(store)
    jar = Jar(registrar.watching.sealing_key, now)
    desk = Desk(party, client.issuer, keychain, rest.tenant.audiences, registrar.watching, gate)
    _serve_sign_in(app, desk, jar, Throttle(SIGN_INS_PER_HOUR))
    _serve_files(app, site, registrar)
    issuer = keychain.issuers[client.issuer]
    throttle = Throttle(rest.tenant.reads_per_hour)
    serve_counter(app, registrar, Counter(registrar, gate, jar, issuer, origin_of(rest.tenant.url), throttle))
    return app


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def consent_id(request: Request) -> str:
    """The consent that the path names. Raises ArmError."""
    cid: str = request.path_params["cid"]
    if not is_jti(cid):
        raise nothing_at(request.scope["path"])
    return cid


def _serve_files(app: FastAPI, site: Site, registrar: Registrar) -> None:
    seats = Seats()
    lookups = asyncio.Semaphore(LOOKUPS)

    @app.api_route("/watch/files/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def one(request: Request) -> Response:
        found = site.files.get(f"/{request.path_params['path']}")
        if found is None:
            raise nothing_at(request.scope["path"])
        return file(request, found, seats)

    @app.api_route("/watch/{cid}", methods=["GET", "HEAD"], include_in_schema=False)
    async def whole(request: Request) -> Response:
        cid = consent_id(request)
        async with lookups:
            reached = await registrar.watching.sockets(cid)
        return page(request, site.page, reached, seats)


def _serve_sign_in(app: FastAPI, desk: Desk, jar: Jar, throttle: Throttle) -> None:
    @app.get("/watch/{cid}/sign-in", include_in_schema=False)
    async def begin(request: Request) -> Response:
        cid = consent_id(request)
        _count(throttle, request)
        begun = await desk.begin(cid)
        if isinstance(begun, Outcome):
            return _sent(session_path(cid), jar.keep(begun))
        url, sign_in = begun
        return _sent(url, jar.keep_sign_in(sign_in))

    @app.get(CALLBACK, include_in_schema=False)
    async def back(request: Request) -> Response:
        _count(throttle, request)
        try:
            answer = Answer.parse(request.scope["query_string"].decode("ascii", "replace"))
        except NotBelieved as error:
            log.warning("a callback is not taken: %s", error)
            return _lost()
        sign_in = jar.sign_in(request, answer.state)
        if sign_in is None:
            # another browser's, or one that took too long; a sign-in that is under way here goes on undisturbed
            return _lost()
        found = await desk.finish(sign_in, answer, now())
        return _sent(session_path(sign_in.cid), jar.keep(found), sign_in_cookie("", 0))


def _count(throttle: Throttle, request: Request) -> None:
    verdict = throttle.take(address(request), "", time.monotonic_ns())
    if not verdict.admitted:
        raise ArmError(
            429, "TooManyRequests", "Too many sign-ins: try again later.", headers={"retry-after": str(verdict.retry_after)}
        )


def _sent(where: str, *set_cookies: str) -> Response:
    """303, so that nothing is asked again on the way back."""
    answer = Response(status_code=303, headers=GENTLY | {"location": where})
    for one in set_cookies:
        answer.headers.append("set-cookie", one)
    return answer


def _lost() -> Response:
    why = "This sign-in is not this browser's, or it took too long. Open your watch link again.\n"
    return Response(why, 400, GENTLY, media_type="text/plain; charset=utf-8")
