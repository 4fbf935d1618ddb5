"""A watcher: one process for each host that follows libvirt's events and tells what it sees, one JSON object a line.

`python -m hypervisor.watcher FD PARENT URI`: FD is its stream to the daemon, its only descriptor. Its connection is
read-only: it cannot open a console. A call that hangs with libvirtd hangs this process alone, its beats stop, and the
daemon kills it. A connection that was lost ends the process, as its callbacks would outlive it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections import deque

import libvirt

from hypervisor import description
from hypervisor.confinement import confine, keep_only
from hypervisor.control import encode
from hypervisor.sighting import MAX_DOMAINS, Beat, Befell, Fate, Listed, Lost, Seen, Sighting

BEAT_MS = 2000
KEEPALIVE = (5, 3)  # seconds, times
PAUSE = (0.25, 5.0)  # seconds between two tries to connect: first, longest
MAX_NOTES = 100_000  # events not yet looked into
MAX_NAME = 255

_LIFECYCLE, _REBOOT, _METADATA = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
)
_STOPPED = _LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_STOPPED
_UNDEFINED = _LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_UNDEFINED


class _Rift(Exception):
    """The watcher cannot go on with this connection; the text says why."""


class Watcher:
    """One connection's life. An exception in a callback of libvirt's is lost, so callbacks only take notes."""

    def __init__(self, connection: libvirt.virConnect, out: socket.socket) -> None:
        self._connection = connection
        self._out = out
        self._notes: deque[tuple[str, int, int, int]] = deque()  # UUID, event ID, its event and detail
        self._over = False
        self._lost = False
        self._beat = False
        libvirt.virEventAddHandle(out.fileno(), libvirt.VIR_EVENT_HANDLE_READABLE, self._note_end, None)
        libvirt.virEventAddTimeout(BEAT_MS, self._note_beat, None)
        connection.registerCloseCallback(self._note_loss, None)
        with contextlib.suppress(libvirt.libvirtError):  # the test driver lives in this process
            connection.setKeepAlive(*KEEPALIVE)
        # events first, then the list: what happens in between is told twice rather than never
        connection.domainEventRegisterAny(None, _LIFECYCLE, self._note_lifecycle, None)
        connection.domainEventRegisterAny(None, _REBOOT, self._note_reboot, None)
        connection.domainEventRegisterAny(None, _METADATA, self._note_metadata, None)

    def _note_end(self, _watch: int, _fd: int, _events: int, _opaque: None) -> None:
        self._over = True

    def _note_beat(self, _timer: int, _opaque: None) -> None:
        self._beat = True

    def _note_loss(self, _connection: libvirt.virConnect, _reason: int, _opaque: None) -> None:
        self._lost = True

    def _note_lifecycle(self, _c: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _o: None) -> None:
        self._notes.append((domain.UUIDString(), _LIFECYCLE, event, detail))

    def _note_reboot(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, _opaque: None) -> None:
        self._notes.append((domain.UUIDString(), _REBOOT, 0, 0))

    def _note_metadata(self, _c: libvirt.virConnect, domain: libvirt.virDomain, kind: int, _uri: str, _o: None) -> None:
        self._notes.append((domain.UUIDString(), _METADATA, kind, 0))

    def run(self) -> None:
        """Lists all domains, then tells what happens, until the daemon closes its end.

        Raises _Rift or libvirtError when the connection cannot be used any more, OSError when the daemon has gone.
        """
        self._list()
        while not self._over:
            libvirt.virEventRunDefaultImpl()
            if self._lost:
                raise _Rift("libvirtd closed the connection")
            if len(self._notes) > MAX_NOTES:
                raise _Rift(f"{len(self._notes)} events at once")
            self._look_into_notes()
            if self._beat:
                self._beat = False
                self._connection.getLibVersion()  # a real call: it hangs or fails if libvirtd does
                self._tell(Beat())

    def _list(self) -> None:
        domains = self._connection.listAllDomains()
        if len(domains) > MAX_DOMAINS:
            raise _Rift(f"{len(domains)} domains, more than {MAX_DOMAINS}")
        self._tell(Listed(sum(self._describe(domain.UUIDString()) for domain in domains)))

    def _look_into_notes(self) -> None:
        """First what the events say has ended, then what is there now: that may be ahead of the last event."""
        touched: dict[str, None] = {}
        stopped: set[str] = set()
        while self._notes:
            uuid, event_id, event, detail = self._notes.popleft()
            touched[uuid] = None
            if event_id == _REBOOT:
                self._tell(Befell(uuid, Fate.RESET))
            elif (event_id, event) == _STOPPED:
                stopped.add(uuid)
                self._tell(Befell(uuid, Fate.STOPPED))
            elif (event_id, event) == _UNDEFINED and detail != libvirt.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED:
                self._tell(Befell(uuid, Fate.GONE))
        for uuid in touched:
            if not self._describe(uuid) and uuid in stopped:
                self._tell(Befell(uuid, Fate.GONE))

    def _describe(self, uuid: str) -> bool:
        """Tells what the domain is now; false when there is none, of which an event tells or will tell."""
        try:
            domain = self._connection.lookupByUUIDString(uuid)
            state = domain.state()[0]
            persistent = bool(domain.isPersistent())
            xml = domain.XMLDesc(0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise
        number = domain.ID()
        fault = None
        try:
            found = description.parse(xml)
        except description.BadDescription as error:
            found, fault = description.Description(None, False, False, False), f"its description {error.why}"
        self._tell(
            Seen(
                uuid=uuid,
                name=domain.name()[:MAX_NAME],
                number=number,
                persistent=persistent,
                paused=number >= 0 and state == libvirt.VIR_DOMAIN_PAUSED,
                resource=found.resource,
                serial=found.serial,
                graphics=found.graphics,
                tcp_display=found.tcp_display,
                fault=fault,
            )
        )
        return True

    def _tell(self, sighting: Sighting) -> None:
        self._out.sendall(encode(sighting))


def watch(uri: str, out: socket.socket) -> None:
    """Connects, trying as long as it takes and saying each time why not, and watches. Raises OSError: the daemon has gone."""
    poll = select.poll()
    poll.register(out, select.POLLIN)
    pause = PAUSE[0]
    while True:
        try:
            connection = libvirt.openReadOnly(uri)
            break
        except libvirt.libvirtError as error:
            out.sendall(encode(Lost(str(error))))
        if poll.poll(pause * 1000):
            return  # nothing is ever said to a watcher, so this is the end of its stream
        pause = min(pause * 2, PAUSE[1])
    try:
        Watcher(connection, out).run()
    except (_Rift, libvirt.libvirtError) as error:
        out.sendall(encode(Lost(str(error))))


def main() -> None:
    fd, parent, uri = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    keep_only([fd])
    confine("eva-watcher", parent)
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised as well: not on standard error, too
    libvirt.virEventRegisterDefaultImpl()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        watch(uri, socket.socket(fileno=fd))
    # not exit(): closing a libvirt connection may wait for a hung libvirtd
    os._exit(0)


if __name__ == "__main__":
    main()
