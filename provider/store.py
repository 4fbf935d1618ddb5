"""What the provider must never forget: SQLAlchemy Core on SQLite. All of it blocks; StoreThread keeps it off the loop.

A transaction is on disk when its `with` ends (WAL, synchronous=FULL), and only then may what it decided be sent. Errors:

    BadStore        the file cannot be the store: `path` and `why`
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

SCHEMA = 1
MAGIC = b"SQLite format 3\0"
BUSY_MS = 5_000  # how long a command waits for the daemon's transaction, and the other way round

T = TypeVar("T")

metadata = MetaData()

# Times: *_ms are Unix milliseconds on this host's clock, *_at Unix seconds as the tokens have them.
nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("folded", Text, nullable=False, unique=True),  # host names differ by more than case
    Column("kid", Text, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False, default=0),  # the highest revocation number given
    Column("receipts", BigInteger, nullable=False, default=0),  # every receipt up to this number is in
    Column("applied", BigInteger, nullable=False, default=0),  # the seq that it last asked with
    Column("asked_ms", BigInteger, nullable=False, default=0),
    Column("audit_count", BigInteger, nullable=False, default=0),
    Column("audit_head", Text, nullable=False, default=""),
    Column("behind_ms", BigInteger),  # when its audit chain was last told shorter
    Column("conflict_ms", BigInteger),  # when its audit chain was first told otherwise
    Column("conflict_count", BigInteger),
)

consents = Table(
    "consents",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("node", Text, ForeignKey("nodes.name"), nullable=False),
    Column("resource_key", Text, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("claims", Text, nullable=False),  # the token's body as JSON, for listing without the key
    Column("offered_until_ms", BigInteger, nullable=False),
    Column("answer", Text),  # accepted or refused, by the node's receipt
    Column("answered_ms", BigInteger),
    Column("uuid", Text),
    Column("why", Text),
    Column("granted_ms", BigInteger),  # the giver was told
    Column("revoked_ms", BigInteger),
    Column("ended_ms", BigInteger),  # the node says that it ended by itself
    Column("ended_reason", Text),
    Index("consents_by_vm", "resource_key", "expires_at"),
    Index("consents_by_node", "node", "expires_at"),
    # only what waits for an answer: the sweep's cost does not grow with the history
    Index(
        "consents_offered",
        "offered_until_ms",
        sqlite_where=text("granted_ms IS NULL AND revoked_ms IS NULL"),
        postgresql_where=text("granted_ms IS NULL AND revoked_ms IS NULL"),
    ),
)

revocations = Table(
    "revocations",
    metadata,
    Column("node", Text, ForeignKey("nodes.name"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("jti", Text, nullable=False, unique=True),
    Column("consent", Text, index=True),  # no foreign key: a node may delete a consent that a lost store never had
    Column("resource_key", Text, index=True),
    Column("issued_by", BigInteger),
    Column("made_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("confirmed_ms", BigInteger),
    Column("cut_us", BigInteger),
    Column("sessions", BigInteger),
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("resource_key", Text, primary_key=True),
    Column("issued_by", BigInteger, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("kid", Text, primary_key=True),  # a node with a new key counts anew
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False),
    Column("about", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
)

anchors = Table(
    "anchors",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("count", BigInteger, primary_key=True, autoincrement=False),
    Column("head", Text, nullable=False),
    Column("told_ms", BigInteger, nullable=False),
)

key_sets = Table(
    "key_sets",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("signing_kid", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
)


class BadStore(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


class Store:
    """The store at `path`, made if it is not there and `create` is set. Raises BadStore."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if not create and not path.exists():
            raise BadStore(path, "is not there: make it with `eva-provider keys init`")
        _prepare(path, create=create)
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_MS / 1000, "isolation_level": None})
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)
        try:
            self._check(create=create)
        except BadStore:
            self.close()
            raise
        except OperationalError as error:  # locked, full, read-only: the file itself may be whole
            self.close()
            raise BadStore(path, str(error.orig)) from None
        except DatabaseError:
            self.close()
            raise BadStore(path, "is no SQLite file, or damaged: bring back a copy that is whole") from None

    def _check(self, *, create: bool) -> None:
        with self.write() as connection:
            if connection.execute(text("PRAGMA quick_check(1)")).scalar() != "ok":
                raise BadStore(self.path, "is damaged: bring back a copy that is whole")
            version = connection.execute(text("PRAGMA user_version")).scalar()
            tables = connection.execute(text("SELECT count(*) FROM sqlite_schema")).scalar()
            if create and version == 0 and tables == 0:
                metadata.create_all(connection)
                connection.execute(text(f"PRAGMA user_version={SCHEMA}"))
            elif version != SCHEMA:
                raise BadStore(self.path, f"is of version {version}, not {SCHEMA}")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that nobody else's crosses; on disk at the end of the `with`, undone by an exception."""
        with self._engine.connect().execution_options(eva_writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()


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


def _on_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # isolation_level None: the driver begins nothing by itself, and a transaction that will write says so at once,
    # since one that finds out later cannot wait for its turn (sqlite.org/lang_transaction.html, 2.1)
    writes = connection.get_execution_options().get("eva_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class StoreThread:
    """The one thread in which the daemon's transactions run, one after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def write(self, decide: Callable[[Connection], T]) -> T:
        """What `decide` gives, once its transaction is on disk. A caller that is cancelled does not undo it."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_write, decide)

    async def read(self, look: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_read, look)

    def _in_write(self, decide: Callable[[Connection], T]) -> T:
        with self.store.write() as connection:
            return decide(connection)

    def _in_read(self, look: Callable[[Connection], T]) -> T:
        with self.store.read() as connection:
            return look(connection)

    def close(self) -> None:
        """Waits for the transaction under way."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self.store.close()
