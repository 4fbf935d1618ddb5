"""The two endpoints of the REST, wired and ready to be served; the tenants' page is at theirs."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from oidc.answer import MAX_QUERY
from oidc.settings import Client, Registration
from provider.consent.registrar import Registrar
from provider.meters import Meters
from provider.rest.admin_api import admin_app
from provider.rest.admission import Keychain
from provider.rest.front import Front
from provider.rest.listener import ApiServer
from provider.rest.settings import ApiListener, Rest
from provider.rest.tenant_api import WATCH_PATH, tenant_app
from provider.service import tcp_socket
from provider.store.secret import read_secret
from provider.store.store import StoreThread
from provider.watch.site import watch_app
from web.assets import site

Served = Callable[[Scope, Receive, Send], Awaitable[None]]


def rest_servers(
    rest: Rest | None, registrar: Registrar, store: StoreThread, meters: Meters
) -> list[tuple[ApiServer, socket.socket]]:
    """None without settings for them. Raises OSError, ssl.SSLError for bad TLS files; BadSecret, MissingAssets for the page's."""
    if rest is None:
        return []
    keychain = Keychain(rest.identity)
    tenant: Served = Front(tenant_app(rest, registrar, store, keychain), "tenant", meters)
    if rest.watch is not None:
        client = registered(rest.watch)
        pages = watch_app(rest, client, site("watch"), registrar, store, keychain)
        tenant = Beside(tenant, Front(pages, "watch", meters, MAX_QUERY))
    admin = Front(admin_app(rest, registrar, store, keychain), "admin", meters)
    served: list[tuple[Served, ApiListener]] = [(tenant, rest.tenant), (admin, rest.admin.listener)]
    return [(ApiServer(one, listener), tcp_socket(listener)) for one, listener in served]


def registered(found: Registration) -> Client:
    """With its secret, which nobody else may read. Raises BadSecret."""
    if found.secret_file is None:
        return found.client
    return replace(found.client, client_secret=read_secret(found.secret_file))


class Beside:
    """The page below /watch/, and the REST for all else: what is under way at one takes no room from the other."""

    def __init__(self, rest: Served, pages: Served) -> None:
        self._rest = rest
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # as it was sent: no other spelling is the page's
        served = self._pages if scope["raw_path"].startswith(WATCH_PATH.encode()) else self._rest
        await served(scope, receive, send)


def reload_certificates(servers: Sequence[tuple[ApiServer, socket.socket]]) -> None:
    for server, _ in servers:
        server.reload()
