"""Run by Alembic: migrates over the connection, and in the transaction, that provider.store.migration hands it."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
