"""Where a daemon listens and whom it calls, as the settings of both daemons spell it. Names files and opens none.

Every reader raises BadSettings (eva.strict_yaml).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from eva.strict_yaml import Section


@dataclass(frozen=True, slots=True)
class ClientTls:
    """`ca`: who signs the server's certificate. `certificate` and `key` are our own, both or neither."""

    ca: Path
    certificate: Path | None
    key: Path | None


@dataclass(frozen=True, slots=True)
class MetricsListener:
    """Plain HTTP, for the monitoring of this host."""

    address: str
    port: int


def path(section: Section, key: str, default: str | None = None) -> Path:
    """A path from the root."""
    return section.convert(key, _absolute, default)


def address(section: Section, default: str) -> str:
    """The IP address under `address`."""
    return section.convert("address", lambda text: str(ip_address(text)), default)


def port(section: Section, default: int) -> int:
    return section.integer("port", 1, 65535, default)


def is_loopback(host: str) -> bool:
    """Whether nobody on another host hears what is said to `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_tls(section: Section) -> ClientTls:
    tls = ClientTls(
        ca=path(section, "ca"),
        certificate=path(section, "certificate") if section.has("certificate") else None,
        key=path(section, "key") if section.has("key") else None,
    )
    if (tls.certificate is None) != (tls.key is None):
        raise section.fault("certificate", "needs its key beside it, and the key its certificate")
    section.nothing_else()
    return tls


def metrics(section: Section, default_port: int) -> MetricsListener:
    listener = MetricsListener(address(section, "127.0.0.1"), port(section, default_port))
    section.nothing_else()
    return listener


def _absolute(text: str) -> Path:
    found = Path(text)
    if not found.is_absolute():
        raise ValueError("it needs a path from the root: begin it with /")
    return found
