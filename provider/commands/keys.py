"""`eva-provider keys`: the root key, the signing keys, and the sets by which nodes believe them.

The root key signs sets and nothing else, so it may be where no daemon is: `request` here, `sign` there, `install` here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from eva.token import BadToken, SigningKey
from eva.wire import KeySet
from provider.commands.host import BadConfig, Failure, now_ms, opened, owner_of_files, utc
from provider.keys import BadKeyFile, read_private, read_public, sign_key_set, signing_path, write_private, write_public
from provider.settings import Settings, read
from provider.store.engine import BadStore
from provider.store.key_sets import (
    MAX_FILE,
    BadSuccession,
    Filed,
    KeySets,
    Signed,
    Succession,
    follows,
    rotated,
    verified,
    withdrawn,
)


@click.group()
@click.pass_context
def keys(context: click.Context) -> None:
    """The root key and the signing keys."""
    if context.invoked_subcommand != "sign":  # which runs where there is no provider
        context.obj = read(context.find_root().params["config"])


@keys.command("init")
@click.pass_obj
def keys_init(settings: Settings) -> None:
    """Makes the store, the root key, the first signing key and key set 1, once."""
    root, signing = SigningKey(Ed25519PrivateKey.generate()), SigningKey(Ed25519PrivateKey.generate())
    with opened(settings, create=True) as store, store.read() as connection:
        if KeySets(connection).newest() is not None:
            raise BadStore(settings.store, "holds a key set already: nothing was changed")
    if settings.keys.root.exists():
        # a first try that stopped half-way: go on with its root key, which nodes may have
        root = read_private(settings.keys.root)
    else:
        write_private(settings.keys.root, root.private)
    if not settings.keys.root_public.exists():
        write_public(settings.keys.root_public, root.private.public_key())
    token = sign_key_set(root, 1, [signing.private.public_key()])
    write_private(signing_path(settings.keys.signing, signing.kid), signing.private, owner_of_files(settings))
    with opened(settings) as store, store.write() as connection:
        KeySets(connection).file(Filed(1, signing.kid, token, now_ms()))
    click.echo(f"key set 1: signing key {signing.kid}")
    click.echo(f"bring {settings.keys.root_public} to each node, out of band")
    click.echo(f"{settings.keys.root} signs new key sets only: keep it offline if you can")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
@click.pass_obj
def keys_list(settings: Settings, as_json: bool) -> None:
    """Every signing key: since when it signs or signed, and the consents that stand under it."""
    with opened(settings) as store, store.read() as connection:
        rows = _rows(settings, connection)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        since = f"signs since {utc(row['since_ms'])}" + (f" until {utc(row['until_ms'])}" if row["until_ms"] else "")
        over = f", withdrawn {utc(row['withdrawn_ms'])}" if row["withdrawn_ms"] else ""
        here = "" if row["here"] or row["withdrawn_ms"] else "\tNOT ON THIS HOST"
        click.echo(f"{row['kid']}\t{row['state']}\t{since}{over}\tconsents {row['consents']}{here}")


def _rows(settings: Settings, connection: Connection) -> list[dict[str, Any]]:
    """Oldest first. A key signs from the set in which it is named so until the next one that names another."""
    sets = KeySets(connection)
    filed = list(reversed(sets.all()))
    root = read_public(settings.keys.root_public)
    known = [_verified(one.token, settings, root) for one in filed]
    rows = []
    for kid in dict.fromkeys(kid for one in known for kid in one.keys):
        signing = [one for one in filed if one.signing_kid == kid]
        after = [one for one in filed if signing and one.version > signing[-1].version]
        gone = [
            one.made_ms
            for one, found in zip(filed, known, strict=True)
            if signing and one.version > signing[0].version and kid not in found.keys
        ]
        state = "withdrawn" if gone else "signs" if not after else "stands"
        rows.append(
            {
                "kid": kid,
                "state": state,
                "since_ms": signing[0].made_ms if signing else None,
                "until_ms": after[0].made_ms if after else None,
                "withdrawn_ms": gone[0] if gone else None,
                "consents": sets.standing_under(kid, now_ms() // 1000),
                "here": signing_path(settings.keys.signing, kid).exists(),
            }
        )
    return rows


@keys.command("rotate")
@click.pass_obj
def keys_rotate(settings: Settings) -> None:
    """Makes a new key, which signs from now on; what the others signed stands on. Needs the root key on this host."""
    root = _root(settings)
    new = _new_key(settings)
    made = _file(settings, lambda present, filed: rotated(present, filed.token, new.private.public_key()).signed(root))
    click.echo(f"key set {made.version}: {new.kid} signs from now on")
    click.echo(f"another provider signs with the older key until it has {signing_path(settings.keys.signing, new.kid)} too")


@keys.command("withdraw")
@click.argument("kid")
@click.pass_obj
def keys_withdraw(settings: Settings, kid: str) -> None:
    """Takes a key out of the set: every consent that it signed ends. Needs the root key on this host."""
    root = _root(settings)
    made = _file(settings, lambda present, filed: withdrawn(present, filed.token, filed.signing_kid, kid).signed(root))
    click.echo(f"key set {made.version}: {kid} counts for nothing; nodes hear of it with their next lease")
    click.echo(f"{signing_path(settings.keys.signing, kid)} can be removed")


@keys.command("request")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--withdraw", "kid", help="Ask for a set without this key, instead of one with a new key.")
@click.pass_obj
def keys_request(settings: Settings, file: Path, kid: str | None) -> None:
    """Writes FILE, which asks the root key elsewhere for the next set: `keys sign` there, then `keys install` here."""
    if file.exists():
        raise Failure(f"{file} is there already")
    with opened(settings) as store, store.read() as connection:
        filed, present = _newest(settings, connection)
    if kid is None:
        new = _new_key(settings)
        asked = rotated(present, filed.token, new.private.public_key())
        click.echo(f"{signing_path(settings.keys.signing, new.kid)}: bring it to every other provider before `keys install`")
    else:
        asked = withdrawn(present, filed.token, filed.signing_kid, kid)
    file.write_bytes(asked.encode())
    click.echo(_difference(asked.next, present, asked.signing_kid))
    click.echo(f"bring {file} to the root key: eva-provider keys sign {file} --root ROOT.pem --out SIGNED")


@keys.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--root", "root_path", type=click.Path(path_type=Path), required=True, help="The root key (PEM, mode 0600).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to bring back.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def keys_sign(file: Path, root_path: Path, out: Path, yes: bool) -> None:
    """Signs what `keys request` wrote, with the root key. Needs no settings, no store and no network."""
    root = read_private(root_path)
    asked = Succession.decode(_read(file))
    signed = asked.signed(root)
    present = verified(asked.present, root.private.public_key())
    click.echo(_difference(asked.next, present, asked.signing_kid))
    if not yes:
        click.confirm("Is that what was asked for? Compare it with what `keys request` printed.", abort=True)
    if out.exists():
        raise Failure(f"{out} is there already")
    out.write_bytes(signed.encode())
    click.echo(f"bring {out} back: eva-provider keys install {out}")


@keys.command("install")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def keys_install(settings: Settings, file: Path) -> None:
    """Files what `keys sign` wrote: daemons and nodes go by it at once."""
    signed = Signed.decode(_read(file))
    made = _file(settings, lambda _, __: signed)
    click.echo(f"key set {made.version}: {made.signing_kid} signs")


def _root(settings: Settings) -> SigningKey:
    if not settings.keys.root.exists():
        raise Failure(f"{settings.keys.root} is not on this host: use `keys request`, `keys sign` where it is, `keys install`")
    return read_private(settings.keys.root)


def _new_key(settings: Settings) -> SigningKey:
    new = SigningKey(Ed25519PrivateKey.generate())
    write_private(signing_path(settings.keys.signing, new.kid), new.private, owner_of_files(settings))
    return new


def _read(file: Path) -> bytes:
    with file.open("rb") as opened_file:
        return opened_file.read(MAX_FILE)


def _verified(token: str, settings: Settings, root: Any) -> KeySet:
    try:
        return verified(token, root)
    except BadToken as error:
        raise BadKeyFile(settings.keys.root_public, f"did not sign a stored key set ({error.detail})") from None


def _newest(settings: Settings, connection: Connection) -> tuple[Filed, KeySet]:
    filed = KeySets(connection).newest()
    if filed is None:
        raise BadConfig(f"{settings.store}: holds no key set: make one with `eva-provider keys init`")
    return filed, _verified(filed.token, settings, read_public(settings.keys.root_public))


def _file(settings: Settings, succeed: Callable[[KeySet, Filed], Signed]) -> Filed:
    """Files the set that follows, ends in the books what stood under a key that is not in it, and says so."""
    root = read_public(settings.keys.root_public)
    with opened(settings) as store, store.write() as connection:
        filed, present = _newest(settings, connection)
        signed = succeed(present, filed)
        try:
            found = verified(signed.token, root)
        except BadToken as error:
            raise BadSuccession(f"it is not signed by the root key of {settings.keys.root_public} ({error.detail})") from None
        follows(found, present, signed.signing_kid)
        path = signing_path(settings.keys.signing, signed.signing_kid)
        if not path.exists():
            raise BadKeyFile(path, "is not there: it is to sign")
        made = Filed(found.version, signed.signing_kid, signed.token, now_ms())
        sets = KeySets(connection)
        sets.file(made)
        gone = sorted(present.keys.keys() - found.keys.keys())
        ended = {kid: sets.end_under(kid, made.made_ms) for kid in gone}
    for kid, count in ended.items():
        click.echo(f"{count} consents end with {kid}")
    return made


def _difference(found: KeySet, present: KeySet, signing_kid: str) -> str:
    lines = [f"key set {found.version}:"]
    for kid in sorted(present.keys | found.keys):
        what = "WITHDRAWN: its consents end" if kid not in found.keys else "new" if kid not in present.keys else "stays"
        lines.append(f"  {kid}  {what}{', signs' if kid == signing_kid else ''}")
    return "\n".join(lines)
