"""The two endpoints of the REST, wired and ready to be served."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from provider.consent.registrar import Registrar
from provider.meters import Meters
from provider.rest.admin_api import admin_app
from provider.rest.admission import Keychain
from provider.rest.front import Front
from provider.rest.listener import ApiServer
from provider.rest.settings import Rest
from provider.rest.tenant_api import tenant_app
from provider.service import tcp_socket
from provider.store.store import StoreThread


def rest_servers(
    rest: Rest | None, registrar: Registrar, store: StoreThread, meters: Meters
) -> list[tuple[ApiServer, socket.socket]]:
    """None without settings for them. Raises OSError, ssl.SSLError for bad TLS files."""
    if rest is None:
        return []
    keychain = Keychain(rest.identity)
    apps = [
        ("tenant", tenant_app(rest, registrar, store, keychain), rest.tenant),
        ("admin", admin_app(rest, registrar, store, keychain), rest.admin.listener),
    ]
    return [(ApiServer(Front(app, endpoint, meters), listener), tcp_socket(listener)) for endpoint, app, listener in apps]


def reload_certificates(servers: Sequence[tuple[ApiServer, socket.socket]]) -> None:
    for server, _ in servers:
        server.reload()
