"""The schema's way from revision to revision (Alembic), in one transaction of the caller's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from provider.store.schema import HEAD

SCRIPTS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision that an upgrade applies. `what`: the first line of its docstring."""

    revision: str
    what: str


def revision_of(connection: Connection) -> str | None:
    """The schema's revision, None where there is no table at all; empty where there are tables of something else."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        return "" if tables else None
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def steps_from(revision: str) -> list[Step]:
    """What an upgrade from this revision applies, in order."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - why: the daemon and most commands never load Alembic

    above = ScriptDirectory(str(SCRIPTS)).iterate_revisions(HEAD, revision)
    return [Step(script.revision, (script.doc or "").strip()) for script in reversed(list(above))]


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Brings the schema to this revision within the caller's transaction, which is undone by any exception."""
    from alembic import command  # noqa: PLC0415 - why: see above
    from alembic.config import Config  # noqa: PLC0415

    if connection.dialect.name == "postgresql":
        # a migration takes its time
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
