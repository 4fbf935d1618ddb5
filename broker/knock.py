"""What every port of a node asks of a request before anything else is looked at, and the port itself."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Collection, Sequence
from pathlib import Path

from websockets.http11 import Request

from broker.certificates import load_pair

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.ASCII)


def fault(hosts: Sequence[str], origins: Sequence[str], names: Collection[str], pages: Collection[str]) -> str | None:
    """What is wrong with a request's Host and Origin, as a metric's label.

    No header can say who the peer is; these say what it came for, so that no page of others and no rebound name gets in.
    `names`: the hosts by which this port may be called; `pages`: the origins whose pages may.
    """
    match = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if match is None or match[1].strip("[]") not in names:
        return "host"
    # a program sends no Origin, and "null" is nobody's
    if len(origins) > 1 or any(origin not in pages for origin in origins):
        return "origin"
    return None


def offered(request: Request) -> list[str]:
    """The subprotocols that a request offers, in its order."""
    return [name.strip() for header in request.headers.get_all("Sec-WebSocket-Protocol") for name in header.split(",")]


def bound(address: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError where the address is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Nothing is resumed: a resumed session would bring back a client certificate that has run out, or that client_ca no longer
    # vouches for. Without tickets TLS 1.3 cannot (RFC 8446 2.2); OpenSSL resumes TLS 1.2 by session ID, and `ssl` has no way to
    # switch that off.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    load_pair(context, certificate, key)
    return context
