"""`eva-provider feature`: which subscriptions may use Emergency VM Access."""

from __future__ import annotations

import getpass
import json
import sys

import click

from eva.resource_id import is_guid
from provider.commands.call import NOT_CONFIRMED, are_confirmed, call, tell_cuts
from provider.commands.host import now_ms, opened, utc
from provider.consent.features import FeatureBooks, GlobalState
from provider.settings import Settings


def _guid(_: click.Context, __: click.Parameter, text: str) -> str:
    if not is_guid(text):
        raise click.BadParameter("it is no GUID")
    return text


@click.group()
def feature() -> None:
    """Which subscriptions may use Emergency VM Access."""


@feature.command("show")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def feature_show(settings: Settings, as_json: bool) -> None:
    """The global state, and the subscriptions on the list."""
    with opened(settings) as found, found.read() as connection:
        shown = FeatureBooks(connection).feature()
    if as_json:
        rows = [{"subscription": one.subscription, "by": one.enabled_by, "at_ms": one.enabled_ms} for one in shown.subscriptions]
        click.echo(json.dumps({"name": shown.name, "state": shown.state, "subscriptions": rows}))
        return
    click.echo(f"{shown.name}\t{shown.state}")
    for one in shown.subscriptions:
        click.echo(f"{one.subscription}\tsince {utc(one.enabled_ms)}\tby {one.enabled_by}")


@feature.command("enable-subscription")
@click.argument("guid", callback=_guid)
@click.pass_obj
def feature_enable(settings: Settings, guid: str) -> None:
    """Puts a subscription on the list; counts while the global state is TenantSubscriptionLevel."""
    with opened(settings) as found, found.write() as connection:
        FeatureBooks(connection).enable(guid, f"host:{getpass.getuser()}", now_ms())
        allowed = FeatureBooks(connection).allows(guid)
    click.echo(f"{guid} is listed" + ("" if allowed else ", but the feature is disabled for everybody"))


@feature.command("disable-subscription")
@click.argument("guid", callback=_guid)
@click.pass_obj
def feature_disable(settings: Settings, guid: str) -> None:
    """Takes a subscription off the list and ends its consents, unless the feature is enabled for everybody."""
    _tell(call(settings, "/feature/disable-subscription", {"subscription": guid})["cuts"])


@feature.command("set-state")
@click.argument("state", type=click.Choice([str(state) for state in GlobalState]))
@click.pass_obj
def feature_set_state(settings: Settings, state: str) -> None:
    """Sets the global state, which overrides the list, and ends the consents that it no longer allows."""
    _tell(call(settings, "/feature/set-state", {"state": state})["cuts"])


def _tell(cuts: list[dict[str, str | int | None]]) -> None:
    click.echo("done; consents ended: none" if not cuts else "done; consents ended:")
    tell_cuts(cuts)
    if not are_confirmed(cuts):
        sys.exit(NOT_CONFIRMED)
