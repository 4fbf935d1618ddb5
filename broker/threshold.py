"""From TCP's accept to the end of TLS' handshake at one port.

The handshake is the peer's to draw out, so a connection has a seat (broker/lobby.py) before its first byte is read, and
OPEN_TIMEOUT; asyncio, told to accept with TLS, counts none.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import TypeAlias, cast

from broker.lobby import UNSECURED, Lobby, Seat
from broker.metrics import Metrics
from broker.safelist import Address, BadAddress, parse_address
from broker.websocket import CLOSE_TIMEOUT, OPEN_TIMEOUT, OperatorConnection

Steps: TypeAlias = Coroutine[asyncio.Future[None], None, asyncio.Transport | None]

log = logging.getLogger(__name__)


class Threshold:
    """One port's. `is_familiar`: as Attempts says it of an address."""

    def __init__(self, tls: ssl.SSLContext, metrics: Metrics, is_familiar: Callable[[Address], bool]) -> None:
        self.tls = tls
        self.is_familiar = is_familiar
        self.lobby = Lobby(UNSECURED, metrics.refused.labels("handshakes").inc)
        self.under_way: set[Handshake] = set()

    def front(self, connection: OperatorConnection) -> asyncio.Protocol:
        """What has a connection's transport until it is secured."""
        return Handshake(self, connection)

    def close(self) -> None:
        """Ends every handshake."""
        for handshake in list(self.under_way):
            handshake.abort()


class Handshake(asyncio.Protocol):
    """One connection's. What the peer says in the same breath as its handshake's end is kept for whoever comes next."""

    def __init__(self, threshold: Threshold, connection: OperatorConnection) -> None:
        self._threshold = threshold
        self._connection = connection
        self._seat: Seat | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = b""
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class
        peer = transport.get_extra_info("peername")
        try:
            address = parse_address(peer[0] if peer else "")
        except BadAddress as error:
            log.info("refused a connection: %s", error)
            self._transport.abort()
            return
        threshold = self._threshold
        self._seat = threshold.lobby.enter(address, self.abort, familiar=threshold.is_familiar(address))
        if self._seat is None:
            self._transport.abort()
            return
        threshold.under_way.add(self)
        loop = asyncio.get_running_loop()
        steps = loop.start_tls(
            self._transport,
            self,
            threshold.tls,
            server_side=True,
            ssl_handshake_timeout=OPEN_TIMEOUT,
            ssl_shutdown_timeout=CLOSE_TIMEOUT,
        )
        # its first step now: a task's would come in the next turn, and uvloop may have read the peer's first bytes by then
        waiter = steps.send(None)
        self._task = loop.create_task(self._secure(steps, waiter, self._seat))

    def data_received(self, data: bytes) -> None:
        self._early += data

    def eof_received(self) -> None:
        self._over = True

    def connection_lost(self, _: Exception | None) -> None:
        self._over = True

    def abort(self) -> None:
        self._over = True
        self._transport.abort()

    async def _secure(self, steps: Steps, waiter: asyncio.Future[None], seat: Seat) -> None:
        try:
            await asyncio.wait((waiter,))
            secured = _end(steps)
        except OSError:  # a peer's that speaks no TLS, or says no more; ssl's errors and the time-out are of it
            self._transport.abort()
            return
        finally:
            steps.close()
            self._threshold.under_way.discard(self)
            seat.leave()
        if secured is None or self._over:  # lost in the same turn of the loop
            self._transport.abort()
            return
        secured.set_protocol(self._connection)
        self._connection.connection_made(secured)
        if self._early and not secured.is_closing():
            cast(asyncio.Protocol, secured.get_protocol()).data_received(self._early)  # a front may have it


def _end(steps: Steps) -> asyncio.Transport | None:
    """What start_tls gives once its one future is done."""
    try:
        steps.send(None)
    except StopIteration as end:
        return cast("asyncio.Transport | None", end.value)
    raise RuntimeError("start_tls waits for more than its handshake")
