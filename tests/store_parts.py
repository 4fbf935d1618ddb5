"""Places for stores."""

from __future__ import annotations

from dataclasses import replace

from lab.postgresql import Postgresql
from provider.store.place import PostgresqlServer, parse_place


def place_on(server: Postgresql, name: str, template: str | None = None) -> PostgresqlServer:
    """A new database on this server: empty, or a copy of the `template`."""
    found = parse_place(server.database(name, template))
    assert isinstance(found, PostgresqlServer)
    return replace(found, password_file=server.password_file)
