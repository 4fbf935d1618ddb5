"""hypervisor.description: consoles and the resource ID in domain XML."""

import pytest

from hypervisor.description import MAX_RESOURCE, MAX_XML, BadDescription, Description, parse

ID = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm"
PTY = "<serial type='pty'><target port='0'/></serial>"
VNC = "<graphics type='vnc'><listen type='none'/></graphics>"


def domain(devices: str = "", metadata: str = "") -> str:
    return f"<domain><metadata>{metadata}</metadata><devices>{devices}</devices></domain>"


def label(text: str, namespace: str = "urn:eva:resource-id:1") -> str:
    return f"<e:resource xmlns:e='{namespace}'>{text}</e:resource>"


def test_a_bare_domain_has_nothing() -> None:
    assert parse("<domain/>") == Description(None, False, False, False)


def test_the_resource_id_is_the_metadata_elements_text() -> None:
    assert parse(domain(metadata=label(f"\n {ID}\n"))).resource == ID


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        label(""),
        label(" \n "),
        label(ID, "urn:other"),
        label(ID) + label(ID + "2"),
        f"<other>{label(ID)}</other>",
        f"<resource>{ID}</resource>",
    ],
)
def test_no_or_two_or_foreign_elements_are_no_resource_id(metadata: str) -> None:
    assert parse(domain(metadata=metadata)).resource is None


def test_a_resource_element_outside_the_metadata_counts_for_nothing() -> None:
    assert parse(f"<domain>{label(ID)}</domain>").resource is None


def test_a_long_text_is_cut() -> None:
    found = parse(domain(metadata=label(5000 * "x"))).resource
    assert found is not None
    assert len(found) == MAX_RESOURCE


@pytest.mark.parametrize(
    ("devices", "serial"),
    [
        (PTY, True),
        ("<serial type='unix'/>", True),
        (PTY + "<console type='pty'><target type='serial' port='0'/></console>", True),
        ("<console type='pty'><target type='virtio'/></console>", True),
        ("<serial type='file'/>", False),
        ("<serial type='tcp'/>" + "<console type='tcp'><target type='serial'/></console>", False),
        # openConsole takes the first console, and that one is no stand-in for the serial
        (PTY + "<console type='file'><target type='virtio'/></console>", False),
        ("<parallel type='pty'/>", False),
    ],
)
def test_serial_is_what_open_console_finds(devices: str, serial: bool) -> None:
    assert parse(domain(devices)).serial is serial


@pytest.mark.parametrize(
    ("devices", "graphics"),
    [
        (VNC, True),
        ("<graphics type='spice'/>", False),
        ("<graphics type='spice'><listen type='none'/></graphics>" + VNC, False),
        (VNC + "<graphics type='spice'/>", True),
        ("<graphics type='sdl'/>", False),
    ],
)
def test_graphics_is_a_first_display_that_speaks_rfb(devices: str, graphics: bool) -> None:
    assert parse(domain(devices)).graphics is graphics


@pytest.mark.parametrize(
    ("devices", "on_tcp"),
    [
        (VNC, False),
        ("<graphics type='vnc' socket='/run/x'/>", False),
        ("<graphics type='vnc'><listen type='socket' socket='/run/x'/></graphics>", False),
        ("<graphics type='sdl'/>", False),
        ("<graphics type='vnc' port='-1' autoport='yes'/>", True),
        ("<graphics type='vnc' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>", True),
        ("<graphics type='vnc'><listen type='network' network='default'/></graphics>", True),
        (VNC + "<graphics type='spice' port='5901'><listen type='address'/></graphics>", True),
    ],
)
def test_a_display_on_a_network_is_seen(devices: str, on_tcp: bool) -> None:
    assert parse(domain(devices)).tcp_display is on_tcp


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain>",
        "<!DOCTYPE domain [<!ENTITY a 'aaaa'>]><domain>&a;</domain>",
        "<domain>&undefined;</domain>",
        f"<domain>{MAX_XML * ' '}</domain>",
    ],
)
def test_what_libvirt_would_never_write_is_refused(xml: str) -> None:
    with pytest.raises(BadDescription):
        parse(xml)
