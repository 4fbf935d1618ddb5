"""provider/local_socket.py: the socket's file, and what the daemon says to what is not as it should be."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from lab.transcript import PATIENCE_S
from provider.local_socket import unix_socket
from tests.provider_parts import Cloud


async def test_the_socket_is_the_owners_alone(provider: Cloud):
    assert (provider.place.directory / "admin.sock").stat().st_mode & 0o777 == 0o600


async def test_a_bad_wish_is_refused_with_its_reason(provider: Cloud):
    transport = httpx.HTTPTransport(uds=str(provider.place.directory / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://provider", timeout=PATIENCE_S) as client:
        answer = client.post("/revoke", json={"resource_id": "/x"})
        assert (answer.status_code, answer.json()["error"]) == (400, "bad-request")
        assert client.post("/revoke", json={}).status_code == 400
        assert client.post("/grant", json={"resource_id": "/x"}).status_code == 422


def test_a_socket_left_behind_is_replaced_and_a_living_one_is_not(tmp_path: Path):
    path = tmp_path / "admin.sock"
    unix_socket(path).close()
    with unix_socket(path), pytest.raises(OSError, match="in use"):
        unix_socket(path)


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path):
    path = tmp_path / "admin.sock"
    path.write_text(json.dumps("mine"))
    with pytest.raises(OSError, match="in use"):
        unix_socket(path)
    assert path.read_text() == '"mine"'
