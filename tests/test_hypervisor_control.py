"""hypervisor.control: messages and descriptors over a real socketpair."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from hypervisor.control import (
    MAX_LINE,
    BadMessage,
    Cause,
    Device,
    DialFailure,
    Done,
    Ended,
    Fork,
    Forked,
    Inbox,
    Keys,
    Lines,
    Open,
    Ready,
    Refused,
    decode,
    encode,
    send,
)

MESSAGES = [
    Ready(),
    Fork(7),
    Forked(7, 4711),
    Forked(7, 0, "no memory"),
    Open("qemu:///system", "11111111-2222-4333-8444-000000000001", Device.SERIAL),
    Keys("qemu:///system", "11111111-2222-4333-8444-000000000001", (29, 56, 111), 100),
    Done(),
    Refused(DialFailure.BUSY, 'a "detail"\nof two lines'),
    Ended(Cause.LIBVIRT_LOST, "gone"),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_comes_back_from_its_line(message: object) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line, type(message)) == (message, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'"Fork"',
        b"\xff",
        b'{"type":"Fork"}',
        b'{"type":"Fork","number":"7"}',
        b'{"type":"Fork","number":7.0}',
        b'{"type":"Fork","number":true}',
        b'{"type":"Fork","number":7,"more":1}',
        b'{"type":"Fork","number":7,"fds":-1}',
        b'{"type":"Fork","number":7,"fds":99}',
        b'{"type":"Ready"}',
        b'{"type":["Fork"],"number":7}',
        b"[" * 10_000,
    ],
)
def test_what_is_no_allowed_message_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(line, Fork)


def test_an_unknown_word_in_an_enum_is_refused() -> None:
    line = json.dumps({"type": "Ended", "cause": "whim", "detail": ""}).encode()
    with pytest.raises(BadMessage):
        decode(line, Ended)


def test_lines_are_cut_wherever_the_stream_is() -> None:
    lines = Lines()
    assert [line for byte in b"ab\n\nc\nd" for line in lines.feed(bytes([byte]))] == [b"ab", b"", b"c"]


def test_a_line_without_end_is_refused() -> None:
    lines = Lines()
    lines.feed(MAX_LINE * b"x")
    with pytest.raises(BadMessage):
        lines.feed(b"x")


def test_descriptors_arrive_with_their_message(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reader, writer = os.pipe()
    send(ours, Ready())
    send(ours, Forked(1, 2), [writer])
    os.close(writer)
    inbox = Inbox(theirs, Ready, Forked)
    messages: list[tuple[object, list[int]]] = []
    while len(messages) < 2:
        messages += inbox.read() or []
    assert messages[0] == (Ready(), [])
    message, (received,) = messages[1]
    assert message == Forked(1, 2)
    assert not os.get_inheritable(received)
    os.write(received, b"x")
    os.close(received)
    assert os.read(reader, 2) == b"x"
    os.close(reader)


def test_a_message_that_announces_a_descriptor_without_one_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(encode(Fork(1), fds=1))
    with pytest.raises(BadMessage):
        Inbox(theirs, Fork).read()


def test_descriptors_that_nobody_claims_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reader, writer = os.pipe()
    socket.send_fds(ours, [b"no line yet"], [writer])
    os.close(writer)
    inbox = Inbox(theirs, Fork)
    assert inbox.read() == []
    inbox.close()
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_the_end_of_the_stream_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.close()
    assert Inbox(theirs, Fork).read() is None
