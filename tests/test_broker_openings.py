"""broker/openings.py over socketpairs: nothing opens before all is well, and what fails half way leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.openings import TICKET_GRACE
from broker.session import State
from eva import audit
from eva.consent import Kind, Principal
from eva.control import Refusal, Refused
from hypervisor.control import DialFailure
from hypervisor.dialer import DialError
from tests.broker_parts import (
    BOB,
    PATIENCE,
    Core,
    core,
    ends_of,
    heard,
    hold_disk,
    pass_time,
    refusal,
)
from tests.rfb_bytes import VERSION


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Core]:
    async with core(tmp_path) as one:
        yield one


async def test_without_a_consent_nothing_opens(node: Core):
    assert await refusal(node) is Refusal.NO_CONSENT


async def test_without_a_fresh_lease_nothing_opens(node: Core):
    node.grant()
    node.clock.run(6.1)
    assert await refusal(node) is Refusal.LEASE_STALE


async def test_a_node_that_stops_opens_nothing(node: Core):
    node.grant()
    node.sessions.stopping = True
    assert await refusal(node) is Refusal.STOPPING


async def test_the_count_of_sessions_has_a_bound(tmp_path: Path):
    async with core(tmp_path, most=1) as node:
        node.grant()
        await node.open()
        assert await refusal(node) is Refusal.TOO_MANY


async def test_the_start_is_on_disk_before_anybody_dials(node: Core):
    node.grant()
    await node.settle()
    gate = hold_disk(node)
    opening = asyncio.ensure_future(node.open())
    await asyncio.sleep(0.05)
    dialled_early = node.dialer.dialling.is_set()
    gate.set()
    session = await opening
    assert not dialled_early
    assert [r.facts["session"] for r in node.records(audit.Event.SESSION_START)] == [session.id]


async def test_a_disk_that_refuses_the_start_opens_nothing(node: Core):
    node.grant()
    await node.settle()

    def refuse(_: object) -> None:
        raise OSError(28, "No space left on device")

    node.journal._audit.append = refuse  # type: ignore[method-assign]
    assert await refusal(node) is Refusal.AUDIT_FAILED
    assert (node.dialer.guests, len(node.sessions)) == ([], 0)


@pytest.mark.parametrize("kind", list(Kind))
async def test_revoked_while_the_start_is_written_it_never_dials(node: Core, kind: Kind):
    one = node.grant()
    await node.settle()
    gate = hold_disk(node)
    opening = asyncio.ensure_future(node.open(kind))
    await asyncio.sleep(0)
    node.revoke(one)
    gate.set()
    with pytest.raises(Refused):
        await opening
    await node.settle()
    assert not node.dialer.dialling.is_set()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["consent-revoked"]


@pytest.mark.parametrize("kind", list(Kind))
async def test_revoked_while_it_dials_the_line_is_cut_as_it_comes(node: Core, kind: Kind):
    one = node.grant()
    node.dialer.picked_up.clear()
    opening = asyncio.ensure_future(node.open(kind))
    await node.dialer.dialling.wait()
    node.revoke(one)
    node.dialer.picked_up.set()
    with pytest.raises(Refused):
        await opening
    assert node.dialer.lines[0].sock.fileno() == -1
    await node.settle()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["consent-revoked"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(DialFailure.BUSY, Refusal.CONSOLE_BUSY), (DialFailure.TIMED_OUT, Refusal.CONSOLE_FAILED)],
)
async def test_a_console_that_does_not_open_has_its_end_recorded(node: Core, failure: DialFailure, expected: Refusal):
    node.grant()
    node.dialer.failure = DialError(failure, "x")
    assert await refusal(node) is expected
    await node.settle()
    assert [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)] == ["console-lost"]
    assert len(node.sessions) == 0


async def test_an_operator_who_goes_while_it_opens_leaves_nothing(node: Core):
    node.grant()
    node.dialer.picked_up.clear()
    opening = asyncio.ensure_future(node.open())
    await node.dialer.dialling.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await node.settle()
    assert (len(node.sessions), [r.facts["reason"] for r in node.records(audit.Event.SESSION_END)]) == (0, ["operator-left"])


async def test_two_who_open_at_once_share_one_attachment(node: Core):
    node.grant()
    node.dialer.picked_up.clear()
    both = asyncio.gather(node.open(), node.open(operator=BOB))
    await node.dialer.dialling.wait()
    node.dialer.picked_up.set()
    await both
    assert len(node.dialer.guests) == 1


async def test_one_that_ended_while_another_dialled_does_not_dial(node: Core):
    one = node.grant()
    node.dialer.picked_up.clear()
    async with asyncio.timeout(PATIENCE):
        opening = [asyncio.ensure_future(refusal(node)) for _ in range(2)]
        await node.dialer.dialling.wait()
        while len(node.records(audit.Event.SESSION_START)) < 2:
            await node.settle()
        await node.settle()
        node.revoke(one)
        node.dialer.picked_up.set()
        assert await asyncio.gather(*opening) == [Refusal.NO_CONSENT] * 2
    assert len(node.dialer.lines) == 1


async def test_one_whose_dial_is_cut_leaves_the_other_to_dial(node: Core):
    first, second = (
        node.grant(operators=frozenset({Principal(False, "alice")})),
        node.grant(operators=frozenset({Principal(False, "bob")})),
    )
    node.dialer.picked_up.clear()
    one = asyncio.ensure_future(node.open())
    other = asyncio.ensure_future(node.open(operator=BOB))
    await node.dialer.dialling.wait()
    while len(node.sessions) < 2:
        await asyncio.sleep(0.01)
    node.revoke(first)
    node.dialer.picked_up.set()
    session = await other
    with pytest.raises(Refused):
        await one
    assert (session.accepted.consent.jti, session.state) == (second.jti, State.DETACHED)


@pytest.mark.parametrize("kind", list(Kind))
async def test_nothing_passes_before_the_operator_is_there(node: Core, kind: Kind):
    node.grant()
    session = await node.open(kind)
    if kind is Kind.SERIAL:
        node.live(session).viewer.operator_bytes(b"ls\r")
    node.dialer.guest.send(VERSION)
    await asyncio.sleep(0.02)
    assert (heard(node.dialer.guest), node.live(session).viewer.shown) == (b"", 0)


async def test_a_ticket_that_nobody_redeems_ends_it(node: Core):
    node.grant()
    session = await node.open()
    await pass_time(node, TICKET_GRACE - 0.1)
    still = len(node.sessions)
    await pass_time(node, 0.1)
    await node.settle()
    assert (still, ends_of(node, session)) == (1, ["operator-left"])
