"""What operators do with a guest's keyboard besides typing: take it, hand it over, press a chord, send what is held."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from broker.graphics_console import GraphicsViewer
from broker.journal import Journal, JournalFailed
from broker.masks import MasksFull
from broker.roster import Live, Roster
from broker.serial_console import SerialViewer
from eva import audit
from eva.consent import Access
from eva.control import Refusal, Refused
from eva.ledger import Pin
from hypervisor.dialer import Dialer, DialError, Host


class Hands:
    """Each of these is recorded, and told to whom it concerns."""

    def __init__(self, roster: Roster, journal: Journal, dialer: Dialer, hosts: Mapping[str, Host]) -> None:
        self._roster = roster
        self._journal = journal
        self._dialer = dialer
        self._hosts = hosts
        self._chords: set[Pin] = set()

    def move_keyboard(self, live: Live, to: str) -> None:
        """Gives the VM's keyboard to the session `to`: openly, recorded, and told to all. Raises Refused."""
        roster, pin = self._roster, live.pin
        target = roster.lives.get(to)
        if target is None or target.pin != pin or target.session.access is not Access.KEYBOARD:
            raise Refused(Refusal.NO_KEYBOARD)
        if target is not live and not roster.owns_keyboard(live.session):
            raise Refused(Refusal.NO_KEYBOARD)
        self._check_recordable()
        before = roster.keyboards[pin].take(to)
        roster.record(target.session, audit.Event.KEYBOARD, {"by": live.session.operator.account, "from": before or ""})
        for other in roster.on(pin):
            if isinstance(other.viewer, GraphicsViewer):
                other.viewer.keyboard_moved()
        if pin in roster.consoles:
            roster.consoles[pin].keyboard_moved()
        roster.tell_viewers(pin)

    def release_input(self, live: Live) -> None:
        """The operator's "send anyway", recorded. Raises Refused."""
        console = self._roster.consoles.get(live.pin)
        if console is None or not isinstance(live.viewer, SerialViewer) or not self._roster.owns_keyboard(live.session):
            raise Refused(Refusal.NO_KEYBOARD)
        self._check_recordable()
        self._roster.record(live.session, audit.Event.INPUT_RELEASED, {"stale": console.allowance.stale})
        console.release_held()

    def mask_input(self, live: Live, start: int, count: int) -> None:
        """Of `count` of the session's bytes, from its `start`th on, who watches is told no more than how many. Raises Refused."""
        if not isinstance(live.viewer, SerialViewer):
            raise Refused(Refusal.NO_SESSION, "no serial session")
        try:
            live.viewer.masks.add(start, count, live.viewer.consumed)
        except MasksFull as error:
            raise Refused(Refusal.TOO_MANY, "masked entries") from error

    async def send_chord(self, live: Live, chord: tuple[int, ...]) -> None:
        """Presses a chord in the guest, through the gate, one at a time for each VM, recorded before. Raises Refused."""
        session, pin = live.session, live.pin
        if not self._roster.owns_keyboard(session) or pin in self._chords:
            raise Refused(Refusal.NO_KEYBOARD, "not the owner, or a chord is under way")
        self._check_rein(live)
        self._check_recordable()
        self._chords.add(pin)
        try:
            try:
                await self._journal.write(None, self._roster.entry(session, audit.Event.KEYS_SENT, {"keys": len(chord)}))
            except JournalFailed as error:
                raise Refused(Refusal.AUDIT_FAILED, str(error)) from error
            self._check_rein(live)
            if not self._may_press(live):
                raise Refused(Refusal.LEASE_STALE, "the gate is closed")
            keys = self._dialer.send_keys(self._hosts[pin.host], pin.uuid, chord, wanted=lambda: self._may_press(live))
            live.chord = asyncio.ensure_future(keys)
            await live.chord
        except (DialError, asyncio.CancelledError) as error:
            if live.gate.ending is None and not live.gate.rein.held and isinstance(error, asyncio.CancelledError):
                raise
            self._check_rein(live)
            raise Refused(Refusal.CONSOLE_FAILED, str(error)) from error
        finally:
            live.chord = None
            self._chords.discard(pin)

    def _may_press(self, live: Live) -> bool:
        return live.gate.open() and self._roster.owns_keyboard(live.session)

    @staticmethod
    def _check_rein(live: Live) -> None:
        """Raises Refused while the consent's giver holds input."""
        refusal = live.gate.rein.refusal
        if refusal is not None:
            raise Refused(refusal)

    def _check_recordable(self) -> None:
        """Raises Refused while the provider is too far behind with what was recorded: what an operator does may not flood it."""
        if self._journal.crowded:
            raise Refused(Refusal.AUDIT_FAILED, "the provider does not take the records")
