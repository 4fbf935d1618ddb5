"""Where tenants' browsers reach a node, by the node's own word: a fact of the receipt by which it accepted a consent."""

from __future__ import annotations

from eva.watch import watch_origin
from eva.wire import Receipt
from provider.store.filed import Filed, claims_of
from provider.store.records import Records


def origin_of(accepted: Receipt) -> str | None:
    """Where tenants' browsers reach the node that accepted; None where it has no listener for them."""
    try:
        return watch_origin(accepted.fact("watch"))
    except ValueError:
        return None


def origins(records: Records, most: int) -> set[str]:
    """Where tenants' browsers reach the nodes: of so many of them, by each one's latest word."""
    told = {origin_of(Receipt.from_claims(claims_of(token))) for token in records.acceptances(most)}
    return {origin for origin in told if origin is not None}


def origin_at(records: Records, filed: Filed) -> str | None:
    """The same, by the receipt that is filed for this token."""
    token = records.accepted(filed.jti, filed.node)
    return None if token is None else origin_of(Receipt.from_claims(claims_of(token)))
