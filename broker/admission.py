"""Who may open what, now: one check in front of every session. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from broker.session import TENANT, Operator
from eva.consent import Access, Consent, Kind
from eva.control import Refusal, Refused
from eva.ledger import Accepted, Pin
from eva.resource_id import ResourceId


class Domain(Protocol):
    """What admission asks of a domain: hypervisor.inventory.Vm is one."""

    @property
    def host(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def running(self) -> bool: ...
    @property
    def kinds(self) -> frozenset[Kind]: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for. `access` None: as much as the tenant consented to. `consent`: under that cid only."""

    resource_id: ResourceId
    kind: Kind
    access: Access | None = None
    consent: str | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    accepted: Accepted
    access: Access


def covers(consent: Consent, operator: Operator, kind: Kind, access: Access | None) -> bool:
    """Whether this operator may have that kind of console under the consent, with that access (None: with whatever it gives)."""
    return _admits(consent, operator) and kind in consent.kinds and access in (None, Access.VIEW, consent.access)


def _admits(consent: Consent, operator: Operator) -> bool:
    """Whether it is one of those whom the tenant consented to, or the tenant."""
    if operator.is_tenant:
        return operator.account == TENANT + consent.giver
    return consent.admits(operator.account, operator.groups)


def admit(
    wish: Wish,
    operator: Operator,
    standing: Iterable[Accepted],
    domains: Iterable[Domain],
    attended: Callable[[Consent], bool],
) -> Admitted:
    """The consent under which this operator may open this console, the one that lasts longest. Raises Refused.

    `standing`: the consents in force. `domains`: those that carry the resource ID now. `attended`: False for a consent whose
    giver would have to watch and does not.
    """
    mine = [
        one
        for one in standing
        if one.consent.resource_id == wish.resource_id
        and wish.consent in (None, one.consent.cid)
        and _admits(one.consent, operator)
    ]
    if not mine:
        raise Refused(Refusal.NO_CONSENT, "none in force for this operator")
    fitting = [a for a in mine if covers(a.consent, operator, wish.kind, wish.access)]
    if not fitting:
        raise Refused(Refusal.NOT_CONSENTED, f"{wish.kind} {wish.access or ''}")
    found = list(domains)
    if len(found) > 1:
        raise Refused(Refusal.VM_AMBIGUOUS, ", ".join(d.uuid for d in found))
    pins = {Pin(d.host, d.uuid, d.generation): d for d in found}
    pinned = [a for a in fitting if a.pin in pins]
    if not pinned:
        raise Refused(Refusal.NO_CONSENT, "the domain is not the one that was consented to")
    # the giver may look before he is seen to watch
    free = [a for a in pinned if operator.is_tenant or attended(a.consent)]
    if not free:
        raise Refused(Refusal.NOT_WATCHED)
    chosen = max(free, key=lambda a: a.term.boot)
    domain = pins[chosen.pin]
    if not domain.running:
        raise Refused(Refusal.VM_NOT_RUNNING)
    if wish.kind not in domain.kinds:
        raise Refused(Refusal.CONSOLE_FAILED, f"the domain has no {wish.kind} console")
    return Admitted(chosen, wish.access or chosen.consent.access)
