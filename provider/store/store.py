"""What the provider must never forget, in SQLite or PostgreSQL. All of it blocks; StoreThread keeps it off the loop.

A transaction is on disk when its `with` ends, and only then may what it decided be sent. Errors:

    BadStore        provider.store.engine: what is there cannot be the store
    StoreDown       a transaction was not done, for a reason that may pass (locked, full, no connection): `why`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from provider.store.engine import BadStore, health_check, open_engine, reading_options
from provider.store.migration import revision_of, upgrade
from provider.store.place import Place, PostgresqlServer
from provider.store.schema import HEAD

OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)  # a statement that cannot be right: never StoreDown
TOGETHER = 32  # decisions in one transaction: another provider waits for its end

T = TypeVar("T")


class StoreDown(Exception):
    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Store:
    """The store at `place`. Raises BadStore; StoreDown where it cannot be reached.

    `create`: makes it where nothing is. `whole`: looks at every page of a file first, which takes its time. `old`: takes one
    whose schema is older than HEAD, for its upgrade.
    """

    def __init__(self, place: Place, *, create: bool = False, whole: bool = False, old: bool = False) -> None:
        self.place = place
        self._reading = reading_options(place)
        self._engine = open_engine(place, create=create)
        try:
            self._check(create=create, whole=whole, old=old)
        except BaseException:  # whatever it is, nobody has the store to close it
            self.close()
            raise

    def _check(self, *, create: bool, whole: bool, old: bool) -> None:
        try:
            with self._failing(), self._engine.connect() as connection, connection.begin():
                if (whole or isinstance(self.place, PostgresqlServer)) and (fault := health_check(self.place)(connection)):
                    raise BadStore(self.place, fault)
                found = revision_of(connection)
            if create and found is None:
                found = self._make()
        except _Damaged:
            raise BadStore(self.place, "is no SQLite file, or damaged: bring back a copy that is whole") from None
        if found is None:
            raise BadStore(self.place, "is empty: make it with `eva-provider keys init`")
        if found == "":
            raise BadStore(self.place, "holds tables of something else: name a database of its own")
        if found > HEAD:
            raise BadStore(self.place, f"is of version {found}, newer than this program's {HEAD}: install the one that made it")
        if found < HEAD and not old:
            raise BadStore(self.place, f"is of version {found}, this program's is {HEAD}: run `eva-provider store upgrade`")

    def _make(self) -> str:
        with self.write() as connection:
            # asked again: another may have made it since
            found = revision_of(connection)
            if found is None:
                upgrade(connection)
                return HEAD
            return found

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that nobody else's crosses; on disk at the end of the `with`, undone by an exception.

        Raises StoreDown: undone then too, unless it was the connection that was lost while it was being put on disk.
        """
        with (
            self._failing(),
            self._engine.connect().execution_options(eva_writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Raises StoreDown."""
        with self._failing(), self._engine.connect().execution_options(**self._reading) as connection, connection.begin():
            yield connection

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OURS:
            raise
        except OperationalError as error:  # locked, full, lost, not reached
            raise StoreDown(_first_line(error)) from error
        except (DatabaseError, InterfaceError) as error:
            raise _Damaged(_first_line(error)) from error

    def close(self) -> None:
        self._engine.dispose()


class _Damaged(StoreDown):
    """SQLite found a page that makes no sense, or PostgreSQL something alike."""


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)


class _Write:
    """A decision that waits for its transaction, and what comes of it."""

    def __init__(self, decide: Callable[[Connection], Any]) -> None:
        self._decide = decide
        self._raised: Exception | None = None
        self._given: Any = None
        self.done: Future[Any] = Future()

    def decide_alone(self, connection: Connection) -> None:
        """What it raises undoes the whole transaction."""
        self._given = self._decide(connection)

    def decide(self, connection: Connection) -> None:
        """What it raises undoes its own part and is its caller's; raises only what leaves no transaction to go on with."""
        try:
            with connection.begin_nested():
                self._given = self._decide(connection)
        except Exception as error:  # a decision may raise what it likes: its caller alone is told, those beside it go on
            if isinstance(error, DBAPIError) and not isinstance(error, OURS):
                raise
            self._raised = error

    def tell(self) -> None:
        if self._raised is None:
            self.done.set_result(self._given)
        else:
            self.done.set_exception(self._raised)


class StoreThread:
    """The one thread in which the daemon's transactions run, one after the other.

    Decisions that have come while it was busy share one transaction, and so one sync: each sees what those before it decided,
    as if every one of them had been put on disk by itself, and none is told before all are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._writes: SimpleQueue[_Write] = SimpleQueue()

    async def write(self, decide: Callable[[Connection], T]) -> T:
        """What `decide` gives, once its transaction is on disk. A caller that is cancelled does not undo it. Raises StoreDown."""
        one = _Write(decide)
        self._writes.put(one)
        self._executor.submit(self._commit)
        given: T = await asyncio.wrap_future(one.done)
        return given

    async def read(self, look: Callable[[Connection], T]) -> T:
        """Raises StoreDown."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._in_read, look)

    def _commit(self) -> None:
        """What waits, in one transaction; nothing where the call before this one took it along."""
        together: list[_Write] = []
        with suppress(Empty):
            while len(together) < TOGETHER:
                one = self._writes.get_nowait()
                if one.done.set_running_or_notify_cancel():
                    together.append(one)
        if not together:
            return
        try:
            with self.store.write() as connection:
                if len(together) == 1:
                    together[0].decide_alone(connection)
                else:
                    for one in together:
                        one.decide(connection)
        except Exception as error:  # noqa: BLE001 - the edge of a transaction: those who wait for it are told
            for one in together:
                one.done.set_exception(error)
        else:
            for one in together:
                one.tell()

    def _in_read(self, look: Callable[[Connection], T]) -> T:
        with self.store.read() as connection:
            return look(connection)

    def close(self) -> None:
        """Waits for the transaction under way."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        with suppress(Empty):
            while True:
                self._writes.get_nowait().done.cancel()
        self.store.close()
