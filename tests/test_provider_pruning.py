"""provider/store/pruning.py: what is forgotten, and what is not."""

from __future__ import annotations

from sqlalchemy import Connection, select

from provider.store.pruning import BATCH, KEPT_MS, prune_anchors
from provider.store.schema import anchors
from tests.provider_office import NOW, Office


def counts(connection: Connection) -> list[int]:
    return list(connection.scalars(select(anchors.c.count).order_by(anchors.c.count)))


def pruned(office: Office, after_ms: int) -> list[int]:
    with office.store.write() as connection:
        while prune_anchors(connection, office.now * 1000 + after_ms):
            pass
        return counts(connection)


def told(office: Office, count: int) -> None:
    office.ask(office.pen.request(audit_count=count, audit_head=f"head-{count}"))


def test_anchors_older_than_a_week_are_forgotten(office: Office):
    for count in range(1, 4):
        told(office, count)
        office.now += 1
    assert pruned(office, KEPT_MS - 2000) == [2, 3]


def test_a_batch_at_a_time(office: Office):
    with office.store.write() as connection:
        rows = [{"kid": office.pen.key.kid, "count": n, "head": "h", "told_ms": NOW} for n in range(BATCH + 10)]
        connection.execute(anchors.insert(), rows)
        assert [prune_anchors(connection, NOW * 1000) for _ in range(3)] == [BATCH, 10, 0]


def test_what_was_told_last_is_known_all_the_same(office: Office):
    told(office, 7)
    assert pruned(office, 2 * KEPT_MS) == []
    node = office.do(lambda desk: desk.books.node(office.pen.name))
    assert node is not None
    assert (node.audit_count, node.audit_head) == (7, "head-7")
