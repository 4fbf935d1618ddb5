"""Grant- and Revoke-RdpAccessToErcsVM: this workstation's address on the node's safelist."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from cmdlets.command import CONTEXT, EXIT_HELP, Exit, node_options, run
from cmdlets.node import Node, Unintelligible, sign_in
from eva.control import Method
from eva.members import BadMember


@click.command("Grant-RdpAccessToErcsVM", context_settings=CONTEXT, epilog=EXIT_HELP)
@node_options
def grant(**given: Any) -> None:
    """Put the address of this workstation, as the node sees it, on the node's safelist, for your account and 8 hours."""

    async def ask(node: Node) -> int:
        async with sign_in(node) as (control, signed_in):
            result = await control.ask(Method.WORKSTATION_GRANT)
            try:
                address, until_s = result.text("address", 64), result.integer("until")
            except BadMember as bad:
                raise Unintelligible(node.url, bad.why) from None
        until = datetime.fromtimestamp(until_s).astimezone()
        print(f"{address} may connect to {signed_in.node} as {signed_in.account} until {until:%Y-%m-%d %H:%M %Z}")
        return Exit.DONE

    run(ask, **given)


@click.command("Revoke-RdpAccessToErcsVM", context_settings=CONTEXT, epilog=EXIT_HELP)
@node_options
def revoke(**given: Any) -> None:
    """Take the address of this workstation off the node's safelist. Your sessions from here are cut."""

    async def ask(node: Node) -> int:
        async with sign_in(node) as (control, signed_in):
            result = await control.ask(Method.WORKSTATION_REVOKE)
            try:
                address, cut = result.text("address", 64), result.integer("cut")
            except BadMember as bad:
                raise Unintelligible(node.url, bad.why) from None
        sessions = "1 session" if cut == 1 else f"{cut} sessions"
        print(f"{address} may no longer connect to {signed_in.node} as {signed_in.account}; {sessions} cut")
        return Exit.DONE

    run(ask, **given)
