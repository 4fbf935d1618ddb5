"""The rim to HTTP: leases and queries for nodes over HTTPS, numbers on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from eva.endpoint import MetricsListener
from eva.token import BadToken
from eva.whereabouts import WHEREABOUTS_PATH, Whereabouts
from eva.wire import CONTENT_TYPE, LEASE_PATH, MAX_ENVELOPE
from provider.consent.authority import Refused
from provider.consent.registrar import Registrar
from provider.meters import Meters
from provider.mqtt import MqttPost
from provider.rest.settings import ApiListener
from provider.settings import LeaseListener
from provider.store.store import StoreDown

BODY_SECONDS = 5
NO_STORE = {"cache-control": "no-store"}
CONCURRENT = 256  # connections and requests at one listener; more get a 503

log = logging.getLogger("provider.service")


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


def config_of(app: FastAPI, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Config:
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


def bare_app() -> FastAPI:
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


async def _answer(request: Request, decide: Callable[[bytes], Awaitable[Response]]) -> Response:
    """What a node's envelope is answered, or the status of one that gets none."""
    if request.headers.get("content-type") != CONTENT_TYPE:
        return Response(status_code=415)
    try:
        raw = await _body(request)
        if raw is None:
            return Response(status_code=413, headers={"connection": "close"})
        return await decide(raw)
    except TimeoutError:
        return Response(status_code=408, headers={"connection": "close"})
    except (BadToken, Refused) as error:
        # a peer that is no node learns nothing from it
        log.warning("%s refused: %s", request.url.path, error)
        return Response(status_code=403)
    except StoreDown as error:
        log.error("%s not decided: %s", request.url.path, error.why)
        return Response(status_code=503)


def lease_server(registrar: Registrar, listener: LeaseListener) -> Server:
    """HTTPS for nodes: leases where MQTT does not answer, in the same envelopes, and where another node's consents are.

    Raises OSError, ssl.SSLError for bad TLS files.
    """
    app = bare_app()

    async def answer_lease(raw: bytes) -> Response:
        answer = await registrar.answer_lease(raw, "https")
        return Response(answer.payload, media_type=CONTENT_TYPE, headers=NO_STORE)

    async def answer_query(raw: bytes) -> Response:
        node = await registrar.whereabouts(raw)
        if node is None:
            return Response(status_code=404, headers=NO_STORE)
        return Response(Whereabouts(node).encode(), media_type="application/json", headers=NO_STORE)

    @app.post(LEASE_PATH)
    async def lease(request: Request) -> Response:
        return await _answer(request, answer_lease)

    @app.post(WHEREABOUTS_PATH)
    async def whereabouts(request: Request) -> Response:
        return await _answer(request, answer_query)

    return Server(config_of(app, listener.certificate, listener.key))


def metrics_server(meters: Meters, registrar: Registrar, post: MqttPost) -> Server:
    """`/metrics`, and `/healthz`: 200 while the store answers. Without MQTT the provider serves on over HTTPS and says so."""
    app = bare_app()

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    async def healthz() -> Response:
        store = await registrar.is_well()
        return JSONResponse({"store": store, "mqtt": post.connected}, status_code=200 if store else 503)

    return Server(config_of(app))


def tcp_socket(listener: LeaseListener | MetricsListener | ApiListener) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    found = socket.create_server((listener.address, listener.port), family=family)
    # connections inherit it; asyncio sets it on none whose listening socket does not name its protocol, and an answer's body
    # then waits 40 ms for the acknowledgement of its head
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found
