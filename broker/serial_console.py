"""One VM's serial console: one attachment to the guest, any number of viewers, one of whom may type.

The guest's bytes pass the terminal filter into the scrollback, and from there to each viewer at that viewer's pace. One of
them sets the console's own pace: the keyboard's owner, or else who attached first. Any other who lags behind by the whole
scrollback is let go. Operator bytes wait with their viewer until the gate and the allowance let them down.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from broker.allowance import EchoAllowance
from broker.clock import Clock
from broker.gate import Gate
from broker.keyboard import Keyboard
from broker.masks import Masks
from broker.metrics import Metrics
from broker.scrollback import CAPACITY, Scrollback
from broker.session import Session
from broker.terminal_filter import TerminalFilter
from broker.transcript import Transcript
from broker.websocket import Departure, OperatorConnection
from eva.consent import Access, Kind
from eva.control import QUERIES, Mark, encode_mark
from eva.ending import Ending
from hypervisor.dialer import Line

READ = 8 * 1024  # bytes read of the guest at a time: a hostile guest's sequences take the filter 0.5 us a byte
CHUNK = 64 * 1024  # bytes of scrollback sent in one frame
MAX_PENDING = 64 * 1024  # operator bytes that wait at the gate before the operator is no longer read
PACE = CAPACITY // 2  # bytes that the viewer who sets the pace may lag before the guest is no longer read
TAKEN_AFTER = 0.05  # seconds in which counts of taken bytes are gathered into one notice
HELD_AFTER = 0.5  # seconds that input waits before its operator is told

_QUERY_NAMES = {query: name for name, query in QUERIES.items()} | {b"\x1b[0c": "da1"}


class Owner(Protocol):
    """Who owns consoles: the sessions."""

    def departed(self, session: Session, departure: Departure) -> None: ...
    def end(self, session: Session, ending: Ending) -> None: ...
    def line_lost(self, sessions: list[Session]) -> None: ...


class SerialViewer:
    """One session's place at the console. A `Feed` for its websocket."""

    def __init__(self, console: SerialConsole, session: Session, gate: Gate, start: int) -> None:
        self.session = session
        self.gate = gate
        self.connection: OperatorConnection | None = None
        self.offset = start  # of the next byte to send
        self.resume_from: int | None = None  # the offset up to which the client says it has all
        self.shown = 0  # bytes sent to the operator
        self.consumed = 0  # operator bytes that need not be sent again: written, or dropped because they may not be typed
        self.pending = bytearray()
        self.masks = Masks()
        self.held_told = False
        self._console = console
        self._taken_timer: asyncio.TimerHandle | None = None
        self._held_timer: asyncio.TimerHandle | None = None

    @property
    def stale(self) -> int:
        """Operator bytes that the guest may still receive after a cut."""
        return self._console.allowance.stale if self._console.keyboard.owner == self.session.id else 0

    def attach(self, connection: OperatorConnection) -> None:
        """Shows the console on this connection, from `resume_from` on or, where that is None, from where the viewer stood."""
        self._console.attach(self, connection)

    def detach(self) -> None:
        """Forgets the connection; what it had typed and was not taken is for the client to send again."""
        self.connection = None
        self.gate.paused = True
        self.drop_pending()
        self._console.pace()

    def close(self, ending: Ending, grace: float) -> None:
        """Takes the viewer off the console; the last one cuts the line. The gate is shut already.

        `grace`: seconds that the operator has to be told.
        """
        connection, self.connection = self.connection, None
        self.drop_pending()
        for timer in (self._taken_timer, self._held_timer):
            if timer is not None:
                timer.cancel()
        self._console.remove(self)
        if connection is not None and connection.departure is None:
            connection.send_notice(encode_mark(Mark.ENDED, reason=ending.word, text=ending.text))
        if connection is not None:
            connection.end(ending.code, ending.text, grace)

    def release_keys(self) -> None:
        """Serial has no keys that stay down."""

    def wake(self) -> None:
        self._console.pump()

    def drop_pending(self) -> None:
        self._console.count_pending(-len(self.pending))
        self.pending.clear()

    def tell(self, mark: Mark, **members: str | int | bool) -> None:
        if self.connection is not None:
            self.connection.send_notice(encode_mark(mark, **members))

    # -- Feed ----------------------------------------------------------------------------------------------------

    def operator_bytes(self, data: bytes) -> None:
        self._console.typed(self, data)

    def congested(self) -> None:
        self._console.pace()

    def writable(self) -> None:
        self.push()
        self._console.pace()

    def operator_gone(self, departure: Departure) -> None:
        self._console.owner.departed(self.session, departure)

    # -- towards the operator ------------------------------------------------------------------------------------

    def push(self) -> None:
        """Sends what the scrollback has for this viewer, as far as its connection takes it."""
        scrollback = self._console.scrollback
        while self.connection is not None and not self.connection.congested and self.offset < scrollback.end:
            if self.offset < scrollback.start:
                return  # it has lagged behind by all that is kept: the console ends it
            self.send(scrollback.read(self.offset, CHUNK))

    def send(self, data: bytes) -> None:
        """Sends the bytes that follow `offset`."""
        if self.connection is not None:
            self.connection.send_binary(data)
            self.offset += len(data)
            self.shown += len(data)
            self._console.to_operator.count += len(data)

    def tell_taken(self) -> None:
        """Soon tells how much input is consumed; many such calls make one notice."""
        if self._taken_timer is None:
            self._taken_timer = asyncio.get_running_loop().call_later(TAKEN_AFTER, self._tell_taken)

    def _tell_taken(self) -> None:
        self._taken_timer = None
        self.tell(Mark.TAKEN, taken=self.consumed)

    def watch_held(self) -> None:
        """Tells the operator, after a moment, that input waits; and when it no longer does."""
        if self.pending and self._held_timer is None:
            self._held_timer = asyncio.get_running_loop().call_later(HELD_AFTER, self._tell_held, self.consumed)
        elif not self.pending and self.held_told:
            self.held_told = False
            self.tell(Mark.HELD, held=0, why="")

    def _tell_held(self, consumed: int) -> None:
        self._held_timer = None
        if self.pending and self.consumed == consumed:
            self.held_told = True
            self.tell(Mark.HELD, held=len(self.pending), why=self.gate.held_by or "no-echo")
        elif self.pending:
            self.watch_held()


class SerialConsole:
    """The attachment. `close` is for when the last viewer goes; `owner` hears of departures and of a line that is lost."""

    def __init__(self, line: Line, keyboard: Keyboard, clock: Clock, metrics: Metrics, owner: Owner) -> None:
        self.keyboard = keyboard
        self.metrics = metrics
        self.to_operator = metrics.to_operator.of(Kind.SERIAL)
        self._to_guest = metrics.to_guest.of(Kind.SERIAL)
        self.owner = owner
        self.allowance = EchoAllowance()
        self.scrollback = Scrollback()
        self.viewers: dict[str, SerialViewer] = {}
        self.transcript: Transcript | None = None  # while somebody watches
        self.closed = False
        self._line = line
        self._clock = clock
        self._filter = TerminalFilter()
        self._floors: dict[str, int] = {}  # by consent (cid): where its first viewer came in
        self._dropped_counted: dict[str, int] = {}
        self._reading = False
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self.pace()

    # -- viewers -------------------------------------------------------------------------------------------------

    def admit(self, session: Session, gate: Gate) -> SerialViewer:
        """A place for this session. It sees no byte that came before the first session under its own consent."""
        floor = self._floors.setdefault(session.accepted.consent.cid, self.scrollback.end)
        viewer = SerialViewer(self, session, gate, floor)
        self.viewers[session.id] = viewer
        return viewer

    def attach(self, viewer: SerialViewer, connection: OperatorConnection) -> None:
        if viewer.resume_from is not None:
            viewer.offset = min(viewer.resume_from, self.scrollback.end)
        viewer.offset = max(viewer.offset, self._floors[viewer.session.accepted.consent.cid])
        if viewer.offset < self.scrollback.start:
            viewer.offset = self.scrollback.first_whole()
        viewer.connection = connection
        viewer.gate.paused = False
        viewer.tell(Mark.ATTACHED, offset=viewer.offset, taken=viewer.consumed)
        viewer.push()
        connection.attach(viewer, text=True)  # what wscat and others send
        self.pace()

    def remove(self, viewer: SerialViewer) -> None:
        """The viewer's session is over. With the last one the line is cut and what the guest said is wiped."""
        self.viewers.pop(viewer.session.id, None)
        cid = viewer.session.accepted.consent.cid
        if not any(v.session.accepted.consent.cid == cid for v in self.viewers.values()):
            self._floors.pop(cid, None)
        if not self.viewers:
            self.close()
            self.scrollback.wipe()
        else:
            self.pace()

    def close(self) -> None:
        """Cuts the line: nothing more goes to the guest or comes from it. Idempotent.

        What it said last is still shown to a viewer who lags, until that viewer's own end.
        """
        if self.closed:
            return
        self.closed = True
        fd = self._line.sock.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        self._reading = self._writing = False
        self._line.cut()
        self.listen(None)

    # -- from the guest ------------------------------------------------------------------------------------------

    def pace(self) -> None:
        """Reads the guest, or stops, by the lag of the viewer who sets the pace."""
        attached = [v for v in self.viewers.values() if v.connection is not None]
        # a tenant who watches slows no operator down
        setter = min(attached, key=lambda v: (v.session.id != self.keyboard.owner, v.session.operator.is_tenant), default=None)
        wanted = not self.closed and (setter is None or self.scrollback.end - setter.offset < PACE)
        if wanted and not self._reading:
            self._loop.add_reader(self._line.sock.fileno(), self._readable)
        elif self._reading and not wanted and not self.closed:
            self._loop.remove_reader(self._line.sock.fileno())
        self._reading = wanted

    def _readable(self) -> None:
        try:
            data = self._line.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        filtered = self._filter.feed(data, self._clock.now().boot)
        # what lay here unread may be older than what was typed since, so only what it ends with is a sign
        if len(data) < READ or not self._line.unread:
            self.allowance.guest_spoke()
        if self.transcript is not None:
            self.transcript.guest(filtered.shown)
        self._show(filtered.shown, filtered.queries)
        self._count_dropped()
        self.pump()

    def _show(self, shown: bytes, queries: tuple[tuple[int, bytes], ...]) -> None:
        before = self.scrollback.end
        self.scrollback.append(shown)
        asked = self.viewers.get(self.keyboard.owner or "")
        for viewer in list(self.viewers.values()):
            level = viewer.offset == before and viewer.connection is not None and not viewer.connection.congested
            if viewer is asked and level and queries:
                self._show_with_queries(viewer, shown, queries)
            elif level and shown:
                viewer.send(shown)
            else:
                viewer.push()
            if viewer.connection is not None and viewer.offset < self.scrollback.start:
                self.owner.end(viewer.session, Ending.SLOW_OPERATOR)
        self.pace()

    @staticmethod
    def _show_with_queries(viewer: SerialViewer, shown: bytes, queries: tuple[tuple[int, bytes], ...]) -> None:
        at = 0
        for place, query in queries:
            if place > at:
                viewer.send(shown[at:place])
                at = place
            viewer.tell(Mark.QUERY, query=_QUERY_NAMES[query])
        if at < len(shown):
            viewer.send(shown[at:])

    def _count_dropped(self) -> None:
        for sort, count in self._filter.dropped.items():
            new = count - self._dropped_counted.get(sort, 0)
            if new:
                self.metrics.filtered.labels("terminal", sort).inc(new)
                self._dropped_counted[sort] = count

    def _lost(self) -> None:
        """The line ended by itself: no byte moves any more; the sessions find out why."""
        for viewer in self.viewers.values():
            viewer.gate.paused = True
        self.close()
        self.owner.line_lost([viewer.session for viewer in self.viewers.values()])

    # -- from the operators --------------------------------------------------------------------------------------

    def typed(self, viewer: SerialViewer, data: bytes) -> None:
        """Takes what an operator typed: it waits its turn, or is dropped where this operator may not type (invariant 6)."""
        if viewer.session.access is not Access.KEYBOARD or self.keyboard.owner != viewer.session.id:
            viewer.consumed += len(data)
            viewer.tell_taken()
            self.metrics.filtered.labels("keyboard", "input").inc(len(data))
            return
        viewer.pending += data
        self.count_pending(len(data))
        self.pump()
        if len(viewer.pending) >= MAX_PENDING and viewer.connection is not None:
            viewer.connection.pause_operator()

    def pump(self) -> None:
        """Writes what the keyboard's owner typed, as far as gate, allowance and socket allow."""
        viewer = self.viewers.get(self.keyboard.owner or "")
        if viewer is None or self.closed:
            return
        was_full = len(viewer.pending) >= MAX_PENDING
        before = viewer.consumed
        while viewer.pending and (room := min(self.allowance.room, len(viewer.pending))) > 0:
            try:
                count = viewer.gate.send(self._line.sock, viewer.pending[:room])
            except OSError:
                return  # the reader finds the end
            if count == 0:
                break
            if self.transcript is not None:
                self.transcript.passed(viewer.session, bytes(viewer.pending[:count]), viewer.consumed, viewer.masks)
            del viewer.pending[:count]
            self.allowance.wrote(count)
            viewer.consumed += count
        count = viewer.consumed - before
        if count:
            self.count_pending(-count)
            self._to_guest.count += count
            viewer.tell_taken()
        if was_full and len(viewer.pending) < MAX_PENDING and viewer.connection is not None:
            viewer.connection.resume_operator()
        viewer.watch_held()
        self._want_write(bool(viewer.pending) and self.allowance.room > 0 and viewer.gate.open())

    def listen(self, transcript: Transcript | None) -> None:
        """Who watches is told what is typed from now on, by this; None: nobody watches."""
        if self.transcript is not None:
            self.transcript.close()
        self.transcript = transcript

    def _want_write(self, wanted: bool) -> None:
        """With room and an open gate, bytes that still wait are waiting for the socket."""
        if wanted != self._writing and not self.closed:
            fd = self._line.sock.fileno()
            if wanted:
                self._loop.add_writer(fd, self.pump)
            else:
                self._loop.remove_writer(fd)
            self._writing = wanted

    def keyboard_moved(self) -> None:
        """Another types now: what the others had waiting is dropped, and each is told that it was."""
        for viewer in self.viewers.values():
            if viewer.session.id != self.keyboard.owner and viewer.pending:
                viewer.consumed += len(viewer.pending)
                full = len(viewer.pending) >= MAX_PENDING
                viewer.drop_pending()
                viewer.tell_taken()
                viewer.watch_held()
                if full and viewer.connection is not None:
                    viewer.connection.resume_operator()
        self.pace()
        self.pump()

    def release_held(self) -> None:
        """The operator's "send anyway"."""
        self.allowance.release()
        self.pump()

    def count_pending(self, change: int) -> None:
        self.metrics.held.count += change
