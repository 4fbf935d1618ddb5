"""broker/listener.py over real TLS: whoever knocks wrongly gets no further, costs little, and learns nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker import control_channel, threshold, visitor, websocket
from broker.control_channel import SIGN_IN_SECONDS
from broker.lobby import UNSIGNED
from broker.websocket import OPEN_TIMEOUT
from eva.consent import Kind
from eva.control import CONSOLE_PATH, CONTROL_PATH, GRAPHICS_SUBPROTOCOL, SERIAL_SUBPROTOCOL, SUBPROTOCOL, Mark, Method
from lab.certificates import Authority, KeyPair
from tests.broker_parts import PATIENCE, awake, notice, vm_id
from tests.operator_port import ORIGIN, Port, ask, port, unhurried


@pytest.fixture
async def door(tmp_path: Path, certificates: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    unhurried(monkeypatch)
    async with port(tmp_path, certificates) as one:
        yield one


async def status(door: Port, *args: str, **other: object) -> int:
    """What the handshake is answered with; 101 for a websocket."""
    try:
        async with door.socket(*args, **other):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def raw(door: Port, request: str) -> str:
    """The first line of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    writer.write(request.encode())
    async with asyncio.timeout(PATIENCE):
        line = await reader.readline()
    writer.transport.abort()
    return line.decode()


def handshake(*headers: str, path: str = CONTROL_PATH) -> str:
    lines = [
        f"GET {path} HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        *headers,
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


async def opened(door: Port, client, kind: Kind = Kind.SERIAL):
    door.node.grant()
    return await ask(client, Method.SESSION_OPEN, resource_id=str(vm_id()), kind=str(kind))


# -- who may knock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://console.example.evil", "HTTPS://CONSOLE.EXAMPLE", "https://console.example/"],
)
async def test_a_foreign_page_is_refused(door: Port, origin: str):
    assert await status(door, CONTROL_PATH, SUBPROTOCOL, origin=origin) == 403


@pytest.mark.parametrize("origin", [None, ORIGIN])
async def test_a_program_and_our_own_page_are_not(door: Port, origin: str | None):
    assert await status(door, CONTROL_PATH, SUBPROTOCOL, origin=origin) == 101


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: evil.example",),
        ("Host: 127.0.0.1.evil.example",),
        ("Host: 127.0.0.1@evil.example",),
        ("Host: 127.0.0.1:1:2",),
        ("Host: 127.0.0.1", "Host: evil.example"),
        ("Host: ",),
        (),
        ("Host: 127.0.0.1", "Origin: https://console.example", "Origin: https://evil.example"),
        ("Host: evil.example", "X-Forwarded-Host: 127.0.0.1"),
    ],
)
async def test_a_poisoned_host_or_origin_is_refused(door: Port, headers: tuple[str, ...]):
    assert "101" not in await raw(door, handshake(*headers))


async def test_the_plain_handshake_of_these_tests_is_taken(door: Port):
    assert "101" in await raw(door, handshake("Host: 127.0.0.1"))


@pytest.mark.parametrize("path", ["/", "/v1/control/", "/v1/control?x=1", "/v1/control%2f", "//v1/control", "/V1/control", "/v1"])
async def test_another_path_is_not_found(door: Port, path: str):
    assert await status(door, path, SUBPROTOCOL) == 404


async def test_control_needs_its_subprotocol(door: Port):
    async with door.socket(CONTROL_PATH, "eva.control.v2") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1002


async def test_no_sentence_is_given_to_who_is_refused(door: Port):
    with pytest.raises(InvalidStatus) as caught:
        async with door.control(origin="null"):
            pass
    assert caught.value.response.body == b"\n"


# -- tickets -------------------------------------------------------------------------------------------------------------


async def test_a_ticket_opens_its_console(door: Port):
    async with door.signed_in() as client, door.console(await opened(door, client)) as console:
        await notice(console, Mark.ATTACHED)


async def test_a_ticket_works_once(door: Port):
    async with door.signed_in() as client:
        found = await opened(door, client)
        async with door.console(found):
            with pytest.raises(InvalidStatus):
                await door.console(found)


async def test_of_a_hundred_at_once_one_gets_in(door: Port):
    async with door.signed_in() as client:
        found = await opened(door, client)
        results = await asyncio.gather(*(door.console(found) for _ in range(100)), return_exceptions=True)
        connected = [r for r in results if not isinstance(r, BaseException)]
        assert len(connected) == 1
        assert {type(r) for r in results if isinstance(r, BaseException)} == {InvalidStatus}
        await connected[0].close()


async def test_a_ticket_is_for_its_address(door: Port):
    async with door.signed_in() as client:
        found = await opened(door, client)
        with pytest.raises((InvalidStatus, OSError)):
            await door.console(found, source="127.0.0.2")
        with pytest.raises(InvalidStatus):  # it has leaked, and is void
            await door.console(found)


async def test_a_ticket_is_for_its_kind(door: Port):
    async with door.signed_in() as client:
        with pytest.raises(InvalidStatus):
            await door.console(await opened(door, client), GRAPHICS_SUBPROTOCOL)


async def test_a_ticket_lapses(door: Port):
    async with door.signed_in() as client:
        found = await opened(door, client)
        door.node.clock.run(30)
        with pytest.raises(InvalidStatus):
            await door.console(found)


@pytest.mark.parametrize(
    "offer", [(SERIAL_SUBPROTOCOL,), (), (SERIAL_SUBPROTOCOL, "eva.ticket."), (SERIAL_SUBPROTOCOL, "eva.ticket.x")]
)
async def test_no_console_without_a_ticket(door: Port, offer: tuple[str, ...]):
    assert await status(door, CONSOLE_PATH, *offer) == 403


async def test_a_ticket_of_a_session_that_has_ended(door: Port):
    async with door.signed_in() as client:
        found = await opened(door, client)
        door.node.sessions.leave(str(found["session"]), next(iter(door.node.sessions.roster.lives.values())).session.operator)
        with pytest.raises(InvalidStatus):
            await door.console(found)


# -- what an unknown peer costs ------------------------------------------------------------------------------------------


async def gone(reader: asyncio.StreamReader) -> None:
    """Returns when the node lets go."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await reader.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass


async def test_a_peer_that_says_nothing_has_five_seconds_in_every_state(door: Port, monkeypatch: pytest.MonkeyPatch):
    for module in (websocket, threshold, visitor):
        monkeypatch.setattr(module, "OPEN_TIMEOUT", OPEN_TIMEOUT)
    monkeypatch.setattr(control_channel, "SIGN_IN_SECONDS", SIGN_IN_SECONDS)
    plain, _w1 = await asyncio.open_connection("127.0.0.1", door.number)
    silent, _w2 = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    half, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    writer.write(b"GET /v1/control HTTP/1.1\r\nHost: ")
    async with door.control() as client:
        async with awake() as seconds, asyncio.timeout(PATIENCE):
            await asyncio.gather(gone(plain), gone(silent), gone(half), client.wait_closed())
            assert seconds() < 6.5
        assert client.close_code == 1008


async def test_a_long_request_is_cut_off(door: Port):
    reader, writer = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    writer.write(b"GET /v1/control HTTP/1.1\r\n" + b"X: " + b"y" * 100_000)
    await gone(reader)


async def test_65_kib_before_sign_in_end_it(door: Port):
    async with door.control() as client:
        await client.send("x" * 65 * 1024)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code in (1003, 1009)


async def seats_left(door: Port, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(door.listener.reception.lobby) != count:
            await asyncio.sleep(0.01)


async def test_those_who_have_not_asked_are_counted_too(door: Port):
    """One address takes no more places than it may, whether its connections say nothing or stop in their request."""
    peers = [await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls) for _ in range(UNSIGNED.each)]
    peers[0][1].write(b"GET /v1/con")
    await seats_left(door, UNSIGNED.each)
    reader, _ = await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)
    await gone(reader)
    assert door.refusals()["lobby"] == 1
    async with door.control(source="127.0.0.2"):
        await seats_left(door, UNSIGNED.each + 1)
    for _, writer in peers:
        writer.transport.abort()
    await seats_left(door, 0)


async def test_a_seat_is_left_at_sign_in(door: Port):
    async with door.signed_in():
        await seats_left(door, 0)


async def test_a_seat_is_left_by_who_is_refused(door: Port):
    assert await status(door, "/", SUBPROTOCOL) == 404
    await seats_left(door, 0)


async def test_consoles_of_one_who_is_signed_in_take_no_seat(door: Port):
    async with door.signed_in():
        peers = [await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls) for _ in range(UNSIGNED.each + 4)]
        peers[-1][1].write(handshake("Host: evil").encode())
        assert b"403" in await peers[-1][0].readline()
        assert len(door.listener.reception.lobby) == 0
        for _, writer in peers:
            writer.transport.abort()


async def test_a_reset_before_the_first_byte_leaves_nothing(door: Port):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", door.number)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert await status(door, CONTROL_PATH, SUBPROTOCOL) == 101
    await seats_left(door, 0)
    assert door.listener.reception.arrivals == {}


# -- TLS -----------------------------------------------------------------------------------------------------------------


def answered(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A client that has had the first bytes of an answer, and with them what it may resume (RFC 8446 4.6.1)."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    secured = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
    secured.sendall(handshake("Host: 127.0.0.1").encode())
    assert b"101" in secured.recv(100)
    return secured


async def test_no_tls_session_is_resumed(door: Port):
    """A resumed one would bring back a client certificate, whatever has become of it."""
    with await asyncio.to_thread(answered, door.number, door.tls) as first:
        session = first.session
        assert session is not None
        assert not session.has_ticket
        with await asyncio.to_thread(answered, door.number, door.tls, session) as second:
            assert not second.session_reused


async def test_tls_1_2_which_resumes_without_tickets_is_refused(door: Port):
    door.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):  # noqa: PT011 - its alert, or the reset right behind it
        await asyncio.open_connection("127.0.0.1", door.number, ssl=door.tls)


async def test_client_certificates_of_an_authority_that_is_believed_no_more_are_refused(tmp_path: Path):
    authority, other = (Authority(tmp_path / name, f"{name} CA") for name in ("own", "other"))
    old, new = authority.client("alice"), other.client("alice")
    async with port(tmp_path, authority) as door:

        def is_let_in(pair: KeyPair) -> bool:
            context = ssl.create_default_context(cadata=trusted)
            context.load_cert_chain(pair.certificate, pair.key)
            try:
                with socket.create_connection(("127.0.0.1", door.number), timeout=PATIENCE) as plain:
                    secured = context.wrap_socket(plain, server_hostname="127.0.0.1")
                    secured.sendall(handshake("Host: 127.0.0.1").encode())
                    return b"101" in secured.recv(100)
            except TimeoutError:
                raise
            except OSError:  # its alert, or the reset right behind it
                return False

        trusted = authority.ca.read_text()
        assert await asyncio.to_thread(is_let_in, old)
        authority.ca.write_bytes(other.ca.read_bytes())
        assert await asyncio.to_thread(is_let_in, old)  # not before it is told
        door.listener.reload_tls()
        assert not await asyncio.to_thread(is_let_in, old)
        assert await asyncio.to_thread(is_let_in, new)
