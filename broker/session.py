"""A session's states and transitions: one table. Pure.

                 ADMIT            OPENED            ATTACH
        NEW ───────────► OPENING ───────► DETACHED ───────► LIVE
                            │                 ▲    DETACH     │
                            │                 └───────────────┤
                            └──────────► ENDED ◄──────────────┘   END, from every state, once

DETACHED is a session whose ticket is not redeemed yet as well as one whose operator dropped: its gate is closed, and its
grace runs.

Errors:

    IllegalEvent    the state has no transition for the event; the state is unchanged
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from eva.consent import Access, Kind
from eva.ending import Ending
from eva.instant import Instant
from eva.ledger import Accepted


class State(Enum):
    NEW = auto()
    OPENING = auto()
    DETACHED = auto()
    LIVE = auto()
    ENDED = auto()


class Step(Enum):
    ADMIT = auto()
    OPENED = auto()
    ATTACH = auto()
    DETACH = auto()
    END = auto()


TRANSITIONS: dict[State, dict[Step, State]] = {
    State.NEW: {Step.ADMIT: State.OPENING, Step.END: State.ENDED},
    State.OPENING: {Step.OPENED: State.DETACHED, Step.END: State.ENDED},
    State.DETACHED: {Step.ATTACH: State.LIVE, Step.END: State.ENDED},
    State.LIVE: {Step.DETACH: State.DETACHED, Step.END: State.ENDED},
    State.ENDED: {},
}


class IllegalEvent(Exception):
    def __init__(self, state: State, step: Step) -> None:
        self.state = state
        self.step = step
        super().__init__(f"{step.name} in {state.name}")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who uses the console, from where: `address` is the TCP peer's, never a header's."""

    account: str
    groups: frozenset[str]
    address: str


@dataclass(slots=True)
class Session:
    """One operator's use of one console, from admission to its one recorded ending.

    `deadline`: the boot clock (ns) at which a detached session ends unless it is attached by then.
    """

    id: str
    operator: Operator
    accepted: Accepted
    kind: Kind
    access: Access
    admitted_at: Instant
    state: State = State.NEW
    ending: Ending | None = None
    deadline: int | None = field(default=None)

    def take(self, step: Step, ending: Ending | None = None) -> None:
        """Goes on by the table. END needs its reason. Raises IllegalEvent."""
        after = TRANSITIONS[self.state].get(step)
        if after is None or (step is Step.END) != (ending is not None):
            raise IllegalEvent(self.state, step)
        self.state = after
        if ending is not None:
            self.ending = ending
        if after is not State.DETACHED:
            self.deadline = None

    def wait_until(self, boot: int) -> None:
        """Sets how long a detached session waits for its operator."""
        if self.state is State.DETACHED:
            self.deadline = boot
