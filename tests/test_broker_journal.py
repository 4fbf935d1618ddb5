"""broker/journal.py on real files: the order asked, many at a time, and after the first failure nothing more."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import audit_log
from broker.audit_log import AuditLog, Entry
from broker.journal import MAX_TOGETHER, MAX_WAITING, Journal, JournalFailed
from broker.state import Change, State
from eva.audit import Event
from tests.broker_parts import NODE, PATIENCE


class Disk:
    """State, audit and journal in a directory."""

    def __init__(self, directory: Path) -> None:
        self.state_path, self.audit_path = directory / "state.db", directory / "audit.jsonl"
        State.create(self.state_path, NODE)
        AuditLog.create(self.audit_path)
        self.failures: list[Exception] = []
        self.state = State.open(self.state_path, NODE)
        self.audit = AuditLog.open(self.audit_path, audit_log.read(self.audit_path, 0, ""))
        self.journal = Journal(self.state, self.audit)

    def numbers(self) -> list[object]:
        return [r.facts["n"] for r in self.read().records]

    def read(self) -> audit_log.Read:
        loaded = State.open(self.state_path, NODE, read_only=True).load()
        return audit_log.read(self.audit_path, loaded.audit_count, loaded.audit_head)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    one = Disk(tmp_path)
    one.journal.start(one.failures.append)
    yield one
    await one.journal.stop()


def entry(number: int, chain: str = "") -> Entry:
    return Entry(chain, Event.WORKSTATION, {"n": number}, number)


async def until_failed(disk: Disk) -> None:
    async with asyncio.timeout(PATIENCE):
        while not disk.failures:
            await asyncio.sleep(0)


async def test_what_was_written_is_on_disk(disk: Disk):
    await disk.journal.write(Change().meta("seq", 7), entry(1))
    assert (disk.numbers(), State.open(disk.state_path, NODE, read_only=True).load().seq) == ([1], 7)


async def test_the_order_is_the_order_asked(disk: Disk):
    futures = [disk.journal.post(None, entry(n)) for n in range(1000)]
    await asyncio.gather(*futures)
    assert disk.numbers() == list(range(1000))


async def test_acknowledgements_come_in_the_order_asked(disk: Disk):
    told: list[int] = []
    for n in range(1000):
        disk.journal.post(None, entry(n), then=lambda n=n: told.append(n))
    await disk.journal.write()
    await asyncio.sleep(0)
    assert told == list(range(1000))


async def test_many_share_one_sync(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    syncs: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), fdatasync(fd)))
    gate, append = threading.Event(), disk.audit.append
    disk.audit.append = lambda entries: (gate.wait(), append(entries))  # type: ignore[method-assign]
    futures = [disk.journal.post(None, entry(n)) for n in range(2 * MAX_TOGETHER)]
    gate.set()  # not before all are there: however slowly they came, the disk was slower
    await asyncio.gather(*futures)
    assert len(syncs) <= 10


async def test_an_empty_write_waits_for_those_before_it(disk: Disk):
    disk.journal.post(None, entry(1))
    await disk.journal.write()
    assert disk.numbers() == [1]


async def test_a_write_that_was_cancelled_is_still_written(disk: Disk):
    task = asyncio.ensure_future(disk.journal.write(None, entry(1)))
    await asyncio.sleep(0)
    task.cancel()
    await disk.journal.write()
    assert disk.numbers() == [1]


async def test_the_anchor_is_of_what_is_on_disk(disk: Disk):
    await disk.journal.write(None, entry(1))
    found = disk.read()
    assert disk.journal.anchor == (1, found.chains.head)


async def test_a_change_of_state_anchors_the_audit(disk: Disk):
    await disk.journal.write(Change().meta("seq", 1), entry(1))
    loaded = State.open(disk.state_path, NODE, read_only=True).load()
    assert (loaded.audit_count, loaded.audit_head) == disk.journal.anchor


async def test_before_its_start_it_takes_nothing(tmp_path: Path):
    with pytest.raises(JournalFailed):
        await Disk(tmp_path).journal.write(None, entry(1))


async def test_after_its_stop_it_takes_nothing(disk: Disk):
    await disk.journal.stop()
    with pytest.raises(JournalFailed):
        await disk.journal.write(None, entry(1))


async def test_while_it_stops_nobody_waits_for_ever(disk: Disk):
    stopping = asyncio.ensure_future(disk.journal.stop())
    await asyncio.sleep(0)
    with pytest.raises(JournalFailed):
        async with asyncio.timeout(PATIENCE):
            await disk.journal.write(None, entry(1))
    await stopping


async def test_a_stop_writes_what_waits(disk: Disk):
    for n in range(500):
        disk.journal.post(None, entry(n))
    await disk.journal.stop()
    assert len(disk.numbers()) == 500


async def test_the_queue_has_a_bound(disk: Disk):
    gate = threading.Event()
    append = disk.audit.append
    disk.audit.append = lambda entries: (gate.wait(), append(entries))  # type: ignore[method-assign]
    futures = [disk.journal.post(None, entry(n)) for n in range(MAX_WAITING + 1)]
    assert isinstance(futures[-1].exception(), JournalFailed)
    assert disk.journal.oldest() > 0
    gate.set()
    await futures[-2]
    assert disk.journal.oldest() == 0


async def test_what_finds_no_place_any_more_is_a_failure_as_any_other(disk: Disk):
    """Or a revocation would be missing on disk, and the count of those behind it would say that it is there."""
    gate = threading.Event()
    append = disk.audit.append
    disk.audit.append = lambda entries: (gate.wait(), append(entries))  # type: ignore[method-assign]
    futures = [disk.journal.post(None, entry(n)) for n in range(MAX_WAITING + 2)]
    gate.set()
    await futures[MAX_WAITING - 1]
    with pytest.raises(JournalFailed, match="does not keep up"):
        await disk.journal.write(None, entry(-1))
    await asyncio.gather(*futures, return_exceptions=True)
    assert len(disk.failures) == 1
    assert disk.numbers() == list(range(MAX_WAITING))  # what was taken is written all the same


async def test_operators_wait_before_the_queue_is_full(disk: Disk):
    gate = threading.Event()
    append = disk.audit.append
    disk.audit.append = lambda entries: (gate.wait(), append(entries))  # type: ignore[method-assign]
    futures = [disk.journal.post(None, entry(n)) for n in range(MAX_WAITING // 2)]
    assert disk.journal.crowded
    gate.set()
    await futures[-1]
    assert not disk.journal.crowded


async def test_a_write_that_no_disk_could_take_is_a_failure_too(disk: Disk):
    with pytest.raises(JournalFailed):
        await disk.journal.write(Change().generation("host1", "uuid", 2**63))
    assert len(disk.failures) == 1


async def test_one_failure_is_told_once_and_ends_all(disk: Disk):
    def refuse(_: object) -> None:
        raise OSError(28, "No space left on device")

    disk.audit.append = refuse  # type: ignore[method-assign]
    for n in range(3):
        with pytest.raises(JournalFailed, match="No space left"):
            await disk.journal.write(None, entry(n))
    assert len(disk.failures) == 1


async def test_nothing_is_written_after_a_failure_though_the_disk_is_well_again(disk: Disk):
    """What waits behind a write that failed must fail too: it would not follow from what is in the file."""
    append, failed, held = disk.audit.append, threading.Event(), threading.Event()

    def once(entries: list[Entry]) -> None:
        held.wait()
        if not failed.is_set():
            failed.set()
            disk.audit.chains.next("", Event.NODE_START, {}, 0)  # as a write that stopped half way has it
            raise OSError(28, "No space left on device")
        append(entries)

    disk.audit.append = once  # type: ignore[method-assign]
    futures = [disk.journal.post(None, entry(n)) for n in range(MAX_TOGETHER + 5)]
    held.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(r) for r in results} == {JournalFailed}
    assert disk.read().records == ()


async def test_then_is_not_called_for_what_failed(disk: Disk):
    told: list[bool] = []
    disk.state.write = lambda _: (_ for _ in ()).throw(OSError(5, "I/O error"))  # type: ignore[method-assign]
    disk.journal.post(Change().meta("seq", 1), then=lambda: told.append(True))
    await until_failed(disk)
    assert told == []


WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from broker import audit_log
from broker.audit_log import AuditLog, Entry
from broker.journal import Journal, JournalFailed
from broker.state import Change, State
from eva.audit import Event

async def main(directory: Path, limit: int) -> None:
    state = State.open(directory / "state.db", "AzS-ERCS01")
    loaded = state.load()
    found = audit_log.read(directory / "audit.jsonl", loaded.audit_count, loaded.audit_head)
    journal = Journal(state, AuditLog.open(directory / "audit.jsonl", found))
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    journal.start(lambda error: print("failed", flush=True))
    number = loaded.seq
    def say(n):
        print(n, flush=True)
    try:
        while True:
            number += 1
            change = Change().meta("seq", number) if number % 3 else None
            done = journal.post(change, Entry("", Event.WORKSTATION, {"n": number}, number), then=lambda n=number: say(n))
            if number % 7 == 0 or limit:
                await done
            await asyncio.sleep(0)
    except JournalFailed:
        for _ in range(3):
            try:
                await journal.write(None, Entry("", Event.WORKSTATION, {"n": 0}, 0))
                print("accepted", flush=True)
            except JournalFailed:
                pass
        await journal.stop()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def survive(directory: Path, kills: int, seed: int) -> None:
    """Kills a writer at random moments; what it was told is on disk must be there, and the log must verify."""
    rounds = random.Random(seed)
    state_path, audit_path = directory / "state.db", directory / "audit.jsonl"
    State.create(state_path, NODE)
    AuditLog.create(audit_path)
    for _ in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(directory), "0"], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(rounds.randrange(1, 60))]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines()
        writer.wait()
        last = max(int(line) for line in lines if line.strip().isdigit())
        state = State.open(state_path, NODE)
        loaded = state.load()
        found = audit_log.read(audit_path, loaded.audit_count, loaded.audit_head)
        audit_log.AuditLog.open(audit_path, found).close()
        state.close()
        assert last in {r.facts["n"] for r in found.records[-300:]}
        assert loaded.seq >= last - (last % 3 == 0)


def test_what_was_acknowledged_survives_kills(tmp_path: Path):
    survive(tmp_path, 20, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_what_was_acknowledged_survives_a_thousand_kills(tmp_path: Path):
    for part in range(10):
        directory = tmp_path / str(part)
        directory.mkdir()
        survive(directory, 100, seed=part)


def test_a_full_disk_ends_it_once_and_for_all(tmp_path: Path):
    State.create(tmp_path / "state.db", NODE)
    AuditLog.create(tmp_path / "audit.jsonl")
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), "60000"], capture_output=True, text=True, timeout=60, check=False
    )
    words = ended.stdout.split()
    assert (words.count("failed"), words.count("accepted"), ended.returncode, ended.stderr) == (1, 0, 0, "")
    loaded = State.open(tmp_path / "state.db", NODE).load()
    found = audit_log.read(tmp_path / "audit.jsonl", loaded.audit_count, loaded.audit_head)
    assert int(words[-2]) in {r.facts["n"] for r in found.records}


def test_the_limit_of_the_full_disk_is_not_ours():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
