"""provider/store/engine.py: the way to a PostgreSQL server, with TLS, and its settings. Files: test_provider_store.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from lab.certificates import Authority
from lab.postgresql import Postgresql
from provider.store import engine
from provider.store.engine import BadStore, open_engine, reading_options
from provider.store.place import PostgresqlServer, parse_place
from provider.store.store import Store, StoreDown
from tests.store_parts import place_on


@pytest.fixture(scope="module")
def secured(certificates: Authority) -> Iterator[Postgresql]:
    with Postgresql(certificates.server("postgresql", ["localhost"])) as server:
        server.database("eva")
        yield server


def by_name(server: Postgresql, host: str, ca: Path) -> PostgresqlServer:
    found = parse_place(f"postgresql+psycopg://eva@{host}:{server.port}/eva?sslmode=verify-full&sslrootcert={ca}")
    assert isinstance(found, PostgresqlServer)
    return replace(found, password_file=server.password_file)


def test_a_server_is_known_by_its_certificate_and_name(secured: Postgresql, certificates: Authority):
    store = Store(by_name(secured, "localhost", certificates.ca), create=True)
    with store.read() as connection:
        query = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.execute(text(query)).one() == (True, "TLSv1.3")
    store.close()


def test_a_certificate_for_another_name_is_refused(secured: Postgresql, certificates: Authority):
    with pytest.raises(StoreDown, match="certificate"):
        Store(by_name(secured, "127.0.0.1", certificates.ca))


def test_a_certificate_of_another_authority_is_refused(secured: Postgresql, tmp_path: Path):
    with pytest.raises(StoreDown, match="certificate verify failed"):
        Store(by_name(secured, "localhost", Authority(tmp_path / "other").ca))


def test_a_server_without_tls_is_refused_where_tls_was_asked_for(postgresql: Postgresql, certificates: Authority):
    with pytest.raises(StoreDown, match="does not support SSL"):
        Store(by_name(postgresql, "localhost", certificates.ca))


def test_every_connection_has_its_bounds(postgresql: Postgresql):
    found = open_engine(place_on(postgresql, "bounds", "empty_store"), create=False)
    with found.connect() as connection:
        shown = {name: connection.execute(text(f"SHOW {name}")).scalar() for name in engine.SERVER_SETTINGS}
    found.dispose()
    times = {"lock_timeout": "5s", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s"}
    assert shown == {"synchronous_commit": "on", "client_encoding": "UTF8", **times}


def test_a_server_that_would_forget_is_found():
    with Postgresql(settings={"fsync": "off"}) as forgetful:
        place = place_on(forgetful, "forgets")
        with pytest.raises(BadStore, match="fsync off: turn it on"):
            Store(place, create=True)


def test_a_connection_that_would_forget_is_found(postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(engine.SERVER_SETTINGS, "synchronous_commit", "off")
    with pytest.raises(BadStore, match="synchronous_commit off"):
        Store(place_on(postgresql, "forgets", "empty_store"))


def test_a_reader_cannot_write(postgresql: Postgresql):
    place = place_on(postgresql, "reader", "empty_store")
    found = open_engine(place, create=False)
    with found.connect().execution_options(**reading_options(place)) as connection, connection.begin():
        assert connection.execute(text("SHOW transaction_read_only")).scalar() == "on"
        assert connection.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"
    found.dispose()
