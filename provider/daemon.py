"""The provider's daemon: what it is wired of, and its way from start to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import uvloop

from provider.consent.registrar import Registrar
from provider.consent.rounds import move_for_ever, prune_for_ever, sweep_for_ever
from provider.keys import Signers, load_signer
from provider.local_socket import admin_server, unix_socket
from provider.meters import Meters
from provider.mqtt import MqttPost
from provider.notify import notify, watchdog_seconds
from provider.rest.endpoints import reload_certificates, rest_servers
from provider.service import Server, lease_server, metrics_server, tcp_socket
from provider.settings import Settings
from provider.store.place import Place
from provider.store.store import Store, StoreDown, StoreThread

RETRY_SECONDS = 2.0

log = logging.getLogger("provider")


def serve(settings: Settings) -> None:
    """As `run`, on a loop of its own."""
    uvloop.run(run(settings))


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT.

    Before it is ready it raises BadStore, BadKeyFile, BadSecret, MissingAssets, OSError (ssl.SSLError among them).
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = await _store_at(settings.store, stop)
    if store is None:
        return
    with ExitStack() as stack:
        stack.callback(store.close)
        signers = Signers(settings.keys, load_signer(settings.keys, store))
        thread = StoreThread(store)
        stack.callback(thread.close)
        meters = Meters()
        post = MqttPost(settings.mqtt, meters)
        registrar = Registrar(thread, signers, post, settings.limits, meters)
        apis = rest_servers(settings.rest, registrar, thread, meters)
        loop.add_signal_handler(signal.SIGHUP, reload_certificates, apis)
        listeners: list[tuple[Server, socket.socket]] = [
            *apis,
            (lease_server(registrar, settings.lease), tcp_socket(settings.lease)),
            (metrics_server(meters, registrar, post), tcp_socket(settings.metrics)),
            (admin_server(registrar), unix_socket(settings.admin_socket)),
        ]
        stack.callback(_unlink, settings.admin_socket)
        async with asyncio.TaskGroup() as group:
            for server, listening in listeners:
                group.create_task(server.serve([listening]))
            others = [
                group.create_task(post.run(registrar)),
                group.create_task(sweep_for_ever(registrar)),
                group.create_task(move_for_ever(registrar)),
                group.create_task(prune_for_ever(registrar)),
                group.create_task(_feed_watchdog(registrar)),
            ]
            for server, _ in listeners:
                await server.up.wait()
            notify("READY=1")
            log.info("ready: leases at %s:%d, key set %d", settings.lease.address, settings.lease.port, signers.current.version)
            await stop.wait()
            notify("STOPPING=1")
            log.info("stopping")
            _stop([server for server, _ in listeners], others)


async def _store_at(place: Place, stop: asyncio.Event) -> Store | None:
    """Waits for a database that may start later than we do; None if it is stopped meanwhile. Raises BadStore."""
    while not stop.is_set():
        try:
            return await asyncio.to_thread(Store, place, whole=True)
        except StoreDown as error:
            log.error("%s cannot be reached: %s", place, error.why)
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await stop.wait()
    return None


def _stop(servers: list[Server], others: list[asyncio.Task[None]]) -> None:
    for server in servers:
        server.should_exit = True
    for task in others:
        task.cancel()


async def _feed_watchdog(registrar: Registrar) -> None:
    """Feeds only while the loop turns and the store's thread gives an answer, be it that the database is away."""
    period = watchdog_seconds()
    while period is not None:
        await registrar.is_well()
        notify("WATCHDOG=1", wait=False)
        await asyncio.sleep(period)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
