"""Consents keep an id over renewals and moves; loads, features and role assignments; the newest word of each node."""

from __future__ import annotations

import base64
import json
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
QUARTER = 900
PORTION = 1000


def upgrade() -> None:
    for name in ("cid", "kid"):
        op.add_column("consents", sa.Column(name, sa.Text))
    for name in ("replaced_ms", "moved_ms"):
        op.add_column("consents", sa.Column(name, sa.BigInteger))
    op.create_table(
        "loads",
        sa.Column("node", sa.Text, sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("until", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("consents", sa.BigInteger, nullable=False),
    )
    _fill()
    _tighten()
    op.create_index("consents_by_cid", "consents", ["cid"])
    op.create_index("consents_by_key", "consents", ["kid", "expires_at"])
    homeless = sa.text("moved_ms IS NOT NULL AND replaced_ms IS NULL AND ended_ms IS NULL")
    op.create_index("consents_homeless", "consents", ["moved_ms"], sqlite_where=homeless, postgresql_where=homeless)
    _features_and_roles()
    op.add_column("nodes", sa.Column("asked_at", sa.BigInteger))
    # an old message that came again could set it, and from now on it refuses the node
    op.execute("UPDATE nodes SET behind_ms = NULL")


def _fill() -> None:
    """The first release had one token for each consent; which key signed it, its header says."""
    bind = op.get_bind()
    names = ["jti", "token", "node", "expires_at", "revoked_ms", "ended_ms", "cid", "kid"]
    consents = sa.table("consents", *map(sa.column, names))
    served: Counter[tuple[str, int]] = Counter()
    last = ""
    while rows := bind.execute(sa.select(consents).where(consents.c.jti > last).order_by(consents.c.jti).limit(PORTION)).all():
        for row in rows:
            bind.execute(sa.update(consents).where(consents.c.jti == row.jti).values(cid=row.jti, kid=_kid(row.token)))
            if row.revoked_ms is None and row.ended_ms is None:
                served[row.node, -(-row.expires_at // QUARTER) * QUARTER] += 1
        last = rows[-1].jti
    loads = sa.table("loads", *map(sa.column, ("node", "until", "consents")))
    for (node, until), count in served.items():
        bind.execute(sa.insert(loads).values(node=node, until=until, consents=count))


def _kid(token: str) -> str:
    head = token.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def _tighten() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("cid", "kid"):
            op.alter_column("consents", name, nullable=False)
        return
    # SQLite has no such change: the table is written anew
    op.drop_index("consents_offered", "consents")
    with op.batch_alter_table("consents", recreate="always") as batch:
        for name in ("cid", "kid"):
            batch.alter_column(name, existing_type=sa.Text, nullable=False)
    waiting = sa.text("granted_ms IS NULL AND revoked_ms IS NULL")
    op.create_index("consents_offered", "consents", ["offered_until_ms"], sqlite_where=waiting)


def _features_and_roles() -> None:
    op.create_table("features", sa.Column("name", sa.Text, primary_key=True), sa.Column("state", sa.Text, nullable=False))
    op.create_table(
        "feature_subscriptions",
        sa.Column("feature", sa.Text, primary_key=True),
        sa.Column("subscription", sa.Text, primary_key=True),
        sa.Column("spelled", sa.Text, nullable=False),
        sa.Column("enabled_ms", sa.BigInteger, nullable=False),
        sa.Column("enabled_by", sa.Text, nullable=False),
    )
    op.create_table(
        "role_assignments",
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("scope_key", KEY, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
    )
