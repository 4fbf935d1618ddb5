"""How a session stands, as the node tells it, and what a person is told when that changes. Pure: `now_s` is the boot clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from eva.consent import Access, Kind
from eva.control import Event, Opened
from eva.ending import Ending
from eva.members import Members

MAX_VIEWERS = 256
MAX_ACCOUNT = 160  # characters; a tenant who watches is tenant: and the giver's name
_HELD_WHY = {
    "no-echo": "the VM has not answered. ~s sends it anyway",
    "lease": "the node cannot confirm the consent just now",
    "tenant": "the tenant has paused it, or has to watch and does not",
    "keyboard": "another operator holds the keyboard. ~k takes it",
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """One who sees the same console."""

    session: str
    account: str
    access: Access


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a session. `at_ms`: Unix milliseconds, the node's if it told."""

    ending: Ending
    at_ms: int

    @classmethod
    def left(cls, at_ms: int) -> Ended:
        """The end that the operator's side makes."""
        return cls(Ending.OPERATOR_LEFT, at_ms)

    @property
    def text(self) -> str:
        moment = datetime.fromtimestamp(self.at_ms / 1000).astimezone()
        return f"{self.ending.text} ({moment:%H:%M:%S %Z}, {self.ending.word})"


class Standing:
    """Of one session. `ended` is set once, by the node's notice."""

    def __init__(self, opened: Opened, now_s: float) -> None:
        self.session = opened.session
        self.access = opened.access
        self.has_keyboard = opened.keyboard
        self.viewers: tuple[Viewer, ...] = ()
        self.ended: Ended | None = None
        self._opened = opened
        self._vm = opened.resource_id.rpartition("/")[2]
        self._ends_at_s = now_s + opened.remaining_s
        self._keyboard: str | None = opened.session if opened.keyboard else None
        self._told_of_viewers = False
        self._held = 0
        self._held_why = ""
        self._paused = False

    def resumed(self, opened: Opened, now_s: float) -> None:
        """The session goes on over another connection."""
        self.has_keyboard = opened.keyboard
        self._ends_at_s = now_s + opened.remaining_s
        if opened.keyboard:
            self._keyboard = self.session
        elif self._keyboard == self.session:
            self._keyboard = None

    def opening(self, now_s: float) -> list[str]:
        """The lines told once, at the beginning."""
        opened = self._opened
        until = datetime.fromtimestamp(opened.expires_at).astimezone()
        device = "serial console" if opened.kind is Kind.SERIAL else "screen"
        lines = [
            f"{device} of {self._vm} at {opened.node}: {self._keyboard_text()}.",
            f"Consent given by {opened.giver} until {until:%H:%M %Z}, {self._left(now_s)} left.",
        ]
        return [*lines, f"Reason: {opened.reason}"] if opened.reason else lines

    def title(self, now_s: float) -> str:
        """One line of status."""
        count = f", {len(self.viewers)} viewers" if len(self.viewers) > 1 else ""
        return f"{self._vm} at {self._opened.node}: {self._left(now_s)} left{count}, {self._keyboard_text()}"

    def status(self, now_s: float) -> list[str]:
        """All of it, on demand."""
        return [self.title(now_s), *(f"  {viewer.account} {self._part(viewer)}" for viewer in self.viewers)]

    def apply(self, event: Event, members: Members, now_s: float) -> list[str]:
        """Takes in a notice and gives the lines to tell. Raises BadMember."""
        if event is Event.COUNTDOWN:
            return self._countdown(members.integer("remaining_s"))
        if event is Event.RENEWED:
            return self._renewed(members.integer("expires_at"), members.integer("remaining_s"), now_s)
        if event is Event.VIEWERS:
            return self._viewers(members)
        if event is Event.PAUSED:
            return self._pause(paused=members.truth("paused"))
        if event is Event.HELD:
            return self.hold(members.integer("held"), members.text("why", 32))
        self.ended = Ended(members.convert("reason", Ending.of_word), members.integer("at_ms"))
        return []

    def keyboard_taken(self) -> None:
        """The node has answered that it is ours."""
        self.has_keyboard = True
        self._keyboard = self.session

    def _countdown(self, remaining_s: int) -> list[str]:
        unit, count = ("minute", round(remaining_s / 60)) if remaining_s > 90 else ("second", remaining_s)
        return [f"{count} {unit}{'' if count == 1 else 's'} until the consent runs out and the console closes."]

    def _renewed(self, expires_at: int, remaining_s: int, now_s: float) -> list[str]:
        self._ends_at_s = now_s + remaining_s
        until = datetime.fromtimestamp(expires_at).astimezone()
        return [f"The tenant has renewed the consent: until {until:%H:%M %Z}, {self._left(now_s)} left."]

    def _viewers(self, members: Members) -> list[str]:
        self.viewers = tuple(
            Viewer(v.text("session", 64), v.text("account", MAX_ACCOUNT, empty=False), v.convert("access", Access))
            for v in members.tables("viewers", MAX_VIEWERS)
        )
        before, self._keyboard = self._keyboard, None if members.null("keyboard") else members.text("keyboard", 64)
        self.has_keyboard = self._keyboard == self.session
        first, self._told_of_viewers = not self._told_of_viewers, True
        if before == self._keyboard or (first and not self.has_keyboard and before != self.session):
            return []
        return ["The keyboard is yours." if self.has_keyboard else f"Now {self._keyboard_text()}."]

    def _pause(self, *, paused: bool) -> list[str]:
        before, self._paused = self._paused, paused
        if paused == before:
            return []
        return ["The tenant has paused input: what you type waits." if paused else "The tenant lets your input pass again."]

    def hold(self, held: int, why: str) -> list[str]:
        """So many bytes of input wait at the node. Gives the lines to tell."""
        before, self._held = self._held, held
        why_before, self._held_why = self._held_why, why if held else ""
        if held and (not before or why != why_before):
            return [f"{held} bytes of your input wait: {_HELD_WHY.get(why, 'the node holds them')}."]
        return ["No input waits any more."] if before and not held else []

    def _keyboard_text(self) -> str:
        if self.access is Access.VIEW:
            return "view only"
        if self.has_keyboard:
            return "the keyboard is yours"
        owner = next((v.account for v in self.viewers if v.session == self._keyboard), None)
        if self._keyboard is None:
            return "the keyboard is free (~k takes it)" if self._told_of_viewers else "the keyboard is not yours (~k takes it)"
        return f"{owner or 'another operator'} has the keyboard (~k takes it)"

    def _part(self, viewer: Viewer) -> str:
        if viewer.session == self._keyboard:
            return "has the keyboard"
        return "may type" if viewer.access is Access.KEYBOARD else "looks only"

    def _left(self, now_s: float) -> str:
        seconds = max(0, int(self._ends_at_s - now_s))
        if seconds < 120:
            return f"{seconds} s"
        return f"{seconds // 3600} h {seconds // 60 % 60:02} min" if seconds >= 3600 else f"{seconds // 60} min"
