"""Delete-TenantVMSession: the operator ends the tenant's consent, and with it every session under it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from cmdlets.command import CONTEXT, EXIT_HELP, Exit, node_options, resource_id_option, run
from cmdlets.node import Node, Unintelligible, sign_in
from eva.control import Method
from eva.members import BadMember
from eva.resource_id import ResourceId


@click.command("Delete-TenantVMSession", context_settings=CONTEXT, epilog=EXIT_HELP)
@resource_id_option
@node_options
def main(resource_id: ResourceId, **given: Any) -> None:
    """End the tenant's consent for a virtual machine: every console under it is cut, and none opens again.

    Only a new consent of the tenant opens it again.
    """

    async def delete(node: Node) -> int:
        async with sign_in(node) as (control, signed_in):
            result = await control.ask(Method.SESSION_DELETE, resource_id=str(resource_id))
            try:
                consents, sessions = result.integer("consents"), result.integer("sessions")
                cut_us, at_ms = result.integer("cut_us"), result.integer("at_ms")
            except BadMember as bad:
                raise Unintelligible(node.url, bad.why) from None
        at = datetime.fromtimestamp(at_ms / 1000).astimezone()
        print(f"{resource_id.vm} at {signed_in.node}: {_count(consents, 'consent')} ended, {_count(sessions, 'session')} cut")
        print(f"cut at {at:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03} {at:%Z}, {cut_us / 1000:.1f} ms after the request")
        return Exit.DONE

    run(delete, **given)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
