"""Who may consent at all: the Emergency VM Access feature, globally and for each subscription.

The global state overrides the list: Enabled is everybody, Disabled nobody, TenantSubscriptionLevel the listed subscriptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from provider import statements
from provider.store.schema import feature_subscriptions, features

FEATURE = "Microsoft.Compute.EmergencyVMAccess"


class GlobalState(StrEnum):
    TENANT_SUBSCRIPTION_LEVEL = "TenantSubscriptionLevel"
    ENABLED = "Enabled"
    DISABLED = "Disabled"


def allows(state: GlobalState, listed: bool) -> bool:
    """Whether a subscription that is on the list, or is not, may consent."""
    return state is GlobalState.ENABLED or (state is GlobalState.TENANT_SUBSCRIPTION_LEVEL and listed)


@dataclass(frozen=True, slots=True)
class Listed:
    """A subscription on the list, spelled as it was given."""

    subscription: str
    enabled_ms: int
    enabled_by: str


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    state: GlobalState
    subscriptions: tuple[Listed, ...]


def _listed(subscription: str) -> ColumnElement[bool]:
    listed = feature_subscriptions
    return and_(listed.c.feature == FEATURE, listed.c.subscription == subscription.lower())


class FeatureBooks:
    """The feature's rows, in one transaction. Subscriptions compare without regard to case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def state(self) -> GlobalState:
        found = self._connection.scalar(statements.STATE, {"name_": FEATURE})
        return GlobalState.TENANT_SUBSCRIPTION_LEVEL if found is None else GlobalState(found)

    def set_state(self, state: GlobalState) -> None:
        mine = features.c.name == FEATURE
        if self._connection.execute(update(features).where(mine).values(state=str(state))).rowcount == 0:
            self._connection.execute(insert(features).values(name=FEATURE, state=str(state)))

    def feature(self) -> Feature:
        rows = self._connection.execute(
            select(feature_subscriptions)
            .where(feature_subscriptions.c.feature == FEATURE)
            .order_by(feature_subscriptions.c.subscription)
        )
        return Feature(FEATURE, self.state(), tuple(Listed(row.spelled, row.enabled_ms, row.enabled_by) for row in rows))

    def allows(self, subscription: str) -> bool:
        mine = {"feature_": FEATURE, "subscription_": subscription.lower()}
        return allows(self.state(), self._connection.scalar(statements.LISTED, mine) is not None)

    def enable(self, subscription: str, by: str, now_ms: int) -> None:
        """Lists it; one that is listed stays as it is."""
        mine = _listed(subscription)
        if self._connection.scalar(select(feature_subscriptions.c.subscription).where(mine)) is None:
            row = {"feature": FEATURE, "subscription": subscription.lower(), "spelled": subscription, "enabled_by": by}
            self._connection.execute(insert(feature_subscriptions).values(row | {"enabled_ms": now_ms}))

    def disable(self, subscription: str) -> None:
        mine = _listed(subscription)
        self._connection.execute(delete(feature_subscriptions).where(mine))
