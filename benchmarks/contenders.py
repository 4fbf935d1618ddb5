"""Who is measured: each a program that relays between a port and a console's UNIX socket."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Command = Callable[[Path, int, Path, Path | None], list[str]]
"""Takes the folder of the built programs, the port, the console's socket and, for TLS, certificate and key in one file."""


@dataclass(frozen=True)
class Contender:
    """`raw`: no websocket, the load generator speaks bytes. `says_ready`: prints `ready` once it listens."""

    name: str
    command: Command
    raw: bool = False
    says_ready: bool = True
    most_connections: int = 10_000


def _python(module: str, *words: str) -> Command:
    def command(_: Path, port: int, console: Path, pem: Path | None) -> list[str]:
        return [sys.executable, "-m", module, *words, str(port), str(console), *([str(pem)] if pem else [])]

    return command


def _relay(programs: Path, port: int, console: Path, pem: Path | None) -> list[str]:
    return [str(programs / "relay"), str(port), str(console), *([str(pem)] if pem else [])]


def _websockify(_: Path, port: int, console: Path, pem: Path | None) -> list[str]:
    tls = [f"--cert={pem}", f"--key={pem}", "--ssl-only"] if pem else []
    return [sys.executable, "-m", "websockify", f"--unix-target={console}", *tls, f"127.0.0.1:{port}"]


LIMIT = Contender("raw relay (C)", _relay, raw=True)
GRAPHICS = Contender("eva, graphics", _python("benchmarks.broker_relay", "graphics"))
SERIAL = Contender("eva, serial", _python("benchmarks.broker_relay", "serial"))
HOT_PATH = Contender("eva, hot path alone", _python("benchmarks.direct_relay"))
WEBSOCKIFY = Contender("websockify", _websockify, says_ready=False, most_connections=500)  # select(2) ends there
ORDINARY = Contender("websockets, ordinary", _python("benchmarks.plain_websockets"))
