"""`eva-provider consent`: what the platform's own people do with consents, and what they can look up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from eva.consent import CLOUDADMIN, MAX_SECONDS, Access, Kind
from eva.resource_id import BadResourceId, ResourceId
from provider.commands.call import NOT_CONFIRMED, are_confirmed, call, tell_cuts
from provider.commands.host import Failure, now_ms, opened, utc
from provider.consent.features import FeatureBooks
from provider.consent.receipt import MAX_TOKENS, document
from provider.consent.standing import MOST, Tenure, standing
from provider.settings import Settings
from provider.store.books import Books
from provider.store.filed import Filed
from provider.store.records import Records
from provider.store.visits import Visit, Visits

LISTED = 1000
WATCHED = ", only while its giver watches"


@click.group()
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
@click.option("--only-while-watched", "watched", is_flag=True, help="Operators look and type only while the giver watches.")
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
    found = call(settings, "/grant", wish)
    if as_json:
        click.echo(json.dumps(found))
        return
    scope = f"{' and '.join(sorted(wish['kinds']))}, {wish['access']}" + (WATCHED if wish["watched"] else "")
    click.echo(f"consent {found['consent_id']} is accepted by {found['node']}: {scope}, for {', '.join(wish['operators'])}")
    click.echo(f"until {utc(found['expires_at'] * 1000)}, virtual machine {found['vm_uuid']}")
    click.echo("Please provide the following output to operator\n")
    click.echo(f"ERCS Name:\t{found['node']}")
    click.echo(f"ConnectTo-TenantVm -ResourceID {found['resource_id']}")
    click.echo(f"Delete-TenantVMSession -ResourceID {found['resource_id']}")


@consent.command("revoke")
@click.option("--resource-id", help="Every consent for this virtual machine.")
@click.option("--consent-id", help="This consent only.")
@click.option("--everywhere", is_flag=True, help="With --resource-id: at every node, also what this store does not know of.")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def consent_revoke(settings: Settings, resource_id: str | None, consent_id: str | None, everywhere: bool, as_json: bool) -> None:
    """Revokes consent, and waits for the node's word that every session is cut."""
    if (resource_id is None) == (consent_id is None) or (everywhere and resource_id is None):
        raise click.UsageError("give --resource-id or --consent-id")
    wish = {"resource_id": resource_id, "everywhere": everywhere} if consent_id is None else {"consent_id": consent_id}
    cuts = call(settings, "/revoke", wish)["cuts"]
    if as_json:
        click.echo(json.dumps(cuts))
    else:
        tell_cuts(cuts)
    if not are_confirmed(cuts):
        sys.exit(NOT_CONFIRMED)


@consent.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def consent_list(settings: Settings, as_json: bool) -> None:
    """The latest consents, newest first; one that was renewed or moved has a line for each of its tokens."""
    with opened(settings) as found, found.read() as connection:
        rows = [_consent_row(filed) for filed in Books(connection).latest(LISTED)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        until = utc(row["expires_at"] * 1000)
        click.echo(f"{row['consent_id']}\t{row['state']}\t{row['node']}\tuntil {until}\t{row['giver']}\t{row['resource_id']}")


def _consent_row(filed: Filed) -> dict[str, Any]:
    claims = json.loads(filed.claims)
    return {
        "consent_id": filed.cid,
        "token_id": filed.jti,
        "state": str(filed.state(now_ms() // 1000)),
        "node": filed.node,
        "resource_id": claims["resource_id"],
        "vm_uuid": filed.uuid,
        "kinds": claims["kinds"],
        "access": claims["access"],
        "operators": claims["operators"],
        "only_while_watched": claims["watched"],
        "giver": claims["sub"],
        "reason": claims["reason"],
        "issued_at": filed.issued_at,
        "expires_at": filed.expires_at,
    }


def _resource_id(_: click.Context, __: click.Parameter, text: str) -> ResourceId:
    try:
        return ResourceId.parse(text)
    except BadResourceId as error:
        raise Failure(str(error)) from None


@consent.command("show")
@click.option("--resource-id", callback=_resource_id, required=True)
@click.option("--most", type=click.IntRange(1, 100), default=MOST, show_default=True, help="Consents to show.")
@click.pass_obj
def consent_show(settings: Settings, resource_id: ResourceId, most: int) -> None:
    """A virtual machine's consents: who has them, who is or was connected, how they ended."""
    with opened(settings) as found, found.read() as connection:
        shown = standing(Records(connection), Visits(connection), FeatureBooks(connection), resource_id, now_ms() // 1000, most)
    if not shown.enabled:
        click.echo(f"The Emergency VM Access feature is not enabled for subscription {resource_id.subscription}")
    for tenure in filter(None, (shown.current, *shown.earlier)):
        _show(tenure)
    if shown.current is None:
        click.echo("no consent is in force")


def _show(tenure: Tenure) -> None:
    where = f"at {tenure.node}" if tenure.node is not None else "between two nodes"
    click.echo(f"{tenure.consent_id}\t{tenure.state}\t{where}\tuntil {utc(tenure.expires_at * 1000)}\tby {tenure.giver}")
    kinds, operators = " and ".join(sorted(tenure.kinds)), ", ".join(tenure.operators)
    watched = WATCHED if tenure.watched else ""
    click.echo(f"  {kinds}, {tenure.access}, for {operators}{watched}" + (f"; {tenure.reason}" if tenure.reason else ""))
    if len(tenure.stays) > 1:
        for stay in tenure.stays:
            click.echo(f"  {stay.node}\t{stay.state}\tsince {utc(stay.issued_at * 1000)}" + (f"\t{stay.why}" if stay.why else ""))
    for visit in tenure.visits:
        click.echo(f"  {_visit(tenure, visit)}")
    for cut in tenure.cuts:
        word = f"confirmed {utc(cut.confirmed_ms)}" if cut.confirmed_ms is not None else "not confirmed"
        click.echo(f"  revoked at {cut.node} {utc(cut.made_ms)}, {word}")


def _visit(tenure: Tenure, visit: Visit) -> str:
    if visit.ended_ms is not None:
        until = f"until {utc(visit.ended_ms)}, {visit.ending}"
    else:
        until = "connected" if visit in tenure.connected() else "its end is not recorded"
    return f"{visit.account} from {visit.address}, {visit.kind}, {visit.access}, since {utc(visit.began_ms)}, {until}"


@consent.command("receipt")
@click.option("--resource-id", callback=_resource_id, required=True)
@click.option("--consent-id", help="Default: the newest.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.pass_obj
def consent_receipt(settings: Settings, resource_id: ResourceId, consent_id: str | None, output: Path) -> None:
    """Writes the nodes' signed word about a consent, for `verify-receipt`."""
    with opened(settings) as found, found.read() as connection:
        raw = document(Records(connection), resource_id, consent_id, now_ms(), most=MAX_TOKENS)
    output.write_bytes(raw)
    click.echo(f"{output}: {len(raw)} bytes")
