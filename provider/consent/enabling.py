"""What `enableVmAccess` means for a virtual machine as the store has it: said again, renewed, or offered to a node."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from eva.consent import Consent
from provider.consent.ask import Ask, Enabled, How, Scopes
from provider.consent.authority import ALIVE_MS, Refusal, Refused
from provider.consent.desk import Desk, Offer, Terms
from provider.consent.origin import origin_at
from provider.store.filed import Filed


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Another call's offer for the same virtual machine, whose outcome decides."""

    jti: str


def enable(desk: Desk, ask: Ask, answer_ms: int, tried: Collection[str] = ()) -> Enabled | Offer | UnderWay:
    """One transaction's decision, so that of two calls for one VM only one makes an offer. `tried`: this call's failed nodes.

    Raises Refused.
    """
    desk.check_feature(ask.resource_id)
    tokens = desk.books.unexpired(ask.resource_id, desk.now)
    standing = _newest([one for one in tokens if one.stands(desk.now)])
    if standing is not None and not ask.renew:
        consent = standing.consent()
        _check_same(ask, consent)
        return Enabled(consent, standing.uuid or "", How.REPEATED)
    under_way = _newest([one for one in tokens if one.under_way(desk.now_ms)])
    if under_way is not None:
        return UnderWay(under_way.jti)
    if standing is not None:
        return _renewal(desk, ask, standing, answer_ms, tried)
    homeless = _newest([one for one in tokens if one.homeless(desk.now)])
    if homeless is not None:
        return _homecoming(desk, ask, homeless.consent(), answer_ms, tried)
    return desk.offer_allowed(ask, answer_ms, tried)


def _newest(tokens: list[Filed]) -> Filed | None:
    return max(tokens, key=lambda one: (one.issued_at, one.jti), default=None)


def _check_same(ask: Ask, consent: Consent) -> None:
    """A repeat must not narrow or widen what stands, nor seem to. Raises Refused."""
    if ask.scopes(consent) != Scopes.of(consent):
        kinds, operators = " and ".join(sorted(consent.kinds)), ", ".join(sorted(map(str, consent.operators)))
        watched = ", only while its giver watches" if consent.watched else ""
        raise Refused(
            Refusal.CONFLICT,
            f"another consent is in force ({kinds}, {consent.access}, for {operators}{watched}): renew it, or withdraw it first",
        )


def _renewal(desk: Desk, ask: Ask, standing: Filed, answer_ms: int, tried: Collection[str]) -> Offer:
    """At the node that has it, so that live sessions carry on: a consent leaves its node only when that is lost."""
    node = desk.books.node(standing.node)
    if node is None or node.asked_ms <= desk.now_ms - ALIVE_MS or node.name in tried:
        silent = f"{standing.node}, which has the consent, has not been heard for more than {ALIVE_MS // 1000} s"
        raise Refused(Refusal.NODE_SILENT, f"{silent}: the consent stands as it was, and moves when the node counts as lost")
    consent = standing.consent()
    terms = desk.terms(ask, consent)
    if terms.scopes.watched and origin_at(desk.records, standing) is None:
        why = f"tenants cannot watch at {node.name}: the consent stands as it was"
        raise Refused(Refusal.NOT_WATCHABLE, why)
    return desk.place([node.name], terms, consent.cid, answer_ms, How.RENEWED)


def _homecoming(desk: Desk, ask: Ask, consent: Consent, answer_ms: int, tried: Collection[str]) -> Offer:
    """The consent's node was lost and no other has it yet: the call does what the watch over nodes does, at once."""
    if not ask.renew:
        _check_same(ask, consent)
    terms = desk.terms(ask, consent) if ask.renew else Terms.of(consent)
    return desk.place(desk.nodes_for(tried), terms, consent.cid, answer_ms, How.RENEWED if ask.renew else How.REPEATED)
