"""broker/watch_listener.py over real TLS: a token of the provider's opens it once, and nothing else does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus

from broker.lobby import UNSIGNED
from eva.consent import Kind
from eva.control import (
    CONSOLE_PATH,
    CONTROL_PATH,
    GRAPHICS_SUBPROTOCOL,
    SERIAL_SUBPROTOCOL,
    SUBPROTOCOL,
    TICKET_PREFIX,
    Mark,
    Method,
)
from eva.watch import TOKEN_PREFIX, WATCH_PATH, WATCH_SUBPROTOCOL, WatchMethod
from lab.certificates import Authority
from tests.broker_parts import PATIENCE, Signer, consent, jti, notice, vm_id
from tests.operator_port import Port, ask, unhurried
from tests.operator_port import port as operators_port
from tests.watch_port import PAGE, Tenant, WatchPort, opened, watch_port


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WatchPort]:
    unhurried(monkeypatch)
    async with watch_port(tmp_path, certificates) as one:
        yield one


async def status(attempt) -> int:
    """What the handshake is answered with; 101 for a websocket."""
    try:
        async with attempt:
            return 101
    except InvalidStatus as error:
        return error.response.status_code if error.response.body == b"\n" else -1  # it is told no more than that


def counted(door: WatchPort, name: str, **labels: str) -> float:
    return door.node.metrics.registry.get_sample_value(f"{name}_total", labels) or 0.0


# -- tokens ------------------------------------------------------------------------------------------------------------


async def test_a_token_opens_it(door: WatchPort):
    async with door.come(door.token(door.node.grant())) as websocket:
        assert websocket.subprotocol == WATCH_SUBPROTOCOL
        assert (await Tenant(websocket).told("watch.state"))["giver"] == "tenant1"


async def test_once(door: WatchPort):
    token = door.token(door.node.grant())
    async with door.come(token):
        assert await status(door.come(token)) == 403
    assert await status(door.come(token)) == 403


async def test_of_a_hundred_at_once_one_gets_in(door: WatchPort):
    token = door.token(door.node.grant())
    slots = asyncio.Semaphore(UNSIGNED.each // 2)

    async def attempt() -> int:
        async with slots:
            return await status(door.come(token))

    found = await asyncio.gather(*(attempt() for _ in range(100)))
    assert sorted(found) == [101] + [403] * 99


async def test_a_token_that_was_taken_is_not_taken_after_a_restart(door: WatchPort, certificates: Authority):
    token = door.token(door.node.grant())
    async with door.come(token) as websocket:
        await Tenant(websocket).told("watch.state")
    again = await door.node.restart()
    try:
        async with opened(again, certificates) as port:
            assert await status(port.come(token)) == 403
            assert await status(port.come(port.token(again.consents.ledger.standing(again.clock.now())[0].consent))) == 101
    finally:
        await again.stop()


@pytest.mark.parametrize(
    "other",
    [
        {"node": "AzS-ERCS02"},
        {"giver": "tenant2"},
        {"cid": jti()},
        {"resource_id": vm_id("vm2")},
        {"expires_at": 0},
        {"issued_at": 0},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_token_for_something_else_is_refused(door: WatchPort, other: dict[str, object]):
    assert await status(door.come(door.token(door.node.grant(), **other))) == 403


async def test_a_token_that_is_late_is_refused(door: WatchPort):
    token = door.token(door.node.grant())
    door.node.clock.run(60)
    await door.node.renew()
    assert await status(door.come(token)) == 403
    assert counted(door, "eva_tokens_refused", typ="eva-watch+jwt", fault="time") == 1


async def test_a_clock_that_is_set_back_brings_no_token_back(door: WatchPort):
    token = door.token(door.node.grant())
    door.node.clock.run(60)
    await door.node.renew()
    door.node.consents.tick(door.node.clock.now())
    door.node.clock.step(-60)
    assert await status(door.come(token)) == 403


async def test_a_strangers_token_is_refused(door: WatchPort):
    assert await status(door.come(Signer().sign(door.watch(door.node.grant())))) == 403
    assert counted(door, "eva_tokens_refused", typ="eva-watch+jwt", fault="key") == 1


async def test_a_consent_is_no_watch_token(door: WatchPort):
    one = door.node.grant()
    assert await status(door.come(door.node.signer.sign(one))) == 403
    assert counted(door, "eva_tokens_refused", typ="eva-watch+jwt", fault="header") == 1


async def test_a_consent_that_is_over_cannot_be_watched(door: WatchPort):
    one = door.node.grant()
    token = door.token(one)
    door.node.revoke(one)
    assert await status(door.come(token)) == 403


async def test_who_is_refused_is_counted(door: WatchPort):
    assert await status(door.come("x")) == 403
    assert counted(door, "eva_requests_refused", reason="token") == 1


@pytest.mark.parametrize(
    "offered",
    [(WATCH_SUBPROTOCOL,), (), ("eva.watch.v2", "TOKEN"), ("TOKEN", WATCH_SUBPROTOCOL), (WATCH_SUBPROTOCOL, "TOKEN", "x")],
)
async def test_the_subprotocols_are_those_two(door: WatchPort, offered: tuple[str, ...]):
    token = TOKEN_PREFIX + door.token(door.node.grant())
    names = [token if name == "TOKEN" else name for name in offered]
    assert await status(door.socket(WATCH_PATH, *names)) == 403


# -- who may knock -----------------------------------------------------------------------------------------------------


async def test_the_providers_page_may(door: WatchPort):
    assert await status(door.come(door.token(door.node.grant()), origin=PAGE)) == 101


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "https://127.0.0.1"])
async def test_another_page_may_not_and_the_token_is_not_spent(door: WatchPort, origin: str):
    token = door.token(door.node.grant())
    assert await status(door.come(token, origin=origin)) == 403
    assert await status(door.come(token)) == 101


async def test_another_host_may_not(door: WatchPort):
    headers = {"Host": "evil.example"}
    assert await status(door.come(door.token(door.node.grant()), additional_headers=headers)) in (400, 403)


@pytest.mark.parametrize("path", ["/", CONTROL_PATH, "/v1/watch/", "/v1/watch?x=1", "/V1/watch", "/operator/main.js"])
async def test_nothing_else_is_here(door: WatchPort, path: str):
    token = TOKEN_PREFIX + door.token(door.node.grant())
    assert await status(door.socket(path, WATCH_SUBPROTOCOL, token)) == 404
    assert await status(door.socket(path, SUBPROTOCOL)) == 404


async def test_seats_are_few_and_left_when_a_token_is_shown(door: WatchPort):
    idle = [await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls) for _ in range(UNSIGNED.each)]
    with pytest.raises((OSError, EOFError, InvalidMessage)):
        await door.come(door.token(door.node.grant()))
    for _, writer in idle[:1]:
        writer.transport.abort()
    one = door.node.grant()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                first = await door.come(door.token(one))
                break
            except (OSError, EOFError, InvalidMessage):
                await asyncio.sleep(0)  # the server has not heard yet that the seat is left
    second = await door.come(door.token(one))
    for websocket in (first, second):
        websocket.transport.abort()
    for _, writer in idle[1:]:
        writer.transport.abort()


async def test_old_tls_is_refused(door: WatchPort):
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):  # noqa: PT011 - its alert, or the reset right behind it
        await asyncio.open_connection("127.0.0.1", door.number, ssl=old)


async def test_a_new_certificate_is_taken_when_it_is_told(door: WatchPort, certificates: Authority):
    async def presented() -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return der

    old = await presented()
    pair = certificates.server("ercs")  # in the files of the old one
    assert await presented() == old
    door.listener.reload_tls()
    assert await presented() == ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()) != old
    assert await status(door.come(door.token(door.node.grant()))) == 101


# -- consoles ----------------------------------------------------------------------------------------------------------


async def test_a_ticket_opens_its_console(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        async with door.console(found) as console:
            await notice(console, Mark.ATTACHED)
        assert await status(door.console(found)) == 403


async def test_a_ticket_is_for_its_kind(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        assert await status(door.console(found, GRAPHICS_SUBPROTOCOL)) == 403


async def test_a_ticket_from_another_address_is_void(door: WatchPort):
    async with door.watching(door.node.grant()) as tenant:
        found = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        assert await status(door.console(found, local_addr=("127.0.0.9", 0))) == 403


async def test_a_made_up_ticket_is_refused(door: WatchPort):
    assert await status(door.socket(CONSOLE_PATH, SERIAL_SUBPROTOCOL, TICKET_PREFIX + "A" * 43)) == 403
    assert await status(door.socket(CONSOLE_PATH, SERIAL_SUBPROTOCOL)) == 403


@pytest.fixture
async def both(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Port, WatchPort]]:
    """A node with both ports."""
    unhurried(monkeypatch)
    async with operators_port(tmp_path, certificates) as operators, opened(operators.node, certificates) as watchers:
        yield operators, watchers


async def test_a_ticket_of_one_port_is_none_of_the_others(both: tuple[Port, WatchPort]):
    operators, watchers = both
    one = operators.node.grant(consent(issued_at=operators.node.clock.now().wall_seconds))
    async with operators.signed_in() as alice, watchers.watching(one) as tenant:
        his = await tenant.ask(WatchMethod.WATCH_OPEN, kind="serial")
        hers = await ask(alice, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(Kind.SERIAL))
        assert await status(operators.console(his)) == 403
        assert await status(watchers.console(hers)) == 403
