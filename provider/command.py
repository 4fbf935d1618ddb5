"""`eva-provider`: the daemon, and the commands at its host.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 a revocation that its node has not confirmed; 78 (EX_CONFIG) settings,
keys or store that cannot be worked with.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Kind
from eva.strict_yaml import BadSettings
from eva.token import SigningKey
from provider.authority import ALIVE_MS, Refused
from provider.books import Books, Enrolled, Filed
from provider.desk import enrol
from provider.keys import (
    BadKeyFile,
    Owner,
    load_signer,
    read_private,
    read_public,
    sign_key_set,
    signing_path,
    write_private,
    write_public,
)
from provider.settings import DEFAULT_PATH, Settings, read
from provider.store import BadStore, Store

NOT_CONFIRMED = 3
LISTED = 1000


class Failure(click.ClickException):
    """What a command ends with: one line and its exit code."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"eva-provider: {self.message}", err=True, file=file)


class BadConfig(Failure):
    """Settings, keys or store that cannot be worked with."""

    exit_code = 78  # EX_CONFIG, sysexits.h


class _Commands(click.Group):
    """The one place where an error becomes a line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BadSettings, BadKeyFile, BadStore) as error:
            raise BadConfig(str(error)) from None
        except Refused as error:
            raise Failure(error.detail or str(error.refusal)) from None
        except ssl.SSLError as error:
            raise BadConfig(f"a TLS certificate or key file cannot be used: {error}") from None
        except OSError as error:
            raise Failure(str(error)) from None


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("--config", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, help="Settings file.")
@click.pass_context
def cli(context: click.Context, config: Path) -> None:
    """Emergency VM Access, the resource provider. Without a command: runs the daemon."""
    context.obj = read(config)
    if context.invoked_subcommand is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        # the commands do not wait for the daemon's libraries to load
        from provider import daemon  # noqa: PLC0415 - why: the line above

        asyncio.run(daemon.run(context.obj))


@cli.command("check-config")
@click.pass_obj
def check_config(settings: Settings) -> None:
    """Checks settings, keys and store, changing nothing."""
    with _opened(settings) as store:
        signer = load_signer(settings.keys, store)
    click.echo(f"settings, store and key set {signer.version} (signing key {signer.key.kid}) are good")


def _owner_of_state(settings: Settings) -> Owner | None:
    """Whose the daemon's files are, when root runs a command; None when it is ourselves."""
    found = settings.store.parent.stat()
    return Owner(found.st_uid, found.st_gid) if os.geteuid() == 0 and found.st_uid != 0 else None


@contextmanager
def _opened(settings: Settings, *, create: bool = False) -> Iterator[Store]:
    """The store as its owner opens it: root's own journal files would lock the daemon out. Raises BadStore."""
    owner = _owner_of_state(settings)
    if owner is not None:
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    try:
        store = Store(settings.store, create=create)
        try:
            yield store
        finally:
            store.close()
    finally:
        if owner is not None:
            os.seteuid(0)
            os.setegid(0)


@cli.group()
def keys() -> None:
    """The root key and the signing keys."""


@keys.command("init")
@click.pass_obj
def keys_init(settings: Settings) -> None:
    """Makes the root key, the first signing key and key set 1, once."""
    root, signing = SigningKey(Ed25519PrivateKey.generate()), SigningKey(Ed25519PrivateKey.generate())
    owner = _owner_of_state(settings)
    with _opened(settings, create=True) as store, store.read() as connection:
        if Books(connection).key_set() is not None:
            raise BadStore(settings.store, "holds a key set already: nothing was changed")
    if settings.keys.root.exists():
        # a first try that stopped half-way: go on with its root key, which nodes may have
        root = read_private(settings.keys.root)
    else:
        write_private(settings.keys.root, root.private)
    if not settings.keys.root_public.exists():
        write_public(settings.keys.root_public, root.private.public_key())
    token = sign_key_set(root, 1, [signing.private.public_key()])
    write_private(signing_path(settings.keys.signing, signing.kid), signing.private, owner)
    with _opened(settings) as store, store.write() as connection:
        Books(connection).file_key_set(1, token, signing.kid, _now_ms())
    click.echo(f"key set 1: signing key {signing.kid}")
    click.echo(f"bring {settings.keys.root_public} to each node, out of band")
    click.echo(f"{settings.keys.root} signs new key sets only: keep it offline if you can")


@cli.group()
def nodes() -> None:
    """The ERCS nodes that may serve consents."""


@nodes.command("add")
@click.argument("name")
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, help="The node's public key (PEM), from eva-broker keygen."
)
@click.option("--replace", is_flag=True, help="Bring a new key for an enrolled name; the old key counts for nothing at once.")
@click.pass_obj
def nodes_add(settings: Settings, name: str, key: Path, replace: bool) -> None:
    """Enrols a node with the key that was brought from it."""
    public = read_public(key)
    with _opened(settings) as store, store.write() as connection:
        enrol(Books(connection), name, public, _now_ms(), replace=replace)
    click.echo(f"{name} is enrolled")


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def nodes_list(settings: Settings, as_json: bool) -> None:
    """Who is enrolled, alive, and what their audit chains told."""
    with _opened(settings) as store, store.read() as connection:
        found, loads = Books(connection).nodes(), Books(connection).loads(_now_ms() // 1000)
    rows = [_node_row(one, loads.get(one.name, 0)) for one in found]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        state = "alive" if row["alive"] else "silent"
        asked = _utc(int(row["asked_ms"])) if row["asked_ms"] else "never"
        applied = f"revocations {row['applied']}/{row['seq']}"
        click.echo(f"{row['name']}\t{state}\tlast ask {asked}\tconsents {row['consents']}\t{applied}\taudit {row['audit']}")


def _node_row(node: Enrolled, load: int) -> dict[str, Any]:
    audit = f"{node.audit_count} records"
    if node.conflict_ms is not None:
        audit = f"CHANGED at record {node.conflict_count}, seen {_utc(node.conflict_ms)}"
    elif node.behind_ms is not None:
        audit += f", told shorter {_utc(node.behind_ms)}: cut back, or an old message came again"
    return {
        "name": node.name,
        "kid": node.kid,
        "alive": node.asked_ms > _now_ms() - ALIVE_MS,
        "asked_ms": node.asked_ms,
        "consents": load,
        "seq": node.seq,
        "applied": node.applied,
        "receipts": node.receipts,
        "audit": audit,
    }


@cli.group()
def consent() -> None:
    """Consents: granted, revoked, listed."""


@consent.command("grant")
@click.option("--resource-id", required=True)
@click.option("--kind", "kinds", type=click.Choice([str(kind) for kind in Kind]), multiple=True, required=True)
@click.option("--access", type=click.Choice([str(access) for access in Access]), default=str(Access.KEYBOARD), show_default=True)
@click.option("--operators", multiple=True, default=[str(CLOUDADMIN)], show_default=True, help="group:NAME or account:NAME.")
@click.option("--hours", type=int)
@click.option("--minutes", type=int)
@click.option("--seconds", type=int)
@click.option("--node", help="Default: the least loaded node that is alive.")
@click.option("--giver", required=True, help="Who consents.")
@click.option("--reason", default="")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def consent_grant(settings: Settings, /, **wish: Any) -> None:
    """Grants consent for a virtual machine's console, and waits for the node's word."""
    as_json = wish.pop("as_json")
    hours, minutes, seconds = wish.pop("hours"), wish.pop("minutes"), wish.pop("seconds")
    if (hours, minutes, seconds) == (None, None, None):
        wish["seconds"] = MAX_SECONDS
    else:
        wish["seconds"] = (hours or 0) * 3600 + (minutes or 0) * 60 + (seconds or 0)
    found = _ask(settings, "/grant", wish)
    if as_json:
        click.echo(json.dumps(found))
        return
    scope = f"{' and '.join(sorted(wish['kinds']))}, {wish['access']}"
    click.echo(f"consent {found['consent_id']} is accepted by {found['node']}: {scope}, for {', '.join(wish['operators'])}")
    click.echo(f"until {_utc(found['expires_at'] * 1000)}, virtual machine {found['vm_uuid']}")
    click.echo("Please provide the following output to operator\n")
    click.echo(f"ERCS Name:\t{found['node']}")
    click.echo(f"ConnectTo-TenantVm -ResourceID {found['resource_id']}")
    click.echo(f"Delete-TenantVMSession -ResourceID {found['resource_id']}")


@consent.command("revoke")
@click.option("--resource-id", help="Every consent for this virtual machine.")
@click.option("--consent-id", help="This consent only.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def consent_revoke(settings: Settings, resource_id: str | None, consent_id: str | None, as_json: bool) -> None:
    """Revokes consent, and waits for the node's word that every session is cut."""
    if (resource_id is None) == (consent_id is None):
        raise click.UsageError("give --resource-id or --consent-id")
    wish = {"resource_id": resource_id} if consent_id is None else {"consent_id": consent_id}
    cuts = _ask(settings, "/revoke", wish)["cuts"]
    if as_json:
        click.echo(json.dumps(cuts))
    else:
        for cut in cuts:
            click.echo(_cut_line(cut))
    if any(cut["confirmed_at_ms"] is None for cut in cuts):
        sys.exit(NOT_CONFIRMED)


def _cut_line(cut: dict[str, Any]) -> str:
    if cut["confirmed_at_ms"] is None:
        return f"not confirmed, at latest {_utc(cut['at_latest_ms'])} ({cut['node']})"
    line = f"cut confirmed by {cut['node']} at {_utc(cut['confirmed_at_ms'])}"
    if cut["cut_us"] is not None:
        ms = cut["cut_us"] / 1000
        line += f", {ms:.1f} ms" if ms < 10 else f", {ms:.0f} ms"
    return line + (", no session was open" if cut["sessions"] == 0 else "")


@consent.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def consent_list(settings: Settings, as_json: bool) -> None:
    """The latest consents, newest first."""
    with _opened(settings) as store, store.read() as connection:
        rows = [_consent_row(filed) for filed in Books(connection).latest(LISTED)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        until = _utc(row["expires_at"] * 1000)
        click.echo(f"{row['consent_id']}\t{row['state']}\t{row['node']}\tuntil {until}\t{row['giver']}\t{row['resource_id']}")


def _consent_row(filed: Filed) -> dict[str, Any]:
    claims = json.loads(filed.claims)
    return {
        "consent_id": filed.jti,
        "state": str(filed.state(_now_ms() // 1000)),
        "node": filed.node,
        "resource_id": claims["resource_id"],
        "vm_uuid": filed.uuid,
        "kinds": claims["kinds"],
        "access": claims["access"],
        "operators": claims["operators"],
        "giver": claims["sub"],
        "reason": claims["reason"],
        "issued_at": filed.issued_at,
        "expires_at": filed.expires_at,
    }


def _ask(settings: Settings, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The daemon's answer; ends the command where it refuses or is not there."""
    transport = httpx.HTTPTransport(uds=str(settings.admin_socket))
    patience = settings.limits.receipt_seconds + 10
    try:
        with httpx.Client(transport=transport, timeout=patience, base_url="http://provider") as client:
            answer = client.post(path, json=body)
    except httpx.ConnectError:
        raise Failure(f"no provider answers at {settings.admin_socket}: start it, or run this as its user") from None
    except httpx.HTTPError as error:
        raise Failure(f"the provider did not answer ({error}): `consent list` shows what stands") from None
    found: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise Failure(str(found.get("detail") or found.get("error")))
    return found


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
