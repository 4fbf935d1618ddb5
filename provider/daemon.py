"""The provider's daemon: what it is wired of, and its way from start to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import ExitStack
from pathlib import Path

from provider.keys import load_signer
from provider.meters import Meters
from provider.mqtt import MqttPost
from provider.notify import notify, watchdog_seconds
from provider.registrar import Registrar
from provider.service import Server, admin_server, lease_server, metrics_server, tcp_socket, unix_socket
from provider.settings import Settings
from provider.store import Store, StoreThread

log = logging.getLogger("provider")


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises BadStore, BadKeyFile, OSError (ssl.SSLError) before it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as stack:
        store = Store(settings.store)
        signer = load_signer(settings.keys, store)
        thread = StoreThread(store)
        stack.callback(thread.close)
        meters = Meters()
        post = MqttPost(settings.mqtt, meters)
        registrar = Registrar(thread, signer, post, settings.limits, meters)
        listeners = [
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
                group.create_task(registrar.sweep_for_ever()),
                group.create_task(_feed_watchdog(registrar)),
            ]
            for server, _ in listeners:
                await server.up.wait()
            notify("READY=1")
            log.info("ready: leases at %s:%d, key set %d", settings.lease.address, settings.lease.port, signer.version)
            await stop.wait()
            notify("STOPPING=1")
            log.info("stopping")
            _stop([server for server, _ in listeners], others)


def _stop(servers: list[Server], others: list[asyncio.Task[None]]) -> None:
    for server in servers:
        server.should_exit = True
    for task in others:
        task.cancel()


async def _feed_watchdog(registrar: Registrar) -> None:
    """Feeds only while the loop turns and the store answers."""
    period = watchdog_seconds()
    while period is not None:
        if await registrar.is_well():
            notify("WATCHDOG=1", wait=False)
        await asyncio.sleep(period)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
