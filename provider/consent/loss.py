"""Which nodes are lost, and where their consents go.

A node that is lost holds no lease any more: the slowest cut every session `cut_seconds` after its last one, and MARGIN_MS is
for clocks. Only then may another node serve what it served. In one transaction the old token is revoked, so that the lost
node cannot take the consent up again, and the new one is signed and filed; which provider does it, the store decides.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from eva.ending import Ending
from eva.wire import Event
from provider.consent.ask import How
from provider.consent.authority import ALIVE_MS, Refusal, Refused
from provider.consent.desk import Desk, Offer, Terms
from provider.store.filed import Enrolled, Filed, Notice
from provider.store.records import Records

MARGIN_MS = 15_000
MOVED = 64  # consents in one transaction

log = logging.getLogger("provider.consent.loss")


class Hearing:
    """Since when this provider could have heard a node: silence that is its own fault must not take consents from anybody.

    After a start, a stall, a suspend, or a time in which no node at all was heard, every node has its full time anew.
    """

    def __init__(self) -> None:
        self._since = 0
        self._looked = 0

    def look(self, asked: Sequence[int], now_ms: int) -> int:
        """`asked`: when each node last asked, by the store. Gives since when without a break some node was heard."""
        gap = not self._looked <= now_ms < self._looked + ALIVE_MS
        if gap or max(asked, default=0) <= now_ms - ALIVE_MS:
            self._since = now_ms
        self._looked = now_ms
        return self._since


def is_lost(asked_ms: int, heard_since_ms: int, now_ms: int, cut_seconds: int) -> bool:
    """`heard_since_ms`: what Hearing gives."""
    return now_ms - max(asked_ms, heard_since_ms) > cut_seconds * 1000 + MARGIN_MS


@dataclass(frozen=True, slots=True)
class Moves:
    """What goes out: revocations for the lost nodes, offers to the living. `last`: what the next call goes on after."""

    notices: tuple[Notice, ...] = ()
    offers: tuple[Offer, ...] = ()
    last: str = ""

    @property
    def is_full(self) -> bool:
        """Whether there is more than one transaction moves."""
        return len(self.notices) == MOVED


def lost_nodes(nodes: Sequence[Enrolled], heard_since_ms: int, now_ms: int, cut_seconds: int) -> list[str]:
    return [one.name for one in nodes if is_lost(one.asked_ms, heard_since_ms, now_ms, cut_seconds)]


def is_work(records: Records, lost: Sequence[str], now: int) -> bool:
    """Whether `move` could have anything to do."""
    return bool((lost and records.served_by(lost, now, 1)) or records.homeless(now, 1))


def move(desk: Desk, heard_since_ms: int, cut_seconds: int, answer_ms: int, after: str = "") -> Moves:
    """Takes what stands at lost nodes from them, and offers what has no node to one that is alive and has not refused it.

    `after`: what the call before gave, so that consents which nobody will have keep none waiting.
    """
    lost = lost_nodes(desk.books.nodes(), heard_since_ms, desk.now_ms, cut_seconds)
    try:
        desk.nodes_for(lost)
    except Refused:
        return Moves()  # nobody could take it: it stays where it is, should that node come back first
    notices = []
    for filed in desk.records.served_by(lost, desk.now, MOVED) if lost else ():
        desk.books.update_consent(filed.jti, moved_ms=desk.now_ms)
        notices.append(desk.revoke_single(filed.node, filed.jti, filed.expires_at, Ending.CONSENT_REVOKED))
    homeless = desk.records.homeless(desk.now, MOVED, after)
    offers = [offer for filed in homeless if (offer := _offer(desk, filed, lost, answer_ms)) is not None]
    return Moves(tuple(notices), tuple(offers), homeless[-1].jti if len(homeless) == MOVED else "")


def _offer(desk: Desk, filed: Filed, lost: Sequence[str], answer_ms: int) -> Offer | None:
    since = [one for one in desk.records.tokens_of(filed.cid) if one.issued_at > filed.issued_at]
    if any(one.under_way(desk.now_ms) for one in since):
        return None
    # a node that said no is not asked again; the lost one, once it is back, is: it may be the only one that has the VM
    refused = {one.node for one in since if one.answer == Event.REFUSED or one.why == Refusal.NOT_WATCHABLE}
    silent = {one.node for one in since if one.answer is None}
    left = sorted((name for name in desk.nodes_for(lost) if name not in refused), key=lambda name: name in silent)
    if not left:
        return None
    consent = filed.consent()
    try:
        return desk.place(left, Terms.of(consent), consent.cid, answer_ms, How.REPEATED)
    except Refused as refused:  # this clock was set back since, or it is over in a second
        log.debug("consent %s cannot move now: %s", consent.cid, refused)
        return None
