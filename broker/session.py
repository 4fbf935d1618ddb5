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
from eva.control import Opened
from eva.ending import Ending
from eva.instant import Instant
from eva.ledger import Accepted

TENANT = "tenant:"  # operators' names hold no colon (eva.consent.Principal)


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
    """Who uses the console, from where: `address` is the TCP peer's, never a header's. `way`: how they signed in.

    `lapses`: the boot time at which their sign-in runs out, if it does. Also the tenant who watches, under an account that no
    operator can have: `tenant:` and the name of the consent's giver.
    """

    account: str
    groups: frozenset[str]
    address: str
    way: str = field(default="", compare=False)
    lapses: int | None = field(default=None, compare=False)

    @classmethod
    def tenant(cls, giver: str, address: str) -> Operator:
        return cls(TENANT + giver, frozenset(), address, "watch-token")

    @property
    def is_tenant(self) -> bool:
        return self.account.startswith(TENANT)


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

    def abandoned(self, now: Instant) -> bool:
        """Whether its operator is away for too long, or no longer signed in."""
        return any(end is not None and now.boot >= end for end in (self.deadline, self.operator.lapses))

    def wait_until(self, boot: int) -> None:
        """Sets how long a detached session waits for its operator."""
        if self.state is State.DETACHED:
            self.deadline = boot


def opened(session: Session, ticket: str, node: str, now: Instant, *, keyboard: bool) -> Opened:
    """What whoever opened the session is told of it."""
    consent = session.accepted.consent
    return Opened(
        session=session.id,
        ticket=ticket,
        kind=session.kind,
        access=session.access,
        keyboard=keyboard,
        consent=consent.cid,
        resource_id=str(consent.resource_id),
        node=node,
        giver=consent.giver,
        reason=consent.reason,
        expires_at=consent.expires_at,
        remaining_s=int(session.accepted.term.remaining(now)),
    )
