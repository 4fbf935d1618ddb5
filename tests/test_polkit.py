"""The shipped polkit rules before a real polkitd and a real system libvirtd: the broker may open consoles, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.setup import POLKIT_ACTIONS
from tests.booted_systemd import ROOT, BootedSystemd, why_not

RULES = ROOT / "config/polkit/50-eva-broker.rules"
NOT_RUNNING, DENIED = 55, 88  # VIR_ERR_OPERATION_INVALID, VIR_ERR_ACCESS_DENIED

LIBVIRTD_CONF = """
access_drivers = ["polkit"]
auth_unix_ro = "polkit"
auth_unix_rw = "polkit"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0777"
"""
LIBVIRTD_SERVICE = """
[Service]
Type=notify
ExecStart=/usr/sbin/libvirtd
"""
# None of the calls is carried out: the domain is not running, and who may do it is asked before that.
DOMAIN = """
<domain type='qemu'><name>vm1</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os>
<devices><serial type='pty'/><graphics type='vnc'><listen type='none'/></graphics></devices></domain>
"""
DEFINE = """
import libvirt, sys, time
libvirt.registerErrorHandler(lambda *_: None, None)
deadline = time.monotonic() + 60
while True:
    try:
        connection = libvirt.open('qemu:///system')
        break
    except libvirt.libvirtError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
connection.defineXML(sys.argv[1])
"""
TRY = """
import json, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
found = {}
def attempt(name, call):
    try:
        call()
        found[name] = 0
    except libvirt.libvirtError as error:
        found[name] = error.get_error_code()
        return False
    return True
def connect():
    global c
    c = libvirt.open('qemu:///system')
if attempt('connect', connect):
    attempt('list', lambda: c.listAllDomains()[0])
    d = c.listAllDomains()[0]
    attempt('describe', d.XMLDesc)
    attempt('state', d.state)
    attempt('console', lambda: d.openConsole(None, c.newStream(0), libvirt.VIR_DOMAIN_CONSOLE_SAFE))
    attempt('graphics', lambda: d.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))
    attempt('keys', lambda: d.sendKey(0, 0, [29], 1, 0))
    attempt('secrets in XML', lambda: d.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE))
    attempt('start', d.create)
    attempt('destroy', d.destroy)
    attempt('reset', d.reset)
    attempt('suspend', d.suspend)
    attempt('undefine', d.undefine)
    attempt('define', lambda: c.defineXML(d.XMLDesc()))
    attempt('metadata', lambda: d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, 'x', None, None, 0))
    attempt('screenshot', lambda: d.screenshot(c.newStream(0), 0))
    attempt('memory', lambda: d.memoryPeek(0, 1, libvirt.VIR_MEMORY_VIRTUAL))
    attempt('dump', lambda: d.coreDump('/tmp/x', 0))
    attempt('save', lambda: d.save('/tmp/x'))
    attempt('networks', c.listAllNetworks)
    attempt('secrets', c.listAllSecrets)
    attempt('pools', c.listAllStoragePools)
print(json.dumps(found))
"""


def missing() -> str | None:
    if not Path("/usr/lib/polkit-1/polkitd").exists() or shutil.which("dbus-daemon") is None:
        return "needs Debian's polkitd"
    if not any(POLKIT_ACTIONS.glob("*.policy")):
        return "needs libvirt's polkit actions: lab/setup.py fetches them"
    return why_not()


pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture(scope="module")
def host() -> Iterator[BootedSystemd]:
    """A system libvirtd with one domain, under polkit."""
    users = (ROOT / "systemd/eva.sysusers").read_text() + "u libvirt-qemu - - /var/lib/libvirt\nu somebody - - /\n"
    files: dict[str, str | bytes] = {
        "sysusers.d/eva.conf": users,
        "tmpfiles.d/eva.conf": (ROOT / "systemd/eva.tmpfiles").read_text(),
        "polkit-1/rules.d/50-eva-broker.rules": RULES.read_text(),
        "libvirt/libvirtd.conf": LIBVIRTD_CONF,
        "systemd/system/libvirtd.service": LIBVIRTD_SERVICE,
    }
    host = BootedSystemd(files, {"/run/libvirt-actions": POLKIT_ACTIONS})
    host.start()
    try:
        script = "mkdir /run/actions && cp /usr/share/polkit-1/actions/* /run/libvirt-actions/* /run/actions"
        host.do("sh", "-c", f"{script} && mount --bind /run/actions /usr/share/polkit-1/actions")
        (host.stage / "try.py").write_text(TRY)
        host.do("systemctl", "start", "dbus", "polkit", "libvirtd")
        # asked again and again: libvirtd says that it is ready before its drivers are
        host.do("/opt/eva/bin/python", "-c", DEFINE, DOMAIN)
        yield host
    finally:
        host.stop()


def tried_by(host: BootedSystemd, user: str) -> dict[str, int]:
    """libvirt's error code of each attempt, 0 where it was done."""
    found: dict[str, int] = json.loads(host.do("runuser", "-u", user, "--", "/opt/eva/bin/python", "/run/stage/try.py"))
    return found


def test_the_broker_looks_and_opens_consoles_and_does_nothing_else(host: BootedSystemd) -> None:
    found = tried_by(host, "eva-broker")
    assert [found.pop(name) for name in ("connect", "list", "describe", "state")] == [0, 0, 0, 0]
    # past the access check, to a domain that does not run
    assert [found.pop(name) for name in ("console", "graphics", "keys")] == [NOT_RUNNING] * 3
    assert found == dict.fromkeys(found, DENIED)
    assert len(found) > 12


def test_another_user_does_not_get_in(host: BootedSystemd) -> None:
    found = tried_by(host, "somebody")
    assert list(found) == ["connect"]
    assert found["connect"] != 0
