"""The two endpoints of the REST, wired and ready to be served."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from provider.admin_api import admin_app
from provider.admission import Keychain
from provider.api_settings import Rest
from provider.front import Front
from provider.listener import ApiServer
from provider.meters import Meters
from provider.registrar import Registrar
from provider.service import tcp_socket
from provider.store import StoreThread
from provider.tenant_api import tenant_app


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
