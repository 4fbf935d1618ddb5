"""`eva-provider issuer`, `token` and `roles`: who may call the REST."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eva.token import SigningKey
from provider.commands.host import BadConfig, Failure, now_ms, opened
from provider.keys import read_private, write_private
from provider.rest.caller import is_id, principal
from provider.rest.issuer import key_set, sign
from provider.rest.roles import Assignment, Role, RoleBooks
from provider.rest.scope import CLOUD, Scope
from provider.rest.settings import Issuer, Rest
from provider.settings import Settings

MOST_MINUTES = 1440


def _rest(settings: Settings) -> Rest:
    if settings.rest is None:
        raise BadConfig("the settings have no tenant_api, admin_api and identity")
    return settings.rest


def _local(settings: Settings) -> tuple[Issuer, Path, Path]:
    """The issuer that is our own, its signing key and its key set."""
    for issuer in _rest(settings).identity.issuers:
        if issuer.signing_key is not None and issuer.jwks_file is not None:
            return issuer, issuer.signing_key, issuer.jwks_file
    raise BadConfig("no issuer in identity.issuers is our own: one with signing_key and jwks_file")


@click.group()
def issuer() -> None:
    """An issuer of our own, for demonstrations and tests."""


@issuer.command("init")
@click.pass_obj
def issuer_init(settings: Settings) -> None:
    """Makes its key and its key set, where the settings say; an existing key is not replaced."""
    found, key_path, set_path = _local(settings)
    key = SigningKey(Ed25519PrivateKey.generate())
    write_private(key_path, key.private)
    set_path.write_bytes(key_set(key))
    click.echo(f"issuer {found.name}: key {key.kid}")
    click.echo(f"{set_path} is its key set; whoever can read {key_path} can be anybody")


@click.command("token")
@click.option("--principal", "identifier", required=True, help="The object id.")
@click.option("--group", "groups", multiple=True, help="A group's id; may be given several times.")
@click.option("--name", default="", help="The name, for people to read.")
@click.option("--audience", type=click.Choice(["tenant", "admin"]), default="tenant", show_default=True)
@click.option("--minutes", type=click.IntRange(1, MOST_MINUTES), default=60, show_default=True)
@click.pass_obj
def token(settings: Settings, identifier: str, groups: tuple[str, ...], name: str, audience: str, minutes: int) -> None:
    """Signs a bearer token with our own issuer's key, and prints it."""
    if not all(is_id(one) for one in (identifier, *groups)):
        raise click.UsageError("a principal or group is 1 to 128 letters, digits and ._@+|=:/~-")
    rest = _rest(settings)
    found, key_path, _ = _local(settings)
    listener = rest.tenant if audience == "tenant" else rest.admin.listener
    key = read_private(key_path)
    click.echo(sign(key, found, listener.audiences[0], identifier, groups, name, int(time.time()), minutes * 60))


@click.group()
def roles() -> None:
    """Who may do what, where: role assignments."""


def _assignment(who: str, role: str, scope: str) -> Assignment:
    try:
        return Assignment(principal(who), Scope.parse(scope), Role.named(role))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


_WHO = click.option("--principal", "who", required=True, help="Object id, group:ID, or either with ISSUER# before the id.")
_ROLE = click.option("--role", required=True, help=f"One of: {', '.join(Role)}.")
_SCOPE = click.option("--scope", default=CLOUD.text, show_default=True, help="/, a subscription, a resource group or a VM.")


@roles.command("add")
@_WHO
@_ROLE
@_SCOPE
@click.pass_obj
def roles_add(settings: Settings, who: str, role: str, scope: str) -> None:
    """Assigns a role; it counts from the next request."""
    made = _assignment(who, role, scope)
    with opened(settings) as store, store.write() as connection:
        fresh = RoleBooks(connection).assign(made, now_ms())
    click.echo(f"{made.principal} {'is' if fresh else 'was already'} {made.role} at {made.scope.text}")


@roles.command("remove")
@_WHO
@_ROLE
@_SCOPE
@click.pass_obj
def roles_remove(settings: Settings, who: str, role: str, scope: str) -> None:
    """Takes an assignment back; it counts from the next request."""
    made = _assignment(who, role, scope)
    with opened(settings) as store, store.write() as connection:
        there = RoleBooks(connection).remove(made)
    if not there:
        raise Failure(f"{made.principal} is not {made.role} at {made.scope.text}")
    click.echo(f"{made.principal} is no longer {made.role} at {made.scope.text}")


@roles.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def roles_list(settings: Settings, as_json: bool) -> None:
    """Every assignment."""
    with opened(settings) as store, store.read() as connection:
        found = RoleBooks(connection).all()
    if as_json:
        click.echo(json.dumps([{"principal": one.principal, "role": one.role, "scope": one.scope.text} for one in found]))
        return
    for one in found:
        click.echo(f"{one.principal}\t{one.role}\t{one.scope.text}")
