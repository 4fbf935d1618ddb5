"""What a domain's XML says of consoles and of its resource ID. Pure.

Errors: BadDescription.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET  # why it is safe here stands at parse()
from dataclasses import dataclass

NAMESPACE = "urn:eva:resource-id:1"
MAX_XML = 1024 * 1024  # characters
MAX_RESOURCE = 1024  # characters of the metadata's text that are carried on

_NOT_TCP = ("none", "socket")
_ATTACHABLE = ("pty", "unix")  # chardev types that virDomainOpenConsole takes (qemu_driver.c)


class BadDescription(ValueError):
    """A domain's XML cannot be used. `why` says what is wrong, never the content."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Description:
    """`resource`: the text of the one metadata element, as it was set. `tcp_display`: some display listens on a network."""

    resource: str | None
    serial: bool
    graphics: bool
    tcp_display: bool


def parse(xml: str) -> Description:
    """Reads domain XML as libvirt writes it. Raises BadDescription.

    Metadata is what someone set, so the text is not trusted: its size is capped, and a document type, without which there
    are no entities to expand, is refused. expat then does nothing but walk elements and attributes.
    """
    if len(xml) > MAX_XML:
        raise BadDescription(f"longer than {MAX_XML} characters")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise BadDescription("has a document type")
    try:
        root = ET.fromstring(xml)  # noqa: S314  # see above
    except ET.ParseError as error:
        raise BadDescription(f"no XML: {error}") from None
    displays = root.findall("devices/graphics")
    return Description(
        resource=_resource(root),
        serial=_has_serial(root),
        # openGraphicsFD(0) gives the first display, and only VNC speaks RFB
        graphics=bool(displays) and displays[0].get("type") == "vnc",
        tcp_display=any(_listens_on_tcp(display) for display in displays),
    )


def _resource(root: ET.Element) -> str | None:
    elements = root.findall(f"metadata/{{{NAMESPACE}}}resource")
    if len(elements) != 1:  # two would be two claims: none is believed
        return None
    return (elements[0].text or "").strip()[:MAX_RESOURCE] or None


def _has_serial(root: ET.Element) -> bool:
    """Whether openConsole(None) finds a device: the first console, which may stand for the first serial, or that one."""
    console = root.find("devices/console")
    serial = root.find("devices/serial")
    target = None if console is None else console.find("target")
    if serial is not None and (console is None or target is None or target.get("type", "serial") == "serial"):
        console = serial
    return console is not None and console.get("type") in _ATTACHABLE


def _listens_on_tcp(display: ET.Element) -> bool:
    if display.get("type") not in ("vnc", "spice", "rdp"):
        return False  # a window on the host
    listens = display.findall("listen")
    if not listens:
        return display.get("socket") is None  # libvirt's default is an address
    return any(listen.get("type") not in _NOT_TCP for listen in listens)
