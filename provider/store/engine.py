"""How each kind of database is opened, so that a transaction is on disk when it ends and nobody else's crosses one that writes.

Errors:

    BadStore        what is there cannot be the store: `place` and `why`
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from provider.store.place import Place, PostgresqlServer
from provider.store.secret import BadSecret, read_secret

MAGIC = b"SQLite format 3\0"
WAIT_MS = 5_000  # how long a transaction waits for another's end
OLDEST_POSTGRESQL = 130_000  # 13, as server_version_num has it
LOCK = 0x6576_615F_7374_6F72  # the advisory lock that a writing transaction holds; any number, the same for every provider

# For each connection. A provider that stops in the middle holds the lock for WAIT_MS at most, and a dead server's
# connection is given up (tcp_user_timeout, libpq) instead of being waited for.
SERVER_SETTINGS = {
    "synchronous_commit": "on",
    "lock_timeout": str(WAIT_MS),
    "statement_timeout": str(2 * WAIT_MS),
    "idle_in_transaction_session_timeout": str(WAIT_MS),
    "client_encoding": "UTF8",
}


class BadStore(Exception):
    def __init__(self, place: Place, why: str) -> None:
        self.place = place
        self.why = why
        super().__init__(f"{place}: {why}")


def open_engine(place: Place, *, create: bool) -> Engine:
    """Not connected yet. `create`: a SQLite file is made if there is none. Raises BadStore."""
    return _postgresql(place) if isinstance(place, PostgresqlServer) else _sqlite(place, create=create)


# SQLite


def _sqlite(path: Path, *, create: bool) -> Engine:
    if not create and not path.exists():
        raise BadStore(path, "is not there: make it with `eva-provider keys init`")
    _prepare(path, create=create)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT_MS / 1000, "isolation_level": None})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare(path: Path, *, create: bool) -> None:
    """Sees to it that SQLite opens a store and never makes one out of what is left of another. Raises BadStore."""
    try:
        # made by us before SQLite does, so that it and its journals (which take its mode) are nobody else's to read
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            head = os.read(descriptor, len(MAGIC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadStore(path, error.strerror or "cannot be opened") from None
    if head != MAGIC and not (create and head == b""):
        raise BadStore(path, "is no SQLite file, or damaged: bring back a copy that is whole")


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("eva_writes", False))


def _begin_sqlite(connection: Connection) -> None:
    # isolation_level None: the driver begins nothing by itself, and a transaction that will write says so at once,
    # since one that finds out later cannot wait for its turn (sqlite.org/lang_transaction.html, 2.1)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


# PostgreSQL


def _postgresql(server: PostgresqlServer) -> Engine:
    settings = " ".join(f"-c {name}={value}" for name, value in SERVER_SETTINGS.items())
    arguments: dict[str, str | int] = {
        "options": settings,
        "application_name": "eva-provider",
        "connect_timeout": WAIT_MS // 1000,
        "tcp_user_timeout": 2 * WAIT_MS,
    }
    if server.password_file is not None:
        try:
            arguments["password"] = read_secret(server.password_file)
        except BadSecret as error:
            raise BadStore(server, str(error)) from None
    # one connection serves the daemon's one thread; pre-ping finds the one that a restarted server has closed
    engine = create_engine(server.url, connect_args=arguments, pool_size=2, max_overflow=0, pool_pre_ping=True)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _begin_postgresql(connection: Connection) -> None:
    # READ COMMITTED, so that what comes after the lock sees all that was committed before it was had; a stricter level
    # would look at the moment before the wait (PostgreSQL 15, 13.2.2)
    if _writes(connection):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


# what is asked of either


def reading_options(place: Place) -> dict[str, object]:
    """Execution options of a transaction that sees one moment and changes nothing."""
    if isinstance(place, PostgresqlServer):
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return {}


def health_check(place: Place) -> Callable[[Connection], str | None]:
    """Gives a look at a database that says what is wrong with it, or None."""
    return _fault_of_postgresql if isinstance(place, PostgresqlServer) else _fault_of_sqlite


def _fault_of_sqlite(connection: Connection) -> str | None:
    found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    return None if found == "ok" else f"is damaged ({found}): bring back a copy that is whole"


def _fault_of_postgresql(connection: Connection) -> str | None:
    names = ("server_version_num", "synchronous_commit", "fsync", "full_page_writes", "server_encoding", "transaction_read_only")
    shown = {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in names}
    if int(shown["server_version_num"]) < OLDEST_POSTGRESQL:
        return f"is of PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar()}: it needs 13 or later"
    if shown["transaction_read_only"] != "off":
        return "takes no writes (a standby, or default_transaction_read_only): name the primary"
    for name in ("synchronous_commit", "fsync", "full_page_writes"):
        if shown[name] != "on":
            return f"has {name} {shown[name]}: turn it on, or what was promised may be lost"
    if shown["server_encoding"] != "UTF8":
        return f"is in {shown['server_encoding']}: make one in UTF8"
    return None
