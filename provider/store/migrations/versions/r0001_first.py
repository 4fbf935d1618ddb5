"""The tables of the first release: nodes, consents, revocations, receipts, anchors, key sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _nodes()
    _consents()
    _revocations()
    _what_nodes_said()
    op.create_table(
        "key_sets",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("signing_kid", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
    )


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("folded", sa.Text, nullable=False, unique=True),
        sa.Column("kid", sa.Text, nullable=False, unique=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("enrolled_ms", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("receipts", sa.BigInteger, nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("audit_count", sa.BigInteger, nullable=False),
        sa.Column("audit_head", sa.Text, nullable=False),
        sa.Column("behind_ms", sa.BigInteger),
        sa.Column("conflict_ms", sa.BigInteger),
        sa.Column("conflict_count", sa.BigInteger),
    )


def _consents() -> None:
    op.create_table(
        "consents",
        sa.Column("jti", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, sa.ForeignKey("nodes.name"), nullable=False),
        sa.Column("resource_key", KEY, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("offered_until_ms", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("answered_ms", sa.BigInteger),
        sa.Column("uuid", sa.Text),
        sa.Column("why", sa.Text),
        sa.Column("granted_ms", sa.BigInteger),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("ended_reason", sa.Text),
    )
    op.create_index("consents_by_vm", "consents", ["resource_key", "expires_at"])
    op.create_index("consents_by_node", "consents", ["node", "expires_at"])
    waiting = sa.text("granted_ms IS NULL AND revoked_ms IS NULL")
    op.create_index("consents_offered", "consents", ["offered_until_ms"], sqlite_where=waiting, postgresql_where=waiting)


def _revocations() -> None:
    op.create_table(
        "revocations",
        sa.Column("node", sa.Text, sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("jti", sa.Text, nullable=False, unique=True),
        sa.Column("consent", sa.Text, index=True),
        sa.Column("resource_key", KEY, index=True),
        sa.Column("issued_by", sa.BigInteger),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("confirmed_ms", sa.BigInteger),
        sa.Column("cut_us", sa.BigInteger),
        sa.Column("sessions", sa.BigInteger),
    )
    op.create_table(
        "watermarks",
        sa.Column("resource_key", KEY, primary_key=True),
        sa.Column("issued_by", sa.BigInteger, nullable=False),
    )


def _what_nodes_said() -> None:
    op.create_table(
        "receipts",
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False, index=True),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
    )
    op.create_table(
        "anchors",
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("head", sa.Text, nullable=False),
        sa.Column("told_ms", sa.BigInteger, nullable=False),
    )
