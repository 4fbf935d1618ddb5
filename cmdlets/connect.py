"""ConnectTo-TenantVm: the console of a tenant's virtual machine, by the tenant's consent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cmdlets.command import CONTEXT, EXIT_HELP, Exit, node_options, resource_id_option, run
from cmdlets.graphics import GraphicsSession, LoopbackPort
from cmdlets.node import Node, sign_in
from cmdlets.serial import SerialSession
from cmdlets.standing import Ended
from cmdlets.terminal import PROGRAM, STDIN, STDOUT, raw_terminal, say, script_pipes
from cmdlets.ticket import TicketSession
from eva.consent import Access, Kind
from eva.ending import Ending
from eva.resource_id import ResourceId


def _parse_listen(_: click.Context, __: click.Parameter, text: str | None) -> LoopbackPort | None:
    try:
        return LoopbackPort.parse(text) if text is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def tell(line: str) -> None:
    """A line of ours, beside what a script reads."""
    say(f"{PROGRAM}: {line}")


@click.command("ConnectTo-TenantVm", context_settings=CONTEXT, epilog=EXIT_HELP)
@resource_id_option
@click.option("--graphics", "-Graphics", is_flag=True, help="The screen instead of the serial console, for a VNC viewer.")
@click.option("--view", "-View", is_flag=True, help="Look only: do not ask for the keyboard.")
@click.option(
    "--ticket",
    "-Ticket",
    is_flag=True,
    help="For a websocket client of your own: open, print URL and subprotocols as JSON, and stay to tell how it ends.",
)
@click.option(
    "--listen",
    "-Listen",
    callback=_parse_listen,
    metavar="ADDRESS:PORT",
    help="With --graphics: where the viewer connects. Else a free port.",
)
@click.option("--socket", "-Socket", type=click.Path(path_type=Path), help="With --graphics: a UNIX socket (mode 0600) instead.")
@click.option(
    "--linger",
    "-Linger",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="For scripts: after the end of input, leave once the VM has answered and been silent for so long; 0 waits for nothing.",
)
@node_options
def main(
    resource_id: ResourceId,
    graphics: bool,
    view: bool,
    ticket: bool,
    listen: LoopbackPort | None,
    socket: Path | None,
    linger: float,
    **given: Any,
) -> None:
    """Open a console of the tenant's virtual machine, while the tenant's consent lasts.

    At a terminal: ~? at the start of a line shows the keys, ~. leaves. A dropped connection is made again for up to a
    minute, and no byte is lost or doubled.

    Without a terminal on standard input and output: input goes to the console and the console's output to standard
    output, byte for byte; everything else goes to standard error.
    """
    if (listen or socket) and not graphics:
        raise click.UsageError("--listen and --socket go with --graphics.")
    if listen and socket:
        raise click.UsageError("Give --listen or --socket, not both.")
    if ticket and (listen or socket):
        raise click.UsageError("--listen and --socket are for a VNC viewer, --ticket for a websocket client.")
    access = Access.VIEW if view else None

    async def serial(node: Node) -> int:
        if os.isatty(STDIN) and os.isatty(STDOUT):
            with raw_terminal() as terminal:
                session = SerialSession(lambda: sign_in(node), terminal, resource_id, access, linger)
                ended = await session.run()
                await terminal.last_words()
        else:
            with script_pipes() as pipes:
                ended = await SerialSession(lambda: sign_in(node), pipes, resource_id, access, linger).run()
                await pipes.last_words()
        return _end(ended)

    async def elsewhere(node: Node) -> int:
        async with sign_in(node) as (control, _):
            session = TicketSession(control, tell, lambda line: print(line, flush=True))
            return _end(await session.run(resource_id, Kind.GRAPHICS if graphics else Kind.SERIAL, access))

    async def screen(node: Node) -> int:
        place: LoopbackPort | Path = socket or listen or LoopbackPort()
        async with sign_in(node) as (control, _):
            return _end(
                await GraphicsSession(control, place, tell, lambda line: print(line, flush=True)).run(resource_id, access)
            )

    run(elsewhere if ticket else screen if graphics else serial, **given)


def _end(ended: Ended) -> int:
    tell(ended.text)
    return Exit.DONE if ended.ending is Ending.OPERATOR_LEFT else Exit.CUT
