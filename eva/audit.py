"""The audit's hash chains. Pure: lines in, lines out; the caller writes and syncs them.

Each record belongs to one consent's chain (or to the node's own affairs, chain ""), so that a tenant's receipt shows nobody
else's; and each is also a link of the node's chain, which thereby anchors every consent's head:

    digest       = SHA-256(canonical JSON of chain, index, at_ms, event, facts, previous)
    node_digest  = SHA-256(node_previous ‖ count ‖ digest)

That canonical JSON is what a receipt tells of a record, so whoever has a consent's receipts can check its chain alone. A
consent's chain is named by its cid.

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
MAX_RECORD = 2048  # characters of what is hashed, as a string in JSON has it: so long a record fits into a receipt
MAX_FACTS = MAX_RECORD - 320  # and of its facts: what stands around them is shorter than the rest


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
    INPUT_PAUSED = "input-paused"
    INPUT_RESUMED = "input-resumed"
    WATCH_START = "watch-start"
    WATCH_END = "watch-end"
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
        members = _members(line)
        record = cls(
            *_hashed(members),
            digest=members.text("digest", longest=64),
            count=members.integer("count", least=1),
            node_previous=members.text("node_previous", longest=64),
            node_digest=members.text("node_digest", longest=64),
        )
        members.nothing_else()
        return record

    @property
    def told(self) -> str:
        """What is hashed into `digest`: what a receipt says of this record."""
        return _told(self.chain, self.index, self.at_ms, self.event, self.facts, self.previous)

    def digests(self) -> tuple[str, str]:
        """What `digest` and `node_digest` must be, given the rest."""
        digest = _digest(self.told)
        node = hashlib.sha256(f"{self.node_previous}:{self.count}:{digest}".encode()).hexdigest()
        return digest, node


def _hashed(members: Members) -> tuple[str, int, int, Event, Mapping[str, Json], str]:
    """What `digest` is made of: the first fields of a Record and of a Told, in their order. Raises BadMember."""
    return (
        members.text("chain", longest=64),
        members.integer("index", least=1),
        members.integer("at_ms"),
        members.convert("event", Event),
        members.table("facts", most=24),
        members.text("previous", longest=64),
    )


def _members(raw: bytes) -> Members:
    """Raises BadMember."""
    try:
        return Members(strict_json(raw))
    except ValueError as error:
        raise BadMember(str(error)[:80]) from None


def _canonical(body: Json) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _told(chain: str, index: int, at_ms: int, event: Event, facts: Mapping[str, Json], previous: str) -> str:
    own: dict[str, Json] = {"chain": chain, "index": index, "at_ms": at_ms, "event": event, "facts": facts, "previous": previous}
    return _canonical(own).decode()


def _digest(told: str) -> str:
    return hashlib.sha256(told.encode()).hexdigest()


def fitting(facts: Mapping[str, Json], most: int) -> Mapping[str, Json]:
    """The facts, none of them longer than a record has room for: the longest stand as the SHA-256 of their canonical JSON.

    `most`: characters of the facts as a string in JSON has them, which a token's payload counts.
    """
    fitted = dict(facts)
    for name in sorted(facts, key=lambda name: -len(_canonical(facts[name]))):
        if len(json.dumps(_canonical(fitted).decode())) <= most:
            break
        fitted[name] = "sha256:" + hashlib.sha256(_canonical(facts[name])).hexdigest()
    return fitted


class Chains:
    """The heads of all chains of one node: makes the next record, and checks records as they are read back."""

    def __init__(self) -> None:
        self.count = 0
        self.head = GENESIS
        self._heads: dict[str, tuple[int, str]] = {}

    def next(self, chain: str, event: Event, facts: Mapping[str, Json], at_ms: int) -> Record:
        """The record that follows, taken as written. A chain that is over may be let go with `forget`."""
        index, previous = self._heads.get(chain, (0, GENESIS))
        facts = fitting(facts, MAX_FACTS)
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


@dataclass(frozen=True, slots=True)
class Told:
    """A record as a receipt tells it: without its place in the node's chain. `digest` is that of the text it was read from."""

    chain: str
    index: int
    at_ms: int
    event: Event
    facts: Mapping[str, Json]
    previous: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Told:
        """Raises BadMember."""
        members = _members(text.encode())
        told = cls(*_hashed(members), digest=_digest(text))
        members.nothing_else()
        return told


@dataclass(frozen=True, slots=True)
class Story:
    """One consent's records at one node, whole from the first on. `running`: the sessions that had begun and not ended."""

    records: tuple[Told, ...]
    running: frozenset[str]

    @property
    def head(self) -> str:
        return self.records[-1].digest if self.records else GENESIS


def verify_records(cid: str, texts: Iterable[str]) -> Story:
    """Checks one consent's records at one node as its receipts tell them, in order, alone. Raises BadChain.

    What it shows: none is missing before the last, none was edited or moved, none is another consent's, the first is the
    node's answer to the consent, and every session's records lie between its one START and its one END.
    """
    records: list[Told] = []
    running: set[str] = set()
    over: set[str] = set()
    previous = GENESIS
    for place, text in enumerate(texts, start=1):
        try:
            told = Told.parse(text)
        except BadMember as error:
            raise BadChain(place, error.why) from None
        if told.chain != cid:
            raise BadChain(place, "it belongs to another consent")
        if (told.index, told.previous) != (place, previous):
            raise BadChain(place, "it does not follow the record before it, or one was edited")
        if place == 1 and told.event not in (Event.CONSENT_ACCEPTED, Event.CONSENT_REFUSED):
            raise BadChain(place, f"the first record is {told.event}, not the node's answer to the consent")
        if told.event in _OF_A_SESSION:
            _follow(told, place, running, over)
        records.append(told)
        previous = told.digest
    return Story(tuple(records), frozenset(running))


_OF_A_SESSION = frozenset(
    {Event.SESSION_START, Event.SESSION_END, Event.SESSION_RESUMED, Event.KEYBOARD, Event.INPUT_RELEASED, Event.KEYS_SENT}
)


def _follow(told: Told, place: int, running: set[str], over: set[str]) -> None:
    """Takes a session's record into account. Raises BadChain."""
    session = told.facts.get("session")
    if not isinstance(session, str):
        raise BadChain(place, f"{told.event} names no session")
    if told.event is Event.SESSION_START:
        if session in running | over:
            raise BadChain(place, f"session {session} starts twice")
        running.add(session)
    elif session not in running:
        raise BadChain(place, f"{told.event} of session {session}, which {'is over' if session in over else 'never started'}")
    elif told.event is Event.SESSION_END:
        running.remove(session)
        over.add(session)
