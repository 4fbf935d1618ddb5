"""Hosts: where guests run, named by a libvirt URI that can only mean a local socket.

Errors: BadHost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The console's descriptor travels only over a local socket, and a libvirt URI can carry a command to run (`command=`,
# `netcat=`), so the few forms that are allowed are spelled out and nothing is unescaped (a percent sign is refused).
_URI = re.compile(
    r"qemu:///(?:system|session)"
    r"|qemu\+unix:///(?:system|session)(?:\?socket=(?P<socket>/[A-Za-z0-9._/+@,:=-]+))?"
    r"|test:///(?:default|[A-Za-z0-9._/+-]+\.xml)",
    re.ASCII,
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", re.ASCII)
_SUN_PATH = 107  # unix(7): sun_path holds 108 bytes with its end


class BadHost(ValueError):
    """A host of the config that cannot be used: its `name`, its `uri` and `why`."""

    def __init__(self, name: str, uri: str, why: str) -> None:
        super().__init__(name, uri, why)
        self.name = name
        self.uri = uri
        self.why = why

    def __str__(self) -> str:
        return f"host {self.name!r}, uri {self.uri!r}: {self.why}"


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor host. `name` is ours, from the config; `uri` is one of the forms for a local libvirt socket."""

    name: str
    uri: str

    @classmethod
    def parse(cls, name: str, uri: str) -> Host:
        """Checks both. Raises BadHost."""
        if _NAME.fullmatch(name) is None:
            raise BadHost(name, uri, "the name needs 1 to 64 letters, digits, full stops and hyphens")
        match = _URI.fullmatch(uri)
        if match is None:
            raise BadHost(
                name,
                uri,
                "not a local socket: qemu:///system, qemu:///session, qemu+unix:///session?socket=/PATH or test:///default",
            )
        if match["socket"] and len(match["socket"]) > _SUN_PATH:
            raise BadHost(name, uri, f"the socket's path is longer than {_SUN_PATH} bytes")
        return cls(name, uri)
