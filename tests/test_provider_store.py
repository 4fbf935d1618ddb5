"""provider/store/store.py: transactions on each kind of database, and what cannot be a store."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from lab.postgresql import Postgresql
from lab.transcript import PATIENCE_S
from provider.store import engine
from provider.store.books import Books
from provider.store.place import Place, PostgresqlServer
from provider.store.schema import HEAD, nodes
from provider.store.store import BadStore, Store, StoreDown, StoreThread
from tests.provider_parts import Pen
from tests.store_parts import place_on


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    store = Store(place, create=True)
    yield store
    store.close()


@pytest.fixture
def own_server() -> Iterator[Postgresql]:
    """A PostgreSQL that a test may stop."""
    with Postgresql() as server:
        yield server


def names(store: Store) -> list[str]:
    with store.read() as connection:
        return [node.name for node in Books(connection).nodes()]


def enrol(store: Store, name: str) -> None:
    with store.write() as connection:
        Books(connection).enrol(name, Pen(name).public, 0)


def test_what_was_written_is_there_for_the_next(place: Place, store: Store):
    enrol(store, "n")
    other = Store(place)
    assert names(other) == ["n"]
    other.close()


def test_an_exception_undoes_the_transaction(store: Store):
    def enrol_and_fail() -> None:
        with store.write() as connection:
            Books(connection).enrol("n", Pen("n").public, 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        enrol_and_fail()
    assert names(store) == []


def test_a_revocation_for_a_node_that_is_not_there_is_refused(store: Store):
    with pytest.raises(IntegrityError), store.write() as connection:
        connection.execute(text("INSERT INTO revocations (node, seq, jti, made_ms, token) VALUES ('n', 1, 'j', 0, 't')"))


def test_two_writers_wait_for_each_other(place: Place, store: Store):
    other = Store(place)
    began = threading.Event()

    def write() -> None:
        began.set()
        with other.write() as connection:
            Books(connection).enrol("b" if names_in(connection) == ["a"] else "crossed", Pen("b").public, 0)

    def names_in(connection: object) -> list[str]:
        return [node.name for node in Books(connection).nodes()]  # type: ignore[arg-type]

    with store.write() as connection:
        thread = threading.Thread(target=write)
        thread.start()
        began.wait()
        Books(connection).enrol("a", Pen("a").public, 0)
    thread.join()
    assert names(store) == ["a", "b"]
    other.close()


def test_a_writer_does_not_wait_for_ever_and_a_reader_not_at_all(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "WAIT_MS", 100)
    monkeypatch.setitem(engine.SERVER_SETTINGS, "lock_timeout", "100")
    store, other = Store(place, create=True), Store(place)
    with store.write(), pytest.raises(StoreDown, match="lock"), other.write():
        pass
    with store.write(), other.read() as connection:
        assert Books(connection).nodes() == []
    store.close()
    other.close()


def test_a_reader_sees_one_moment(place: Place, store: Store):
    other = Store(place)
    with store.read() as connection:
        assert Books(connection).nodes() == []
        enrol(other, "n")
        assert Books(connection).nodes() == []
    assert names(store) == ["n"]
    other.close()


def test_a_newer_store_is_refused(place: Place, store: Store):
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadStore, match="9999, newer than"):
        Store(place)


def test_an_older_store_is_refused_with_the_command_to_run(place: Place, store: Store):
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(BadStore, match=f"0001, this program's is {HEAD}: run `eva-provider store upgrade`"):
        Store(place)


async def test_the_store_thread_gives_what_was_decided_and_what_was_raised(place: Place):
    thread = StoreThread(Store(place, create=True))
    assert await thread.write(lambda connection: connection.execute(text("SELECT 7")).scalar()) == 7
    with pytest.raises(ZeroDivisionError):
        await thread.read(lambda _: 1 // 0)
    thread.close()


class Busy:
    """A store's thread that is held up by one decision while others come, and what it has put on disk since."""

    def __init__(self, place: Place) -> None:
        self.thread = StoreThread(Store(place, create=True))
        self.commits = 0
        self._came, self._go_on = threading.Event(), threading.Event()

    def _hold(self, _: Connection) -> None:
        self._came.set()
        self._go_on.wait(PATIENCE_S)

    def _count(self, _: Connection) -> None:
        self.commits += 1

    async def all(self, *decisions: Callable[[Connection], object]) -> list[object]:
        """What each gave or raised, though all came while another transaction ran."""
        held = asyncio.create_task(self.thread.write(self._hold))
        await asyncio.to_thread(self._came.wait, PATIENCE_S)
        others = [asyncio.create_task(self.thread.write(one)) for one in decisions]
        await asyncio.sleep(0)  # each has its place now
        event.listen(self.thread.store._engine, "commit", self._count)
        self._go_on.set()
        await held
        return await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def busy(place: Place) -> Iterator[Busy]:
    found = Busy(place)
    yield found
    found.thread.close()


def add(name: str) -> Callable[[Connection], list[str]]:
    """Enrols a node, and gives all that there are."""

    def decide(connection: Connection) -> list[str]:
        Books(connection).enrol(name, Pen(name).public, 0)
        return [node.name for node in Books(connection).nodes()]

    return decide


def add_and_fail(connection: Connection) -> None:
    add("failed")(connection)
    raise ZeroDivisionError


def add_a_stranger(connection: Connection) -> None:
    connection.execute(text("INSERT INTO revocations (node, seq, jti, made_ms, token) VALUES ('n', 1, 'j', 0, 't')"))


async def test_decisions_that_come_together_share_one_commit_and_each_sees_those_before_it(busy: Busy):
    assert await busy.all(add("a"), add("b"), add("c")) == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert busy.commits == 2  # the one that held them up, and theirs
    assert names(busy.thread.store) == ["a", "b", "c"]


@pytest.mark.parametrize(("wrong", "error"), [(add_and_fail, ZeroDivisionError), (add_a_stranger, IntegrityError)])
async def test_one_that_fails_undoes_nothing_of_its_neighbours(
    busy: Busy, wrong: Callable[[Connection], None], error: type[Exception]
):
    before, failed, after = await busy.all(add("a"), wrong, add("c"))
    assert (before, after) == (["a"], ["a", "c"])
    assert isinstance(failed, error)
    assert names(busy.thread.store) == ["a", "c"]


async def test_what_is_not_put_on_disk_is_told_to_nobody(busy: Busy):
    def lose_the_connection(connection: Connection) -> None:
        raise OperationalError("", None, Exception("gone"))

    assert [type(one) for one in await busy.all(add("a"), lose_the_connection, add("c"))] == [StoreDown] * 3
    assert names(busy.thread.store) == []


async def test_a_commit_that_fails_fails_for_all(tmp_path: Path):
    busy = Busy(tmp_path / "provider.db")

    def owe(connection: Connection) -> None:
        connection.execute(text("PRAGMA defer_foreign_keys=ON"))
        add_a_stranger(connection)

    assert [type(one) for one in await busy.all(add("a"), owe)] == [IntegrityError] * 2
    assert names(busy.thread.store) == []
    busy.thread.close()


async def test_one_who_has_gone_before_his_turn_decides_nothing(place: Place):
    busy = Busy(place)
    held = asyncio.create_task(busy.thread.write(busy._hold))
    await asyncio.to_thread(busy._came.wait, PATIENCE_S)
    gone, stays = asyncio.create_task(busy.thread.write(add("a"))), asyncio.create_task(busy.thread.write(add("b")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    busy._go_on.set()
    await held
    assert await stays == ["b"]
    busy.thread.close()


# SQLite


def test_a_missing_file_is_not_made_by_the_daemon(tmp_path: Path):
    with pytest.raises(BadStore, match="keys init"):
        Store(tmp_path / "provider.db")
    assert not (tmp_path / "provider.db").exists()


def test_a_file_is_for_its_owner_only(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)
    enrol(store, "n")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()


def test_each_commit_to_a_file_is_synced_in_full(tmp_path: Path):
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


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "provider.db")
    connection.execute("CREATE TABLE something (else_ TEXT)")
    connection.close()
    for create in (False, True):
        with pytest.raises(BadStore, match="something else"):
            Store(tmp_path / "provider.db", create=create)


def test_a_damaged_page_is_found_by_who_looks_at_all(tmp_path: Path):
    path = tmp_path / "provider.db"
    store = Store(path, create=True)
    for number in range(40):
        enrol(store, f"n{number}")
    store.close()
    raw = path.read_bytes()
    (at,) = {raw.rfind(b"n39")} - {-1}
    page = at // 4096 * 4096
    path.write_bytes(raw[:page] + b"\xff" * 4096 + raw[page + 4096 :])
    Store(path).close()
    with pytest.raises(BadStore, match="damaged"):
        Store(path, whole=True)


# PostgreSQL


def test_an_empty_database_is_not_filled_by_the_daemon(postgresql: Postgresql):
    place = place_on(postgresql, "never_filled")
    with pytest.raises(BadStore, match="keys init"):
        Store(place)


def test_a_wrong_password_is_said_and_not_shown(postgresql: Postgresql, tmp_path: Path):
    wrong = tmp_path / "password"
    wrong.write_text("hunter2\n")
    wrong.chmod(0o600)
    place = replace(place_on(postgresql, "wrong_password"), password_file=wrong)
    with pytest.raises(StoreDown, match="password authentication failed") as caught:
        Store(place)
    assert "hunter2" not in str(caught.value)


def test_a_password_open_to_others_is_refused(postgresql: Postgresql, tmp_path: Path):
    path = tmp_path / "password"
    path.write_text("x")
    path.chmod(0o644)
    place = replace(place_on(postgresql, "open_password"), password_file=path)
    with pytest.raises(BadStore, match="0644"):
        Store(place)


@pytest.mark.parametrize(
    ("setting", "why"), [("synchronous_commit = off", None), ("default_transaction_read_only = on", "takes no writes")]
)
def test_a_database_that_would_forget_is_refused_or_told_to_remember(postgresql: Postgresql, setting: str, why: str | None):
    name = f"set_{setting.split(maxsplit=1)[0]}"
    place = place_on(postgresql, name, "empty_store")
    with postgresql.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} SET {setting}")
    if why is not None:
        with pytest.raises(BadStore, match=why):
            Store(place)
        return
    store = Store(place)
    with store.write() as transaction:
        assert transaction.execute(text("SHOW synchronous_commit")).scalar() == "on"
    store.close()


def test_a_lost_connection_undoes_its_transaction_and_the_next_one_connects_anew(postgresql: Postgresql):
    store = Store(place_on(postgresql, "lost", "empty_store"))

    def lose_it() -> None:
        with store.write() as connection:
            Books(connection).enrol("n", Pen("n").public, 0)
            postgresql.disconnect_all()

    with pytest.raises(StoreDown):
        lose_it()
    assert names(store) == []
    enrol(store, "m")
    # and one that was lost between two transactions costs none
    postgresql.disconnect_all()
    assert names(store) == ["m"]
    store.close()


def test_a_server_that_is_away_is_waited_for_by_nobody(own_server: Postgresql):
    store = Store(place_on(own_server, "away"), create=True)
    enrol(store, "before")
    own_server.kill()
    with pytest.raises(StoreDown, match="refused"):
        enrol(store, "meanwhile")
    with pytest.raises(StoreDown, match="refused"):
        Store(store.place)
    own_server.start()
    enrol(store, "after")
    # what was acknowledged before the SIGKILL is there
    assert names(store) == ["after", "before"]
    store.close()


def test_who_stops_in_the_middle_of_a_transaction_holds_up_the_others_for_a_while_only(
    postgresql: Postgresql,
):
    place = place_on(postgresql, "stopped", "empty_store")
    store, other = Store(place), Store(place)

    def stop_in_the_middle() -> None:
        with store.write() as connection:
            Books(connection).enrol("n", Pen("n").public, 0)
            # 5 s in earnest (test_provider_engine.py); from here on only, so that nobody's other pauses are counted
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 200"))
            enrol(other, "m")

    with pytest.raises(StoreDown):
        stop_in_the_middle()
    assert names(other) == ["m"]
    store.close()
    other.close()


def test_a_password_stands_in_no_error_and_no_repr(postgresql: Postgresql):
    place = place_on(postgresql, "shown", "empty_store")
    assert isinstance(place, PostgresqlServer)
    password = postgresql.password_file.read_text().strip()
    store = Store(place)
    with pytest.raises(IntegrityError) as caught, store.write() as connection:
        connection.execute(nodes.insert().values(name="n", folded="n", kid=None, public_key="p", enrolled_ms=0))
    assert password not in f"{place} {place!r} {caught.value} {store._engine!r}"
    with store.read() as connection:
        assert connection.execute(select(nodes)).all() == []
    store.close()
