"""Who was connected and who paused, as rows; a virtual machine's newest consents by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What was recorded before stays in the receipts, and is shown by them alone."""
    op.create_table(
        "visits",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("cid", "node", "session")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("account", "address", "kind", "access")),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("ending", sa.Text),
    )
    op.create_table(
        "pauses",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("cid", "node")),
        sa.Column("paused", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("visits_by_time", "visits", ["cid", "began_ms"])
    op.create_index("consents_by_age", "consents", ["resource_key", "issued_at"])
