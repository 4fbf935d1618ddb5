"""provider/commands/store.py, on each kind of database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from lab.certificates import Authority
from provider.command import cli
from provider.store.books import Books
from provider.store.engine import open_engine
from provider.store.migration import upgrade
from provider.store.place import Place, PostgresqlServer
from provider.store.schema import HEAD
from provider.store.store import Store
from tests.provider_parts import make_place
from tests.store_parts import place_on


class Host:
    """A provider's host whose store is at `place`."""

    def __init__(self, directory: Path, authority: Authority, place: Place) -> None:
        self.place = place
        self.config = make_place(directory, authority, "{}").config
        lines = f"store: {place}\n"
        if isinstance(place, PostgresqlServer):
            lines += f"store_password_file: {place.password_file}\n"
        self.config.write_text(re.sub(r"(?m)^store: .*\n", lines, self.config.read_text()))

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, ["--config", str(self.config), *words], catch_exceptions=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def host(request: pytest.FixtureRequest, tmp_path: Path, certificates: Authority) -> Iterator[Host]:
    """With nothing at its place yet."""
    if request.param == "sqlite":
        yield Host(tmp_path, certificates, tmp_path / "state" / "provider.db")
    else:
        yield Host(tmp_path, certificates, place_on(request.getfixturevalue("postgresql"), f"host_{uuid4().hex}"))


def make_old(place: Place) -> None:
    engine = open_engine(place, create=True)
    with engine.connect() as connection, connection.begin():
        upgrade(connection, "0001")
    engine.dispose()


def test_keys_init_makes_the_store(host: Host):
    assert host.run("keys", "init").exit_code == 0
    found = host.run("store", "check")
    assert (found.exit_code, f"version {HEAD}, key set 1" in found.output, "key_sets 1" in found.output) == (0, True, True)


def test_before_it_there_is_nothing_to_check_or_upgrade(host: Host):
    for words in (("store", "check"), ("store", "upgrade"), ("check-config",)):
        found = host.run(*words)
        assert (found.exit_code, "keys init" in found.output) == (78, True)


def test_an_upgrade_says_what_it_does_and_does_it(host: Host):
    make_old(host.place)
    refused = host.run("nodes", "list")
    assert (refused.exit_code, "eva-provider store upgrade" in refused.output) == (78, True)
    found = host.run("store", "upgrade")
    assert (found.exit_code, "0001 -> 0002: Consents keep an id" in found.output) == (0, True)
    assert found.output.endswith(f"is of version {HEAD}\n")
    assert host.run("nodes", "list").exit_code == 0


def test_a_dry_run_changes_nothing(host: Host):
    make_old(host.place)
    found = host.run("store", "upgrade", "--dry-run")
    assert (found.exit_code, "0001 -> 0002" in found.output, "nothing was changed" in found.output) == (0, True, True)
    assert host.run("nodes", "list").exit_code == 78


def test_an_upgraded_store_is_left_alone(host: Host):
    host.run("keys", "init")
    found = host.run("store", "upgrade")
    assert (found.exit_code, found.output) == (0, "nothing was changed (0 to do)\n")


def test_a_load_that_is_miscounted_is_found(host: Host):
    host.run("keys", "init")
    store = Store(host.place)
    with store.write() as connection:
        Books(connection).enrol("AzS-ERCS01", Ed25519PrivateKey.generate().public_key(), 0)
        connection.execute(text("INSERT INTO loads VALUES ('AzS-ERCS01', 9999999900, 1)"))
    store.close()
    found = host.run("store", "check")
    assert (found.exit_code, "the load of AzS-ERCS01 is miscounted" in found.output) == (1, True)
