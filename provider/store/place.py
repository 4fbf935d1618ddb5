"""Where the store is: a SQLite file, or a database on a PostgreSQL server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eva.endpoint import is_loopback

DRIVER = "postgresql+psycopg"
# What of libpq's parameters is taken (PostgreSQL 15, 34.1.2); a password belongs into a file.
PARAMETERS = frozenset({"host", "sslmode", "sslrootcert", "sslcert", "sslkey"})


@dataclass(frozen=True, slots=True)
class PostgresqlServer:
    """`url` holds no password; that is in `password_file`, where the server asks for one."""

    url: URL
    password_file: Path | None = None

    def __str__(self) -> str:
        return self.url.render_as_string()


Place: TypeAlias = Path | PostgresqlServer


def parse_place(text: str) -> Place:
    """A path, or a SQLAlchemy URL of PostgreSQL. Raises ValueError, whose text quotes nothing that may be secret."""
    if text.startswith("/"):
        return Path(text)
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError(f"begin it with / for a SQLite file, or make it {DRIVER}://USER@HOST/DATABASE") from None
    if url.drivername != DRIVER:
        raise ValueError(f"begin a URL with {DRIVER}:// ; for SQLite give the file's path alone, which begins with /")
    if url.password is not None:
        raise ValueError("a password does not belong here: put it into a file of mode 0600 and name that in store_password_file")
    if not url.database:
        raise ValueError("it names no database: end it with /DATABASE")
    if more := sorted(url.query.keys() - PARAMETERS):
        raise ValueError(f"{more[0]} is no parameter that is taken (known: {', '.join(sorted(PARAMETERS))})")
    if any(not isinstance(found, str) for found in url.query.values()):
        raise ValueError("it has a parameter twice: keep one")
    directory = url.query.get("host")
    if directory is not None and (url.host or not str(directory).startswith("/")):
        raise ValueError(
            "host as a parameter is the directory of a UNIX socket, beginning with /, and no other host goes with it"
        )
    if directory is None and not url.host:
        raise ValueError("it names no host: give one, or ?host=/DIRECTORY of a UNIX socket")
    if url.host and not is_loopback(url.host) and (url.query.get("sslmode") != "verify-full" or "sslrootcert" not in url.query):
        raise ValueError("its host is another, which needs TLS: end it with ?sslmode=verify-full&sslrootcert=/FILE")
    return PostgresqlServer(url)
