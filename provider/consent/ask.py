"""What a tenant asks for, and what he is answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Consent, Kind, Principal
from eva.resource_id import ResourceId

OPERATORS = frozenset({CLOUDADMIN})
KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Ask:
    """`kinds`, `access`, `operators`, `watched`: None is what stands already, and where nothing stands both, the keyboard,
    cloudadmin, and also while nobody watches.

    `seconds` from now. `renew`: what stands is replaced by this. `node`: the platform's own choice, None for the provider's.
    """

    resource_id: ResourceId
    giver: str
    kinds: frozenset[Kind] | None = None
    access: Access | None = None
    operators: frozenset[Principal] | None = None
    seconds: int = MAX_SECONDS
    reason: str = ""
    renew: bool = False
    node: str | None = None
    watched: bool | None = None

    def scopes(self, standing: Consent | None = None) -> Scopes:
        """What is asked for, with what is left open filled in from the consent that stands."""
        return Scopes(
            kinds=self.kinds or (standing.kinds if standing else KINDS),
            access=self.access or (standing.access if standing else Access.KEYBOARD),
            operators=self.operators or (standing.operators if standing else OPERATORS),
            watched=self.watched if self.watched is not None else standing is not None and standing.watched,
        )


@dataclass(frozen=True, slots=True)
class Scopes:
    """What a consent lets whom do. `watched`: only while its giver watches."""

    kinds: frozenset[Kind]
    access: Access
    operators: frozenset[Principal]
    watched: bool

    @classmethod
    def of(cls, consent: Consent) -> Scopes:
        return cls(consent.kinds, consent.access, consent.operators, consent.watched)


class How(StrEnum):
    """How it comes that a consent stands."""

    FRESH = "fresh"
    REPEATED = "repeated"  # it stood before and is as it was
    RENEWED = "renewed"  # it stood before, and a new token has replaced the old one


@dataclass(frozen=True, slots=True)
class Enabled:
    """A consent that its node has accepted. `uuid`: the virtual machine, as the node resolved it."""

    consent: Consent
    uuid: str
    how: How
