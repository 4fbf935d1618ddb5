"""The audit on disk: one record a line, appended and synced before it is acknowledged, checked whole at start.

Errors:

    BadAudit        the file is missing, edited, cut short, or not this node's: the node refuses to start
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
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
    """What is to be recorded. `chain`: a consent's jti, or "" for the node's own affairs. `at_ms`: Unix milliseconds."""

    chain: str
    event: Event
    facts: Mapping[str, Json]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Read:
    """The whole log as it was read: `torn` is what a crash left of a last, unacknowledged record."""

    chains: Chains
    records: tuple[Record, ...]
    torn: bytes
    size: int  # bytes of whole records


def read(path: Path, anchor_count: int, anchor_head: str) -> Read:
    """Reads and checks the log against itself and against the node's anchor. Changes nothing. Raises BadAudit."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadAudit(path, f"it cannot be read: {error.strerror}") from error
    *lines, torn = raw.split(b"\n")
    chains, records = Chains(), []
    anchored = anchor_count == 0
    for line in lines:
        try:
            records.append(record := chains.check(line))
        except BadChain as error:
            raise BadAudit(path, str(error)) from error
        if record.count == anchor_count:
            anchored = record.node_digest == anchor_head
            if not anchored:
                raise BadAudit(path, f"record {anchor_count} is not the one that the state file knows")
    if not anchored:
        raise BadAudit(path, f"it ends at record {chains.count}, and the state file knows {anchor_count}")
    return Read(chains, tuple(records), torn, len(raw) - len(torn))


class AuditLog:
    """The open file. Used by the journal's thread only."""

    def __init__(self, path: Path, chains: Chains, fd: int) -> None:
        self.path = path
        self.chains = chains
        self._fd = fd

    @classmethod
    def create(cls, path: Path) -> None:
        """Makes an empty log. Raises FileExistsError rather than touch one that is there."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @classmethod
    def open(cls, path: Path, found: Read) -> AuditLog:
        """Opens the log that `read` found good. A torn tail is kept beside it as FILE.torn-N and taken off."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if found.torn:
            path.with_name(f"{path.name}.torn-{found.chains.count}").write_bytes(found.torn)
            os.ftruncate(fd, found.size)
            os.fsync(fd)
        return cls(path, found.chains, fd)

    def append(self, entries: Iterable[Entry]) -> None:
        """Records the entries in order; on disk when this returns. Raises OSError."""
        lines = [self.chains.next(e.chain, e.event, e.facts, e.at_ms).line() for e in entries]
        if not lines:
            return
        data = b"".join(lines)
        while data:
            data = data[os.write(self._fd, data) :]
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
