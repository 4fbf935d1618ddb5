"""The provider's settings: config/provider.yaml is the shipped example, each default stands here and nowhere else.

Errors: BadSettings (eva.strict_yaml), with file, line and what to do; OSError where the file cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from eva.consent import PROVIDER
from eva.strict_yaml import BadSettings, Section, load

DEFAULT_PATH = Path("/etc/eva/provider.yaml")


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """`root` is read by the `keys` commands only and may be kept offline; `signing` is a directory of signing-KID.pem."""

    root: Path
    root_public: Path
    signing: Path


@dataclass(frozen=True, slots=True)
class ClientTls:
    ca: Path
    certificate: Path | None
    key: Path | None


@dataclass(frozen=True, slots=True)
class Mqtt:
    host: str
    port: int
    client_id: str
    username: str | None
    password_file: Path | None
    tls: ClientTls | None


@dataclass(frozen=True, slots=True)
class LeaseListener:
    """HTTPS for nodes whose MQTT does not answer."""

    address: str
    port: int
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class MetricsListener:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Limits:
    """`cut_seconds`: the lease age at which the slowest node cuts. `receipt_seconds`: how long a command waits for a node."""

    cut_seconds: int
    receipt_seconds: int


@dataclass(frozen=True, slots=True)
class Settings:
    store: Path
    keys: KeyFiles
    mqtt: Mqtt
    lease: LeaseListener
    metrics: MetricsListener
    admin_socket: Path
    limits: Limits


def read(path: Path) -> Settings:
    """Raises BadSettings, OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadSettings(str(path), 1, "", f"byte {error.start} is not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Settings:
    """The settings that the text is; `file` is named in errors. Raises BadSettings."""
    top = load(text, file)
    settings = Settings(
        store=_path(top, "store", "/var/lib/eva-provider/provider.db"),
        keys=_keys(top.section("keys")),
        mqtt=_mqtt(top.section("mqtt")),
        lease=_lease(top.section("lease")),
        metrics=_metrics(top.section("metrics")),
        admin_socket=_admin(top.section("admin")),
        limits=_limits(top.section("limits")),
    )
    top.nothing_else()
    return settings


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ValueError("it needs a path from the root: begin it with /")
    return path


def _path(section: Section, key: str, default: str | None = None) -> Path:
    return section.convert(key, _absolute, default)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> str:
    return str(ip_address(text))


def _keys(section: Section) -> KeyFiles:
    keys = KeyFiles(
        root=_path(section, "root", "/etc/eva/provider-keys/root.pem"),
        root_public=_path(section, "root_public", "/etc/eva/provider-keys/root.pub"),
        signing=_path(section, "signing", "/etc/eva/provider-keys"),
    )
    section.nothing_else()
    return keys


def _mqtt(section: Section) -> Mqtt:
    host = section.text("host", "localhost", longest=255)
    tls = None
    if section.has("tls"):
        inner = section.section("tls")
        both = inner.has("certificate") or inner.has("key")
        tls = ClientTls(
            ca=_path(inner, "ca"),
            certificate=_path(inner, "certificate") if both else None,
            key=_path(inner, "key") if both else None,
        )
        inner.nothing_else()
    elif not _is_loopback(host):
        raise section.fault("host", "is on another host, which needs TLS: give mqtt.tls.ca, certificate and key")
    named = section.has("username") or section.has("password_file")
    mqtt = Mqtt(
        host=host,
        port=section.integer("port", 1, 65535, default=8883 if tls else 1883),
        client_id=section.text("client_id", PROVIDER, longest=64),
        username=section.text("username", longest=256) if named else None,
        password_file=_path(section, "password_file") if named else None,
        tls=tls,
    )
    section.nothing_else()
    return mqtt


def _lease(section: Section) -> LeaseListener:
    lease = LeaseListener(
        address=section.convert("address", _address, "0.0.0.0"),  # noqa: S104 - nodes on other hosts ask here
        port=section.integer("port", 1, 65535, default=8443),
        certificate=_path(section, "certificate"),
        key=_path(section, "key"),
    )
    section.nothing_else()
    return lease


def _metrics(section: Section) -> MetricsListener:
    metrics = MetricsListener(
        address=section.convert("address", _address, "127.0.0.1"),
        port=section.integer("port", 1, 65535, default=9465),
    )
    section.nothing_else()
    return metrics


def _admin(section: Section) -> Path:
    path = _path(section, "socket", "/run/eva-provider/admin.sock")
    if len(str(path).encode()) > 107:  # sun_path, unix(7)
        raise section.fault("socket", "is longer than the 107 bytes that a UNIX socket's path may have")
    section.nothing_else()
    return path


def _limits(section: Section) -> Limits:
    limits = Limits(
        cut_seconds=section.integer("cut_seconds", 5, 60, default=15),
        receipt_seconds=section.integer("receipt_seconds", 1, 60, default=10),
    )
    section.nothing_else()
    return limits
