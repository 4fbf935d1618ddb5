"""What the four commands share: options, who signs in, signals, and the one place where an error becomes a line and a status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from cmdlets.graphics import CannotListen
from cmdlets.node import Credentials, Lost, Node, Unintelligible, Unreachable, Untrusted
from cmdlets.serial import Gone, KeyboardLost, Undelivered
from cmdlets.settings import BadSetting, ClientCertificate, Layer, Settings, read_password, read_settings, tls_context
from cmdlets.terminal import NoTerminal, Vacant, ask_account, ask_password, say
from eva.control import MAX_SECRET, Refusal, Refused
from eva.resource_id import BadResourceId, ResourceId
from eva.strict_yaml import BadSettings

F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """A command's status. A signal's is 128 and its number, as a shell has it."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NO_CONNECTION = 3
    CUT = 4
    FAULT = 70  # EX_SOFTWARE of sysexits(3)


EXIT_HELP = """\b
Exit status:
  0    done; you left the console, or the script's input was delivered
  1    the node refuses; the reason is told
  2    usage or settings
  3    no connection to the node, or it was lost for good
  4    the session was ended by somebody or something else; the reason is told
  70   a fault in this program
  128+ ended by that signal"""

CONTEXT: dict[str, Any] = {  # PowerShell takes option names in any case
    "token_normalize_func": str.lower,
    "help_option_names": ["--help", "-Help", "-?"],
}


def _parse_resource_id(_: click.Context, __: click.Parameter, text: str) -> ResourceId:
    try:
        return ResourceId.parse(text.strip())
    except BadResourceId as error:
        raise click.BadParameter(str(error)) from None


resource_id_option = click.option(
    "-ResourceID",
    "--resource-id",
    "--ResourceID",
    "resource_id",
    callback=_parse_resource_id,
    metavar="ID",
    required=True,
    help="The virtual machine, as in the tenant's line: /subscriptions/…/virtualMachines/NAME.",
)


def node_options(command: F) -> F:
    """The options that say which node, and who asks."""
    path = click.Path(path_type=Path)
    options = (
        click.option(
            "--ercs", "-Ercs", metavar="NAME", help="Node: a name or wss://host:port. Else EVA_ERCS, client.yaml, here."
        ),
        click.option("--account", "-Account", help="Who signs in. Else EVA_ACCOUNT, client.yaml, or you are asked."),
        click.option("--password-file", "-PasswordFile", type=path, help="Its first line is the password. Else you are asked."),
        click.option("--certificate", "-Certificate", type=path, help="Sign in with this client certificate (PEM)."),
        click.option("--key", "-Key", type=path, help="Its key (PEM), if it is in another file."),
        click.option("--ca", "-Ca", type=path, help="The authority that signs the node's certificate (PEM), if it is your own."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def flags(**given: Any) -> Layer:
    """The layer of settings that `node_options` make. Raises BadSetting."""
    certificate, key, account = given["certificate"], given["key"], given["account"]
    if key is not None and certificate is None:
        raise BadSetting("--key", "has no --certificate beside it")
    if certificate is not None and account is not None:
        raise BadSetting("--account", "stands beside --certificate, which names the account itself: give one")
    return Layer(
        "--ercs",
        ercs=given["ercs"],
        ca=given["ca"],
        account=account,
        certificate=ClientCertificate(certificate, key) if certificate else None,
        password_file=given["password_file"],
    )


def find_node(settings: Settings) -> Node:
    """The node, and the credentials for it: read, or asked for at the terminal. Raises BadSetting and NoTerminal."""
    tls = tls_context(settings)
    if settings.certificate is not None:
        return Node(settings.node.name, settings.node.url, tls, Credentials())
    account = settings.account or ask_account(f"Account at {settings.node.name}: ")
    if not account:
        raise BadSetting("account", "none was given")
    if settings.password_file is not None:
        password = read_password(settings.password_file)
    else:
        password = ask_password(f"Password of {account} at {settings.node.name}: ")
    if not 0 < len(password) <= MAX_SECRET:
        raise BadSetting("password", f"it needs 1 to {MAX_SECRET} characters")
    return Node(settings.node.name, settings.node.url, tls, Credentials(account, password))


def run(work: Callable[[Node], Coroutine[Any, Any, int]], **given: Any) -> None:
    """Does a command's work and exits with its status; says in one line what went wrong."""
    name = click.get_current_context().info_name
    try:
        status = asyncio.run(_until_signal(work(find_node(read_settings(flags(**given), os.environ)))))
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - the program's edge: what has no line of its own is told with its place
        told = explain(error, _again())
        if told is None:
            traceback.print_exc()
            status = Exit.FAULT
        else:
            line, status = told
            if line:
                say(f"{name}: {line}")
    sys.exit(status)


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    """The work's status; a signal cancels it, so that terminal and session are left in order."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(work)
    came: list[int] = []

    def leave(number: int) -> None:
        came.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        loop.add_signal_handler(number, leave, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not came:
            raise
        return 128 + came[0]


def _again() -> str:
    """The command as it was given, as far as it names the VM."""
    context = click.get_current_context()
    return f"{context.info_name} -ResourceID {context.params.get('resource_id')}"


def _refusal(error: Refused, again: str) -> str:
    if error.node is not None:
        return f"The consent for this virtual machine is at {error.node}: {again} --ercs {error.node}"
    return f"{error.text} {_ADVICE.get(error.refusal, '')}".rstrip()


def explain(error: Exception, again: str = "") -> tuple[str, int] | None:
    """What a person is told of an error, and the status; None for what nobody foresaw. `again`: how to try at another node."""
    found: tuple[str, int] | None = None
    match error:
        case Refused():
            found = _refusal(error, again), Exit.REFUSED
        case Untrusted():
            text = f"the certificate of {error.url} does not verify: {error.why}."
            found = f"{text} If its authority is your own, name it with --ca FILE.", Exit.NO_CONNECTION
        case Unreachable():
            text = f"no connection to {error.url}: {error.why}."
            found = f"{text} Is it the node that the tenant named? --ercs says which.", Exit.NO_CONNECTION
        case Lost():
            found = f"the connection to {error.url} is lost: {error.why}. Connect again.", Exit.NO_CONNECTION
        case Unintelligible():
            text = f"{error.url} speaks another language than this program ({error.why})."
            found = f"{text} Are both of one release?", Exit.NO_CONNECTION
        case Gone():
            found = f"{error.why}. Connect again.", Exit.NO_CONNECTION
        case KeyboardLost():
            found = "a script needs the keyboard, and it is not this session's. --view only looks.", Exit.CUT
        case Undelivered():
            found = f"the VM did not take the last {error.count} bytes of the input.", Exit.CUT
        case BadSetting() | BadSettings() | CannotListen():
            found = f"{error}.", Exit.USAGE
        case NoTerminal():
            found = "there is no terminal to ask on: give --account and --password-file, or --certificate.", Exit.USAGE
        case Vacant():
            found = "", Exit.DONE
    return found


_ADVICE = {
    Refusal.NO_CONSENT: "Compare the resource ID and the node with the tenant's lines.",
    Refusal.CONSOLE_BUSY: "Try again when it is free.",
    Refusal.VM_NOT_RUNNING: "It must be started first.",
    Refusal.NOT_WATCHED: "Ask the tenant to open the watch page, and try again.",
    Refusal.LEASE_STALE: "Try again in a minute.",
    Refusal.TOO_MANY: "Try again later.",
    Refusal.STOPPING: "Try again in a minute.",
}
