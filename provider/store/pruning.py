"""What the store may forget: anchors of long ago. They grow with time, all else with what people do, and that is kept."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from provider.store.schema import anchors, nodes

KEPT_MS = 7 * 24 * 3600 * 1000
BATCH = 500  # rows of one node in one transaction, which leases wait for


def prune_anchors(connection: Connection, now_ms: int) -> int:
    """Forgets what nodes told of their audit chains more than a week ago; the newest word stands in the node's own row.

    Gives how many were forgotten: none left when it is none. A chain that is changed is found out by an anchor not older than
    that, or by its own links.
    """
    gone = 0
    for kid in connection.scalars(select(nodes.c.kid)).all():
        # counts rise with time: the oldest are found by the primary key
        mine = select(anchors.c.count, anchors.c.told_ms).where(anchors.c.kid == kid).order_by(anchors.c.count).limit(BATCH)
        old = [row.count for row in connection.execute(mine) if row.told_ms < now_ms - KEPT_MS]
        if old:
            connection.execute(delete(anchors).where(anchors.c.kid == kid, anchors.c.count.in_(old)))
            gone += len(old)
    return gone
