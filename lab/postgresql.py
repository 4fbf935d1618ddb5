"""Debian's PostgreSQL with a directory of its own, on a free loopback port.

with Postgresql() as server:
    url = server.database("provider")       a URL for the setting `store`; server.password_file for `store_password_file`
As root it runs as nobody. With a key pair it takes TLS too. `settings` go to its
command line. It is as durable as the provider asks for: fsync is on.
"""

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lab.certificates import KeyPair
from lab.process import Program, ProgramEnded
from lab.server import Server

USER = "eva"
PASSWORD = "eva of a minute"  # noqa: S105 - of a server that lives for a minute on loopback
VERSIONS = Path("/usr/lib/postgresql")

# Who is on this machine reaches the socket; over TCP the password is asked for.
ACCESS = """\
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


PATIENCE_S = 60.0  # with a backend that ends


def _children(pid: int) -> list[int]:
    """Give a pidfd of each child that is there; the caller closes them."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(int(child)))
    return found


class NoPostgresql(Exception):
    """Debian's package is not installed: python3 lab/setup.py."""


class Postgresql(Server):
    """One server. kill() and start() again give the same port and data."""

    def __init__(self, tls: KeyPair | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__("postgresql")
        self._tls = tls
        self._settings = dict(settings or {})
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._bin = _newest()
        self.password_file = Path()

    def start(self) -> None:
        """As every server; the first time it takes about a second."""
        first = not self.port
        super().start()
        if first:
            self._ask(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(USER), sql.Literal(PASSWORD)))

    def database(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or a copy of the template (to which nobody is connected), and give its URL."""
        words = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
        self._ask(words.format(*map(sql.Identifier, (name, USER, template or "template1"))))
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is on it."""
        self._ask(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def url(self, name: str) -> str:
        """Give the URL of a database, which goes with `password_file`."""
        return f"postgresql+psycopg://{USER}@{self.host}:{self.port}/{name}"

    def connect(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as the superuser, each statement by itself."""
        return psycopg.connect(host=str(self.directory), port=self.port, user=self._account.pw_name, dbname=name, autocommit=True)

    def disconnect_all(self) -> None:
        """End every connection but our own, as an administrator can (pg_terminate_backend)."""
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
        with self.connect() as connection:
            connection.execute(others, [USER])

    def stop(self) -> None:
        """Stop it in order, whoever is connected. It can be started again."""
        if self._program is not None:
            # SIGINT: fast shutdown (postgres(1)); SIGTERM alone would wait for the clients, after it it changes nothing
            self._program.signal(signal.SIGINT)
            self._program.stop(grace=10.0)
        super().stop()

    def kill(self) -> None:
        """End the postmaster by SIGKILL; its backends see that and end, and are waited for. It can be started again."""
        backends = _children(self._program.pid) if self._program is not None and self._program.running else []
        super().kill()
        for backend in backends:
            # while one has the shared memory a new postmaster does not start
            select.select([backend], [], [], PATIENCE_S)
            os.close(backend)

    # -- how -----------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        self.password_file = self.directory / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        for path in (self.directory, data):
            os.chown(path, self._account.pw_uid, self._account.pw_gid)
        options = ["--no-locale", "--encoding=UTF8", "--auth=trust", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            [*self._as_account(), str(self._bin / "initdb"), *options, "-D", str(data)],
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
        )
        if done.returncode:
            raise ProgramEnded(done.args, done.returncode, done.stdout + done.stderr)
        (data / "pg_hba.conf").write_text(ACCESS)
        if self._tls is not None:
            for name, source in {"server.crt": self._tls.certificate, "server.key": self._tls.key}.items():
                shutil.copy(source, data / name)
                os.chown(data / name, self._account.pw_uid, self._account.pw_gid)

    def _as_account(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        # again here: the kernel forgets PDEATHSIG where the user changes (prctl(2))
        return ["setpriv", "--reuid=nobody", f"--regid={self._account.pw_gid}", "--clear-groups", "--pdeathsig=KILL", "--"]

    def _run(self) -> None:
        if not (self.directory / "data").exists():
            self._make()
        settings = {
            "port": self.port,
            "listen_addresses": self.host,
            "unix_socket_directories": self.directory,
            "dynamic_shared_memory_type": "mmap",  # in its directory, so that a kill leaves nothing in /dev/shm
            "shared_buffers": "32MB",
            "max_connections": 50,
            "ssl": "on" if self._tls else "off",
            **self._settings,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        argv = [*self._as_account(), str(self._bin / "postgres"), "-D", str(self.directory / "data"), *words]
        # Debian builds it with systemd's notification
        program = self._program = Program(argv, self._log, notify=True, directory=self.directory)
        program.start()
        program.wait_notified("READY=1")

    def _ask(self, statement: sql.Composed) -> None:
        with self.connect() as connection:
            connection.execute(statement)


def _newest() -> Path:
    """Give the directory of the newest release's programs."""
    found = sorted(VERSIONS.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    if not found:
        raise NoPostgresql
    return found[-1].parent
