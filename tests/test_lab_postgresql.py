"""lab/postgresql.py: a server that ends with us, and keeps what it promised when it is killed."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from lab.postgresql import USER, Postgresql
from lab.transcript import PATIENCE_S


def await_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], PATIENCE_S)[0] == [pidfd]


def test_what_was_committed_outlives_a_kill() -> None:
    with Postgresql() as server:
        server.database("kept")
        with server.connect("kept") as connection:
            connection.execute("CREATE TABLE t (n integer)")
            connection.execute("INSERT INTO t VALUES (7)")
        port = server.port
        server.kill()
        server.start()
        with server.connect("kept") as connection:
            found = connection.execute("SELECT n FROM t").fetchall()
        assert (server.port, found) == (port, [(7,)])


def test_close_leaves_nothing() -> None:
    server = Postgresql()
    server.start()
    end, directory = os.pidfd_open(server.pid), server.directory
    with server.connect() as connection:
        backend = os.pidfd_open(connection.info.backend_pid)
        server.close()
        await_end(end)
        await_end(backend)
    assert not directory.exists()


def test_the_password_is_asked_for(postgresql: Postgresql) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=postgresql.host, port=postgresql.port, user=USER, password="wrong", dbname="postgres")


def test_it_ends_with_a_killed_parent() -> None:
    """The parent is killed, so that it can tidy up nothing."""
    program = "from lab.postgresql import Postgresql as P; import sys; p = P(); p.start();"
    program += "print(p.pid, p.directory, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        end = os.pidfd_open(int(pid))
        parent.kill()
        await_end(end)
    subprocess.run(["rm", "-r", directory], check=True)
