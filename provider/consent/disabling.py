"""A subscription, or everybody, may no longer consent: in one transaction nothing of theirs stands any more."""

from __future__ import annotations

from collections.abc import Sequence

from eva.consent import Revocation
from eva.ending import Ending
from eva.resource_id import ResourceId
from provider.consent.authority import watermark_time
from provider.consent.desk import Desk
from provider.consent.features import GlobalState
from provider.store.filed import Filed, Notice


def disable_subscription(desk: Desk, subscription: str) -> list[Notice]:
    """Takes it off the list, and ends what it consented to if the global state does not allow it all the same."""
    desk.features.disable(subscription)
    under_way = [] if desk.features.allows(subscription) else desk.records.unconfirmed(desk.now, subscription)
    return [*under_way, *_end_disallowed(desk, desk.records.living(desk.now, subscription))]


def set_global_state(desk: Desk, state: GlobalState) -> list[Notice]:
    desk.features.set_state(state)
    if state is GlobalState.ENABLED:
        return []
    under_way = desk.records.unconfirmed(desk.now) if state is GlobalState.DISABLED else []
    return [*under_way, *_end_disallowed(desk, desk.records.living(desk.now))]


def _end_disallowed(desk: Desk, living: Sequence[Filed]) -> list[Notice]:
    """A watermark for each VM at each node, all of them in few statements: leases wait for this transaction."""
    keys = sorted({filed.resource_key for filed in living})
    # a key is a resource ID in small letters: the same virtual machine to whoever reads it
    named = {key: ResourceId.parse(key) for key in keys}
    allowed = {one: desk.features.allows(one) for one in {resource_id.subscription for resource_id in named.values()}}
    over = [filed for filed in living if not allowed[named[filed.resource_key].subscription]]
    for filed in over:
        if filed.homeless(desk.now):
            desk.conclude(filed, Ending.FEATURE_DISABLED)
    standing = [filed for filed in over if filed.revoked_ms is None]
    marks = _marks(desk, standing)
    ends: dict[tuple[str, str], int] = {}
    for filed in standing:
        place = (filed.node, filed.resource_key)
        ends[place] = max(filed.expires_at, ends.get(place, 0))
    desk.books.revoke([filed.jti for filed in standing], desk.now_ms)
    seqs = {one.name: one.seq for one in desk.books.nodes()}
    revocations: list[Revocation] = []
    for (node, key), last in sorted(ends.items()):
        seqs[node] += 1
        mark = named[key], marks[key]
        revocations.append(Revocation(desk.new_jti(), node, seqs[node], desk.now, Ending.FEATURE_DISABLED, last, None, *mark))
    return desk.file(revocations)


def _marks(desk: Desk, standing: Sequence[Filed]) -> dict[str, int]:
    """Watermarks past what stands, by resource key."""
    marks = desk.books.watermarks(sorted({filed.resource_key for filed in standing}))
    for filed in standing:
        marks[filed.resource_key] = watermark_time(desk.now, [filed.issued_at, marks.get(filed.resource_key, 0)])
    if marks:
        desk.books.set_watermarks(marks)
    return marks
