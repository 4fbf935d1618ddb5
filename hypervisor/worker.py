"""A worker: one thread, one libvirt connection, one console (or one chord of keys), then the end.

It opens what it was asked for, by UUID only, and pumps between the libvirt stream and its end of a socketpair.
Its parent is the fork server. The broker ends it with SIGKILL; by itself it ends when either of its sockets does.

The client side of a libvirt stream has no flow control: whatever the daemon sends is queued in this process's memory as long
as the event loop runs. So while the broker does not read, the event loop does not run either. As the daemon drops a
connection from which it has heard nothing for 30 s (measured, libvirt 9.0), there is then a call every 15 s. Answering its
pings would not do: they stand in line behind hundreds of small stream messages, and the client reads one at each turn.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

import libvirt

from hypervisor.control import Cause, Device, DialFailure, Done, Ended, Keys, Open, Refused, send

FROM_GUEST = 16 * 1024  # bytes taken from libvirt at once
TO_GUEST = 4096  # bytes taken from the broker at once; nothing more waits in this process
STALL = 64 * 1024  # bytes that wait for the broker: from here on the event loop rests
NO_INPUT = 512 * 1024  # ... nothing is taken from the broker, as each send reads a socket's fill from the daemon
GIVE_UP = 1024 * 1024  # ... the console ends
SIGN_OF_LIFE = 15.0  # seconds
RELEASE = (0.005, 0.02, 0.05, 0.1)  # seconds between tries: libvirtd may learn of the last console's end a moment late

_DENIED = (
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_ACCESS_DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED,
)
_LOST = (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN)


def failure_of(error: libvirt.libvirtError) -> DialFailure:
    """What an error of libvirt's means for one who dials. Source: remote_driver.c and qemu_driver.c of libvirt 9.0."""
    code, text = error.get_error_code(), error.get_error_message() or ""
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return DialFailure.NO_DOMAIN
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return DialFailure.NOT_RUNNING
    if "Active console session" in text:  # VIR_ERR_OPERATION_FAILED, as much else; the locale is C
        return DialFailure.BUSY
    if any(words in text for words in ("character device", "No graphics backend", "Can only open VNC")):
        return DialFailure.NO_DEVICE
    if code in _DENIED:
        return DialFailure.REFUSED
    return DialFailure.HOST_DOWN if code in _LOST else DialFailure.REFUSED


def attend(request: Open | Keys, control: socket.socket, console: socket.socket | None) -> None:
    """Does what was asked, says so on the control stream, and returns when all is over. Raises OSError: the dialer has gone."""
    try:
        if isinstance(request, Keys):
            _press(request)
            send(control, Done())
        elif request.device is Device.GRAPHICS:
            _hand_over_graphics(control, request)
        elif console is not None:
            pump = Pump(_open_serial(request), console, control)
            send(control, Done())
            pump.run()
    except libvirt.libvirtError as error:
        send(control, Refused(failure_of(error), str(error)))


def _press(request: Keys) -> None:
    domain = libvirt.open(request.uri).lookupByUUIDString(request.uuid)
    codes = list(request.codes)
    domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, request.hold_ms, codes, len(codes), 0)


def _hand_over_graphics(control: socket.socket, request: Open) -> None:
    """Passes QEMU's very socket: the one thing here that needs the guest on this host."""
    domain = libvirt.open(request.uri).lookupByUUIDString(request.uuid)
    fd = domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    send(control, Done(), [fd])


def _open_serial(request: Open) -> libvirt.virStream:
    libvirt.virEventRegisterDefaultImpl()  # after the fork: its wakeup descriptor must not be a sibling's, too
    connection = libvirt.open(request.uri)
    domain = connection.lookupByUUIDString(request.uuid)
    pauses = iter(RELEASE)
    while True:
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            # SAFE: only where libvirt can lock the console against a second reader; never FORCE
            domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        except libvirt.libvirtError as error:
            pause = next(pauses, None)
            if pause is None or failure_of(error) is not DialFailure.BUSY:
                raise
            time.sleep(pause)
        else:
            return stream


class Pump:
    """Both directions of one open console. An exception in a callback of libvirt's is lost, so callbacks only take notes."""

    def __init__(self, stream: libvirt.virStream, console: socket.socket, control: socket.socket) -> None:
        self._stream = stream
        self._console = console
        self._control = control
        self._to_broker = bytearray()
        self._to_guest = b""
        self._noted = False  # the stream has something to say
        self._lost = False  # the connection to libvirtd has
        self._ended = False
        self._sign_of_life_due = False
        console.setblocking(False)
        console.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STALL)
        self._stream_events = libvirt.VIR_STREAM_EVENT_READABLE
        stream.eventAddCallback(self._stream_events | _STREAM_ENDS, self._note_stream, None)
        stream.connect().registerCloseCallback(self._note_loss, None)
        self._console_events = libvirt.VIR_EVENT_HANDLE_READABLE
        self._watch = libvirt.virEventAddHandle(console.fileno(), self._console_events, _ignore, None)
        libvirt.virEventAddHandle(control.fileno(), libvirt.VIR_EVENT_HANDLE_READABLE, self._note_control, None)
        self._over = False

    def _note_stream(self, _stream: libvirt.virStream, _events: int, _opaque: None) -> None:
        self._noted = True

    def _note_loss(self, _connection: libvirt.virConnect, _reason: int, _opaque: None) -> None:
        self._lost = True

    def _note_control(self, _watch: int, _fd: int, _events: int, _opaque: None) -> None:
        self._over = True  # the dialer says nothing more on this stream, so this is its end

    def run(self) -> None:
        """Pumps until the console ends and all it said is with the broker, or the broker's ends are closed."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the broker has closed: nobody is left to tell
            while not self._over and not self._ended:
                if len(self._to_broker) < STALL:
                    libvirt.virEventRunDefaultImpl()
                else:
                    self._rest()
                self._turn()
            while self._to_broker and not self._over:
                self._rest()
                self._flush()

    def _turn(self) -> None:
        try:
            if self._sign_of_life_due:
                self._sign_of_life_due = False
                self._stream.connect().getLibVersion()
                self._noted = True  # while it waited it read output into libvirt's own queue: it is to be counted here
            if self._noted:
                self._noted = False
                self._receive()
            self._flush()
            if not self._ended:
                self._forward()
        except libvirt.libvirtError as error:
            lost = self._lost or failure_of(error) is DialFailure.HOST_DOWN
            self._end(Cause.LIBVIRT_LOST if lost else Cause.ERROR, str(error))
        if self._lost and not self._ended:
            self._end(Cause.LIBVIRT_LOST, "libvirtd closed the connection")
        if not self._ended:
            self._rearm()

    def _end(self, cause: Cause, detail: str) -> None:
        self._ended = True  # and the event loop never runs again: at b"" the stream would call for ever
        send(self._control, Ended(cause, detail))

    def _receive(self) -> None:
        while len(self._to_broker) < GIVE_UP:
            data = self._stream.recv(FROM_GUEST)
            if data == -2:  # would block
                return
            if not data:
                self._end(Cause.EOF, "")
                return
            self._to_broker += data
            self._flush()
        self._end(Cause.ERROR, f"{len(self._to_broker)} bytes of output not read")

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._to_broker:
                del self._to_broker[: self._console.send(self._to_broker)]

    def _forward(self) -> None:
        if not self._to_guest and len(self._to_broker) < NO_INPUT:
            with contextlib.suppress(BlockingIOError):
                self._to_guest = self._console.recv(TO_GUEST)
                self._over = self._over or not self._to_guest
        if self._to_guest:
            sent = self._stream.send(self._to_guest)
            if sent > 0:  # -2: would block
                self._to_guest = self._to_guest[sent:]
                self._noted = True  # and so may a send

    def _rearm(self) -> None:
        """Asks for the events that something can be done with, as an unanswered one would come again at once."""
        events = 0 if self._to_guest else libvirt.VIR_EVENT_HANDLE_READABLE
        if self._to_broker:
            events |= libvirt.VIR_EVENT_HANDLE_WRITABLE
        if events != self._console_events:
            self._console_events = events
            libvirt.virEventUpdateHandle(self._watch, events)
        events = libvirt.VIR_STREAM_EVENT_READABLE | (libvirt.VIR_STREAM_EVENT_WRITABLE if self._to_guest else 0)
        if events != self._stream_events:
            self._stream_events = events
            self._stream.eventUpdateCallback(events | _STREAM_ENDS)

    def _rest(self) -> None:
        """Waits until the broker reads, or types, or has gone, or the daemon wants an answer; the event loop stands still."""
        poll = select.poll()
        takes_input = not self._ended and not self._to_guest and len(self._to_broker) < NO_INPUT
        poll.register(self._console, select.POLLOUT | (select.POLLIN if takes_input else 0))
        poll.register(self._control, select.POLLIN)
        ready = dict(poll.poll(SIGN_OF_LIFE * 1000))
        self._over = self._over or self._control.fileno() in ready
        self._sign_of_life_due = not ready and not self._ended


_STREAM_ENDS = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


def _ignore(*_: object) -> None:
    """The event's only use is that the loop returns."""
