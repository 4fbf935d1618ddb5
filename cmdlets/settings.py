"""Which node, and who asks: from the command line, the environment, and client.yaml, the nearest first.

    ercs                --ercs, EVA_ERCS, ~/.config/eva/client.yaml, /etc/eva/client.yaml, else the node on this host
    who                 --certificate with --key or --account; EVA_ACCOUNT; `certificate` with `key` or `account` of the files
    password            --password-file, EVA_PASSWORD_FILE, else asked on the terminal; never an argument or variable itself

Errors:

    BadSetting          where it stands (an option, a variable, a file) and why it is not taken
    eva.strict_yaml.BadSettings   the same, with the line, for a client.yaml
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from eva.consent import is_node_name
from eva.control import MAX_SECRET
from eva.strict_yaml import Section, load

PORT = 8443
SYSTEM_FILE = Path("/etc/eva/client.yaml")
USER_FILE = Path(".config/eva/client.yaml")  # in the home directory
THIS_HOST = "localhost"

T = TypeVar("T")


class BadSetting(Exception):
    def __init__(self, where: str, why: str) -> None:
        self.where = where
        self.why = why
        super().__init__(f"{where}: {why}")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """`url`: wss://host:port, no path. `ca`: PEM file of the authority that signs the node; None is the system's own."""

    name: str
    url: str
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Two PEM files; `key` is None where the certificate's file holds it too."""

    certificate: Path
    key: Path | None


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says. `name` is where it stands, for errors."""

    name: str
    ercs: str | None = None
    ca: Path | None = None
    account: str | None = None
    certificate: ClientCertificate | None = None
    password_file: Path | None = None
    nodes: Mapping[str, NodeAddress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """Either `certificate` is set, or the account and password count; a missing one of these is to be asked for."""

    node: NodeAddress
    certificate: ClientCertificate | None
    account: str | None
    password_file: Path | None


def node_url(text: str) -> str:
    """The address `wss://host[:port]` in full. Raises ValueError."""
    parts = urlsplit(text)
    if parts.scheme != "wss":
        raise ValueError("it needs the form wss://host:port; nothing else is encrypted")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("it needs the form wss://host:port, and no more")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"wss://{host}:{parts.port or PORT}"


def parse_client_file(text: str, file: Path) -> Layer:
    """A client.yaml. Paths in it count from its own folder, `~` is the home directory. Raises BadSettings."""
    section = load(text, str(file))

    def optional(of: Section, key: str) -> str | None:
        return of.text(key, "") or None

    def path(of: Section, key: str) -> Path | None:
        written = optional(of, key)
        return file.parent / Path(written).expanduser() if written else None

    nodes: dict[str, NodeAddress] = {}
    listed = section.section("nodes")
    for name in listed.keys():  # noqa: SIM118 - a Section is no mapping
        node = listed.section(name)
        nodes[name.lower()] = NodeAddress(name, node.convert("url", node_url), path(node, "ca"))
        node.nothing_else()
    certificate, key = path(section, "certificate"), path(section, "key")
    account = optional(section, "account")
    if certificate is not None and account is not None:
        raise section.fault("account", "stands beside a certificate, which names the account itself: keep one")
    if key is not None and certificate is None:
        raise section.fault("key", "has no certificate beside it")
    ercs = optional(section, "ercs")
    section.nothing_else()
    pair = ClientCertificate(certificate, key) if certificate else None
    return Layer(str(file), ercs=ercs, account=account, certificate=pair, nodes=nodes)


def environment_layer(environment: Mapping[str, str]) -> Layer:
    password_file = environment.get("EVA_PASSWORD_FILE")
    return Layer(
        "EVA_ERCS",
        ercs=environment.get("EVA_ERCS") or None,
        account=environment.get("EVA_ACCOUNT") or None,
        password_file=Path(password_file) if password_file else None,
    )


def settle(layers: Sequence[Layer]) -> Settings:
    """What holds, of layers given nearest first. Raises BadSetting."""
    node = _node(layers)
    ca = next((layer.ca for layer in layers if layer.ca), node.ca)
    who = next((layer for layer in layers if layer.certificate or layer.account), Layer(""))
    return Settings(
        node=NodeAddress(node.name, node.url, ca),
        certificate=who.certificate,
        account=None if who.certificate else who.account,
        password_file=next((layer.password_file for layer in layers if layer.password_file), None),
    )


def _node(layers: Sequence[Layer]) -> NodeAddress:
    chosen = next((layer for layer in layers if layer.ercs), None)
    if chosen is None or chosen.ercs is None:
        return NodeAddress(THIS_HOST, f"wss://{THIS_HOST}:{PORT}")
    for layer in layers:
        if (known := layer.nodes.get(chosen.ercs.lower())) is not None:
            return known
    if "://" in chosen.ercs:
        try:
            url = node_url(chosen.ercs)
        except ValueError as error:
            raise BadSetting(chosen.name, f"{chosen.ercs[:80]!r} is no address of a node: {error}") from None
        return NodeAddress(urlsplit(url).hostname or url, url)
    if not is_node_name(chosen.ercs):
        raise BadSetting(chosen.name, f"{chosen.ercs[:80]!r} is neither a node's name nor wss://host:port")
    return NodeAddress(chosen.ercs, f"wss://{chosen.ercs}:{PORT}")


def read_settings(flags: Layer, environment: Mapping[str, str]) -> Settings:
    """What holds for this call. Raises BadSetting and BadSettings."""
    layers = [flags, environment_layer(environment)]
    for file in (Path.home() / USER_FILE, SYSTEM_FILE):
        try:
            layers.append(parse_client_file(file.read_text("utf-8"), file))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(str(file), _why(error)) from None
    return settle(layers)


def read_password(file: Path) -> str:
    """The first line of a file that others may not read. Raises BadSetting; never with any of the file's content."""
    where = f"password file {file}"
    try:
        with file.open("r", encoding="utf-8", newline="\n") as lines:
            found = stat.S_IMODE(file.stat().st_mode) if file.is_file() else 0
            password = lines.readline(MAX_SECRET + 2).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(where, _why(error)) from None
    if found & 0o007:
        raise BadSetting(where, f"everybody may read or change it: chmod 600 {file}")
    if not 0 < len(password) <= MAX_SECRET:
        raise BadSetting(where, f"its first line needs 1 to {MAX_SECRET} characters")
    return password


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Verifies the node, always; shows the operator's certificate if that signs in. Raises BadSetting."""
    try:
        context = ssl.create_default_context(cafile=settings.node.ca)
    except (OSError, ssl.SSLError) as error:
        raise BadSetting(f"ca {settings.node.ca}", _why(error)) from None
    if (pair := settings.certificate) is not None:
        try:
            context.load_cert_chain(pair.certificate, pair.key)
        except (OSError, ssl.SSLError) as error:
            raise BadSetting(f"certificate {pair.certificate}", _why(error)) from None
    return context


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "is no UTF-8 text"
    if isinstance(error, ssl.SSLError):
        return f"holds no PEM that fits ({error.reason or 'unreadable'})"
    return error.strerror or type(error).__name__
