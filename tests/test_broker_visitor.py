"""Browsers' plain requests at a node's port over real TLS: kept connections, slow readers, and peers that mean no good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvloop

import broker.reception
import broker.visitor
from broker.visitor import MAX_READ, Visitor
from eva.control import CONTROL_PATH, SUBPROTOCOL
from lab.certificates import Authority
from tests.broker_parts import PATIENCE
from tests.operator_port import Port, port, unhurried
from tests.plain_peer import Peer, head, seats_left
from web.assets import HOME, VENDOR

SCRIPT = "/shared/json_rpc.js"
LARGE = max((path for path in VENDOR.rglob("*") if path.suffix in (".js", ".mjs")), key=lambda path: path.stat().st_size)


# The hook that is to replace this fixture stands in a conftest, for every module.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that the broker runs on."""
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        yield one


# -- a browser -----------------------------------------------------------------------------------------------------------


async def test_files_come_one_after_the_other_on_one_connection(door: Port) -> None:
    peer = await Peer.at(door)
    for target in ("/", SCRIPT, "/shared/endings.js", SCRIPT):
        status, fields, body = await peer.asks(head(target))
        assert (status, int(fields["content-length"])) == (200, len(body))
    assert body == (HOME / SCRIPT[1:]).read_bytes()
    peer.writer.close()


async def test_a_browsers_library_reads_it(door: Port) -> None:
    async with httpx.AsyncClient(verify=door.tls, base_url=f"https://127.0.0.1:{door.number}", timeout=PATIENCE) as client:
        answer = await client.get(SCRIPT)
        again = await client.get(SCRIPT, headers={"if-none-match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code, again.content) == (200, 304, b"")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (HOME / SCRIPT[1:]).read_bytes()


async def test_head_is_the_same_without_its_body(door: Port) -> None:
    peer = await Peer.at(door)
    _, full, body = await peer.asks(head(SCRIPT))
    status, fields, nothing = await peer.asks(head(SCRIPT, method="HEAD"), "HEAD")
    full.pop("date")
    fields.pop("date")
    assert (status, fields, nothing) == (200, full, b"")
    assert (await peer.asks(head(SCRIPT)))[2] == body
    peer.writer.close()


async def test_who_asks_for_an_end_gets_one(door: Port) -> None:
    peer = await Peer.at(door)
    status, fields, body = await peer.asks(head("/", "Connection: close"))
    assert (status, fields["connection"], len(body) > 100) == (200, "close", True)
    await peer.gone()


async def test_requests_in_one_go_are_answered_in_their_order(door: Port) -> None:
    peer = await Peer.at(door)
    targets = ["/", SCRIPT, "/nothing", "/shared/endings.js"] * 25
    peer.writer.write(b"".join(map(head, targets)))
    statuses = [(await peer.answer())[0] for _ in targets]
    assert statuses == [200, 200, 404, 200] * 25
    peer.writer.close()


async def test_a_request_may_come_by_the_byte(door: Port) -> None:
    peer = await Peer.at(door)
    for byte in head(SCRIPT):
        peer.writer.write(bytes([byte]))
        await peer.writer.drain()
    assert (await peer.answer())[0] == 200
    peer.writer.close()


async def test_a_websocket_may_come_by_the_byte(door: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    upgrade = head(
        CONTROL_PATH,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
    )
    for byte in upgrade:
        writer.write(bytes([byte]))
        await writer.drain()
    assert b"101" in await reader.readline()
    writer.transport.abort()


async def test_a_silent_one_is_let_go(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "IDLE_SECONDS", 0.2)
    peer = await Peer.at(door)
    await peer.asks(head())
    await peer.gone()


async def test_no_more_than_so_many_on_one_connection(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "MAX_REQUESTS", 3)
    peer = await Peer.at(door)
    assert [(await peer.asks(head()))[1].get("connection") for _ in range(3)] == [None, None, "close"]
    await peer.gone()


@pytest.mark.parametrize("ending", ["keep-alive", "close"])
async def test_a_reader_at_100_kb_a_second_gets_its_file(door: Port, ending: str) -> None:
    """Also the last of it, which is still in the transports' buffers when the node has written all."""
    size = LARGE.stat().st_size
    peer = await Peer.at(door, limit=8192)
    peer.writer.write(head(f"/{LARGE.relative_to(HOME).as_posix()}", f"Connection: {ending}"))
    began, taken = time.monotonic(), b""
    async with asyncio.timeout(60):
        while b"\r\n\r\n" not in taken or len(taken.partition(b"\r\n\r\n")[2]) < size:
            data = await peer.reader.read(10_000)
            assert data, f"cut off after {len(taken)} bytes"
            taken += data
            await asyncio.sleep(max(0.0, began + len(taken) / 100_000 - time.monotonic()))
    assert taken.partition(b"\r\n\r\n")[2] == LARGE.read_bytes()
    assert time.monotonic() - began > size / 100_000 * 0.9
    peer.writer.close()
    await seats_left(door, 0)


async def test_who_pours_on_after_the_last_answer_is_let_go(door: Port) -> None:
    peer = await Peer.at(door, limit=8192)
    peer.writer.write(head(f"/{LARGE.relative_to(HOME).as_posix()}", "Connection: close") + b"x" * 4 * MAX_READ)
    await peer.gone()
    await seats_left(door, 0)


# -- peers that mean no good ---------------------------------------------------------------------------------------------


async def test_a_reader_that_takes_nothing_is_let_go_and_costs_little(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    monkeypatch.setattr(broker.visitor, "RATE", 1_000_000)
    unsent: list[int] = []
    send = Visitor._send

    def noted(visitor: Visitor) -> None:
        send(visitor)
        unsent.append(visitor.transport.get_write_buffer_size())

    monkeypatch.setattr(Visitor, "_send", noted)
    peer = await Peer.at(door, limit=1024)
    peer.writer.write(head(f"/{LARGE.relative_to(HOME).as_posix()}") * 50)
    async with asyncio.timeout(PATIENCE):
        while not unsent or door.listener.reception._visitors:
            await asyncio.sleep(0.01)
    assert 0 < max(unsent) < 256 * 1024
    await seats_left(door, 0)
    peer.writer.transport.abort()


@pytest.mark.parametrize(
    "raw",
    [
        head("/", "Content-Length: 3") + b"abc",
        head("/", "Content-Length: 3"),
        head("/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        head("/", "Content-Length: 3", "Content-Length: 4") + b"abcd",
        head("/", "Content-Length: -1"),
        b"GET / HTTP/1.1\r\n\r\n",
        head("/", "Host: 127.0.0.1"),
        b"GET / HTTP/1.1\nHost: 127.0.0.1\r\nX : y\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01 not http at all\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head("/", "X: a\x00b"),
        head("/ /", ""),
    ],
)
async def test_what_is_no_plain_request_ends_the_connection(door: Port, raw: bytes) -> None:
    peer = await Peer.at(door)
    peer.writer.write(raw + head())
    async with asyncio.timeout(PATIENCE):
        line = await peer.reader.readline()
    assert line.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    await peer.gone()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_another_method(door: Port, method: str) -> None:
    peer = await Peer.at(door)
    assert (await peer.asks(head("/", method=method), method))[0] == 405
    await peer.gone()


@pytest.mark.parametrize("length", [17, 40])
async def test_a_head_that_is_too_long(door: Port, length: int) -> None:
    peer = await Peer.at(door)
    status, fields, _ = await peer.asks(head("/", *(f"X-{n}: {'y' * 1000}" for n in range(length))))
    assert (status, fields["connection"]) == (431, "close")


async def test_a_head_without_an_end(door: Port) -> None:
    peer = await Peer.at(door)
    peer.writer.write(b"GET / HTTP/1.1\r\nX: " + b"y" * 2 * MAX_READ)
    await peer.gone()
    await seats_left(door, 0)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /v1", b"GET / HTTP/1.1\r\nHost:"])
async def test_a_request_that_does_not_come_has_five_seconds(door: Port, begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    peer = await Peer.at(door)
    peer.writer.write(begun)
    await peer.gone()
    await seats_left(door, 0)


async def test_a_header_a_second_does_not_make_it_longer(door: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.visitor, "OPEN_TIMEOUT", 0.5)
    peer = await Peer.at(door)
    peer.writer.write(b"GET / HTTP/1.1\r\n")
    gone = asyncio.ensure_future(peer.gone())
    while not gone.done():
        peer.writer.write(b"X: y\r\n")
        await asyncio.sleep(0.05)
    await gone


async def test_one_peers_thousand_requests_leave_the_loop_to_others(door: Port) -> None:
    peer = await Peer.at(door)
    peer.writer.write(head("/nothing") * 1000)
    gaps = []  # of the processor's time, so that others' on a busy machine does not count
    for _ in range(200):
        before = time.thread_time()
        await asyncio.sleep(0)
        gaps.append(time.thread_time() - before)
    assert sum(gaps) < 5
    assert max(gaps) < 0.1
    peer.writer.transport.abort()
