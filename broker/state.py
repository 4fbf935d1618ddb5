"""What a node must not forget, in one SQLite file: consents, endings, receipts to deliver, the safelist, generations, reins.

Opened, read and written by the journal's thread only. Errors:

    BadState        the file is missing, another's, or damaged: the node refuses to start, with the file and the reason
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from broker.safelist import Row
from broker.watching import StoredRein
from eva.audit import GENESIS
from eva.ending import Ending
from eva.ledger import Accepted, Ended, Watermark
from eva.resource_id import BadResourceId, ResourceId
from eva.wire import Event, Receipt

APPLICATION_ID = 0x45564142  # "EVAB", shown by file(1)
VERSION = 2

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE consent (
    jti TEXT PRIMARY KEY, token TEXT NOT NULL, kid TEXT NOT NULL,
    host TEXT NOT NULL, uuid TEXT NOT NULL, generation INTEGER NOT NULL,
    term_wall INTEGER NOT NULL, term_boot INTEGER NOT NULL, boot_id TEXT NOT NULL
) STRICT;
CREATE TABLE ended (jti TEXT PRIMARY KEY, reason TEXT NOT NULL, keep_until INTEGER NOT NULL) STRICT;
CREATE TABLE watermark (
    resource_id TEXT PRIMARY KEY, issued_by INTEGER NOT NULL, reason TEXT NOT NULL, keep_until INTEGER NOT NULL
) STRICT;
CREATE TABLE receipt (number INTEGER PRIMARY KEY, token TEXT NOT NULL, event TEXT NOT NULL, about TEXT NOT NULL) STRICT;
CREATE TABLE workstation (
    address TEXT NOT NULL, account TEXT NOT NULL,
    until_wall INTEGER NOT NULL, until_boot INTEGER NOT NULL, boot_id TEXT NOT NULL, PRIMARY KEY (address, account)
) STRICT;
CREATE TABLE generation (
    host TEXT NOT NULL, uuid TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY (host, uuid)
) STRICT;
CREATE TABLE rein (cid TEXT PRIMARY KEY, paused INTEGER NOT NULL, begun INTEGER NOT NULL) STRICT;
CREATE TABLE watch (jti TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT;
"""

Statement: TypeAlias = tuple[str, tuple[str | int, ...]]


class BadState(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class StoredConsent:
    """A consent as it was accepted; the token is verified again when it is loaded."""

    token: str
    kid: str
    host: str
    uuid: str
    generation: int
    term_wall: int
    term_boot: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    number: int
    token: str
    event: Event
    about: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that the file holds."""

    consents: tuple[StoredConsent, ...]
    ended: tuple[Ended, ...]
    watermarks: tuple[Watermark, ...]
    receipts: tuple[StoredReceipt, ...]
    workstations: tuple[Row, ...]
    generations: dict[tuple[str, str], int]
    reins: tuple[StoredRein, ...]
    watches: dict[str, int]  # watch tokens taken: the Unix seconds until which each would be in time
    seq: int
    last_receipt: int
    told: int  # the audit's records up to this count are told
    wall_seen: int
    keys: dict[int, str]
    audit_count: int
    audit_head: str


@dataclass(slots=True)
class Change:
    """Statements that belong in one transaction. Built by the functions below."""

    statements: list[Statement] = field(default_factory=list)

    def meta(self, key: str, value: str | int) -> Change:
        return self._add("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, str(value))

    def consent(self, accepted: Accepted, token: str, boot_id: str) -> Change:
        """With the generation that it means: a domain's may be known to this run alone."""
        pin, term, consent = accepted.pin, accepted.term, accepted.consent
        self.generation(pin.host, pin.uuid, pin.generation)
        return self._add(
            "INSERT OR IGNORE INTO consent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(consent.jti, token, consent.kid, pin.host, pin.uuid, pin.generation, term.wall, term.boot, boot_id),
        )

    def term(self, jti: str, term_boot: int, boot_id: str) -> Change:
        """The end of a consent on the clock of another boot."""
        return self._add("UPDATE consent SET term_boot = ?, boot_id = ? WHERE jti = ?", term_boot, boot_id, jti)

    def ended(self, ended: Ended) -> Change:
        return self._add("INSERT OR IGNORE INTO ended VALUES (?, ?, ?)", ended.jti, ended.ending.word, ended.keep_until)

    def watermark(self, mark: Watermark) -> Change:
        return self._add(
            "INSERT INTO watermark VALUES (?, ?, ?, ?) ON CONFLICT (resource_id) DO UPDATE SET "
            "issued_by = excluded.issued_by, reason = excluded.reason, keep_until = excluded.keep_until "
            "WHERE excluded.issued_by > issued_by",
            *(str(mark.resource_id).lower(), mark.issued_by, mark.ending.word, mark.keep_until),
        )

    def receipt(self, receipt: Receipt, token: str) -> Change:
        self._add("INSERT INTO receipt VALUES (?, ?, ?, ?)", receipt.number, token, str(receipt.event), receipt.about)
        return self.meta("last_receipt", receipt.number)

    def deletion_answered(self, number: int) -> Change:
        return self._add("UPDATE receipt SET event = ? WHERE number = ?", str(Event.ENDED), number)

    def receipts_delivered(self, numbers: Iterable[int]) -> Change:
        for number in numbers:
            self._add("DELETE FROM receipt WHERE number = ?", number)
        return self

    def workstations(self, rows: Iterable[Row]) -> Change:
        self._add("DELETE FROM workstation")
        for row in rows:
            self._add(
                "INSERT INTO workstation VALUES (?, ?, ?, ?, ?)",
                *(row.address, row.account, row.until_wall, row.until_boot, row.boot_id),
            )
        return self

    def generation(self, host: str, uuid: str, generation: int) -> Change:
        return self._add(
            "INSERT INTO generation VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET generation = max(generation, excluded.generation)",
            *(host, uuid, generation),
        )

    def pause(self, cid: str, *, paused: bool) -> Change:
        sql = "INSERT INTO rein VALUES (?, ?, 0) ON CONFLICT (cid) DO UPDATE SET paused = excluded.paused"
        return self._add(sql, cid, paused)

    def watch_begun(self, cid: str) -> Change:
        """Somebody watches under this consent, or has to from now on."""
        return self._add("INSERT INTO rein VALUES (?, 0, 1) ON CONFLICT (cid) DO UPDATE SET begun = 1", cid)

    def forget_reins(self, cids: Iterable[str]) -> Change:
        for cid in cids:
            self._add("DELETE FROM rein WHERE cid = ?", cid)
        return self

    def watch(self, jti: str, until: int) -> Change:
        """A watch token is taken."""
        return self._add("INSERT OR IGNORE INTO watch VALUES (?, ?)", jti, until)

    def forget_watches(self, wall_seconds: int) -> Change:
        return self._add("DELETE FROM watch WHERE until <= ?", wall_seconds)

    def forget(self, jtis: Iterable[str], wall_seconds: int) -> Change:
        for jti in jtis:
            self._add("DELETE FROM consent WHERE jti = ?", jti)
            self._add("DELETE FROM ended WHERE jti = ?", jti)
        return self._add("DELETE FROM watermark WHERE keep_until < ?", wall_seconds)

    def _add(self, sql: str, *values: str | int) -> Change:
        self.statements.append((sql, values))
        return self


class State:
    """The open file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, node: str) -> None:
        """Makes an empty state for a new node. Raises FileExistsError rather than touch one that is there."""
        if path.exists():
            raise FileExistsError(path)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path)
        with connection:
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("INSERT INTO meta VALUES ('node', ?)", (node,))
        connection.close()

    @classmethod
    def open(cls, path: Path, node: str, *, read_only: bool = False) -> State:
        """Opens and verifies it. Raises BadState."""
        if not path.is_file():
            raise BadState(path, "there is no such file; a new node makes it with `eva-broker keygen`")
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}", uri=True, check_same_thread=False
            )
            # FULL: a commit that was acknowledged survives a power cut (sqlite.org/pragma.html#pragma_synchronous)
            connection.execute("PRAGMA synchronous = FULL")
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise BadState(path, "it is not the state of an eva-broker")
            if (version := connection.execute("PRAGMA user_version").fetchone()[0]) != VERSION:
                raise BadState(path, f"its format is {version}, this program's is {VERSION}")
            if (verdict := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise BadState(path, f"it is damaged: {verdict}")
            owner = connection.execute("SELECT value FROM meta WHERE key = 'node'").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged schema is quoted in errors, as it is
            raise BadState(path, f"it cannot be read: {error}") from error
        if owner != (node,):
            raise BadState(path, f"it belongs to {owner[0] if owner else 'nobody'}, not to {node}")
        return cls(path, connection)

    def load(self) -> Loaded:
        """All rows, parsed. Raises BadState."""
        rows = self._connection.execute
        try:
            meta = dict(rows("SELECT key, value FROM meta").fetchall())
            consents = "SELECT token, kid, host, uuid, generation, term_wall, term_boot, boot_id FROM consent"
            return Loaded(
                consents=tuple(StoredConsent(*row) for row in rows(consents)),
                ended=tuple(Ended(jti, Ending.of_word(word), keep) for jti, word, keep in rows("SELECT * FROM ended")),
                watermarks=tuple(
                    Watermark(ResourceId.parse(text), by, Ending.of_word(word), keep)
                    for text, by, word, keep in rows("SELECT * FROM watermark")
                ),
                receipts=tuple(
                    StoredReceipt(number, token, Event(event), about)
                    for number, token, event, about in rows("SELECT * FROM receipt ORDER BY number")
                ),
                workstations=tuple(Row(*row) for row in rows("SELECT * FROM workstation")),
                generations={(host, uuid): number for host, uuid, number in rows("SELECT * FROM generation")},
                reins=tuple(StoredRein(cid, bool(paused), bool(begun)) for cid, paused, begun in rows("SELECT * FROM rein")),
                watches=dict(rows("SELECT jti, until FROM watch").fetchall()),
                seq=int(meta.get("seq", "0")),
                last_receipt=int(meta.get("last_receipt", "0")),
                told=int(meta.get("told", "0")),
                wall_seen=int(meta.get("wall_seen", "0")),
                keys={int(key[5:]): value for key, value in meta.items() if key.startswith("keys:")},
                audit_count=int(meta.get("audit_count", "0")),
                audit_head=meta.get("audit_head", GENESIS),
            )
        except (sqlite3.Error, BadResourceId, KeyError, ValueError) as error:
            raise BadState(self.path, f"a row makes no sense: {error}") from error

    def write(self, statements: Iterable[Statement]) -> None:
        """One transaction, on disk when this returns. Raises sqlite3.Error."""
        with self._connection:
            for sql, values in statements:
                self._connection.execute(sql, values)

    def close(self) -> None:
        self._connection.close()
