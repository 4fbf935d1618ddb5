"""The rim to HTTP: leases for nodes over HTTPS, numbers on loopback, and the commands' UNIX socket."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import OperationalError

from eva.consent import MAX_REASON, Access, Kind, Principal
from eva.resource_id import BadResourceId, ResourceId
from eva.token import BadToken
from eva.wire import CONTENT_TYPE, LEASE_PATH, MAX_ENVELOPE
from provider.authority import Refusal, Refused
from provider.desk import Wish
from provider.meters import Meters
from provider.mqtt import MqttPost
from provider.registrar import Cut, Registrar
from provider.settings import LeaseListener, MetricsListener

BODY_SECONDS = 5
CONCURRENT = 256  # connections and requests at one listener; more get a 503

log = logging.getLogger("provider.service")

STATUS = {
    Refusal.UNKNOWN_NODE: 404,
    Refusal.NO_CONSENT: 404,
    Refusal.NO_NODE: 503,
    Refusal.TOO_SOON: 429,
    Refusal.TOO_LONG: 400,
    Refusal.NODE_REFUSED: 409,
    Refusal.NODE_SILENT: 504,
}


class Server(uvicorn.Server):
    """One listener of several in a process: signals are the daemon's, and `up` is set once it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def _config(app: FastAPI, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONCURRENT,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    config.load()
    return config


def _app() -> FastAPI:
    return FastAPI(openapi_url=None, docs_url=None, redoc_url=None)


async def _body(request: Request) -> bytes | None:
    """The body, or None for one over MAX_ENVELOPE, which is not read to its end. Raises TimeoutError."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_ENVELOPE:
        return None
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_ENVELOPE:
                return None
    return bytes(body)


def lease_server(registrar: Registrar, listener: LeaseListener) -> Server:
    """HTTPS for nodes that MQTT does not answer; the same envelopes. Raises OSError, ssl.SSLError for bad TLS files."""
    app = _app()

    @app.post(LEASE_PATH)
    async def lease(request: Request) -> Response:
        if request.headers.get("content-type") != CONTENT_TYPE:
            return Response(status_code=415)
        try:
            raw = await _body(request)
            if raw is None:
                return Response(status_code=413, headers={"connection": "close"})
            answer = await registrar.answer_lease(raw, "https")
        except TimeoutError:
            return Response(status_code=408, headers={"connection": "close"})
        except (BadToken, Refused) as error:
            # a peer that is no node learns nothing from it
            log.warning("lease request over HTTPS refused: %s", error)
            return Response(status_code=403)
        except OperationalError as error:
            log.error("lease request over HTTPS not decided: %s", error.orig)
            return Response(status_code=503)
        return Response(answer.payload, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})

    return Server(_config(app, listener.certificate, listener.key))


def metrics_server(meters: Meters, registrar: Registrar, post: MqttPost) -> Server:
    """`/metrics`, and `/healthz`: 200 while the store answers. Without MQTT the provider serves on over HTTPS and says so."""
    app = _app()

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        store = await registrar.is_well()
        return JSONResponse({"store": store, "mqtt": post.connected}, status_code=200 if store else 503)

    return Server(_config(app))


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    resource_id: str
    giver: str
    operators: list[str]
    kinds: list[str]
    access: str
    seconds: int
    reason: str
    node: str | None


class _Which(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    resource_id: str | None = None
    consent_id: str | None = None


def _text(text: str, longest: int, name: str) -> str:
    if len(text) > longest or not text.isprintable():
        raise ValueError(f"{name} is no text of at most {longest} printable characters")
    return text


def _wish(body: _Wish) -> Wish:
    """Raises ValueError, BadResourceId among them."""
    if not body.giver:
        raise ValueError("giver is empty")
    if not 0 < len(body.operators) <= 16 or not body.kinds:
        raise ValueError("operators are 1 to 16, kinds at least one")
    return Wish(
        resource_id=ResourceId.parse(body.resource_id),
        giver=_text(body.giver, 128, "giver"),
        operators=frozenset(map(Principal.parse, body.operators)),
        kinds=frozenset(map(Kind, body.kinds)),
        access=Access(body.access),
        seconds=body.seconds,
        reason=_text(body.reason, MAX_REASON, "reason"),
        node=body.node,
    )


def cut_json(cut: Cut) -> dict[str, str | int | None]:
    notice = cut.notice
    return {
        "node": notice.node,
        "seq": notice.seq,
        "confirmed_at_ms": notice.confirmed_ms,
        "cut_us": notice.cut_us,
        "sessions": notice.sessions,
        "at_latest_ms": cut.at_latest_ms,
    }


def admin_server(registrar: Registrar) -> Server:
    """For the commands on this host; who may open the socket's file may do all of it."""
    app = _app()

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        body = {"error": str(error.refusal), "detail": error.detail}
        return JSONResponse(body, status_code=STATUS.get(error.refusal, 400))

    @app.exception_handler(BadResourceId)
    @app.exception_handler(ValueError)
    async def bad(_: Request, error: ValueError) -> Response:
        return JSONResponse({"error": "bad-request", "detail": str(error)}, status_code=400)

    @app.post("/grant")
    async def grant(body: _Wish) -> Response:
        granted = await registrar.grant(_wish(body))
        consent = granted.consent
        return JSONResponse(
            {
                "consent_id": consent.jti,
                "node": consent.node,
                "resource_id": str(consent.resource_id),
                "issued_at": consent.issued_at,
                "expires_at": consent.expires_at,
                "vm_uuid": granted.uuid,
            }
        )

    @app.post("/revoke")
    async def revoke(body: _Which) -> Response:
        if (body.resource_id is None) == (body.consent_id is None):
            raise ValueError("exactly one of resource_id and consent_id")
        if body.resource_id is not None:
            cuts = await registrar.revoke_vm(ResourceId.parse(body.resource_id))
        else:
            cuts = await registrar.revoke_consent(body.consent_id or "")
        return JSONResponse({"cuts": [cut_json(cut) for cut in cuts]})

    return Server(_config(app))


def tcp_socket(listener: LeaseListener | MetricsListener) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    return socket.create_server((listener.address, listener.port), family=family)


def unix_socket(path: Path) -> socket.socket:
    """A socket that only its owner can open; one left by a daemon that died is replaced. Raises OSError."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
    except OSError:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not path.is_socket() or probe.connect_ex(str(path)) == 0:
                listening.close()
                raise
        path.unlink()
        listening.bind(str(path))
    # nobody can connect before listen(), so there is no moment in which a wider mode counts
    path.chmod(0o600)
    listening.listen()
    return listening
