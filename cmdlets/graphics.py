"""The graphics console on a loopback port or UNIX socket, for any VNC viewer: one connection, no password, gone with the session.

On a port only the operator's own user is let in: the kernel's table of connections says whose the other end is. The first
viewer let in is the only one; from then on nothing listens.

Errors, beside those of cmdlets.node:

    CannotListen    the port or path cannot be had, and why
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from cmdlets.clock import boot_s, wall_ms
from cmdlets.node import Control, Unintelligible, console, leave, leaving, lost
from cmdlets.race import first_of
from cmdlets.standing import Ended, Standing
from eva.consent import Access, Kind
from eva.control import Method, Opened
from eva.ending import Ending
from eva.members import BadMember, Json
from eva.resource_id import ResourceId

CHUNK = 16 * 1024  # bytes read from the viewer at a time
LAST_NOTICE = 0.5  # seconds for the control connection to say why the console was closed
DRAIN = 0.2  # seconds for the last pixels once the node said that the session ended
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
_ESTABLISHED = "01"  # state of a connection in /proc/net/tcp (include/net/tcp_states.h)

Tell = Callable[[str], None]


class CannotListen(Exception):
    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where}: {why}")


@dataclass(frozen=True, slots=True)
class LoopbackPort:
    """`port` 0 is a free one."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address = LOOPBACK
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> LoopbackPort:
        """ADDRESS:PORT, [ADDRESS]:PORT or PORT, on this host only. Raises ValueError."""
        address, _, port = text.rpartition(":")
        found = ipaddress.ip_address(address.strip("[]") or str(LOOPBACK))
        if not found.is_loopback:
            raise ValueError("only a loopback address, such as 127.0.0.1:5901")
        if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
            raise ValueError("the port needs a number from 0 to 65535")
        return cls(found, int(port))


def owner_of(table: str, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """The user id that holds the established connection from `local` to `remote`, by /proc/net/tcp or tcp6 (proc(5))."""
    wanted = (_kernel_address(*local), _kernel_address(*remote), _ESTABLISHED)
    for line in table.splitlines()[1:]:
        columns = line.split()
        if tuple(columns[1:4]) == wanted:
            return int(columns[7])
    return None


def _kernel_address(host: str, port: int) -> str:
    """As the kernel prints it: each 32 bits of the address in the host's own byte order."""
    packed = ipaddress.ip_address(host).packed
    words = (int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _is_own(viewer: socket.socket) -> bool:
    """Whether the other end is this user's."""
    if viewer.family == socket.AF_UNIX:
        return True  # the socket's mode has let in nobody else
    table = Path("/proc/net/tcp6" if viewer.family == socket.AF_INET6 else "/proc/net/tcp").read_text("ascii")
    return owner_of(table, viewer.getpeername()[:2], viewer.getsockname()[:2]) == os.getuid()


@contextmanager
def listening(place: LoopbackPort | Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket, and how a viewer names it. It is closed and its path gone afterwards. Raises CannotListen."""
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET if place.address.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    bound: Path | None = None
    try:
        if isinstance(place, Path):
            before = os.umask(0o177)  # bind(2) makes the socket 0600
            try:
                listener.bind(str(place))
                bound = place
            finally:
                os.umask(before)
            name = str(place)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(place.address), place.port))
            host = f"[{place.address}]" if place.address.version == 6 else str(place.address)
            name = f"{host}::{listener.getsockname()[1]}"  # two colons: a port, not a display (vncviewer(1))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise CannotListen(str(place if isinstance(place, Path) else place.port), error.strerror or str(error)) from None
    try:
        yield listener, name
    finally:
        listener.close()
        if bound is not None:
            bound.unlink(missing_ok=True)


class GraphicsSession:
    """One session, for one viewer. `tell` takes our own lines, `ready` the command that opens the viewer."""

    def __init__(self, control: Control, place: LoopbackPort | Path, tell: Tell, ready: Tell) -> None:
        self._control = control
        self._place = place
        self._tell = tell
        self._ready = ready
        self._standing: Standing | None = None

    async def run(self, resource_id: ResourceId, access: Access | None) -> Ended:
        """To the end of the session. Raises CannotListen, Refused, NodeFault."""
        params: dict[str, Json] = {"resource_id": str(resource_id), "kind": str(Kind.GRAPHICS)}
        if access is not None:
            params["access"] = str(access)
        with listening(self._place) as (listener, name):
            try:
                opened = Opened.from_members(await self._control.ask(Method.SESSION_OPEN, **params))
            except BadMember as bad:
                raise Unintelligible(self._control.node.url, bad.why) from None
            standing = Standing(opened, boot_s())
            for line in standing.opening(boot_s()):
                self._tell(line)
            async with leaving(self._control, opened.session), console(self._control.node, opened) as connection:
                ended = await first_of(
                    self._watch(standing),
                    self._closed(standing, connection),
                    self._serve(listener, name, connection),
                )
                if ended.ending is Ending.OPERATOR_LEFT and standing.ended is None:
                    await leave(self._control, opened.session)
                return ended

    async def _serve(self, listener: socket.socket, name: str, connection: ClientConnection) -> Ended:
        """Until the one viewer has come and gone."""
        self._ready(f"vncviewer {name}")
        self._tell("one viewer, no password; it ends when the viewer closes, or with Ctrl+C here.")
        loop = asyncio.get_running_loop()
        while True:
            viewer, _ = await loop.sock_accept(listener)
            with viewer:
                if not _is_own(viewer):
                    self._tell("turned away a connection of another user of this host.")
                    continue
                # what waits in the backlog is reset, and nobody else gets in
                listener.close()
                viewer.setblocking(False)
                if viewer.family != socket.AF_UNIX:
                    viewer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return await first_of(_to_viewer(connection, viewer), _to_node(viewer, connection))

    async def _watch(self, standing: Standing) -> Ended:
        while standing.ended is None:
            try:
                event, members = await self._control.next_notice(standing.session)
                for line in standing.apply(event, members, boot_s()):
                    self._tell(line)
            except BadMember as bad:
                raise Unintelligible(self._control.node.url, bad.why) from None
        await asyncio.sleep(DRAIN)
        return standing.ended

    async def _closed(self, standing: Standing, connection: ClientConnection) -> Ended:
        """What the end of the console's connection means: the session's end, or raises Lost."""
        await connection.wait_closed()
        await asyncio.sleep(LAST_NOTICE)  # the node's notice says more
        if standing.ended is not None:
            return standing.ended
        try:
            return Ended(Ending.of_code(connection.close_code or 0), wall_ms())
        except KeyError:
            raise lost(self._control.node, connection.protocol.close_exc) from None


async def _to_viewer(connection: ClientConnection, viewer: socket.socket) -> Ended:
    loop = asyncio.get_running_loop()
    try:
        while True:
            message = await connection.recv(decode=False)
            await loop.sock_sendall(viewer, message)
    except ConnectionClosed:
        await asyncio.Event().wait()  # _closed tells why
    except OSError:
        pass
    return Ended.left(wall_ms())


async def _to_node(viewer: socket.socket, connection: ClientConnection) -> Ended:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(viewer, CHUNK):
            await connection.send(data)
    except ConnectionClosed:
        await asyncio.Event().wait()
    except OSError:
        pass
    return Ended.left(wall_ms())
