"""The two HTTPS listeners of the REST: how long a peer may take, and certificates that are read again without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from provider.rest.arm import ArmError
from provider.rest.settings import ApiListener
from provider.service import Server

if TYPE_CHECKING:
    import socket

HANDSHAKE_SECONDS = 5.0
HEAD_SECONDS = 5.0
MAX_HEAD = 32_768  # a token is at most 16 KiB
CONNECTIONS = 512

log = logging.getLogger("provider.rest.listener")

_BAD_HTTP = ArmError(400, "BadRequest", "The request is no HTTP that is understood here.")


class PatientProtocol(H11Protocol):
    """uvicorn's, which waits for ever for the end of a request's head once its first byte is there. Not documented API:
    tests/test_provider_listener.py holds what is leaned on."""

    _head_timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._make_room()
        self._await_head()

    def _make_room(self) -> None:
        """Who has asked for nothing for the longest time goes: connections that lie idle keep nobody out."""
        if len(self.connections) > CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, PatientProtocol) and one.is_idle]
            longest = min(idle, key=lambda one: one._idle_since, default=self)
            self.connections.discard(longest)  # connection_lost comes later, and more connections before it
            longest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle_since = self.loop.time()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        # IDLE: no request's head is whole yet. Between two requests uvicorn's own keep-alive timer runs, for as long as nothing
        # of the next has come
        begun = self.timeout_keep_alive_task is None or bool(self.conn.trailing_data[0])
        waiting = self.conn.their_state is h11.IDLE and begun
        if not waiting:
            self._forget_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's is plain text; ARM's clients read JSON
        cycle = self.cycle  # the request whose content is no HTTP, or None: its own answer would be a second one
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "application/json; charset=utf-8"), ("connection", "close")]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=_BAD_HTTP.body()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class ApiServer(Server):
    """One of the two; `reload` reads certificate and key again, for connections to come."""

    def __init__(self, app: Callable[..., Any], listener: ApiListener) -> None:
        config = uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            ssl_certfile=listener.certificate,
            ssl_keyfile=listener.key,
        )
        config.load()
        super().__init__(config)
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a bound on the TLS handshake, which it leaves at asyncio's minute."""
        context = self.config.ssl
        if context is None or not sockets:
            raise ValueError("the REST is served over TLS, on sockets that are open already")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        loop = asyncio.get_running_loop()
        make = partial(PatientProtocol, config=self.config, server_state=self.server_state, app_state={})
        self.servers = [
            await loop.create_server(
                make, sock=one, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, backlog=self.config.backlog
            )
            for one in sockets
        ]
        self.started = True
        self.up.set()

    def reload(self) -> None:
        """What cannot be read leaves the old certificate in its place, and says so."""
        if self.config.ssl is None:
            return
        files = self._listener.certificate, self._listener.key
        try:
            # first where it harms nobody: a key that does not fit would leave half of the new pair behind
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
            self.config.ssl.load_cert_chain(*files)
        except OSError as error:  # ssl.SSLError is one
            log.error("%s and %s cannot be used, the old certificate stays: %s", *files, error)
        else:
            log.info("certificate %s read again", self._listener.certificate)
