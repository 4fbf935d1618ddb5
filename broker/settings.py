"""The node's settings: config/broker.yaml is the shipped example; each default stands here and nowhere else.

Errors: BadSettings (eva.strict_yaml) with file, line and what to do; OSError where the file cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from broker.lease import Limits
from eva.consent import Principal, is_node_name
from eva.endpoint import ClientTls, MetricsListener, address, client_tls, is_loopback, metrics, path, port
from eva.strict_yaml import BadSettings, Section, load
from eva.watch import watch_origin
from hypervisor.dialer import BadHost, Host
from oidc.settings import Registration, registration

DEFAULT_PATH = Path("/etc/eva/broker.yaml")
MOST_GROUPS = 256

_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Oidc:
    """An OpenID Connect issuer at which operators sign in. `name`: what the page calls it; `url`: this node's own, as browsers
    spell it; `groups`: of the issuer's groups that count here, what each is called here; `hours`: how long its word counts."""

    name: str
    url: str
    registration: Registration
    account_claim: str
    groups_claim: str
    groups: Mapping[str, str]
    hours: int

    @property
    def host(self) -> str:
        """The Host that browsers send for `url`."""
        return self.url.removeprefix("https://")


@dataclass(frozen=True, slots=True)
class OperatorListener:
    """Where operators connect. `names`: the host names by which they may; `origins`: the pages of others that may, by exact
    Origin."""

    address: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path | None
    names: frozenset[str]
    origins: frozenset[str]
    oidc: Oidc | None = None


@dataclass(frozen=True, slots=True)
class WatchListener:
    """Where tenants who watch connect. `names`, `origins`: as for operators; `url`: the origin that their browsers reach."""

    address: str
    port: int
    certificate: Path
    key: Path
    names: frozenset[str]
    origins: frozenset[str]
    url: str


@dataclass(frozen=True, slots=True)
class Mqtt:
    host: str
    port: int
    username: str | None
    password_file: Path | None
    tls: ClientTls | None


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider's HTTPS, for when MQTT does not answer. `url` without path; `ca` None: the system's authorities."""

    url: str
    ca: Path | None


@dataclass(frozen=True, slots=True)
class Settings:
    node: str
    state: Path
    audit: Path
    key: Path
    root_key: Path
    users: Path
    operators: OperatorListener
    metrics: MetricsListener
    mqtt: Mqtt
    provider: Provider
    hosts: tuple[Host, ...]
    lease: Limits
    lease_every: int
    most_sessions: int
    watch: WatchListener | None = None


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
    state = path(top, "state_directory", "/var/lib/eva-broker")
    node = top.text("node", longest=63)
    if not is_node_name(node):
        raise top.fault("node", "needs 1 to 63 letters, digits and hyphens, like AzS-ERCS01")
    limits = top.section("limits")
    lease = Limits(limits.integer("lease_open_seconds", 5, 60, 6), limits.integer("lease_cut_seconds", 5, 60, 15))
    if lease.cut_s <= lease.open_s:
        raise limits.fault("lease_cut_seconds", "needs to be above lease_open_seconds")
    settings = Settings(
        node=node,
        state=state / "state.db",
        audit=state / "audit.jsonl",
        key=state / "node.pem",
        root_key=path(top, "root_key", "/etc/eva/root.pub"),
        users=path(top, "users", "/etc/eva/users.yaml"),
        operators=_operators(top.section("operators")),
        metrics=metrics(top.section("metrics"), 9464),
        mqtt=_mqtt(top.section("mqtt")),
        provider=_provider(top.section("provider")),
        hosts=_hosts(top),
        lease=lease,
        lease_every=limits.integer("lease_every_seconds", 1, 5, 2),
        most_sessions=limits.integer("sessions", 1, 10_000, 1000),
        watch=_watch(top.section("watch")) if top.has("watch") else None,
    )
    limits.nothing_else()
    top.nothing_else()
    return settings


def _host_name(text: str) -> str:
    if not text or not text.isascii() or any(c in text for c in "/@ \t") or text != text.lower():
        raise ValueError("write a host name or address in lower case, without a port")
    return text


def _origin(text: str) -> str:
    if not text.startswith("https://") or text.count("/") != 2 or text != text.lower():
        raise ValueError("write an origin as browsers send it, like https://ercs01.example:8443")
    return text


def _operators(section: Section) -> OperatorListener:
    names = frozenset(section.each("names", _host_name, most=32, least=1))
    listener = OperatorListener(
        address=address(section, "0.0.0.0"),  # noqa: S104 - operators come from their own network
        port=port(section, 8443),
        certificate=path(section, "certificate"),
        key=path(section, "key"),
        client_ca=path(section, "client_ca") if section.has("client_ca") else None,
        names=names,
        origins=frozenset(section.each("origins", _origin, most=32) if section.has("origins") else ()),
        oidc=_oidc(section.section("oidc"), names) if section.has("oidc") else None,
    )
    section.nothing_else()
    return listener


def _oidc(section: Section, names: frozenset[str]) -> Oidc:
    groups = section.section("groups")
    oidc = Oidc(
        name=section.text("name", longest=64),
        url=section.convert("url", _origin),
        registration=registration(section),
        account_claim=section.convert("account_claim", _claim, "preferred_username"),
        groups_claim=section.convert("groups_claim", _claim, "groups"),
        groups=MappingProxyType({theirs: groups.convert(theirs, _group) for theirs in groups.keys()}),  # noqa: SIM118 - no mapping
        hours=section.integer("hours", 1, 24, 8),
    )
    if (urlsplit(oidc.url).hostname or "") not in names:
        raise section.fault("url", "needs one of operators.names as its host")
    if not 0 < len(oidc.groups) <= MOST_GROUPS:
        raise section.fault("groups", f"needs 1 to {MOST_GROUPS} of the issuer's groups, each with its name here")
    section.nothing_else()
    return oidc


def _group(text: str) -> str:
    return Principal.parse(f"group:{text}").name


def _claim(text: str) -> str:
    if _CLAIM.fullmatch(text) is None:
        raise ValueError("write a claim's name, such as preferred_username")
    return text


def _watch(section: Section) -> WatchListener:
    listener = WatchListener(
        address=address(section, "0.0.0.0"),  # noqa: S104 - tenants come from anywhere
        port=port(section, 8446),
        certificate=path(section, "certificate"),
        key=path(section, "key"),
        names=frozenset(section.each("names", _host_name, most=32, least=1)),
        origins=frozenset(section.each("origins", _origin, most=32, least=1)),
        url=section.convert("url", watch_origin),
    )
    if (urlsplit(listener.url).hostname or "") not in listener.names:
        raise section.fault("url", "needs one of watch.names as its host")
    section.nothing_else()
    return listener


def _mqtt(section: Section) -> Mqtt:
    mqtt = Mqtt(
        host=section.text("host", longest=255),
        port=port(section, 8883),
        username=section.text("username", longest=128) if section.has("username") else None,
        password_file=path(section, "password_file") if section.has("password_file") else None,
        tls=client_tls(section.section("tls")) if section.has("tls") else None,
    )
    if mqtt.tls is None and not is_loopback(mqtt.host):
        raise section.fault("tls", "is needed for an MQTT broker on another host")
    section.nothing_else()
    return mqtt


def _provider(section: Section) -> Provider:
    url = section.text("url", longest=255)
    if not url.startswith("https://") or url.rstrip("/").count("/") != 2:
        raise section.fault("url", "needs the form https://HOST:PORT")
    provider = Provider(url.rstrip("/"), path(section, "ca") if section.has("ca") else None)
    section.nothing_else()
    return provider


def _hosts(top: Section) -> tuple[Host, ...]:
    hosts: list[Host] = []
    for section in top.sections("hosts", most=64, least=1):
        try:
            host = Host.parse(section.text("name", longest=64), section.text("uri", longest=255))
        except BadHost as error:
            raise section.fault("uri", error.why) from None
        if any(host.name == other.name for other in hosts):
            raise section.fault("name", "is there twice")
        section.nothing_else()
        hosts.append(host)
    return tuple(hosts)
