"""broker/notify.py towards a socket in the service manager's place."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.notify import Supervisor


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield one


def test_it_is_told(manager: socket.socket):
    Supervisor().tell("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_nobody_is_told_where_nobody_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Supervisor().tell("READY=1")


def test_a_node_without_a_descriptor_left_still_says_that_it_lives(manager: socket.socket):
    """Strangers who only connect can bring that about: the watchdog may not end the consoles for it, nor an error."""
    supervisor, before = Supervisor(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        supervisor.tell("WATCHDOG=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert manager.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_does_not_read_stops_nobody(manager: socket.socket):
    supervisor = Supervisor()
    for _ in range(2000):
        supervisor.tell("WATCHDOG=1")
    assert manager.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_starts_anew_stops_nobody_and_is_told(manager: socket.socket):
    supervisor, path = Supervisor(), manager.getsockname()
    manager.close()
    supervisor.tell("WATCHDOG=1")
    Path(path).unlink()
    supervisor.tell("WATCHDOG=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(path)
        supervisor.tell("WATCHDOG=1")
        assert again.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("pid", "seconds"), [(None, 10.0), (str(os.getpid()), 10.0), ("1", None)], ids=["any", "mine", "another"]
)
def test_the_watchdog_is_fed_by_whom_it_watches(monkeypatch: pytest.MonkeyPatch, pid: str | None, seconds: float | None):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert Supervisor().watchdog == seconds
