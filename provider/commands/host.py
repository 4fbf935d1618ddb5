"""What the commands at the provider's host share: its files as their owner has them, and how a command fails."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from eva.strict_yaml import BadSettings
from provider.consent.authority import Refused
from provider.keys import BadKeyFile, Owner
from provider.settings import Settings
from provider.store.engine import BadStore
from provider.store.key_sets import BadSuccession
from provider.store.secret import BadSecret
from provider.store.store import Store, StoreDown
from web.assets import MissingAssets


class Failure(click.ClickException):
    """What a command ends with: one line and its exit code."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"eva-provider: {self.message}", err=True, file=file)


class BadConfig(Failure):
    """Settings, keys or store that cannot be worked with."""

    exit_code = 78  # EX_CONFIG, sysexits.h


class Commands(click.Group):
    """The one place where an error becomes a line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BadSettings, BadKeyFile, BadStore, BadSecret, MissingAssets) as error:
            raise BadConfig(str(error)) from None
        except BadSuccession as error:
            raise Failure(error.why) from None
        except StoreDown as error:
            raise Failure(f"the store does not answer: {error.why}") from None
        except Refused as error:
            raise Failure(error.detail or str(error.refusal)) from None
        except ssl.SSLError as error:
            raise BadConfig(f"a TLS certificate or key file cannot be used: {error}") from None
        except OSError as error:
            raise Failure(str(error)) from None


def utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def owner_of_files(settings: Settings) -> Owner | None:
    """Whose the daemon's files are, when root runs a command; None when it is ourselves."""
    # beside a SQLite file, else with the keys
    place = settings.store.parent if isinstance(settings.store, Path) else settings.keys.signing
    found = place.stat()
    return Owner(found.st_uid, found.st_gid) if os.geteuid() == 0 and found.st_uid != 0 else None


@contextmanager
def opened(settings: Settings, *, create: bool = False, whole: bool = False, old: bool = False) -> Iterator[Store]:
    """The store as its owner opens it: root's own journal files would lock the daemon out. Raises BadStore, StoreDown."""
    owner = owner_of_files(settings)
    if owner is not None:
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    try:
        store = Store(settings.store, create=create, whole=whole, old=old)
        try:
            yield store
        finally:
            store.close()
    finally:
        if owner is not None:
            os.seteuid(0)
            os.setegid(0)
