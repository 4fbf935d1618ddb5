"""The audit's hash chains. Pure: lines in, lines out; the caller writes and syncs them.

Each record belongs to one consent's chain (or to the node's own affairs, chain ""), so that a tenant's receipt shows nobody
else's; and each is also a link of the node's chain, which thereby anchors every consent's head:

    digest       = SHA-256(canonical JSON of chain, index, at_ms, event, facts, previous)
    node_digest  = SHA-256(node_previous ‖ count ‖ digest)

Errors:

    BadChain        a line that is no record, or does not follow from the one before it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from eva.members import BadMember, Json, Members, strict_json

GENESIS = "0" * 64
MAX_LINE = 8192  # bytes


class Event(StrEnum):
    NODE_START = "node-start"
    NODE_STOP = "node-stop"
    TORN_TAIL = "torn-tail"  # a record that a crash left half written was set aside
    CONSENT_ACCEPTED = "consent-accepted"
    CONSENT_REFUSED = "consent-refused"
    CONSENT_ENDED = "consent-ended"
    SESSION_START = "session-start"
    SESSION_END = "session-end"
    SESSION_RESUMED = "session-resumed"
    KEYBOARD = "keyboard"
    INPUT_RELEASED = "input-released"
    KEYS_SENT = "keys-sent"
    WORKSTATION = "workstation"


class BadChain(Exception):
    """`line`: counted from 1. `why`: what does not follow."""

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"record {line}: {why}")


@dataclass(frozen=True, slots=True)
class Record:
    """One link. `count`: its place in the node's chain, from 1; `index`: in its own chain, from 1; `at_ms`: Unix milliseconds."""

    chain: str
    index: int
    at_ms: int
    event: Event
    facts: Mapping[str, Json]
    previous: str
    digest: str
    count: int
    node_previous: str
    node_digest: str

    def line(self) -> bytes:
        """The record as one line of the log, with its newline. Raises ValueError if it is over MAX_LINE."""
        line = _canonical({name: getattr(self, name) for name in self.__slots__}) + b"\n"
        if len(line) > MAX_LINE:
            raise ValueError(f"an audit record of {len(line)} bytes")
        return line

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """Raises BadMember."""
        if len(line) > MAX_LINE:
            raise BadMember("too long")
        try:
            members = Members(strict_json(line))
        except ValueError as error:
            raise BadMember(str(error)[:80]) from None
        record = cls(
            chain=members.text("chain", longest=64),
            index=members.integer("index", least=1),
            at_ms=members.integer("at_ms"),
            event=members.convert("event", Event),
            facts=members.table("facts", most=24),
            previous=members.text("previous", longest=64),
            digest=members.text("digest", longest=64),
            count=members.integer("count", least=1),
            node_previous=members.text("node_previous", longest=64),
            node_digest=members.text("node_digest", longest=64),
        )
        members.nothing_else()
        return record

    def digests(self) -> tuple[str, str]:
        """What `digest` and `node_digest` must be, given the rest."""
        own = {name: getattr(self, name) for name in ("chain", "index", "at_ms", "event", "facts", "previous")}
        digest = hashlib.sha256(_canonical(own)).hexdigest()
        node = hashlib.sha256(f"{self.node_previous}:{self.count}:{digest}".encode()).hexdigest()
        return digest, node


def _canonical(body: Mapping[str, Json]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


class Chains:
    """The heads of all chains of one node: makes the next record, and checks records as they are read back."""

    def __init__(self) -> None:
        self.count = 0
        self.head = GENESIS
        self._heads: dict[str, tuple[int, str]] = {}

    def next(self, chain: str, event: Event, facts: Mapping[str, Json], at_ms: int) -> Record:
        """The record that follows, taken as written. A chain that is over may be let go with `forget`."""
        index, previous = self._heads.get(chain, (0, GENESIS))
        draft = Record(chain, index + 1, at_ms, event, facts, previous, "", self.count + 1, self.head, "")
        digest, node_digest = draft.digests()
        record = Record(chain, index + 1, at_ms, event, facts, previous, digest, self.count + 1, self.head, node_digest)
        self._take(record)
        return record

    def check(self, line: bytes) -> Record:
        """The record on the line that follows. Raises BadChain."""
        place = self.count + 1
        try:
            record = Record.parse(line)
        except BadMember as error:
            raise BadChain(place, error.why) from None
        index, previous = self._heads.get(record.chain, (0, GENESIS))
        if (record.count, record.node_previous) != (place, self.head):
            raise BadChain(place, "it does not follow the record before it")
        if (record.index, record.previous) != (index + 1, previous):
            raise BadChain(place, f"it does not follow in the chain of {record.chain or 'the node'}")
        if (record.digest, record.node_digest) != record.digests():
            raise BadChain(place, "it was edited")
        self._take(record)
        return record

    def _take(self, record: Record) -> None:
        self.count = record.count
        self.head = record.node_digest
        self._heads[record.chain] = (record.index, record.digest)


def verify(lines: Iterable[bytes]) -> Chains:
    """Checks whole log lines (without newlines) from the first on, and gives the heads. Raises BadChain."""
    chains = Chains()
    for line in lines:
        chains.check(line)
    return chains


def verify_chain(records: Iterable[Record]) -> str:
    """Checks one consent's records alone, as a tenant has them, and gives the head's digest. Raises BadChain."""
    previous = GENESIS
    for place, record in enumerate(records, start=1):
        if (record.index, record.previous) != (place, previous) or record.digest != record.digests()[0]:
            raise BadChain(place, "it does not follow, or was edited")
        previous = record.digest
    return previous
