"""One caller's flood is his own: others are answered, and the nodes have their leases, while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from eva.wire import CONTENT_TYPE, LEASE_PATH, Envelope
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
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
QUICK_S = 2.0  # for an answer while others flood: a lease that is asked for twice in vain is 4 s old
SLOW_S = 20.0  # less than the half minute in which an idle connection goes by itself
AT_ONCE = 16  # connections of a flood
TURNS = 40  # of the flood, which gets no further where the machine, and not the flood, makes the answer late


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
    async with httpx.AsyncClient(verify=context, timeout=SLOW_S) as client:
        answer = await client.post(
            f"https://localhost:{cloud.place.lease_port}{LEASE_PATH}",
            content=Envelope(cloud.pen.request()).encode(),
            headers={"content-type": CONTENT_TYPE},
        )
    assert answer.status_code == 200


class Served:
    """How others fare while somebody floods. `flooded`: the answers that the flood has had."""

    def __init__(self, flooded: Sequence[int] = ()) -> None:
        self._flooded = flooded
        self.late: list[tuple[float, int]] = []  # seconds, and the flood's answers meanwhile

    @asynccontextmanager
    async def soon(self) -> AsyncIterator[None]:
        """What is asked for herein is answered, and it is kept whether that was late."""
        began, before = time.monotonic(), len(self._flooded)
        async with asyncio.timeout(SLOW_S):
            yield
        took, turns = time.monotonic() - began, (len(self._flooded) - before) / AT_ONCE
        if took >= QUICK_S and turns >= TURNS:
            self.late.append((took, len(self._flooded) - before))


async def everybody_else_is_served(cloud: RestCloud, node: Node, flooded: Sequence[int] = ()) -> None:
    """Leases by both ways, the other tenant, the operator."""
    served = Served(flooded)
    for _ in range(3):
        async with served.soon():
            await node.ask()
        async with served.soon():
            await over_https(cloud)
        async with served.soon():
            assert (await cloud.ask("GET", f"{THEIRS}/vmAccess", NEIGHBOUR)).status_code == 200
        async with served.soon():
            assert (await cloud.ask("GET", FEATURE, OPERATOR, admin=True)).status_code == 200
    async with served.soon():
        assert (await cloud.ask("POST", f"{THEIRS}/enableVmAccess", NEIGHBOUR)).status_code == 200
    # one of thirteen: mosquitto may have stood still while the flood went on
    assert len(served.late) <= 1, served.late


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
async def flood(cloud: RestCloud, raw: bytes) -> AsyncIterator[list[int]]:
    """The statuses of what is answered meanwhile."""
    statuses: list[int] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_asks_on(cloud, raw, statuses)) for _ in range(AT_ONCE)]
        while len(statuses) < AT_ONCE:
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
        await everybody_else_is_served(cloud, node, statuses)
    assert set(statuses) <= ({200, 429} if who else {401})


async def test_who_waits_as_long_as_he_is_told_is_served(cloud: RestCloud):
    raw = request(f"{MINE}/disableVmAccess", cloud.token(OWNER))
    async with flood(cloud, raw) as statuses, asyncio.timeout(2 * PATIENCE_S):
        while 429 not in statuses:
            await asyncio.sleep(0.01)
    while (throttled := await cloud.ask("POST", f"{MINE}/disableVmAccess")).status_code == 404:
        pass  # one that came to him since
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
        for _ in range(24):  # few together: a handshake has 5 s
            opened += await asyncio.gather(*(_opens(cloud, raw, context) for _ in range(25)))
        await everybody_else_is_served(cloud, node)
        # who came first has gone, whatever his time was
        async with asyncio.timeout(SLOW_S):
            while sum(writer.transport.is_closing() for writer in opened) < len(opened) - CONNECTIONS:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(SLOW_S):
            assert (await cloud.ask("GET", "/subscriptions", OWNER, params=ARM_VERSION)).status_code == 200
    for writer in opened:
        writer.close()


async def test_more_requests_at_once_than_there_is_room_for(cloud: RestCloud):
    """The nodes say nothing, so each waits for its answer; who comes too late is told to come again."""
    async with cloud.serving(accepts=None):
        asked = [cloud.ask("POST", f"{vm_path(f'vm{number}')}/enableVmAccess", params=VM_VERSION) for number in range(150)]
        with cloud.hurried(3):
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
