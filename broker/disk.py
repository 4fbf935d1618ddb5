"""What a node finds on disk when it starts: state and audit, verified against themselves and against each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

from broker import audit_log
from broker.audit_log import AuditLog, of_consents
from broker.settings import Settings
from broker.state import Loaded, State
from eva.audit import Event, Record
from eva.consent import MAX_SECONDS
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import KEEP_SECONDS, Ended


@dataclass(frozen=True, slots=True)
class Opened:
    """What is on disk, verified."""

    state: State
    loaded: Loaded
    audit: AuditLog
    open_sessions: tuple[Record, ...]  # START records without an END: a crash cut them
    ended: tuple[Ended, ...]  # consents that the audit says are over
    untold: tuple[Record, ...]  # records of consents that the provider has still to be told of
    torn: int  # bytes of a record that a crash left half written


def open_disk(settings: Settings) -> Opened:
    """Opens and verifies state and audit, which are this process's alone from then on. Raises BadState, BadAudit, OSError."""
    fd = audit_log.claim(settings.audit)
    try:
        return _opened(settings, fd)
    except BaseException:  # also KeyboardInterrupt: the claim is nobody's then
        os.close(fd)
        raise


def _opened(settings: Settings, fd: int) -> Opened:
    state = State.open(settings.state, settings.node)
    loaded = state.load()
    scan = audit_log.Scan(settings.audit, loaded.audit_count, loaded.audit_head)
    sessions = Unfinished()
    over: list[Ended] = []
    untold: list[Record] = []
    for record in scan:
        sessions.take(record)
        # what may be forgotten was so long ago that its consent has run out
        if (one := ended_by(record)) is not None and one.keep_until * NS > loaded.wall_seen:
            over.append(one)
        if record.count > loaded.told:
            untold += of_consents([record])
    log = AuditLog.taken(fd, settings.audit, scan)
    return Opened(state, loaded, log, sessions.starts, tuple(over), tuple(untold), len(scan.torn))


def ended_by(record: Record) -> Ended | None:
    """The consent that is over by this record, also one that another renewed."""
    if record.event not in (Event.CONSENT_ENDED, Event.CONSENT_REFUSED, Event.CONSENT_ACCEPTED):
        return None
    jti = record.facts.get("renews" if record.event is Event.CONSENT_ACCEPTED else "consent")
    if not isinstance(jti, str):
        return None
    word = str(record.facts.get("reason", Ending.CONSENT_REVOKED.word))
    return Ended(jti, Ending.of_word(word), record.at_ms // 1000 + MAX_SECONDS + KEEP_SECONDS)


class Unfinished:
    """The sessions that are open after the records that it has taken."""

    def __init__(self) -> None:
        self._started: dict[str, Record] = {}

    def take(self, record: Record) -> None:
        name = str(record.facts.get("session", ""))
        if record.event is Event.SESSION_START:
            self._started[name] = record
        elif record.event is Event.SESSION_END:
            self._started.pop(name, None)

    @property
    def starts(self) -> tuple[Record, ...]:
        """Their START records."""
        return tuple(self._started.values())
