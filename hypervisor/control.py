"""The control stream: what dialer, fork server, workers and watchers say to each other, one JSON object a line.

Nothing in the messages assumes that both ends are on one host, so the stream can travel over ssh. The one local short cut
is that descriptors ride beside a line (SCM_RIGHTS, unix(7)); only `send` and `Inbox` know of it.

Errors: BadMessage.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

from hypervisor.sighting import Fate

MAX_LINE = 64 * 1024  # bytes
MAX_FDS = 4  # beside one read

_INT = struct.Struct("i")


class BadMessage(Exception):
    """A peer sent what is no message of this protocol. `why` says what was wrong, never the content."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class DialFailure(StrEnum):
    """Why no console was opened."""

    NO_DOMAIN = "no-domain"
    NOT_RUNNING = "not-running"
    BUSY = "busy"  # an active console session elsewhere
    NO_DEVICE = "no-device"
    HOST_DOWN = "host-down"
    TIMED_OUT = "timed-out"
    WORKER_DIED = "worker-died"
    REFUSED = "refused"
    UNWANTED = "unwanted"  # what was asked for was taken back while it waited


class Cause(StrEnum):
    """Why an open console ended."""

    EOF = "eof"  # the guest or its console closed
    WORKER_DIED = "worker-died"
    LIBVIRT_LOST = "libvirt-lost"
    ERROR = "error"
    CUT = "cut"  # by us


class Device(StrEnum):
    """What a worker can open. The values are those of eva.consent.Kind, which is too heavy to be loaded in a worker."""

    SERIAL = "serial"
    GRAPHICS = "graphics"


@dataclass(frozen=True, slots=True)
class Ready:
    """Fork server → dialer: libvirt is loaded."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Dialer → fork server, with the worker's control end and, for serial, its console end."""

    number: int


@dataclass(frozen=True, slots=True)
class Forked:
    """Fork server → dialer, with the worker's pidfd. `error` is set, and no pidfd there, when the fork failed."""

    number: int
    pid: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Dialer → worker: attach the device of the domain that has this UUID."""

    uri: str
    uuid: str
    device: Device


@dataclass(frozen=True, slots=True)
class Keys:
    """Dialer → worker: press these Linux key codes together for `hold_ms`."""

    uri: str
    uuid: str
    codes: tuple[int, ...]
    hold_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """Worker → dialer: it is open (graphics: with the console's descriptor), or the keys are sent."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Worker → dialer: it is not, and why."""

    failure: DialFailure
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Worker → dialer: the open console ended by itself."""

    cause: Cause
    detail: str


Message = TypeVar("Message")


def _exact(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return check


def _codes(value: Any) -> tuple[int, ...]:
    return tuple(map(_exact(int), _exact(list)(value)))


# by annotation, as `from __future__ import annotations` leaves it; each raises TypeError or ValueError
_FIELD: dict[str, Callable[[Any], Any]] = {
    "str": _exact(str),
    "int": _exact(int),
    "bool": _exact(bool),
    "str | None": lambda value: None if value is None else _exact(str)(value),
    "tuple[int, ...]": _codes,
    "Device": Device,
    "DialFailure": DialFailure,
    "Cause": Cause,
    "Fate": Fate,
}


def encode(message: object, fds: int = 0) -> bytes:
    """The line for a message dataclass that `fds` descriptors ride beside."""
    document: dict[str, object] = {f.name: getattr(message, f.name) for f in fields(message)}  # type: ignore[arg-type]  # a dataclass instance, which `object` cannot say
    document["type"] = type(message).__name__
    if fds:
        document["fds"] = fds
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes, *allowed: type[Message]) -> tuple[Message, int]:
    """The message, which must be of an allowed class with every field right, and its count of descriptors.

    Raises BadMessage.
    """
    try:
        document = json.loads(line)
        kind = next(cls for cls in allowed if cls.__name__ == document["type"])
        fds = _exact(int)(document.pop("fds", 0))
        values = {f.name: _FIELD[str(f.type)](document[f.name]) for f in fields(kind)}  # type: ignore[arg-type]  # as above
    except (ValueError, TypeError, KeyError, StopIteration, RecursionError) as error:
        raise BadMessage(f"{type(error).__name__} in a line of {len(line)} bytes") from None
    if len(document) != len(values) + 1 or not 0 <= fds <= MAX_FDS:
        raise BadMessage(f"wrong fields in a {kind.__name__}")
    return kind(**values), fds


def send(sock: socket.socket, message: object, fds: Sequence[int] = ()) -> None:
    """Sends it whole with its descriptors. On a non-blocking socket BlockingIOError means that nothing went.

    Raises OSError. A short first write can only happen on a blocking socket here: lines are far below a socket's buffer.
    """
    line = encode(message, len(fds))
    sent = socket.send_fds(sock, [line], fds) if fds else sock.send(line)
    if sent < len(line):
        sock.sendall(line[sent:])


class Lines:
    """Cuts a stream of bytes into lines of at most MAX_LINE bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this completes. Raises BadMessage."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise BadMessage(f"a line longer than {MAX_LINE} bytes")
        return lines


class Inbox:
    """The reading half of a control stream: bytes and descriptors in, messages out, both bounded."""

    def __init__(self, sock: socket.socket, *allowed: type[Message]) -> None:
        self._sock = sock
        self._allowed: tuple[type[Any], ...] = allowed
        self._lines = Lines()
        self._fds: deque[int] = deque()

    def read(self) -> list[tuple[Any, list[int]]] | None:
        """One read: the messages it completed, each with its descriptors (now the caller's to close). None at the end.

        Raises BadMessage, OSError (BlockingIOError when a non-blocking socket has nothing).
        """
        # unix(7): ancillary data never arrives after the first byte that it was sent with
        # (not socket.recv_fds: in Python 3.11 it drops its flags, and the descriptors would be inherited)
        space = socket.CMSG_SPACE(MAX_FDS * _INT.size)
        data, ancillary, flags, _ = self._sock.recvmsg(MAX_LINE, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) - len(content) % _INT.size
                self._fds.extend(fd for (fd,) in _INT.iter_unpack(content[:whole]))
        if flags & socket.MSG_CTRUNC:
            raise BadMessage("more descriptors than one message has")
        if not data:
            return None
        return [self._take(line) for line in self._lines.feed(data)]

    def _take(self, line: bytes) -> tuple[object, list[int]]:
        message, count = decode(line, *self._allowed)
        if count > len(self._fds):
            raise BadMessage("a message without its descriptors")
        return message, [self._fds.popleft() for _ in range(count)]

    def close(self) -> None:
        """Closes the descriptors that no message has claimed."""
        while self._fds:
            with contextlib.suppress(OSError):
                os.close(self._fds.popleft())
