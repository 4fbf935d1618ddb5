"""cmdlets/ticket.py: a session that somebody else's websocket client attaches to, at a node that a test plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from cmdlets.node import Credentials, Lost, Node, sign_in
from cmdlets.standing import Ended
from cmdlets.ticket import TicketSession
from eva.consent import Access, Kind
from eva.control import Method, Refusal, Refused
from eva.ending import Ending
from eva.resource_id import ResourceId
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.scripted_node import ACCOUNT, PASSWORD, VM, ScriptedNode, server_tls


@pytest.fixture
async def node(certificates: Authority) -> AsyncIterator[ScriptedNode]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        node.prepare = lambda session: session.output.extend(b"login: ")
        yield node


@dataclass
class Run:
    task: asyncio.Task[Ended]
    tls: ssl.SSLContext
    told: list[str] = field(default_factory=list)
    given: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def place(self) -> tuple[str, list[Subprotocol]]:
        found = json.loads(await asyncio.wait_for(self.given.get(), PATIENCE_S))
        assert set(found) == {"url", "subprotocols"}
        return found["url"], [Subprotocol(name) for name in found["subprotocols"]]


@contextlib.asynccontextmanager
async def running(
    node: ScriptedNode, authority: Authority, kind: Kind = Kind.SERIAL, access: Access | None = None
) -> AsyncIterator[Run]:
    tls = ssl.create_default_context(cafile=authority.ca)
    where = Node("AzS-ERCS01", f"wss://localhost:{node.port}", tls, Credentials(ACCOUNT, PASSWORD))

    async def work() -> Ended:
        async with sign_in(where) as (control, _):
            return await TicketSession(control, run.told.append, run.given.put_nowait).run(ResourceId.parse(VM), kind, access)

    run = Run(asyncio.create_task(work()), tls)
    try:
        yield run
    finally:
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)


async def test_a_client_that_knows_nothing_of_us_attaches_with_what_is_printed(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as run:
        url, subprotocols = await run.place()
        async with connect(url, ssl=run.tls, subprotocols=subprotocols, compression=None) as client:
            assert client.subprotocol == "eva.serial.v1"
            assert b"login: " in [await client.recv(), await client.recv()]


async def test_it_stays_until_the_session_ends_and_tells_why(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as run:
        url, subprotocols = await run.place()
        async with connect(url, ssl=run.tls, subprotocols=subprotocols, compression=None):
            session = await node.session()
            assert not run.task.done()
            await session.end(Ending.CONSENT_REVOKED)
            assert (await run.task).ending is Ending.CONSENT_REVOKED


async def test_the_ticket_is_told_nowhere_but_in_the_line_for_the_script(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as run:
        _, (_, ticket) = await run.place()
        assert run.told
        assert ticket.removeprefix("eva.ticket.") not in "\n".join(run.told)


async def test_kind_and_access_are_what_was_asked_for(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates, Kind.GRAPHICS, Access.VIEW) as run:
        _, subprotocols = await run.place()
    assert subprotocols[0] == "eva.vnc.v1"
    assert node.asked[1].params == {"resource_id": VM, "kind": "graphics", "access": "view"}


async def test_whoever_interrupts_it_leaves_the_session(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as run:
        await run.place()
    assert node.methods()[-1] is Method.SESSION_LEAVE


async def test_a_lost_connection_is_told(node: ScriptedNode, certificates: Authority):
    async with running(node, certificates) as run:
        url, subprotocols = await run.place()
        async with connect(url, ssl=run.tls, subprotocols=subprotocols, compression=None):
            (await node.session()).drop()
            with pytest.raises(Lost):
                await run.task


async def test_a_refusal_prints_no_ticket(node: ScriptedNode, certificates: Authority):
    node.refusals[Method.SESSION_OPEN] = Refusal.NO_CONSENT
    async with running(node, certificates) as run:
        with pytest.raises(Refused):
            await run.task
        assert run.given.empty()
