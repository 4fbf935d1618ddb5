"""What is measured, of whom, and what was to be reached (issues 2 and 3). Pure.

`console` names the stand-in's kind: `rfb` is a VNC server with a Raw 1920x1080 screen, `plain` sends, sinks or echoes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.contenders import GRAPHICS, HOT_PATH, LIMIT, ORDINARY, SERIAL, WEBSOCKIFY, Contender

ALONE = "generator alone"  # no relay at all: the most that this stand can measure
KILLED = "raw relay (C), SIGKILL"
CUT = "eva, 1,000 sessions"
WORKER = "eva, worker"
IN_PROCESS = "libvirt, no process"
NEW_PROCESS = "libvirt, new Python process"
BARE = "bare steps"
BARE_8 = "bare steps, 8 at once"
ONE = "eva, 1 client"
EIGHT = "eva, 8 clients"
PROVIDER_WORK = "provider"
NODE_WORK = "node"
EVA_PAGE = "eva, page and node"
NOVNC_PAGE = "noVNC, websockify"
SIZES = (10, 1_000, 100_000)
DATABASES = ("sqlite", "pg")


def size_name(size: int) -> str:
    return f"{size:,} consents"


@dataclass(frozen=True)
class Goal:
    """`who` is to be at most, or at least, `bound` times `peer`'s figure; without a peer the bound is the figure itself."""

    who: str
    bound: float
    peer: str | None = None
    at_most: bool = False

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{self.who} {sign} {self.bound:g}" + (f" x {self.peer}" if self.peer else "")


@dataclass(frozen=True)
class Measure:
    """`load`: the generator's arguments; `figure`: which of its figures counts; `beside`: a load that runs meanwhile.

    Without `load` the samples come from a program of their own. Ratios are to `base`.
    """

    name: str
    unit: str
    who: tuple[Contender, ...] = ()
    load: tuple[str, ...] = ()
    figure: str = "bytes_per_second"
    scale: float = 1.0
    console: str = "rfb"
    tls: bool = False
    beside: tuple[str, ...] = ()
    connections: int = 1
    goals: tuple[Goal, ...] = ()
    base: str = LIMIT.name
    alone: bool = False  # also without any relay
    note: str = ""


_EVERYBODY = (LIMIT, GRAPHICS, HOT_PATH, WEBSOCKIFY, ORDINARY)
_UP = (LIMIT, HOT_PATH, WEBSOCKIFY, ORDINARY)
_SERIAL = (LIMIT, SERIAL, WEBSOCKIFY)
_MB = 1e-6
_ECHO = "p50_us"
_RATE = "per_second"


def _least(who: Contender, raw: float | None, websockify: float | None) -> tuple[Goal, ...]:
    goals = (
        Goal(who.name, raw, LIMIT.name) if raw else None,
        Goal(who.name, websockify, WEBSOCKIFY.name) if websockify else None,
    )
    return tuple(goal for goal in goals if goal is not None)


def _most(bound: float, peer: Contender) -> tuple[Goal, ...]:
    return (Goal(GRAPHICS.name, bound, peer.name, at_most=True),)


LOADS = (
    Measure("down", "MB/s", _EVERYBODY, ("down",), scale=_MB, goals=_least(GRAPHICS, 0.9, 1.5), alone=True),
    Measure("down-tls", "MB/s", _EVERYBODY, ("down",), scale=_MB, tls=True, goals=_least(GRAPHICS, 0.95, None)),
    Measure(
        "up",
        "MB/s",
        _UP,
        ("up",),
        scale=_MB,
        console="plain",
        goals=_least(HOT_PATH, 0.5, 3.0),
        alone=True,
        note="16 KiB frames; of the hot path alone: through the allowance (invariant 4) no more than 256 bytes wait for QEMU",
    ),
    Measure(
        "pointer",
        "1/s",
        (LIMIT, GRAPHICS, HOT_PATH, WEBSOCKIFY),
        ("pointer",),
        _RATE,
        note="mouse movements without end, each a frame: gate, filter and SIOCOUTQ for each one; a mouse sends up to 1,000",
    ),
    Measure("echo", "us", _EVERYBODY, ("echo",), _ECHO, goals=_most(1.0, WEBSOCKIFY)),
    Measure(
        "echo-500",
        "us",
        _EVERYBODY,
        ("echo", "--connections", "500", "--every", "200"),
        _ECHO,
        connections=500,
        goals=_most(1.25, LIMIT),
        note="500 operators who type 5 keys a second each, evenly apart; a key's time counts from when it was due",
    ),
    Measure(
        "echo-500-8",
        "us",
        _EVERYBODY,
        ("echo", "--connections", "500", "--at-once", "8"),
        _ECHO,
        connections=500,
        note="8 keys under way at any time, as fast as the relay can: what it saturates at",
    ),
    Measure(
        "echo-500-all",
        "us",
        _EVERYBODY,
        ("echo", "--connections", "500"),
        _ECHO,
        connections=500,
        note="a key under way in every one of them without end, so that this is the relay's throughput in keys",
    ),
    Measure("echo-beside", "us", _EVERYBODY, ("echo",), _ECHO, beside=("down",), goals=_most(1.5, LIMIT)),
    Measure(
        "connect-tls",
        "1/s",
        (LIMIT, SERIAL, HOT_PATH, WEBSOCKIFY, ORDINARY),
        ("connect",),
        _RATE,
        console="plain",
        tls=True,
        goals=_least(SERIAL, None, 8.0),
        note="full handshakes, until the console has answered one key",
    ),
    Measure(
        "connect-rfb",
        "1/s",
        (LIMIT, GRAPHICS, HOT_PATH, WEBSOCKIFY),
        ("connect",),
        _RATE,
        tls=True,
        goals=_least(GRAPHICS, None, 8.0),
        note="the same with the five turns of RFB's own handshake",
    ),
    Measure(
        "echo-flood",
        "us",
        (LIMIT, GRAPHICS, HOT_PATH, WEBSOCKIFY),
        ("echo",),
        _ECHO,
        beside=("pointer",),
        note="beside an operator whose mouse never rests; the stand-in console itself answers both in turn",
    ),
    Measure("serial-text", "MB/s", _SERIAL, ("down", "--ask", "T"), scale=_MB, console="plain", note="lines of plain text"),
    Measure(
        "serial-escapes",
        "MB/s",
        _SERIAL,
        ("down", "--ask", "X"),
        scale=_MB,
        console="plain",
        note="colours, cursor moves, UTF-8; an emulated UART gives 0.165 MB/s",
    ),
    Measure("serial-echo", "us", _SERIAL, ("echo",), _ECHO, console="plain"),
)

_IDLE = (LIMIT, GRAPHICS, HOT_PATH, WEBSOCKIFY, ORDINARY)
IDLE = (
    Measure("idle", "KiB", _IDLE, base=WEBSOCKIFY.name, goals=(Goal(GRAPHICS.name, 32, at_most=True),)),
    Measure("idle-tls", "KiB", _IDLE, base=WEBSOCKIFY.name, tls=True),
)

MASS_CUT = (
    Measure(
        "cut-gates",
        "ms",
        base=KILLED,
        goals=(Goal(CUT, 50, at_most=True),),
        note="from the call to the last gate shut; the peer: SIGKILL of a raw relay with as many, until it is reaped",
    ),
    Measure("cut-lines", "ms", base=KILLED, note="until the last console's descriptor is shut down and closed"),
    Measure(
        "cut-closed",
        "ms",
        base=KILLED,
        goals=(Goal(CUT, 300, at_most=True),),
        note="until no descriptor is left; operators who take nothing are given 250 ms for the close frame",
    ),
)

GUEST = (
    Measure("serial-open", "ms", base=IN_PROCESS, goals=(Goal(WORKER, 15, at_most=True),), note="on a real guest"),
    Measure("graphics-open", "ms", base=IN_PROCESS, goals=(Goal(WORKER, 15, at_most=True),)),
    Measure(
        "worker-memory", "KiB", base=NEW_PROCESS, goals=(Goal(WORKER, 2048, at_most=True),), note="private dirty, serial console"
    ),
)

FIRST_SCREEN = (
    Measure(
        "first-screen",
        "ms",
        base=NOVNC_PAGE,
        note="a real guest, in Chromium: from the press to the first picture; ours has a ticket, a START and a dial before it",
    ),
    Measure(
        "page-load",
        "ms",
        base=NOVNC_PAGE,
        note="nothing cached; ours until somebody can sign in, theirs until its button can be pressed",
    ),
)
UPDATES = (
    Measure("updates", "1/s", base=NOVNC_PAGE, note="pictures painted of a guest that redraws its whole screen without end"),
)

_SLOWEST, _BASE_SIZE = size_name(SIZES[-1]), size_name(SIZES[0])

# Each of these measures is taken of either database, which is the end of its name.
GRANTS = tuple(
    replace(one, name=f"{one.name}-{database}")
    for database in DATABASES
    for one in (
        Measure(
            "grant",
            "ms",
            base=BARE,
            goals=(Goal(ONE, 3.0, BARE, at_most=True),),
            note="enableVmAccess, from the request's first byte to the answer's last",
        ),
        Measure("withdraw", "ms", base=ONE, note="disableVmAccess, once the node's signed word is in"),
        Measure(
            "grants",
            "1/s",
            base=ONE,
            goals=(Goal(EIGHT, 3.0, ONE),),
            note="where all processors are busy with one client already, eight gain little: see grant-cpu",
        ),
        Measure("withdrawals", "1/s", base=ONE),
        Measure("grant-cpu", "ms", base=PROVIDER_WORK, note="processor time for each grant with one client, all threads"),
    )
)

STORE = tuple(
    Measure(
        f"store-{what}-{database}",
        "ms",
        base=_BASE_SIZE,
        goals=(Goal(_SLOWEST, 1.2, _BASE_SIZE, at_most=True),),
        note=note,
    )
    for database in DATABASES
    for what, note in (("grant", "the transactions of a grant: the offer, the node's receipt"), ("lease", "that of a lease"))
)

MEASURES = LOADS + IDLE + MASS_CUT + GUEST + FIRST_SCREEN + UPDATES + GRANTS + STORE
