"""provider/store.py: the file, its modes and settings, transactions."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from provider.books import Books
from provider.store import BadStore, Store, StoreThread, nodes
from tests.provider_parts import Pen


def test_a_missing_store_is_not_made_by_the_daemon(tmp_path: Path):
    with pytest.raises(BadStore, match="keys init"):
        Store(tmp_path / "provider.db")
    assert not (tmp_path / "provider.db").exists()


def test_a_store_is_for_its_owner_only(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)
    with store.write() as connection:
        Books(connection).enrol("n", Pen("n").public, 0)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()


def test_each_commit_is_synced_in_full(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)
    with store.write() as connection:
        found = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("synchronous", "journal_mode", "foreign_keys")]
    assert found == [2, "wal", 1]
    store.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as a header of one" * 40, b"x", b""])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "provider.db").write_bytes(content)
    with pytest.raises(BadStore) as caught:
        Store(tmp_path / "provider.db")
    assert str(tmp_path / "provider.db") in str(caught.value)
    assert (tmp_path / "provider.db").read_bytes() == content


def test_a_store_of_another_version_is_refused(tmp_path: Path):
    Store(tmp_path / "provider.db", create=True).close()
    connection = sqlite3.connect(tmp_path / "provider.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(BadStore, match="version 99"):
        Store(tmp_path / "provider.db")


def test_an_exception_undoes_the_transaction(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)

    def enrol_and_fail() -> None:
        with store.write() as connection:
            Books(connection).enrol("n", Pen("n").public, 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        enrol_and_fail()
    with store.read() as connection:
        assert connection.execute(select(nodes)).all() == []
    store.close()


def test_a_consent_of_a_node_that_is_not_there_is_refused(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)
    with pytest.raises(IntegrityError), store.write() as connection:
        connection.execute(text("INSERT INTO revocations (node, seq, jti, made_ms, token) VALUES ('n', 1, 'j', 0, 't')"))
    store.close()


def test_two_writers_wait_for_each_other(tmp_path: Path):
    store, other = Store(tmp_path / "provider.db", create=True), Store(tmp_path / "provider.db")
    began = threading.Event()

    def write() -> None:
        began.set()
        with other.write() as connection:
            Books(connection).enrol("b", Pen("b").public, 0)

    with store.write() as connection:
        thread = threading.Thread(target=write)
        thread.start()
        began.wait()
        Books(connection).enrol("a", Pen("a").public, 0)
    thread.join()
    with store.read() as connection:
        assert [node.name for node in Books(connection).nodes()] == ["a", "b"]
    store.close()
    other.close()


def test_a_transaction_that_will_write_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("provider.store.BUSY_MS", 20)
    store, other = Store(tmp_path / "provider.db", create=True), Store(tmp_path / "provider.db")
    with store.write(), pytest.raises(OperationalError, match="locked"), other.write():
        pass
    # and one that only reads waits for nobody
    with store.write(), other.read() as connection:
        assert Books(connection).nodes() == []
    store.close()
    other.close()


async def test_the_store_thread_gives_what_was_decided_and_what_was_raised(tmp_path: Path):
    thread = StoreThread(Store(tmp_path / "provider.db", create=True))
    assert await thread.write(lambda connection: connection.execute(text("SELECT 7")).scalar()) == 7
    with pytest.raises(ZeroDivisionError):
        await thread.read(lambda _: 1 // 0)
    thread.close()
