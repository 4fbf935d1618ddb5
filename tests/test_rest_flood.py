"""One caller's flood is his own: others are answered, and the nodes have their leases, while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from eva.wire import CONTENT_TYPE, LEASE_PATH, Envelope
from lab.certificates import Authority
from provider.rest.listener import CONNECTIONS
from tests.provider_parts import Node
from tests.raw_http import answers, request
from tests.rest_parts import (
    ARM_VERSION,
    FEATURE,
    NEIGHBOUR,
    OPERATOR,
    OTHER_SUBSCRIPTION,
    OWNER,
    VM_VERSION,
    RestCloud,
    error,
    rest_cloud,
    vm_path,
)

MINE, THEIRS = vm_path("vm1"), vm_path("vm1", OTHER_SUBSCRIPTION)
PATIENCE = 2.0  # seconds for an answer while others flood: a lease that is asked for twice in vain is 4 s old


@pytest.fixture
def cloud(tmp_path: Path, certificates: Authority) -> Iterator[RestCloud]:
    """With one read in a second, and one write in two, beyond an hour's worth of a thousand."""
    more = {"tenant_api": ", reads_per_hour: 3600, writes_per_hour: 1800"}
    with rest_cloud(tmp_path, certificates, more) as cloud:
        assert cloud.run("feature", "enable-subscription", OTHER_SUBSCRIPTION).code == 0
        yield cloud


async def over_https(cloud: RestCloud) -> None:
    """The node asks for a lease by its second way."""
    context = ssl.create_default_context(cafile=cloud.place.ca)
    async with httpx.AsyncClient(verify=context) as client:
        answer = await client.post(
            f"https://localhost:{cloud.place.lease_port}{LEASE_PATH}",
            content=Envelope(cloud.pen.request()).encode(),
            headers={"content-type": CONTENT_TYPE},
        )
    assert answer.status_code == 200


async def everybody_else_is_served(cloud: RestCloud, node: Node) -> None:
    """Leases by both ways, the other tenant, the operator."""
    for _ in range(3):
        async with asyncio.timeout(PATIENCE):
            await node.ask()
        async with asyncio.timeout(PATIENCE):
            await over_https(cloud)
        async with asyncio.timeout(PATIENCE):
            assert (await cloud.ask("GET", f"{THEIRS}/vmAccess", NEIGHBOUR)).status_code == 200
        async with asyncio.timeout(PATIENCE):
            assert (await cloud.ask("GET", FEATURE, OPERATOR, admin=True)).status_code == 200
    async with asyncio.timeout(PATIENCE):
        assert (await cloud.ask("POST", f"{THEIRS}/enableVmAccess", NEIGHBOUR)).status_code == 200


async def _asks_on(cloud: RestCloud, raw: bytes, statuses: list[int]) -> None:
    """The same request again and again over one connection."""
    reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())
    try:
        while True:
            writer.write(raw)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            statuses.append(int(head[9:12]))
    finally:
        writer.close()


@asynccontextmanager
async def flood(cloud: RestCloud, raw: bytes, connections: int = 16) -> AsyncIterator[list[int]]:
    """The statuses of what is answered meanwhile."""
    statuses: list[int] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_asks_on(cloud, raw, statuses)) for _ in range(connections)]
        while len(statuses) < connections:
            await asyncio.sleep(0.01)
        yield statuses
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("who", [OWNER, None])
async def test_requests_without_end(cloud: RestCloud, who: str | None):
    """With a token, and without any."""
    cloud.token(NEIGHBOUR)
    cloud.token(OPERATOR, "admin")
    raw = request(f"{MINE}/vmAccess", who and cloud.token(who), "GET")
    async with cloud.serving() as node, flood(cloud, raw) as statuses:
        await everybody_else_is_served(cloud, node)
    assert set(statuses) <= ({200, 429} if who else {401})


async def test_who_waits_as_long_as_he_is_told_is_served(cloud: RestCloud):
    raw = request(f"{MINE}/disableVmAccess", cloud.token(OWNER))
    async with flood(cloud, raw) as statuses, asyncio.timeout(60):
        while 429 not in statuses:
            await asyncio.sleep(0.01)
    throttled = await cloud.ask("POST", f"{MINE}/disableVmAccess")
    assert error(throttled) == (429, "SubscriptionRequestsThrottled")
    assert throttled.headers["x-ms-ratelimit-remaining-subscription-writes"] == "0"
    seconds = int(throttled.headers["retry-after"])
    assert 1 <= seconds <= 2
    assert (await cloud.ask("GET", f"{MINE}/vmAccess")).status_code == 200  # reads are counted apart
    assert (await cloud.ask("POST", f"{THEIRS}/disableVmAccess", NEIGHBOUR)).status_code == 404
    await asyncio.sleep(seconds)
    assert error(await cloud.ask("POST", f"{MINE}/disableVmAccess")) == (404, "ConsentNotFound")


async def _opens(cloud: RestCloud, raw: bytes, context: ssl.SSLContext) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=context)
    writer.write(raw)
    return writer


@pytest.mark.parametrize("raw", [b"", b"GET / HT", request("/", None, "GET")])
async def test_connections_that_lie_idle_keep_nobody_out(cloud: RestCloud, raw: bytes):
    """More than there is room for: silent, in the middle of a head, and after a request."""
    context = cloud.trust()
    opened: list[asyncio.StreamWriter] = []
    async with cloud.serving() as node:
        for _ in range(6):
            opened += await asyncio.gather(*(_opens(cloud, raw, context) for _ in range(100)))
        await everybody_else_is_served(cloud, node)
        # who came first has gone, whatever his time was
        assert sum(writer.transport.is_closing() for writer in opened) >= len(opened) - CONNECTIONS
        async with asyncio.timeout(PATIENCE):
            assert (await cloud.ask("GET", "/subscriptions", OWNER, params=ARM_VERSION)).status_code == 200
    for writer in opened:
        writer.close()


async def test_more_requests_at_once_than_there_is_room_for(cloud: RestCloud):
    """The nodes say nothing, so each waits for its answer; who comes too late is told to come again."""
    async with cloud.serving(accepts=None):
        asked = [cloud.ask("POST", f"{vm_path(f'vm{number}')}/enableVmAccess", params=VM_VERSION) for number in range(150)]
        found = await asyncio.gather(*asked)
    statuses = [answer.status_code for answer in found]
    assert set(statuses) <= {503, 504}
    assert {answer.headers["retry-after"] for answer in found if answer.status_code == 503} <= {"1", "10"}
    assert {error(answer)[1] for answer in found} <= {"ServerBusy", "NodeSilent", "NoNodeAvailable", "ServiceUnavailable"}


async def test_who_does_not_read_his_answer_keeps_nobody_waiting(cloud: RestCloud):
    token = cloud.token(OWNER)
    raw = request("/openapi.json", None, "GET") * 200 + request(f"{MINE}/vmAccess", token, "GET") * 200
    writers = []
    async with cloud.serving() as node:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("localhost", cloud.tenant_port, ssl=cloud.trust())
            reader._transport.pause_reading()  # type: ignore[attr-defined] - nothing public holds a stream's reader still
            writer.write(raw)
            writers.append(writer)
        await everybody_else_is_served(cloud, node)
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


def test_answers_is_what_it_says():
    """The reader of raw answers, which the tables of hostile requests lean on."""
    one = b"HTTP/1.1 401 \r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 2\r\n\r\n{}"
    assert [answer.status for answer in answers(one + one)] == [401, 401]
