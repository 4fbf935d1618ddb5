"""What every request of the REST passes first and every answer last: ids, path, how many at once, and errors in ARM's shape."""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from provider.consent.authority import Refusal, Refused
from provider.meters import Meters
from provider.rest.arm import JSON, ArmError, Exchange, nothing_at
from provider.rest.uri import Template, folded, segments, template
from provider.store.store import StoreDown

MAX_QUERY = 2048
AT_ONCE = 128  # requests under way at one endpoint; more are told to come again

log = logging.getLogger("provider.rest")


class Front:
    """The ASGI application around an endpoint's own."""

    def __init__(self, app: FastAPI, endpoint: str, meters: Meters, max_query: int = MAX_QUERY) -> None:
        self._app = app
        self._endpoint = endpoint
        self._meters = meters
        self._max_query = max_query
        self._templates = templates(app)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = Exchange.of(headers, str(uuid4()))
        scope["arm"] = exchange
        began, status = time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}  # in small letters, as ASGI has them
                added = [(name.encode(), value.encode("latin-1", "replace")) for name, value in exchange.answer_headers().items()]
                message = {**message, "headers": [*message["headers"], *(one for one in added if one[0] not in given)]}
            await send(message)

        try:
            if "content-length" in headers and "transfer-encoding" in headers:
                # RFC 9112 6.3: two programs that believe one of them each see different requests behind it
                raise ArmError(400, "BadRequest", "The request has both a length and a coding.", headers={"connection": "close"})
            if len(scope["query_string"]) > self._max_query:
                raise ArmError(400, "InvalidRequestUri", f"The query is longer than {self._max_query} characters.")
            scope["path"] = folded(segments(scope["raw_path"]), self._templates)
            await self._bounded(scope, receive, answer)
        except ArmError as error:
            await answer_of(error)(scope, receive, answer)
        finally:
            took = time.monotonic() - began
            self._meters.requests.labels(self._endpoint, f"{status // 100}xx" if status else "none").inc()
            self._meters.request_seconds.labels(self._endpoint).observe(took)
            who = exchange.caller or "-"
            ids = f"{exchange.request_id} {exchange.correlation_id}"
            # as it was sent, still encoded: what a peer made up cannot begin a line of its own
            path = scope["raw_path"][:512].decode("ascii", "backslashreplace")
            log.info("%s %s %d %.0f ms by %s [%s]", scope["method"], path, status, took * 1000, who, ids)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._under_way >= AT_ONCE:
            raise ArmError(503, "ServerBusy", "The server is busy: try again.", headers={"retry-after": "1"})
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


def templates(app: FastAPI) -> list[Template]:
    return [template(route.path) for route in app.routes if isinstance(route, APIRoute)]


def exchange(request: Request) -> Exchange:
    found = request.scope["arm"]
    if not isinstance(found, Exchange):
        raise TypeError("a request that did not come through Front")
    return found


def answer_of(error: ArmError) -> Response:
    return Response(error.body(), error.status, error.headers, media_type=JSON)


# What the registrar refuses, and how ARM says it. FEATURE_OFF and UNKNOWN_VM name what they are about: see `refused`.
_REFUSED = {
    Refusal.TOO_LONG: (400, "InvalidParameter"),
    Refusal.TOO_BIG: (400, "InvalidParameter"),
    Refusal.NO_CONSENT: (404, "ConsentNotFound"),
    Refusal.CONFLICT: (409, "Conflict"),
    Refusal.NOT_GIVER: (403, "AuthorizationFailed"),
    Refusal.NOT_WATCHABLE: (409, "WatchingNotPossible"),
    Refusal.NODE_REFUSED: (409, "NodeRefused"),
    Refusal.TOO_SOON: (429, "TooManyRequests"),
    Refusal.NO_NODE: (503, "NoNodeAvailable"),
    Refusal.NODE_SILENT: (504, "NodeSilent"),
}
_RETRY = {429: {"retry-after": "1"}, 503: {"retry-after": "10"}}


def refused(error: Refused, subscription: str, path: str) -> ArmError:
    """`subscription`: as the caller spelled it; `path`: what was asked for."""
    if error.refusal is Refusal.FEATURE_OFF:
        why = f"The Emergency VM Access feature is not enabled for subscription '{subscription}'"
        return ArmError(409, "OperationNotAllowed", why)
    if error.refusal is Refusal.UNKNOWN_VM:
        vm = path.rpartition("/")[0]
        return ArmError(404, "ResourceNotFound", f"The Resource '{vm}' was not found: no ERCS node has this virtual machine.", vm)
    status, code = _REFUSED.get(error.refusal, (409, "Conflict"))
    target = "durationInSeconds" if error.refusal is Refusal.TOO_LONG else None
    return ArmError(status, code, error.detail or str(error.refusal), target, _RETRY.get(status))


def answer_errors(app: FastAPI) -> None:
    """Every error that a handler lets out becomes an answer here, and nowhere else."""

    @app.exception_handler(ArmError)
    async def arm(_: Request, error: ArmError) -> Response:
        return answer_of(error)

    @app.exception_handler(Refused)
    async def turned_down(request: Request, error: Refused) -> Response:
        return answer_of(refused(error, request.path_params.get("subscriptionId", ""), request.scope["path"]))

    @app.exception_handler(StoreDown)
    async def store_down(_: Request, error: StoreDown) -> Response:
        log.error("the store does not answer: %s", error.why)
        return answer_of(ArmError(503, "ServiceUnavailable", "The service is unavailable now: try again.", headers=_RETRY[503]))

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code != 405:
            return answer_of(nothing_at(request.scope["path"]))
        why = f"The HTTP method '{request.method[:16]}' is not supported on the resource '{request.scope['path']}'."
        return answer_of(ArmError(405, "MethodNotAllowed", why, headers=error.headers))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # to nobody

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        # the edge of a request's task: uvicorn logs what it was, under the same ids
        ids = exchange(request).correlation_id
        return answer_of(
            ArmError(500, "InternalServerError", f"The server encountered an internal error. Correlation id: {ids}.")
        )


def plain_app(title: str, description: str) -> FastAPI:
    """An application without pages of its own, whose OpenAPI document is served at /openapi.json."""
    app = FastAPI(title=title, version="1", description=description, openapi_url=None, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    answer_errors(app)
    return app
