"""What a watcher tells the daemon of the domains on its host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_DOMAINS = 10_000  # on one host


class Fate(StrEnum):
    """What can happen to a domain or its guest."""

    STOPPED = "stopped"  # the guest crashed, was shut off or destroyed, or migrated away
    GONE = "gone"  # the domain was undefined, or was transient and stopped
    RESET = "reset"  # the guest was reset or rebooted itself; its console stays


@dataclass(frozen=True, slots=True)
class Seen:
    """What one domain is now.

    `number` is libvirt's own of this run of the guest, -1 when it is off. `resource` is the metadata's text, `fault` why
    nothing could be read out of the domain's description.
    """

    uuid: str
    name: str
    number: int
    persistent: bool
    paused: bool
    resource: str | None
    serial: bool
    graphics: bool
    tcp_display: bool
    fault: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """The `count` domains seen since the connection was made are all there are."""

    count: int


@dataclass(frozen=True, slots=True)
class Befell:
    """Something happened to a domain; what it is now is seen after that. One that is gone may be there again at once."""

    uuid: str
    fate: Fate


@dataclass(frozen=True, slots=True)
class Beat:
    """libvirtd has just answered."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection to libvirtd. What follows a later one begins with all domains again."""

    why: str


Sighting = Seen | Listed | Befell | Beat | Lost
