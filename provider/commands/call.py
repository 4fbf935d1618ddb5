"""How a command asks the daemon on its host, and how it tells what the daemon answered."""

from __future__ import annotations

from typing import Any

import click
import httpx

from provider.commands.host import Failure, utc
from provider.settings import Settings

NOT_CONFIRMED = 3  # the exit code where a revocation has no node's word yet


def call(settings: Settings, path: str, body: dict[str, Any]) -> dict[str, Any]:
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


def tell_cuts(cuts: list[dict[str, Any]]) -> None:
    """A line for each."""
    for cut in cuts:
        click.echo(_cut_line(cut))


def are_confirmed(cuts: list[dict[str, Any]]) -> bool:
    return all(cut["confirmed_at_ms"] is not None for cut in cuts)


def _cut_line(cut: dict[str, Any]) -> str:
    if cut["confirmed_at_ms"] is None:
        return f"not confirmed, at latest {utc(cut['at_latest_ms'])} ({cut['node']})"
    line = f"cut confirmed by {cut['node']} at {utc(cut['confirmed_at_ms'])}"
    if cut["cut_us"] is not None:
        ms = cut["cut_us"] / 1000
        line += f", {ms:.1f} ms" if ms < 10 else f", {ms:.0f} ms"
    return line + (", no session was open" if cut["sessions"] == 0 else "")
