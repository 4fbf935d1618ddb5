"""`eva-provider store`: the schema's upgrade, and a look at the whole."""

from __future__ import annotations

from collections import Counter

import click
from sqlalchemy import Connection, func, select

from provider.commands.host import Failure, now_ms, opened
from provider.keys import load_signer
from provider.settings import Settings
from provider.statements import SERVED_STILL
from provider.store.books import QUARTER
from provider.store.migration import revision_of, steps_from, upgrade
from provider.store.schema import HEAD, consents, loads, metadata


@click.group()
def store() -> None:
    """The store: its schema and its health."""


@store.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.pass_obj
def store_upgrade(settings: Settings, dry_run: bool) -> None:
    """Brings an older schema to this program's, in one transaction. Stop every provider first, and keep a copy."""
    with opened(settings, whole=True, old=True) as found, found.write() as connection:
        revision = revision_of(connection) or ""
        steps = steps_from(revision)
        for step in steps:
            click.echo(f"{revision} -> {step.revision}: {step.what}")
            revision = step.revision
        if steps and not dry_run:
            upgrade(connection)
    click.echo(f"nothing was changed ({len(steps)} to do)" if dry_run or not steps else f"{settings.store} is of version {HEAD}")


@store.command("check")
@click.pass_obj
def store_check(settings: Settings) -> None:
    """Looks at all of it, changing nothing: the database's own check, the newest key set, and whether loads are counted right."""
    with opened(settings, whole=True) as found:
        signer = load_signer(settings.keys, found)
        with found.read() as connection:
            sizes = {name: connection.scalar(select(func.count()).select_from(table)) for name, table in metadata.tables.items()}
            wrong = _miscounted(connection, now_ms() // 1000)
    click.echo(f"{settings.store}: version {HEAD}, key set {signer.version}")
    click.echo(", ".join(f"{name} {size}" for name, size in sorted(sizes.items())))
    if wrong:
        raise Failure(f"the load of {', '.join(wrong)} is miscounted: new consents may go to a node that has more than another")


def _miscounted(connection: Connection, now: int) -> list[str]:
    """The nodes whose row in `loads` is not what their consents add up to."""
    standing = select(consents.c.node, consents.c.expires_at, func.count()).where(consents.c.expires_at > now, SERVED_STILL)
    added: Counter[tuple[str, int]] = Counter()
    for node, expires_at, count in connection.execute(standing.group_by(consents.c.node, consents.c.expires_at)):
        added[node, -(-expires_at // QUARTER) * QUARTER] += count
    # this quarter's row still counts what ran out in it
    later = -(-now // QUARTER) * QUARTER
    counted = {(row.node, row.until): row.consents for row in connection.execute(select(loads).where(loads.c.until > later))}
    keys = {key for key in added.keys() | counted.keys() if key[1] > later}
    return sorted({node for node, until in keys if added[node, until] != counted.get((node, until), 0)})
