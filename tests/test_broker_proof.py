"""broker/proof.py over a real port: client certificates, and a crowd of strangers that keeps nobody from signing in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidMessage

from broker.accounts import Accounts
from broker.proof import HASHES_AT_ONCE
from eva.control import Method, Refusal
from lab.certificates import Authority, KeyPair
from tests.broker_parts import PATIENCE
from tests.operator_port import HASH, PASSWORD, Port, ask, port, refusal, unhurried

HOME = IPv4Address("127.0.0.1")
USERS = f"""
accounts:
  - {{name: alice, groups: [cloudadmin], password: '{HASH}'}}
  - {{name: carol, groups: [cloudadmin], certificates: ['cn:carol']}}
"""


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        one.desk.accounts = Accounts.parse(USERS, "users.yaml")
        yield one


async def signs_in(door: Port, pair: KeyPair) -> Refusal | None:
    door.tls.load_cert_chain(pair.certificate, pair.key)
    async with door.control() as client:
        return await refusal(client, Method.SIGN_IN)


# -- certificates --------------------------------------------------------------------------------------------------------


async def test_a_certificate_signs_in_and_its_place_is_familiar_from_then_on(door: Port, certificates: Authority) -> None:
    """As one who signs in by password does, its operator has seats that strangers cannot take."""
    assert await signs_in(door, certificates.client("carol")) is None
    assert door.desk.attempts.is_familiar(HOME, door.node.clock.now())


async def test_a_certificate_of_nobody_here_signs_nobody_in(door: Port, certificates: Authority) -> None:
    assert await signs_in(door, certificates.client("Carol")) is Refusal.WRONG_CREDENTIALS
    assert not door.desk.attempts.is_familiar(HOME, door.node.clock.now())


async def test_certificates_that_tls_does_not_take(door: Port, certificates: Authority, tmp_path: Path) -> None:
    """One that has run out, one of another authority, and a server's of ours."""
    for pair in (
        certificates.client("carol", lifetime=timedelta(days=-1)),
        Authority(tmp_path / "other").client("carol"),
        certificates.server("carol"),
    ):
        with pytest.raises((OSError, ConnectionClosed, InvalidMessage)):
            await signs_in(door, pair)


# -- who waits -----------------------------------------------------------------------------------------------------------


async def hold(door: Port, *, familiar: bool) -> None:
    """As a crowd's passwords do that are being looked at."""
    for _ in range(HASHES_AT_ONCE):
        await door.desk.hashing[familiar].acquire()


async def password(client: ClientConnection) -> None:
    await ask(client, Method.SIGN_IN, account="alice", password=PASSWORD)


async def test_a_crowd_of_strangers_keeps_no_operator_waiting_at_an_accustomed_place(door: Port) -> None:
    await hold(door, familiar=False)
    door.desk.attempts.remember(HOME, "alice", door.node.clock.now())
    async with door.control() as client:
        await password(client)


def told_to_sign_in(door: Port) -> int:
    """How many are told it when their time is up. The loop's own list is looked at: to wait for it would be a race."""
    loop: Any = asyncio.get_running_loop()
    due = [timer._callback for timer in loop._scheduled if not timer.cancelled()]
    return sum(callback == channel.sign_out for callback in due for channel in door.desk.channels)


async def test_who_waits_for_others_is_not_told_to_sign_in(door: Port) -> None:
    await hold(door, familiar=False)
    async with door.control() as client, asyncio.timeout(PATIENCE):
        while not door.desk.channels:
            await asyncio.sleep(0)
        before = told_to_sign_in(door)
        signing_in = asyncio.ensure_future(password(client))
        while not door.desk.hashing[False].locked() or not door.desk.hashing[False]._waiters:
            await asyncio.sleep(0)
        assert (before, told_to_sign_in(door)) == (1, 0)
        door.desk.hashing[False].release()
        await signing_in


async def test_who_has_not_signed_in_says_no_more_than_64_kib(door: Port) -> None:
    """Not in many messages either, while the first is looked at."""
    await hold(door, familiar=False)
    async with door.control() as client:
        request = {"jsonrpc": "2.0", "id": 1, "method": "sign_in", "params": {"account": "alice", "password": "x"}}
        await client.send(json.dumps(request))
        with suppress(ConnectionClosed):
            for _ in range(8):
                await client.send("x" * 16_000)
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
        assert client.close_code == 1006  # no closing handshake with whoever pours


async def test_who_has_signed_in_may_say_more(door: Port) -> None:
    async with door.control() as client:
        await password(client)
        for _ in range(8):
            assert await refusal(client, Method.CONSENTS_LIST, filler="x" * 16_000) is Refusal.NOT_SAFELISTED
