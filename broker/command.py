"""`eva-broker`: the daemon, and what is asked of its files."""

from __future__ import annotations

import asyncio
import datetime
import logging
import signal
import ssl
import sys
import time
from pathlib import Path

import click
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker import settings
from broker.accounts import BadPassword, hash_password
from broker.audit_log import AuditLog, BadAudit, Scan
from broker.certificates import client_context
from broker.disk import Unfinished
from broker.listener import server_tls
from broker.node import CannotStart, Node, read_accounts, read_private_key, read_root_key
from broker.settings import Settings
from broker.sign_in_pages import relying_party
from broker.state import BadState, State
from broker.uplink import client_tls
from eva.audit import Event
from eva.consent import Access, Consent
from eva.ending import Ending
from eva.members import BadMember, Members, strict_json
from eva.strict_yaml import BadSettings
from eva.token import unb64

_START_FAULTS = (BadSettings, BadState, BadAudit, CannotStart, OSError, ssl.SSLError)


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=settings.DEFAULT_PATH,
    show_default=True,
    help="The node's settings.",
)
@click.pass_context
def main(context: click.Context, config: Path) -> None:
    """The broker of an emergency recovery console (ERCS) node. Without a command it runs the daemon."""
    try:
        context.obj = settings.read(config)
    except (BadSettings, OSError) as error:
        raise click.ClickException(str(error)) from None
    if context.invoked_subcommand is None:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each lease request
        logging.getLogger("websockets").setLevel(logging.WARNING)
        try:
            ended_well = uvloop.run(_serve(context.obj))
        except _START_FAULTS as error:
            raise click.ClickException(f"eva-broker does not start: {error}") from None
        sys.exit(0 if ended_well else 1)


async def _serve(of: Settings) -> bool:
    node = Node(of)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    loop.add_signal_handler(signal.SIGHUP, node.reload)
    return await node.run()


@main.command()
@click.pass_obj
def keygen(of: Settings) -> None:
    """Make this node's key, state and audit if there are none yet, and print the key's public half.

    Give that to the platform: eva-provider nodes add NAME --key FILE.
    """
    made = (of.key, of.state, of.audit)
    there = [path for path in made if path.exists()]
    if not there:
        try:
            _make_node(of)
        except OSError as error:
            raise click.ClickException(f"no new node can be made: {error}") from None
    elif len(there) < len(made):
        missing = ", ".join(str(path) for path in made if path not in there)
        raise click.ClickException(
            f"{missing} is missing beside {', '.join(map(str, there))}: restore it from the backup. A node that lost its state "
            "must become a new one: move what is left away, run keygen again, and have the platform replace its key."
        )
    try:
        public = read_private_key(of.key).private.public_key()
    except CannotStart as error:
        raise click.ClickException(str(error)) from None
    click.echo(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), nl=False)


def _make_node(of: Settings) -> None:
    of.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    of.key.touch(mode=0o600)
    of.key.write_bytes(pem)
    State.create(of.state, of.node)
    AuditLog.create(of.audit)


@main.command("check-config")
@click.pass_obj
def check_config(of: Settings) -> None:
    """Check the settings and every file that they name, and change nothing."""
    faults: list[str] = []
    checks = (
        lambda: read_private_key(of.key),
        lambda: read_root_key(of.root_key),
        lambda: read_accounts(of.users),
        lambda: server_tls(of.operators),
        lambda: relying_party(of.operators.oidc) if of.operators.oidc is not None else None,
        lambda: client_tls(of.mqtt.tls) if of.mqtt.tls is not None else None,
        lambda: of.mqtt.password_file.read_text() if of.mqtt.password_file is not None else None,
        lambda: client_context(of.provider.ca),
        lambda: State.open(of.state, of.node, read_only=True).close(),
        lambda: of.audit.open("rb").close(),  # verify-audit reads it
    )
    for check in checks:
        try:
            check()
        except _START_FAULTS as error:
            faults.append(str(error))
    if faults:
        raise click.ClickException("\n".join(faults))
    click.echo(f"{of.node}: settings and files are in order")


@main.command("verify-audit")
@click.pass_obj
def verify_audit(of: Settings) -> None:
    """Check every link of the audit's chains, and that it was not cut short."""
    try:
        state = State.open(of.state, of.node, read_only=True)
        loaded = state.load()
        state.close()
        scan, still = Scan(of.audit, loaded.audit_count, loaded.audit_head), Unfinished()
        for record in scan:
            still.take(record)
    except (BadState, BadAudit) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{of.audit}: {scan.chains.count} records, chain valid, head {scan.chains.head[:16]}")
    if scan.torn:
        click.echo(f"a torn tail of {len(scan.torn)} bytes follows: a record that was never acknowledged")
    if still.starts:
        click.echo(f"{len(still.starts)} sessions without an end: live now, or cut by a crash and closed at the next start")


@main.command()
@click.pass_obj
def sessions(of: Settings) -> None:
    """List the sessions that the audit knows, newest last."""
    try:
        known = [record for record in Scan(of.audit, 0, "") if record.event in (Event.SESSION_START, Event.SESSION_END)]
    except BadAudit as error:
        raise click.ClickException(str(error)) from None
    ends = {record.facts.get("session"): record for record in known if record.event is Event.SESSION_END}
    for record in known:
        if record.event is Event.SESSION_END:
            continue
        facts, end = record.facts, ends.get(record.facts.get("session"))
        fate = "open" if end is None else f"{end.facts.get('reason')} at {_time(end.at_ms)}"
        who = f"{facts.get('account')} at {facts.get('address')}"
        click.echo(f"{_time(record.at_ms)}  {facts.get('kind')}  {facts.get('access')}  {who}  {facts.get('uuid')}  {fate}")


@main.command()
@click.pass_obj
def consents(of: Settings) -> None:
    """List the consents that this node holds, and how each ended."""
    try:
        state = State.open(of.state, of.node, read_only=True)
        loaded = state.load()
        state.close()
    except BadState as error:
        raise click.ClickException(str(error)) from None
    ended = {one.jti: one.ending.word for one in loaded.ended}
    marks = {mark.resource_id: mark for mark in loaded.watermarks}
    for row in loaded.consents:
        # verified when it was taken and again when the daemon starts; here it is only shown
        try:
            consent = _shown(row.token)
        except (ValueError, BadMember) as error:
            raise click.ClickException(f"{of.state}: a consent makes no sense: {error}") from None
        mark = marks.get(consent.resource_id)
        covered = mark.ending.word if mark is not None and consent.issued_at <= mark.issued_by else None
        over = Ending.CONSENT_EXPIRED.word if consent.expires_at <= time.time() else None  # the daemon writes it when it runs
        fate = ended.get(consent.jti) or covered or over or "stands"
        click.echo(f"{consent.cid}  until {_time(consent.expires_at * 1000)}  {fate}  {consent.resource_id}")


def _shown(token: str) -> Consent:
    body = strict_json(unb64(token.split(".")[1]))
    members = Members(body)
    return Consent(
        jti=members.text("jti"),
        cid=members.text("cid"),
        node=members.text("aud"),
        resource_id=members.resource_id(),
        giver=members.text("sub"),
        operators=frozenset(),
        kinds=frozenset(),
        access=members.convert("access", Access),
        issued_at=members.integer("iat"),
        expires_at=members.integer("exp"),
        watched=members.truth("watched"),
    )


@main.command()
def passwd() -> None:
    """Ask for a password and print the line for users.yaml."""
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    try:
        click.echo(hash_password(password))
    except BadPassword as error:
        raise click.ClickException(str(error)) from None


def _time(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
