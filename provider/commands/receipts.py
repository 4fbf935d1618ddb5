"""`eva-provider verify-receipt`: for a tenant, with nothing of ours at hand but the nodes' public keys."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from eva.token import thumbprint
from provider.commands.host import Failure
from provider.consent.receipt import MAX_BYTES, BadReceipt, verify_receipt
from provider.keys import read_public

NOT_WHOLE = 4


@click.command("verify-receipt")
@click.argument("files", metavar="FILE...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--node-key",
    "node_keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="A node's public key (PEM), brought out of band; once for each node.",
)
def verify_receipt_file(files: tuple[Path, ...], node_keys: tuple[Path, ...]) -> None:
    """Checks a consent's receipt, its pages in order, and says what it shows.

    Exit code 4: good so far, but it does not reach the consent's end.
    """
    public = [read_public(path) for path in node_keys]
    raw = [_read(file) for file in files]
    try:
        proof = verify_receipt(raw, {thumbprint(key): key for key in public}, time.time_ns() // 1_000_000)
    except BadReceipt as error:
        raise Failure(f"{', '.join(map(str, files))}: {error}") from None
    click.echo(f"consent {proof.consent_id} for {proof.resource_id}")
    for line in proof.lines:
        click.echo(line)
    if not proof.whole:
        click.echo("every record here is genuine, but the receipt does not reach the consent's end", err=True)
        sys.exit(NOT_WHOLE)
    click.echo("every record is genuine and none is missing")


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
