"""Who may do what, where: role assignments {principal, scope, role} in the store, and the rule over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from provider.rest.scope import CLOUD, Scope
from provider.store.schema import role_assignments


class Action(StrEnum):
    """What a request does, in the words of Azure's roles."""

    SUBSCRIPTION_READ = "Microsoft.Resources/subscriptions/read"
    PROVIDERS_READ = "Microsoft.Resources/subscriptions/providers/read"
    ACCESS_READ = "Microsoft.Compute/virtualMachines/vmAccess/read"
    RECEIPT_READ = "Microsoft.Compute/virtualMachines/vmAccess/receipt/read"
    ENABLE_ACCESS = "Microsoft.Compute/virtualMachines/enableVmAccess/action"
    DISABLE_ACCESS = "Microsoft.Compute/virtualMachines/disableVmAccess/action"
    WATCH_ACCESS = "Microsoft.Compute/virtualMachines/watchVmAccess/action"
    FEATURES_READ = "Microsoft.Compute.Admin/locations/features/read"
    ENABLE_SUBSCRIPTION = "Microsoft.Compute.Admin/locations/features/enableTenantSubscriptionFeature/action"
    DISABLE_SUBSCRIPTION = "Microsoft.Compute.Admin/locations/features/disableTenantSubscriptionFeature/action"
    UPDATE_GLOBAL = "Microsoft.Compute.Admin/locations/features/updateGlobalFeatureSettings/action"


class Role(StrEnum):
    OWNER = "Owner"
    CONTRIBUTOR = "Contributor"
    VM_CONTRIBUTOR = "Virtual Machine Contributor"
    READER = "Reader"
    ADMINISTRATOR = "EVA Cloud Administrator"

    @classmethod
    def named(cls, text: str) -> Role:
        """The role of this name in any case. Raises ValueError."""
        for role in cls:
            if role.lower() == text.lower():
                return role
        raise ValueError(f"a role is one of {', '.join(cls)}")


# Who gave a consent and has become a mere reader since may still look on at what he consented to, and stop it.
_READS = {Action.SUBSCRIPTION_READ, Action.PROVIDERS_READ, Action.ACCESS_READ, Action.RECEIPT_READ, Action.WATCH_ACCESS}
_WRITES = {*_READS, Action.ENABLE_ACCESS, Action.DISABLE_ACCESS}

# An administrator decides who may consent and can consent for nobody; an owner cannot enable his own subscription.
PERMITS = {
    Role.OWNER: frozenset(_WRITES),
    Role.CONTRIBUTOR: frozenset(_WRITES),
    Role.VM_CONTRIBUTOR: frozenset(_WRITES),
    Role.READER: frozenset(_READS),
    Role.ADMINISTRATOR: frozenset(set(Action) - _WRITES),
}


@dataclass(frozen=True, slots=True)
class Assignment:
    principal: str
    scope: Scope
    role: Role

    def __post_init__(self) -> None:
        if self.role is Role.ADMINISTRATOR and self.scope != CLOUD:
            raise ValueError(f"{self.role} is assigned at / only: the feature is the cloud's")

    def permits(self, action: Action, scope: Scope) -> bool:
        return action in PERMITS[self.role] and self.scope.holds(scope)


def permitted(assignments: Iterable[Assignment], action: Action, scope: Scope) -> bool:
    """Whether one of a caller's own assignments lets him do this there."""
    return any(one.permits(action, scope) for one in assignments)


class RoleBooks:
    """The assignments' rows, in one transaction. Principals are spelled as provider.rest.caller makes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def assign(self, assignment: Assignment, now_ms: int) -> bool:
        """Whether it is new."""
        if self._connection.scalar(select(role_assignments.c.role).where(_row(assignment))) is not None:
            return False
        row = {"principal": assignment.principal, "scope_key": assignment.scope.key, "role": str(assignment.role)}
        self._connection.execute(insert(role_assignments).values(row | {"scope": assignment.scope.text, "made_ms": now_ms}))
        return True

    def remove(self, assignment: Assignment) -> bool:
        """Whether it was there."""
        return self._connection.execute(delete(role_assignments).where(_row(assignment))).rowcount > 0

    def all(self) -> list[Assignment]:
        order = select(role_assignments).order_by(role_assignments.c.principal, role_assignments.c.scope_key)
        return [_assignment(row) for row in self._connection.execute(order)]

    def of(self, principals: Iterable[str], scope: Scope | None = None) -> list[Assignment]:
        """Those of any of these principals; with `scope`, only those that hold it."""
        wanted: ColumnElement[bool] = role_assignments.c.principal.in_(sorted(principals))
        if scope is not None:
            wanted = and_(wanted, role_assignments.c.scope_key.in_(scope.around()))
        return [_assignment(row) for row in self._connection.execute(select(role_assignments).where(wanted))]

    def subscriptions(self) -> set[str]:
        """Every subscription that any assignment names."""
        scopes = (Scope.parse(text) for text in self._connection.scalars(select(role_assignments.c.scope).distinct()))
        return {found for scope in scopes if (found := scope.in_subscription) is not None}


def _row(assignment: Assignment) -> ColumnElement[bool]:
    mine = role_assignments.c
    return and_(
        mine.principal == assignment.principal,
        mine.scope_key == assignment.scope.key,
        mine.role == str(assignment.role),
    )


def _assignment(row: Row[Any]) -> Assignment:
    return Assignment(row.principal, Scope.parse(row.scope), Role(row.role))
