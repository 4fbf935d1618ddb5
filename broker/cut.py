"""The cut: the end of every byte path of a session.

It goes in this order, whatever it is for: every gate is shut; keys that are down are let go; every line is cut, socket
and worker; the websockets are told; the records are written. The first three never wait. However many sessions are cut
together, their websockets have one deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from broker.clock import Clock
from broker.graphics_console import GraphicsViewer
from broker.metrics import Metrics
from broker.roster import Live, Roster
from broker.session import Step
from broker.websocket import CLOSE_GRACE
from eva import audit
from eva.ending import Ending
from eva.ledger import Pin
from eva.members import Json

CLOSING = 50e-6  # seconds that a connection takes to be closed once its grace is over

log = logging.getLogger(__name__)


class Cut:
    def __init__(self, roster: Roster, clock: Clock, metrics: Metrics) -> None:
        self._roster = roster
        self._clock = clock
        self._metrics = metrics

    def end(self, lives: Iterable[Live], ending: Ending) -> int:
        """Cuts these sessions, but for those whose gate is shut already. Gives how many that were."""
        began = time.monotonic()
        ended = [live for live in lives if live.gate.shut(ending)]
        # so much sooner that the last of them is closed in time too
        deadline = began + max(CLOSE_GRACE / 2, CLOSE_GRACE - len(ended) * CLOSING)
        for live in ended:
            self._let_go(live)
        self._cut_lines(ended)
        for live in ended:
            self._close(live, ending, max(0.0, deadline - time.monotonic()))
        for live in ended:
            self._book(live, ending)
        for pin in {live.pin for live in ended}:
            self._tidy(pin)
        return len(ended)

    def _let_go(self, live: Live) -> None:
        """Stops what is under way for the session, and lets go of its keys."""
        self._roster.lives.pop(live.id, None)
        if live.chord is not None:
            live.chord.cancel()
        if live.lost is not None:
            live.lost.cancel()
        if live.viewer is not None:
            live.stale = max(live.stale, live.viewer.stale)
            live.viewer.release_keys()

    def _cut_lines(self, ended: Iterable[Live]) -> None:
        """Cuts each line that no other session uses."""
        for live in ended:
            if isinstance(live.viewer, GraphicsViewer):
                live.viewer.cut()
        gone = frozenset(live.id for live in ended)
        for console in self._roster.consoles.values():
            if console.viewers.keys() <= gone:
                console.close()

    def _close(self, live: Live, ending: Ending, grace: float) -> None:
        """Tells the operator: the close frame."""
        live.session.take(Step.END, ending)
        keyboard = self._roster.keyboards.get(live.pin)
        if keyboard is not None:
            keyboard.let_go(live.id)
        if live.viewer is not None:
            live.viewer.close(ending, grace)

    def _book(self, live: Live, ending: Ending) -> None:
        """Records the end, and tells the control channel."""
        session, viewer, stale = live.session, live.viewer, live.stale
        now = self._clock.now()
        self._metrics.sessions.labels(session.kind).dec()
        self._metrics.endings.labels(session.kind, ending.word).inc()
        facts: dict[str, Json] = {
            "reason": ending.word,
            "to_guest": live.gate.passed,
            "to_operator": viewer.shown if viewer is not None else 0,
            "stale_at_most": stale,
            "lasted_ms": (now.boot - session.admitted_at.boot) // 1_000_000,
        }
        self._roster.record(session, audit.Event.SESSION_END, facts)
        log.info("session %s ended: %s", session.id, ending.word)
        told: dict[str, Json] = {"reason": ending.word, "text": ending.text, "at_ms": now.wall // 1_000_000}
        self._roster.remember_end(live, told | {"stale_bytes": stale})

    def _tidy(self, pin: Pin) -> None:
        """Forgets what belonged to a VM that has no session any more, and tells those that remain who is left."""
        roster = self._roster
        if roster.on(pin):
            roster.tell_viewers(pin)
            return
        roster.changed(pin)
        console = roster.consoles.pop(pin, None)
        if console is not None:
            console.close()
        roster.keyboards.pop(pin, None)
        lock = roster.dialing.get(pin)
        if lock is not None and not lock.locked():
            del roster.dialing[pin]
