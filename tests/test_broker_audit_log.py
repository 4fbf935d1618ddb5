"""broker/audit_log.py on real files: what was edited, cut or torn is found at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.audit_log import AuditLog, BadAudit, Entry, Scan, claim, read
from eva.audit import GENESIS, Chains, Event

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of eight records; tests change copies of it."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    AuditLog.create(path)
    file = AuditLog.open(path, read(path, 0, GENESIS))
    file.append(Entry("" if n % 2 else "A" * 22, Event.WORKSTATION, {"n": n}, n) for n in range(8))
    file.close()
    return path


def copy(log: Path, raw: bytes, name: str = "copy.jsonl") -> Path:
    path = log.with_name(name)
    path.write_bytes(raw)
    return path


def test_what_was_appended_is_read(log: Path):
    assert [r.facts["n"] for r in read(log, 0, GENESIS).records] == list(range(8))


def test_a_record_is_given_before_the_next_is_read(log: Path):
    first, rest = log.read_bytes().split(b"\n", 1)
    scan = iter(Scan(copy(log, first + b"\nno record\n" + rest), 8, ""))
    assert next(scan).facts == {"n": 0}
    with pytest.raises(BadAudit, match="record 2"):
        next(scan)


def test_what_is_missing_at_the_end_is_told_at_the_end(log: Path):
    scan = iter(Scan(log, 9, ""))
    assert [next(scan).count for _ in range(8)] == list(range(1, 9))
    with pytest.raises(BadAudit, match="it ends at record 8, and the state file knows 9"):
        next(scan)


SCAN = """
import resource, sys
from pathlib import Path
from broker.audit_log import Scan
count = sum(1 for _ in Scan(Path(sys.argv[1]), 0, ""))
used = resource.getrusage(resource.RUSAGE_SELF)
print(count, used.ru_maxrss // 1024, round(used.ru_utime))
"""


@pytest.mark.faults
def test_a_log_of_years_is_read_in_little_memory(tmp_path: Path):
    """1,000,000 records of 250,000 consents: half a gigabyte on disk."""
    path, chains = tmp_path / "audit.jsonl", Chains()
    facts = {"session": "s" * 22, "account": "alice", "address": "10.0.0.7", "resource_id": "/subscriptions/" + "x" * 150}
    with path.open("wb") as file:
        for n in range(1_000_000):
            file.write(chains.next(f"{n // 4:022}", Event.SESSION_RESUMED, facts, n).line())
    said = subprocess.run([sys.executable, "-c", SCAN, str(path)], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    count, mebibytes, seconds = map(int, said.split())
    assert count == 1_000_000
    assert mebibytes < 250
    assert seconds < 60


def test_it_is_never_made_over_one_that_is_there(log: Path):
    with pytest.raises(FileExistsError):
        AuditLog.create(log)


def test_only_its_owner_may_read_it(log: Path):
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(BadAudit) as caught:
        read(tmp_path / "audit.jsonl", 0, GENESIS)
    assert caught.value.path == tmp_path / "audit.jsonl"


def test_a_tail_torn_at_any_byte_leaves_the_whole_records(log: Path):
    whole = log.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for at in range(last + 1, len(whole)):
        found = read(copy(log, whole[:at]), 7, read(log, 0, GENESIS).records[6].node_digest)
        assert (len(found.records), found.torn, found.size) == (7, whole[last:at], last)


def test_a_torn_tail_is_set_aside_and_the_chain_goes_on(log: Path):
    whole = log.read_bytes()
    path = copy(log, whole[:-5], "torn.jsonl")
    file = AuditLog.open(path, read(path, 0, GENESIS))
    file.append([Entry("", Event.TORN_TAIL, {}, 9)])
    file.close()
    assert read(path, 0, GENESIS).records[-1].event is Event.TORN_TAIL
    (aside,) = path.parent.glob("torn.jsonl.torn-*")
    assert whole[:-5].endswith(aside.read_bytes())


@pytest.mark.parametrize("kept", range(8))
def test_a_log_cut_short_of_its_anchor_is_found(log: Path, kept: int):
    records = read(log, 0, GENESIS).records
    short = b"".join(log.read_bytes().splitlines(keepends=True)[:kept])
    with pytest.raises(BadAudit, match="knows 8"):
        read(copy(log, short), 8, records[7].node_digest)


def test_a_log_cut_to_nothing_without_an_anchor_is_empty(log: Path):
    assert read(copy(log, b""), 0, GENESIS).records == ()


def test_another_log_of_the_same_length_is_found(log: Path):
    with pytest.raises(BadAudit, match="not the one"):
        read(log, 8, "1" * 64)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(log: Path, at: int, bit: int):
    raw = bytearray(log.read_bytes())
    raw[at % len(raw)] ^= 1 << bit
    head = read(log, 0, GENESIS).chains.head
    with pytest.raises(BadAudit) as caught:
        read(copy(log, bytes(raw), "flipped.jsonl"), 8, head)
    assert caught.value.path.name == "flipped.jsonl"


def test_an_append_is_on_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "audit.jsonl"
    AuditLog.create(path)
    file = AuditLog.open(path, read(path, 0, GENESIS))
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    file.append([Entry("", Event.NODE_START, {}, 1)])
    assert synced == [path.stat().st_size]


def test_one_log_has_one_writer(log: Path):
    """Two daemons on one log break each other's chain; and the second one would take a record half written for torn."""
    path = copy(log, log.read_bytes(), "claimed.jsonl")
    file = AuditLog.open(path, read(path, 0, GENESIS))
    with pytest.raises(BadAudit, match="in use"):
        claim(path)
    file.close()
    os.close(claim(path))


def test_whoever_only_reads_disturbs_no_writer(log: Path):
    path = copy(log, log.read_bytes(), "read.jsonl")
    file = AuditLog.open(path, read(path, 0, GENESIS))
    assert len(read(path, 0, GENESIS).records) == 8
    file.append([Entry("", Event.NODE_STOP, {}, 9)])
    file.close()
    assert len(read(path, 0, GENESIS).records) == 9


def test_a_log_that_is_missing_is_told(tmp_path: Path):
    with pytest.raises(BadAudit, match=r"audit\.jsonl: it cannot be written: No such file"):
        claim(tmp_path / "audit.jsonl")
