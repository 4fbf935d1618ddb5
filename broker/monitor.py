"""The second listener, loopback by default: `/metrics` for Prometheus, `/healthz` for whoever asks whether the node serves."""

from __future__ import annotations

import http
from collections.abc import Callable

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from broker.metrics import Metrics
from eva.endpoint import MetricsListener

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Monitor:
    """`health` gives the words of what is amiss, none where all is well. `refresh` brings the gauges up to date."""

    def __init__(
        self, settings: MetricsListener, metrics: Metrics, health: Callable[[], list[str]], refresh: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._refresh = refresh
        self._server: Server | None = None

    async def start(self) -> None:
        """Raises OSError where the address is taken."""
        # every request is answered before it could become a websocket
        self._server = await serve(
            _never, self._settings.address, self._settings.port, process_request=self._answer, open_timeout=5, server_header=None
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _answer(self, _connection: ServerConnection, request: Request) -> Response:
        if request.path == "/metrics":
            self._refresh()
            return _response(http.HTTPStatus.OK, self._metrics.text())
        if request.path == "/healthz":
            amiss = self._health()
            status = http.HTTPStatus.SERVICE_UNAVAILABLE if amiss else http.HTTPStatus.OK
            return _response(status, ("\n".join(amiss) or "ok").encode() + b"\n")
        return _response(http.HTTPStatus.NOT_FOUND, b"\n")


def _response(status: http.HTTPStatus, body: bytes) -> Response:
    headers = Headers({"Content-Type": TEXT, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


async def _never(_: ServerConnection) -> None:
    """No request gets as far as a websocket."""
