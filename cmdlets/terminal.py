"""Where the operator sits: a terminal in raw mode, or pipes of a script. Also how a password is asked for.

Nothing here blocks the loop, and no flag of a file description shared with the shell is changed: the terminal is opened
afresh, and pipes are written no more than PIPE_BUF at a time, which never blocks once poll(2) says they are writable.

Errors:

    NoTerminal      there is no terminal to ask on
    Vacant          nobody sits there any more: the terminal hung up, or the script's reader is gone
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

from cmdlets.screen import Screen

MAX_PENDING = 128 * 1024  # bytes waiting for a stopped terminal, beyond which lines of ours are dropped
MAX_READ = 4096  # bytes
LAST_WORDS = 1.0  # seconds that a stopped terminal or script has to take what is left at the end
STDIN, STDOUT, STDERR = 0, 1, 2
TTY = Path("/dev/tty")
PROGRAM = "eva"  # before each line of ours

# Terminals that show a title and take its push and pop (xterm's control sequences, "Window manipulation").
_TITLED = ("xterm", "screen", "tmux", "rxvt", "alacritty", "foot", "kitty", "konsole", "vte", "wezterm", "contour")
_PUSH_TITLE, _POP_TITLE = b"\x1b[22;2t", b"\x1b[23;2t"


class NoTerminal(Exception):
    pass


class Vacant(Exception):
    pass


def say(line: str) -> None:
    """A line on standard error. Unbuffered, and no matter if nobody reads it any more."""
    with contextlib.suppress(OSError):
        os.write(STDERR, line.encode("utf-8", "backslashreplace") + b"\n")


class Outlet:
    """The way out to one descriptor. What it does not take at once waits; `drained` tells when nothing does."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = bytearray()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._idle = asyncio.Event()
        self._idle.set()
        self._gone = False

    @property
    def pending(self) -> int:
        return len(self._pending)

    def put(self, data: bytes) -> None:
        """Keeps `data` and writes what goes. The caller waits for `drained` between larger pieces."""
        self._pending += data
        if self._idle.is_set():
            self._idle.clear()
            self._write()
            if not self._idle.is_set():
                asyncio.get_running_loop().add_writer(self._fd, self._write)

    async def drained(self) -> None:
        """Returns once all is written. Raises Vacant where that can never be."""
        await self._idle.wait()
        if self._gone:
            raise Vacant

    def _write(self) -> None:
        # A regular file is always writable here, so it never gets to add_writer, which refuses it.
        try:
            while self._pending and not self._gone and self._poll.poll(0):
                del self._pending[: os.write(self._fd, self._pending[: select.PIPE_BUF])]
        except BlockingIOError:
            pass
        except OSError:
            self._gone = True
        if not self._pending or self._gone:
            self._pending.clear()
            self._idle.set()
            asyncio.get_running_loop().remove_writer(self._fd)

    async def last_words(self) -> None:
        """Gives what waits a last, short chance."""
        with contextlib.suppress(TimeoutError, Vacant):
            async with asyncio.timeout(LAST_WORDS):
                await self.drained()
        asyncio.get_running_loop().remove_writer(self._fd)


async def take(fd: int, most: int) -> bytes:
    """Up to `most` bytes, or b"" at the end. Cancelling loses nothing. Raises Vacant."""
    try:
        await _readable(fd)
        return os.read(fd, min(most, MAX_READ))
    except OSError:
        raise Vacant from None


async def _readable(fd: int) -> None:
    """Returns once a read of `fd` gives something or its end at once."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # epoll(7) refuses regular files, which are always readable
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _afresh(terminal: int) -> int:
    """The same terminal under a file description of our own, which may be non-blocking."""
    return os.open(os.ttyname(terminal), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)


class Seat(Protocol):
    """What a serial session needs of it. `interactive`: a person sits there, and escape keys count."""

    interactive: bool

    async def read(self, most: int) -> bytes:
        """Up to `most` bytes that were typed; b"" at the end. Cancelling loses nothing. Raises Vacant."""

    def show(self, output: bytes) -> None:
        """Console output. It is kept whatever happens; wait for `drained` before the next."""

    def query(self, sequence: bytes) -> None:
        """A question of the guest's to the terminal, whose answer is typed."""

    async def drained(self) -> None:
        """All output is out. Raises Vacant."""

    def tell(self, line: str) -> None:
        """A line of ours."""

    def title(self, text: str) -> None:
        """The line of status, if there is a place for it."""

    async def last_words(self) -> None:
        """Gives what was shown and told a last, short chance to get out."""


class Terminal:
    """The terminal on standard input, raw from `raw_terminal` on."""

    interactive = True

    def __init__(self, fd: int, titled: bool) -> None:
        self._fd = fd
        self._titled = titled
        self._outlet = Outlet(fd)
        self._screen = Screen()

    async def read(self, most: int) -> bytes:
        return await take(self._fd, most)

    def show(self, output: bytes) -> None:
        self._outlet.put(self._screen.show(output))

    def query(self, sequence: bytes) -> None:
        self._outlet.put(sequence)

    async def drained(self) -> None:
        await self._outlet.drained()

    def tell(self, line: str) -> None:
        if self._outlet.pending <= MAX_PENDING:
            self._outlet.put(self._screen.line(f"{PROGRAM}: {line}"))

    def title(self, text: str) -> None:
        if self._titled and not self._outlet.pending:
            self._outlet.put(b"\x1b]2;" + text.encode("utf-8", "replace") + b"\x07")

    async def last_words(self) -> None:
        await self._outlet.last_words()

    def farewell(self) -> bytes:
        """What undoes the guest's modes and our title, and begins a line."""
        return self._screen.sane() + (_POP_TITLE if self._titled else b"") + b"\r\n"


@contextlib.contextmanager
def raw_terminal() -> Iterator[Terminal]:
    """The terminal of standard input in raw mode, and after it, however that ends, as it was. Needs a running loop."""
    fd = _afresh(STDIN)
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(fd)
    titled = os.environ.get("TERM", "").startswith(_TITLED)
    terminal = Terminal(fd, titled)

    def raw_again() -> None:
        with contextlib.suppress(termios.error):  # a hang-up sends SIGCONT too (termios(3)); reading tells of that
            tty.setraw(fd, termios.TCSANOW)

    try:
        tty.setraw(fd, termios.TCSANOW)
        # a shell that had us stopped gives the terminal back in its own mode
        loop.add_signal_handler(signal.SIGCONT, raw_again)
        if titled:
            os.write(fd, _PUSH_TITLE)
        yield terminal
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_writer(fd)
        # A terminal that hung up (EIO) or is stopped (EAGAIN) is not to keep us from setting its mode back.
        with contextlib.suppress(OSError):
            os.write(fd, terminal.farewell())
        with contextlib.suppress(termios.error):
            # What was typed for the guest after its console closed must not become the shell's next command.
            termios.tcflush(fd, termios.TCIFLUSH)
            termios.tcsetattr(fd, termios.TCSANOW, before)
        os.close(fd)


class Pipes:
    """Standard input and output of a script: bytes as they are; our own lines go to standard error."""

    interactive = False

    def __init__(self, source: int, sink: int, tell: Callable[[str], None]) -> None:
        self._source = source
        self._outlet = Outlet(sink)
        self._tell = tell

    async def read(self, most: int) -> bytes:
        return await take(self._source, most)

    def show(self, output: bytes) -> None:
        self._outlet.put(output)

    def query(self, sequence: bytes) -> None:
        """There is no terminal that would answer."""

    async def drained(self) -> None:
        await self._outlet.drained()

    def tell(self, line: str) -> None:
        self._tell(f"{PROGRAM}: {line}")

    def title(self, text: str) -> None:
        """There is no place for it."""

    async def last_words(self) -> None:
        await self._outlet.last_words()


@contextlib.contextmanager
def script_pipes() -> Iterator[Pipes]:
    """Standard input and output as they are, except that one that is a terminal is not to block."""
    sink = STDOUT
    if not os.isatty(sink):
        yield Pipes(STDIN, sink, say)
        return
    fd = _afresh(sink)
    try:
        yield Pipes(STDIN, fd, say)
    finally:
        asyncio.get_running_loop().remove_writer(fd)
        os.close(fd)


def ask_account(prompt: str) -> str:
    """A line typed at the terminal, shown. Raises NoTerminal."""
    try:
        with TTY.open("wb", buffering=0) as out, TTY.open("r", encoding="utf-8", errors="replace") as lines:
            out.write(prompt.encode())
            return lines.readline().strip()
    except OSError:
        raise NoTerminal from None


def ask_password(prompt: str) -> str:
    """A line typed at the terminal, not shown; its echo is on again after every exit. Raises NoTerminal."""
    try:
        # getpass itself would fall back to standard input, with echo
        with TTY.open("rb"):
            pass
    except OSError:
        raise NoTerminal from None
    with _raising((signal.SIGTERM, signal.SIGHUP)):
        try:
            return getpass.getpass(prompt)
        except EOFError:
            raise NoTerminal from None


@contextlib.contextmanager
def _raising(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """These signals, which would kill at once, unwind the stack instead and set the terminal right on the way."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    try:
        for number in signals:
            before[number] = signal.signal(number, leave)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
