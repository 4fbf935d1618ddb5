"""One viewer's graphics console: QEMU's own socket on one side, the operator's websocket on the other, the RFB filter between.

The guest's bytes go straight from socket to websocket, at most CHUNK a turn, and only their headers are looked at.
Operator messages that may change the guest go through the gate one by one, and wait while QEMU has not taken those before.
While the consent's giver holds input, the operator goes on being read: whoever is held still sees.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

from broker.allowance import QueueAllowance
from broker.gate import Gate
from broker.keyboard import Keyboard
from broker.metrics import Metrics
from broker.rfb import ClientMessage, Dropped, RfbError, RfbFilter
from broker.rfb_client import dropped_input
from broker.rfb_keys import PressedKeys
from broker.rfb_waiting import MAX_WAITING, WaitingInput
from broker.serial_console import Owner
from broker.session import Session
from broker.websocket import Departure, OperatorConnection
from eva.consent import Access, Kind
from eva.ending import Ending
from hypervisor.dialer import Line

CHUNK = 96 * 1024  # bytes read of the guest at a time: nobody holds the loop for longer (why not 64 or 128: docs/benchmarks.md)
LOOK_AGAIN = 0.002  # seconds until the kernel is asked again whether QEMU has taken what was written


class GraphicsViewer:
    """One session's screen. A `Feed` for its websocket."""

    __slots__ = (
        "_allowance",
        "_closed",
        "_filter",
        "_id",
        "_input",
        "_keyboard",
        "_line",
        "_loop",
        "_may_own",
        "_metrics",
        "_operator_paused",
        "_owner",
        "_pressed",
        "_quiet",
        "_reading",
        "_releases",
        "_requests",
        "_send",
        "_sock",
        "_timer",
        "_to_guest",
        "_to_operator",
        "_waiting",
        "connection",
        "gate",
        "session",
        "shown",
    )

    def __init__(self, session: Session, gate: Gate, line: Line, keyboard: Keyboard, metrics: Metrics, owner: Owner) -> None:
        self.session = session
        self.gate = gate
        self._id = session.id
        self._may_own = session.access is Access.KEYBOARD
        self.connection: OperatorConnection | None = None
        self._send: Callable[..., None] | None = None  # the connection's, without a detour by it
        self.shown = 0
        self._line = line
        self._sock = line.sock
        self._keyboard = keyboard
        self._metrics = metrics
        self._to_operator = metrics.to_operator.of(Kind.GRAPHICS)
        self._to_guest = metrics.to_guest.of(Kind.GRAPHICS)
        self._owner = owner
        self._filter = RfbFilter(session.accepted.consent.resource_id.vm)
        self._allowance = QueueAllowance()
        self._pressed = PressedKeys()
        self._waiting = WaitingInput()
        self._input = self._waiting.queue
        self._requests: deque[ClientMessage] = deque()  # all else that was sent: what no pause of the tenant's holds
        self._releases: deque[ClientMessage] = deque()  # of what is to be let go; a pause does not hold them either
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._reading = False
        self._quiet = True  # nothing waits for its turn
        self._operator_paused = False

    @property
    def stale(self) -> int:
        """Operator bytes that QEMU may not have taken."""
        if self._keyboard.owner != self.session.id or self._allowance.stale == 0 or self._closed:
            return 0
        self._allowance.room(self._queued())
        return self._allowance.stale

    @property
    def waiting(self) -> int:
        """Bytes of keys and pointer that wait at the gate."""
        return self._waiting.size

    def attach(self, connection: OperatorConnection) -> None:
        """Shows the screen on this connection: the only one in a graphics session's life."""
        self.connection = connection
        self._send = connection.send_binary
        self.gate.paused = False
        connection.attach(self)
        self._read(True)

    def detach(self) -> None:
        self.connection = self._send = None
        self.gate.paused = True
        self._read(False)

    def close(self, ending: Ending, grace: float) -> None:
        """Cuts the line, and gives the operator `grace` seconds to be told. The gate is shut already. Idempotent."""
        connection = self.connection
        self.connection = self._send = None
        self.cut()
        if connection is not None:
            connection.end(ending.code, ending.text, grace)

    def cut(self) -> None:
        """No byte moves either way after this."""
        if self._closed:
            return
        self._read(False)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._quiet = False  # nothing goes straight down any more
        for queue in (self._input, self._requests, self._releases):
            queue.clear()
        self._line.cut()

    def release_keys(self) -> None:
        """Lets go, once and without waiting, of the keys and buttons that this operator holds down in the guest."""
        if not self._closed:
            self.gate.release(self._line.sock, b"".join(self._pressed.releases(relative=self._filter.relative)))

    def keyboard_moved(self) -> None:
        """Another types now: what is held down here is let go, through the gate, and what waits is dropped."""
        if self._keyboard.owner == self.session.id or self._closed:
            return
        self._waiting.clear()
        self._let_go()

    def rein_in(self) -> None:
        """The consent's giver holds input from now on: what is held down is let go, and what waits goes on waiting."""
        if not self._closed:
            self._waiting.reckon_anew()
            self._let_go()

    def _let_go(self) -> None:
        # one by one: together they may be more than the allowance ever has room for
        ups = self._pressed.releases(relative=self._filter.relative)
        self._releases = deque(ClientMessage(up, is_input=False) for up in ups)
        self._quiet = False
        self.wake()

    # -- Feed ----------------------------------------------------------------------------------------------------

    def operator_bytes(self, data: bytes) -> None:
        may_type = self._may_own and self._keyboard.owner == self._id
        if may_type and self._quiet and self._filter.is_input(data) and self._allowance.fits(len(data)) and self._pass(data):
            return
        self._quiet = False
        try:
            step = self._filter.from_operator(data, may_type)
        except RfbError:
            self._owner.end(self.session, Ending.PROTOCOL_ERROR)
            return
        if step.dropped:
            self._count_dropped("rfb-client", step.dropped)
        if self._input or self.gate.rein.held:
            self._queue_up(step.messages)
        else:
            for message in step.messages:
                (self._input if message.is_input else self._requests).append(message)
        self.wake()
        if self._is_full and self.connection is not None and not self._operator_paused:
            self._operator_paused = True
            self.connection.pause_operator()

    def _queue_up(self, messages: Iterable[ClientMessage]) -> None:
        """Takes messages while input waits. What may not wait is dropped: to stop reading would stop the picture."""
        relative = self._filter.relative
        dropped: Counter[Dropped] = Counter()
        for message in messages:
            if not message.is_input:
                self._requests.append(message)
            elif not self.gate.rein.held:
                self._waiting.take(message, relative=relative)
            elif not self._waiting.take_while_held(message, self._pressed, relative=relative):
                dropped[dropped_input(message.data)] += 1
        if dropped:
            self._count_dropped("rein", dropped)

    def congested(self) -> None:
        self._read(False)

    def writable(self) -> None:
        self._read(True)

    def operator_gone(self, departure: Departure) -> None:
        self._owner.departed(self.session, departure)

    def _count_dropped(self, side: str, dropped: Mapping[Dropped, int]) -> None:
        for sort, count in dropped.items():
            self._metrics.filtered.labels(side, sort).inc(count)

    # -- towards the guest ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Writes the messages that wait, as far as gate and allowance allow."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # a request that waits for room holds keys back as well: or it would never have its turn
        full = (
            (bool(self._releases) and self._write(self._releases, notes_keys=True))
            or (bool(self._requests) and self._write(self._requests, notes_keys=False))
            or self._write(self._input, notes_keys=True)
        )
        self._quiet = not (self._input or self._requests or self._releases or self._closed)
        if full and not self._closed:  # a gate that is closed needs no looking: whoever opens it wakes us
            self._timer = self._loop.call_later(LOOK_AGAIN, self.wake)
        if self._operator_paused and not self._is_full and self.connection is not None:
            self._operator_paused = False
            self.connection.resume_operator()

    @property
    def _is_full(self) -> bool:
        waiting = len(self._input) + len(self._requests)
        # what the rein holds has a bound of its own
        return waiting > MAX_WAITING and (not self.gate.rein.held or len(self._requests) > MAX_WAITING)

    def _pass(self, message: bytes) -> bool:
        """Writes one key or movement for which there is room. False where it has to wait: nothing of it was written."""
        try:
            count = self.gate.send(self._sock, message)
        except OSError:
            return True  # the reader finds the end
        if count == 0:
            return False
        if self._wrote(message, count) and (excess := self._pressed.wrote(message)):
            self._input.append(ClientMessage(excess, is_input=True))
            self.wake()
        return True

    def _wrote(self, message: bytes, count: int) -> bool:
        """Counts what went; False, and the session is over, if it was not the whole."""
        self._allowance.stale += count
        self._to_guest.count += count
        if count < len(message):  # cannot be: 256 bytes always fit an empty buffer, and half a message may not stay
            self._owner.end(self.session, Ending.PROTOCOL_ERROR)
            return False
        return True

    def _write(self, queue: deque[ClientMessage], *, notes_keys: bool) -> bool:
        """Writes what goes of these. Whether QEMU has to take some before more may be written."""
        while queue and not self._closed:
            message = queue[0].data
            if not self._allowance.fits(len(message)) and len(message) > self._allowance.room(self._queued()):
                return True
            try:
                count = self.gate.send(self._sock, message, is_input=queue[0].is_input)
            except OSError:
                return False  # the reader finds the end
            if count == 0:
                return False
            if not self._wrote(message, count):
                return False
            queue.popleft()
            if notes_keys and (excess := self._pressed.wrote(message)):
                queue.appendleft(ClientMessage(excess, is_input=True))
        return False

    def _queued(self) -> int:
        """What QEMU has not read yet, as the kernel counts it: 0 is exact (unix(7), SIOCOUTQ)."""
        count = array.array("i", [0])
        fcntl.ioctl(self._line.sock.fileno(), termios.TIOCOUTQ, count)
        return count[0]

    # -- from the guest ------------------------------------------------------------------------------------------

    def _read(self, wanted: bool) -> None:
        if self._closed or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._line.sock.fileno(), self._readable)
        else:
            self._loop.remove_reader(self._line.sock.fileno())

    def _readable(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gate.paused = True
            self.cut()
            self._owner.line_lost([self.session])
            return
        try:
            pieces, dropped = self._filter.from_guest(data)
        except RfbError:
            self._owner.end(self.session, Ending.PROTOCOL_ERROR)
            return
        if dropped:
            self._count_dropped("rfb-server", dropped)
        if pieces and self._send is not None:
            self._send(*pieces)
            count = sum(map(len, pieces))
            self.shown += count
            self._to_operator.count += count
