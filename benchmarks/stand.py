"""The test stand: builds the C programs, starts consoles and contenders, runs the load generator, reads what they used."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.contenders import Contender

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "benchmarks" / "c"
FOLDER = ROOT / ".lab" / "bench"
TICK = os.sysconf("SC_CLK_TCK")


class BuildError(Exception):
    """A C program could not be compiled: its name and the compiler's words."""


class StartError(Exception):
    """A program did not come up: its command."""


class LoadError(Exception):
    """The load generator failed: its words."""


def build() -> None:
    """Compile what is older than its sources. Needs gcc and OpenSSL's headers (libssl-dev)."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("console", "relay", "load"):
        source, program = SOURCES / f"{name}.c", FOLDER / name
        newest = max(path.stat().st_mtime for path in (source, SOURCES / "bench.h"))
        if program.exists() and program.stat().st_mtime > newest:
            continue
        fresh = program.with_name(f"{name}-{os.getpid()}")  # another run may be using the old one, or building its own
        command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(source), "-lssl", "-lcrypto"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(name, done.stderr)
        fresh.replace(program)


def certificate() -> Path:
    """A new self-signed P-256 certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = FOLDER / f"certificate-{os.getpid()}.pem"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, its children, and those that it has reaped."""
    ticks = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))  # proc(5): utime, stime, cutime, cstime
    return ticks / TICK


def memory_kib(pid: int) -> int:
    """Proportional set size of a process and its children, in KiB."""
    total = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += int(rollup.partition("\nPss:")[2].split()[0])
    return total


@dataclass
class Stand:
    """What runs. Every process is started and ended here, by its own handle."""

    stack: contextlib.ExitStack
    pem: Path
    consoles: dict[str, tuple[Path, int]] = field(default_factory=dict)  # kind → its UNIX socket and TCP port
    running: dict[tuple[str, str, bool], tuple[int, int]] = field(default_factory=dict)  # → port and pid

    def start(self, command: Sequence[str], port: int, says_ready: bool) -> int:
        """Start a program that listens on `port`; gives its pid once it does. Raises StartError after 10 s."""
        output = subprocess.PIPE if says_ready else subprocess.DEVNULL
        errors = None if says_ready else subprocess.DEVNULL
        process = self.stack.enter_context(subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT))
        self.stack.callback(process.kill)
        if process.stdout is not None:
            if process.stdout.readline().strip() != b"ready":
                raise StartError(command)
            return process.pid
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                return process.pid
            time.sleep(0.02)
        raise StartError(command)

    def console(self, kind: str) -> tuple[Path, int]:
        """The stand-in console's UNIX socket and TCP port; kind is `plain` or `rfb`."""
        if kind not in self.consoles:
            path, port = FOLDER / f"{kind}-{os.getpid()}.sock", free_port()
            self.stack.callback(path.unlink, missing_ok=True)
            self.start([str(FOLDER / "console"), kind, str(path), str(port)], port, says_ready=True)
            self.consoles[kind] = path, port
        return self.consoles[kind]

    def contender(self, contender: Contender, kind: str, tls: bool) -> tuple[int, int]:
        """Port and pid of a contender in front of a console, started at first use."""
        key = (contender.name, kind, tls)
        if key not in self.running:
            path, _ = self.console(kind)
            port = free_port()
            command = contender.command(FOLDER, port, path, self.pem if tls else None)
            self.running[key] = port, self.start(command, port, contender.says_ready)
        return self.running[key]


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    build()
    with contextlib.ExitStack() as stack:
        pem = certificate()
        stack.callback(pem.unlink)
        yield Stand(stack, pem)


def load_command(port: int, arguments: Sequence[str], *, raw: bool, kind: str, tls: bool) -> list[str]:
    mode, *options = arguments
    flags = [flag for flag, on in (("--raw", raw), ("--rfb", kind == "rfb"), ("--tls", tls)) if on]
    return [str(FOLDER / "load"), mode, str(port), *options, *flags]


def load(command: Sequence[str]) -> dict[str, float]:
    """One run of the generator; raises LoadError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired as expired:
        raise LoadError("not done after 60 s") from expired
    if done.returncode or not done.stdout:
        raise LoadError(done.stderr.strip())
    result: dict[str, float] = json.loads(done.stdout)
    return result
