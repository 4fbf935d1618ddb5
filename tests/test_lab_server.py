"""lab/server.py: what our mosquitto and our PostgreSQL do where another has their port."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import server as lab_server
from lab.mosquitto import Mosquitto
from lab.ports import free_port
from lab.postgresql import Postgresql
from lab.process import ProgramEnded
from lab.server import TRIES, Server
from lab.transcript import PATIENCE_S


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture(params=[Mosquitto, Postgresql])
def make(request: pytest.FixtureRequest) -> Callable[[], Server]:
    return request.param


def test_a_port_that_another_took_meanwhile_is_left_to_him(
    make: Callable[[], Server], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, ports = free_port(), [taken, taken]
    monkeypatch.setattr(lab_server, "free_port", lambda: ports.pop() if ports else free)
    with make() as server:
        assert server.port == free
        assert server.log.count("Address already in use") >= 2
        socket.create_connection((server.host, server.port), timeout=PATIENCE_S).close()


def test_after_the_last_try_nothing_is_left(make: Callable[[], Server], taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    directories: list[Path] = []
    server = make()

    def port() -> int:
        directories.append(server.directory)
        return taken

    monkeypatch.setattr(lab_server, "free_port", port)
    with pytest.raises(ProgramEnded, match="Address already in use"):
        server.start()
    assert len(directories) == TRIES
    assert not directories[0].exists()
    assert (server.port, server.directory) == (0, Path())
