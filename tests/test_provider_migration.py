"""provider/store/migration.py and migrations/: from the first release's schema to this one's, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, Text, select, text
from sqlalchemy.exc import IntegrityError

from eva.token import Typ
from lab.postgresql import Postgresql
from provider.store.engine import open_engine
from provider.store.migration import SCRIPTS, Step, revision_of, steps_from, upgrade
from provider.store.place import Place
from provider.store.schema import HEAD, Key, consents, loads, metadata, nodes
from provider.store.store import Store
from tests.provider_parts import signing_key
from tests.store_parts import place_on

KEY = signing_key()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return tmp_path / "provider.db"
    return place_on(request.getfixturevalue("postgresql"), f"empty_{uuid4().hex}")


@pytest.fixture
def engine(empty: Place) -> Iterator[Engine]:
    engine = open_engine(empty, create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def old(engine: Engine) -> Engine:
    """The first release's store, with a node and three consents: one stands, one was revoked, one ended."""
    with engine.connect() as connection, connection.begin():
        upgrade(connection, "0001")
        node = "INSERT INTO nodes VALUES ('AzS-ERCS01', 'azs-ercs01', 'k', 'p', 0, 0, 0, 0, 0, 0, '', NULL, NULL, NULL)"
        connection.execute(text(node))
        table = Table("consents", MetaData(), autoload_with=connection)
        same = {"node": "AzS-ERCS01", "resource_key": "vm", "issued_at": 1000, "expires_at": 1801, "claims": "{}"}
        same |= {"token": KEY.sign(Typ.CONSENT, {}), "offered_until_ms": 5}
        for jti, end in {"stands": {}, "revoked": {"revoked_ms": 7}, "ended": {"ended_ms": 7}}.items():
            connection.execute(table.insert().values(jti=jti, **same, **end))
    return engine


def upgraded(engine: Engine) -> Connection:
    connection = engine.connect()
    connection.begin()
    upgrade(connection)
    return connection


def test_the_migrations_make_what_the_tables_say(engine: Engine):
    with upgraded(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert revision_of(connection) == HEAD


def test_an_upgraded_store_is_as_a_new_one(old: Engine):
    with upgraded(old) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_an_old_consent_is_its_own_and_known_by_its_key(old: Engine):
    with upgraded(old) as connection:
        rows = connection.execute(select(consents.c.jti, consents.c.cid, consents.c.kid, consents.c.expires_at)).all()
    assert sorted(rows) == [(jti, jti, KEY.kid, 1801) for jti in ("ended", "revoked", "stands")]


def test_what_stands_is_counted(old: Engine):
    with upgraded(old) as connection:
        assert connection.execute(select(loads)).all() == [("AzS-ERCS01", 2700, 1)]


def test_no_node_is_refused_for_what_the_first_release_saw(old: Engine):
    with old.connect() as connection, connection.begin():
        connection.execute(text("UPDATE nodes SET behind_ms = 7"))
    with upgraded(old) as connection:
        assert connection.execute(select(nodes.c.behind_ms, nodes.c.asked_at)).one() == (None, None)


def test_the_new_columns_are_needed(old: Engine):
    with upgraded(old) as connection, pytest.raises(IntegrityError):
        connection.execute(text("UPDATE consents SET cid = NULL"))


def test_rules_of_old_columns_stay(old: Engine):
    with upgraded(old) as connection, pytest.raises(IntegrityError):
        connection.execute(text("UPDATE consents SET node = 'nobody'"))


def test_what_waits_for_an_answer_is_still_looked_up_by_its_index(old: Engine):
    waiting = "SELECT * FROM consents WHERE granted_ms IS NULL AND revoked_ms IS NULL AND offered_until_ms < 9"
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}[old.dialect.name]
    with upgraded(old) as connection:
        if old.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        lines = connection.execute(text(explain + waiting)).all()
    assert "consents_offered" in str(lines)


def test_an_upgrade_that_fails_changes_nothing(old: Engine):
    with old.connect() as connection, connection.begin() as transaction:
        upgrade(connection)
        transaction.rollback()
    with old.connect() as connection:
        assert revision_of(connection) == "0001"
        assert connection.execute(text("SELECT count(*) FROM consents")).scalar() == 3


def test_a_store_of_the_first_release_opens_after_its_upgrade(old: Engine, empty: Place):
    with old.connect() as connection, connection.begin():
        upgrade(connection)
    Store(empty, whole=True).close()


def test_keys_compare_byte_by_byte_on_postgresql(postgresql: Postgresql):
    engine = open_engine(place_on(postgresql, "collations", "empty_store"), create=False)
    with engine.connect() as connection:
        query = "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = 'public'"
        found = {(row[0], row[1]) for row in connection.execute(text(query)) if row[2] == "C"}
    engine.dispose()
    meant = {(name, column.name) for name, table in metadata.tables.items() for column in table.c if column.type is Key}
    assert found == meant


def test_head_is_the_last_revision():
    assert ScriptDirectory(str(SCRIPTS)).get_current_head() == HEAD


def test_revisions_are_numbers_in_order():
    found = [step.revision for step in steps_from("0001")]
    assert found == [f"{number:04}" for number in range(2, int(HEAD) + 1)]


def test_a_step_says_what_it_does():
    assert steps_from("0001")[0] == Step(
        "0002", "Consents keep an id over renewals and moves; loads, features and role assignments; the newest word of each node."
    )
    assert steps_from(HEAD) == []


def test_every_time_is_a_big_number():
    for table in metadata.tables.values():
        for column in table.c:
            assert isinstance(column.type, Text) or column.type.__class__.__name__ == "BigInteger"
