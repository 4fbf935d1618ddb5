"""The node's one writer to disk: a thread that commits state and appends the audit, in the order asked, many at a time.

The loop never waits for a disk. What must be durable before it counts awaits `write`; a failure is final: no disk, no
console. Errors:

    JournalFailed   the disk refused a write, now or earlier; nothing is written any more
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from broker.audit_log import AuditLog, Entry
from broker.state import Change, State
from eva.audit import Record

MAX_WAITING = 10_000  # jobs
MAX_TOGETHER = 256  # jobs that share one sync
MAX_UNTOLD = 8192  # records that the provider has still to be told of, before operators have to wait


class JournalFailed(Exception):
    pass


@dataclass(slots=True)
class _Job:
    change: Change
    entries: tuple[Entry, ...]
    done: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


class Journal:
    """Start it with `start`, stop it with `stop`; `write` in between.

    `untold`: the records of consents that are on disk and that nobody has told the provider; whoever tells takes them off.
    """

    def __init__(self, state: State, audit: AuditLog, untold: Iterable[Record] = ()) -> None:
        self._state = state
        self._audit = audit
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: dict[int, _Job] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._stopping = False
        self._on_failure: Callable[[Exception], None] | None = None
        self.anchor = (audit.chains.count, audit.chains.head)  # of what is on disk
        self.untold = deque(untold)
        self.on_untold: Callable[[], None] = lambda: None

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        """`on_failure` is called once, on the loop, when the disk fails."""
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    async def write(self, change: Change | None = None, *entries: Entry) -> None:
        """Returns when both are on disk. Raises JournalFailed. Cancelled, the writing still happens."""
        await asyncio.shield(self.post(change, *entries))

    def post(self, change: Change | None = None, *entries: Entry, then: Callable[[], None] | None = None) -> asyncio.Future[None]:
        """The same without waiting: keeps its place in the order, and gives what `write` would await. Never raises.

        `then` is called on the loop once all is on disk, and never if it fails: that is told through on_failure.
        """

        def on_disk(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None and then is not None:
                then()

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(on_disk)
        if self._failure is None and len(self._waiting) >= MAX_WAITING:
            self._fail(JournalFailed("the disk does not keep up"))
        if self._thread is None or self._stopping or self._failure is not None:
            done.set_exception(JournalFailed(str(self._failure or "stopped")))
            return done
        job = _Job(change or Change(), entries, done)
        self._waiting[id(job)] = job
        self._queue.put(job)
        return done

    @property
    def crowded(self) -> bool:
        """Whether so much is untold, or waits, that operators may add no more to it. What ends is recorded all the same."""
        return len(self.untold) >= MAX_UNTOLD or len(self._waiting) >= MAX_WAITING // 2

    def oldest(self) -> float:
        """Seconds that the oldest write has waited: a disk that hangs is seen here."""
        first = next(iter(self._waiting.values()), None)
        return 0.0 if first is None else time.monotonic() - first.since

    async def stop(self) -> None:
        """Writes what waits and ends the thread; the files are closed. What is asked for from now on is refused."""
        self._stopping = True
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping, failure = False, None
        while not stopping:
            jobs: list[_Job] = []
            job: _Job | None = self._queue.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == MAX_TOGETHER:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = job is None
            if jobs:
                # kept here and not only on the loop, which hears of it later: what is behind a write that failed half way
                # would not follow from what is in the files
                failure = failure or self._commit(jobs)
                self._report(jobs, failure)
        self._state.close()
        self._audit.close()

    def _commit(self, jobs: list[_Job]) -> Exception | None:
        """What went wrong, or None."""
        try:
            # the audit first: a state that counts a record which is not there would look like a log cut short
            self._audit.append([entry for job in jobs for entry in job.entries])
            chains = self._audit.chains
            anchor = Change().meta("audit_count", chains.count).meta("audit_head", chains.head)
            self._state.write([statement for job in jobs for statement in job.change.statements] + anchor.statements)
        except Exception as error:  # the thread's edge: one that died would leave all who wait waiting  # noqa: BLE001
            return error
        return None

    def _report(self, jobs: list[_Job], failure: Exception | None) -> None:
        anchor_now, new = (self._audit.chains.count, self._audit.chains.head), self._audit.take_new()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, jobs, failure, anchor_now, new)

    def _tell(self, jobs: list[_Job], failure: Exception | None, anchor: tuple[int, str], new: list[Record]) -> None:
        for job in jobs:
            self._waiting.pop(id(job), None)
            if job.done.done():
                continue
            if failure is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(JournalFailed(str(failure)))
        if failure is None:
            self.anchor = anchor
            self.untold += new
            if new:
                self.on_untold()
        elif self._failure is None:
            self._fail(failure)

    def _fail(self, failure: Exception) -> None:
        """Nothing more is taken from now on. Told in a turn of its own: whoever asks to write may be amid a cut."""
        self._failure = failure
        if self._loop is not None and self._on_failure is not None:
            self._loop.call_soon(self._on_failure, failure)
