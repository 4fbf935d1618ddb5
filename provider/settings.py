"""The provider's settings: config/provider.yaml is the shipped example, each default stands here and nowhere else.

Errors: BadSettings (eva.strict_yaml), with file, line and what to do; OSError where the file cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eva.consent import PROVIDER
from eva.endpoint import ClientTls, MetricsListener, address, client_tls, is_loopback, metrics, path, port
from eva.strict_yaml import BadSettings, Section, load
from provider.rest.settings import Rest, rest
from provider.store.place import Place, PostgresqlServer, parse_place

DEFAULT_PATH = Path("/etc/eva/provider.yaml")


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """`root` is read by the `keys` commands only and may be kept offline; `signing` is a directory of signing-KID.pem."""

    root: Path
    root_public: Path
    signing: Path


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
class Limits:
    """`cut_seconds`: the lease age at which the slowest node cuts. `receipt_seconds`: how long a command waits for a node."""

    cut_seconds: int
    receipt_seconds: int


@dataclass(frozen=True, slots=True)
class Settings:
    store: Place
    keys: KeyFiles
    mqtt: Mqtt
    lease: LeaseListener
    metrics: MetricsListener
    admin_socket: Path
    limits: Limits
    rest: Rest | None


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
        store=_store(top),
        keys=_keys(top.section("keys")),
        mqtt=_mqtt(top.section("mqtt")),
        lease=_lease(top.section("lease")),
        metrics=metrics(top.section("metrics"), 9465),
        admin_socket=_admin(top.section("admin")),
        limits=_limits(top.section("limits")),
        rest=rest(top),
    )
    top.nothing_else()
    return settings


def _store(top: Section) -> Place:
    text = top.text("store", "/var/lib/eva-provider/provider.db")
    try:
        place = parse_place(text)
    except ValueError as error:
        # what was written is not repeated: it may hold a password
        raise top.fault("store", str(error)) from None
    if not top.has("store_password_file"):
        return place
    if not isinstance(place, PostgresqlServer):
        raise top.fault("store_password_file", "goes with a store on a PostgreSQL server: take it out")
    return replace(place, password_file=path(top, "store_password_file"))


def _keys(section: Section) -> KeyFiles:
    keys = KeyFiles(
        root=path(section, "root", "/etc/eva/provider-keys/root.pem"),
        root_public=path(section, "root_public", "/etc/eva/provider-keys/root.pub"),
        signing=path(section, "signing", "/etc/eva/provider-keys"),
    )
    section.nothing_else()
    return keys


def _mqtt(section: Section) -> Mqtt:
    host = section.text("host", "localhost", longest=255)
    tls = client_tls(section.section("tls")) if section.has("tls") else None
    if tls is None and not is_loopback(host):
        raise section.fault("host", "is on another host, which needs TLS: give mqtt.tls.ca, certificate and key")
    named = section.has("username") or section.has("password_file")
    mqtt = Mqtt(
        host=host,
        port=port(section, 8883 if tls else 1883),
        client_id=section.text("client_id", PROVIDER, longest=64),
        username=section.text("username", longest=256) if named else None,
        password_file=path(section, "password_file") if named else None,
        tls=tls,
    )
    section.nothing_else()
    return mqtt


def _lease(section: Section) -> LeaseListener:
    lease = LeaseListener(
        address=address(section, "0.0.0.0"),  # noqa: S104 - nodes on other hosts ask here
        port=port(section, 8443),
        certificate=path(section, "certificate"),
        key=path(section, "key"),
    )
    section.nothing_else()
    return lease


def _admin(section: Section) -> Path:
    socket = path(section, "socket", "/run/eva-provider/admin.sock")
    if len(str(socket).encode()) > 107:  # sun_path, unix(7)
        raise section.fault("socket", "is longer than the 107 bytes that a UNIX socket's path may have")
    section.nothing_else()
    return socket


def _limits(section: Section) -> Limits:
    limits = Limits(
        cut_seconds=section.integer("cut_seconds", 5, 60, default=15),
        receipt_seconds=section.integer("receipt_seconds", 1, 60, default=10),
    )
    section.nothing_else()
    return limits
