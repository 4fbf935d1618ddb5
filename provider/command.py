"""`eva-provider`: the daemon, and the commands at its host.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 a revocation that its node has not confirmed; 78 (EX_CONFIG) settings,
keys or store that cannot be worked with.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from eva.token import b64
from provider.commands.call import call
from provider.commands.consents import consent
from provider.commands.features import feature
from provider.commands.host import BadConfig, Commands, now_ms, opened, utc
from provider.commands.identity import issuer, roles, token
from provider.commands.keys import keys
from provider.commands.receipts import verify_receipt_file
from provider.commands.store import store
from provider.consent.authority import ALIVE_MS
from provider.consent.desk import Desk, enrol, replace
from provider.keys import load_signer, read_public, signer_at
from provider.settings import DEFAULT_PATH, Settings, read
from provider.store.books import Books
from provider.store.filed import Enrolled
from provider.store.key_sets import KeySets


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="Settings file.")
@click.pass_context
def cli(context: click.Context, config: Path) -> None:
    """Emergency VM Access, the resource provider. Without a command: runs the daemon."""
    if context.invoked_subcommand not in ("keys", "verify-receipt"):  # which read them where they need them, or never
        context.obj = read(config)
    if context.invoked_subcommand is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        for chatty in ("uvicorn", "httpx"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        # the commands do not wait for the daemon's libraries to load
        from provider import daemon  # noqa: PLC0415 - why: the line above

        daemon.serve(context.obj)


@cli.command("check-config")
@click.pass_obj
def check_config(settings: Settings) -> None:
    """Checks settings, keys, store, TLS files and the key sets of issuers, changing nothing."""
    # no other command waits for what these files' readers load
    from provider.inspection import faults  # noqa: PLC0415 - why: the line above

    with opened(settings, whole=True) as found:
        signer = load_signer(settings.keys, found)
        amiss = list(faults(settings))  # as the files' owner
    if amiss:
        raise BadConfig("\n".join(amiss))
    click.echo(f"settings, store and key set {signer.version} (signing key {signer.key.kid}) are good")


@cli.group()
def nodes() -> None:
    """The ERCS nodes that may serve consents."""


@nodes.command("add")
@click.argument("name")
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, help="The node's public key (PEM), from eva-broker keygen."
)
@click.option(
    "--replace", "anew", is_flag=True, help="A new key for an enrolled name; the old one, and what stands there, ends at once."
)
@click.pass_obj
def nodes_add(settings: Settings, name: str, key: Path, anew: bool) -> None:
    """Enrols a node with the key that was brought from it."""
    public = read_public(key)
    ended = 0
    with opened(settings) as found, found.write() as connection:
        if anew and Books(connection).node_like(name) is not None:
            signer = signer_at(settings.keys, KeySets(connection))
            ended = replace(Desk(connection, signer, now_ms(), lambda: b64(secrets.token_bytes(16))), name, public)
        else:
            enrol(Books(connection), name, public, now_ms())
    click.echo(f"{name} is enrolled" + (f"; {ended} consents that stood there are ended" if ended else ""))


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def nodes_list(settings: Settings, as_json: bool) -> None:
    """Who is enrolled, alive, and what their audit chains told."""
    with opened(settings) as found, found.read() as connection:
        enrolled, loads = Books(connection).nodes(), Books(connection).loads(now_ms() // 1000)
    rows = [_node_row(one, loads.get(one.name, 0)) for one in enrolled]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        state = "REFUSED" if row["rolled_back"] else "alive" if row["alive"] else "silent"
        asked = utc(int(row["asked_ms"])) if row["asked_ms"] else "never"
        applied = f"revocations {row['applied']}/{row['seq']}"
        click.echo(f"{row['name']}\t{state}\tlast ask {asked}\tconsents {row['consents']}\t{applied}\taudit {row['audit']}")


def _node_row(node: Enrolled, load: int) -> dict[str, Any]:
    audit = f"{node.audit_count} records"
    if node.conflict_ms is not None:
        audit = f"ROLLED BACK: another record {node.conflict_count} than before, seen {utc(node.conflict_ms)}; refused since"
    elif node.behind_ms is not None:
        audit = f"ROLLED BACK: fewer than {audit}, seen {utc(node.behind_ms)}; refused since"
    return {
        "name": node.name,
        "kid": node.kid,
        "rolled_back": node.rolled_back,
        "alive": not node.rolled_back and node.asked_ms > now_ms() - ALIVE_MS,
        "asked_ms": node.asked_ms,
        "consents": load,
        "seq": node.seq,
        "applied": node.applied,
        "receipts": node.receipts,
        "audit": audit,
    }


@nodes.command("repair")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do it: the store was brought back from an old copy, and nothing newer exists.")
@click.pass_obj
def nodes_repair(settings: Settings, name: str, yes: bool) -> None:
    """Goes on from a node's own numbers where they are above this store's, which an old copy of the store explains.

    Until then the node gets no lease. What the store lost stays lost: consents granted since the copy stand at their nodes until
    they run out, and `consent revoke --everywhere` ends those of a virtual machine; revocations made since stay in force there.
    """
    if not yes:
        raise click.UsageError("read `nodes repair --help`, and say --yes")
    found = call(settings, "/nodes/repair", {"name": name})
    click.echo(f"{found['node']}: revocations go on after {found['seq']}, receipts after {found['receipts']}")


cli.add_command(consent)
cli.add_command(feature)
cli.add_command(issuer)
cli.add_command(keys)
cli.add_command(roles)
cli.add_command(store)
cli.add_command(token)
cli.add_command(verify_receipt_file)


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
