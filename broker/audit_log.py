"""The audit on disk: one record a line, appended and synced before it is acknowledged, checked whole at start.

Errors:

    BadAudit        the file is missing, edited, cut short, in use, or not this node's: the node refuses to start
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eva.audit import BadChain, Chains, Event, Record
from eva.members import Json


class BadAudit(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded. `chain`: a consent's cid, or "" for the node's own affairs. `at_ms`: Unix milliseconds."""

    chain: str
    event: Event
    facts: Mapping[str, Json]
    at_ms: int


class Scan:
    """The log's records, each checked against those before it, and against the node's anchor, as it is read: a log of years
    is not held in memory. Changes nothing.

    Iterate it once and to its end, where the last of it is checked. Raises BadAudit. Then `torn` is what a crash left of a
    last, unacknowledged record, and `size` the bytes of whole records.
    """

    def __init__(self, path: Path, anchor_count: int, anchor_head: str) -> None:
        self.path = path
        self.chains = Chains()
        self.torn = b""
        self.size = 0
        self._anchor = (anchor_count, anchor_head)

    def __iter__(self) -> Iterator[Record]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        self.torn = line
                        break
                    yield self._checked(line[:-1])
                    self.size += len(line)
        except OSError as error:
            raise BadAudit(self.path, f"it cannot be read: {error.strerror}") from error
        if self.chains.count < self._anchor[0]:
            raise BadAudit(self.path, f"it ends at record {self.chains.count}, and the state file knows {self._anchor[0]}")

    def _checked(self, line: bytes) -> Record:
        try:
            record = self.chains.check(line)
        except BadChain as error:
            raise BadAudit(self.path, str(error)) from error
        if record.count == self._anchor[0] and record.node_digest != self._anchor[1]:
            raise BadAudit(self.path, f"record {record.count} is not the one that the state file knows")
        return record


@dataclass(frozen=True, slots=True)
class Read:
    """A short log as a whole: what a Scan found, with every record."""

    chains: Chains
    records: tuple[Record, ...]
    torn: bytes
    size: int


def read(path: Path, anchor_count: int, anchor_head: str) -> Read:
    """Raises BadAudit."""
    scan = Scan(path, anchor_count, anchor_head)
    records = tuple(scan)
    return Read(scan.chains, records, scan.torn, scan.size)


def of_consents(records: Iterable[Record]) -> list[Record]:
    """Those that belong to a consent, and not to the node's own affairs."""
    return [record for record in records if record.chain]


def claim(path: Path) -> int:
    """The log's descriptor, to append: whoever has it is the only one. Raises BadAudit, also while another has it.

    Two daemons on one log would each break the other's chain, and the second take a record half written for torn.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise BadAudit(path, f"it cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise BadAudit(path, f"it is in use: does this node's daemon run already? ({error.strerror})") from error
    return fd


class AuditLog:
    """The open file. Used by the journal's thread only."""

    def __init__(self, path: Path, chains: Chains, fd: int) -> None:
        self.path = path
        self.chains = chains
        self._fd = fd
        self._new: list[Record] = []

    @classmethod
    def create(cls, path: Path) -> None:
        """Makes an empty log. Raises FileExistsError rather than touch one that is there."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @classmethod
    def open(cls, path: Path, found: Read | Scan) -> AuditLog:
        """Opens the log that was found good. Raises BadAudit, OSError."""
        return cls.taken(claim(path), path, found)

    @classmethod
    def taken(cls, fd: int, path: Path, found: Read | Scan) -> AuditLog:
        """The log that was claimed, and then found good. A torn tail is kept beside it as FILE.torn-N and taken off."""
        if found.torn:
            path.with_name(f"{path.name}.torn-{found.chains.count}").write_bytes(found.torn)
            os.ftruncate(fd, found.size)
            os.fsync(fd)
        return cls(path, found.chains, fd)

    def append(self, entries: Iterable[Entry]) -> None:
        """Records the entries in order; on disk when this returns. Raises OSError."""
        records = [self.chains.next(e.chain, e.event, e.facts, e.at_ms) for e in entries]
        if not records:
            return
        data = b"".join(record.line() for record in records)
        while data:
            data = data[os.write(self._fd, data) :]
        os.fdatasync(self._fd)
        self._new += of_consents(records)

    def take_new(self) -> list[Record]:
        """The records of consents that were appended since the last call."""
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        os.close(self._fd)
