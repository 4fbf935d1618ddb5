"""The shipped units in a real systemd: ready, reload, watchdog, stop, and a sandbox in which the daemons do all their work."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from lab.cloud import BIN, OPERATOR, PASSWORD, Cloud, Ercs
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from lab.process import Program
from lab.transcript import PATIENCE_S, Transcript
from tests.booted_systemd import ROOT, BootedSystemd, why_not
from tests.conftest import SUBSCRIPTION, resource_id_of

UNITS = ("eva-broker", "eva-provider")
BORROWED_UID = 9  # Debian's news, in every /etc/passwd; booted_systemd.py takes it out of the copy
NODE = "AzS-ERCS01"
MOST_EXPOSED = 1.5
# All that differs from the shipped unit: where it logs, so that we can read it, ...
BROKER_DROP_IN = """
[Service]
StandardError=append:/run/stage/broker.log
WatchdogSec=120
RestartSec=200ms
"""
# ... and a watchdog that does not mind a busy machine, but where it is that we wait for.
QUICK_WATCHDOG = "/run/systemd/system/eva-broker.service.d/watchdog.conf"
QUICK = "[Service]\nWatchdogSec=4\n"
PROVIDER_DROP_IN = """
[Service]
StandardError=append:/run/stage/provider.log
"""

# The least that a users file may ask for: a test signs in often.
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

pytestmark = pytest.mark.timeout(300)
needs_systemd = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


# -- the units as text -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/usr/bin/systemd-analyze").exists(), reason="needs Debian's systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_exposure(unit: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(ROOT / f"systemd/{unit}.service")],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


# -- a node ----------------------------------------------------------------------------------------------------------


def shipped(name: str) -> str:
    return (ROOT / "systemd" / name).read_text()


@dataclass
class Stand:
    """A node under systemd, in a cloud whose MQTT broker, provider and hypervisor run beside it."""

    systemd: BootedSystemd
    cloud: Cloud
    node: Ercs
    guest: Guest

    @property
    def log(self) -> Transcript:
        return self.node.program.transcript

    def await_well(self, timeout: float = PATIENCE_S) -> None:
        """Return when it has a lease and its host: what comes after READY."""
        deadline = time.monotonic() + timeout
        while (amiss := self._amiss()) != "ok":
            assert time.monotonic() < deadline, (amiss, self.log.tail())
            time.sleep(0.1)  # nothing tells of it but /healthz

    def _amiss(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.node.metrics_port}/healthz", timeout=PATIENCE_S) as answer:
                return str(answer.read().decode()).strip()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return str(error)

    def audit(self) -> str:
        """Verified."""
        self.as_broker("verify-audit")
        return self.systemd.do("cat", "/var/lib/eva-broker/audit.jsonl")

    def as_broker(self, *words: str) -> str:
        return self.systemd.do("runuser", "-u", "eva-broker", "--", "/opt/eva/bin/eva-broker", *words)

    def main_pid(self) -> int:
        return int(self.systemd.properties("eva-broker", ["MainPID"])["MainPID"])

    @functools.cached_property
    def consented(self) -> str:
        """The VM's resource ID, once its tenant has consented and the operator's workstation is on the safelist."""
        name = resource_id_of(self.guest.name)
        self.cloud.grant(name, "--node", NODE, kinds=("serial",))
        self.cloud.cmdlet("Grant-RdpAccessToErcsVM")
        return name

    def operator_at_console(self, directory: Path) -> Operator:
        """At the guest's serial shell, by the shipped command; the console has answered when this returns."""
        return Operator(self, self.consented, directory)


class Operator:
    """ConnectTo-TenantVm with pipes for a terminal."""

    def __init__(self, stand: Stand, resource_id: str, directory: Path) -> None:
        reader, self._writer = os.pipe()
        self.program = Program(
            [str(BIN / "ConnectTo-TenantVm"), "-ResourceID", resource_id],
            directory / "operator.log",
            environment=stand.cloud.environment(NODE),
            stdin=reader,
        )
        self.program.start()
        os.close(reader)
        os.write(self._writer, b"echo answer-$((40+2))\n")
        self.program.transcript.wait_for("answer-42")

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._writer)
        self.program.stop(PATIENCE_S)  # one that was killed would not have left


@pytest.fixture(scope="module")
def cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    with Cloud({"host1": libvirt_host.uri}, nodes=()) as cloud:
        yield cloud


def users(*names: str) -> str:
    """A users file with these accounts, all with the lab's password."""
    lines = "".join(f'  - {{name: {name}, groups: [cloudadmin], password: "{HASHER.hash(PASSWORD)}"}}\n' for name in names)
    return f"accounts:\n{lines}"


def broker_files(cloud: Cloud, port: int, metrics_port: int) -> dict[str, str | bytes]:
    """What docs/operations.md has in /etc of a node, with this cloud's names and ports."""
    authority = cloud.authority
    operators, client = authority.server(f"{NODE}-operators"), authority.client(NODE)
    settings = (
        f"node: {NODE}\n"
        f"operators:\n  address: 127.0.0.1\n  port: {port}\n  certificate: /etc/eva/tls/ercs.pem\n  key: /etc/eva/tls/ercs.key\n"
        "  names: [localhost]\n"
        f"metrics:\n  port: {metrics_port}\n"
        f"mqtt:\n  host: localhost\n  port: {cloud.mosquitto.port}\n  tls:\n    ca: /etc/eva/tls/ca.pem\n"
        f"    certificate: /etc/eva/tls/{NODE}.pem\n    key: /etc/eva/tls/{NODE}.key\n"
        f"provider:\n  url: https://localhost:{cloud.lease_port}\n  ca: /etc/eva/tls/ca.pem\n"
        "hosts:\n  - name: host1\n    uri: qemu+unix:///session?socket=/run/libvirt/libvirt-sock\n"
        "limits: {}\n"
    )
    return {
        "eva/broker.yaml": settings,
        "eva/users.yaml": users(OPERATOR),
        "eva/root.pub": (cloud.directory / "provider/root.pub").read_bytes(),
        "eva/tls/ca.pem": authority.ca.read_bytes(),
        "eva/tls/ercs.pem": operators.certificate.read_bytes(),
        "eva/tls/ercs.key": operators.key.read_bytes(),
        f"eva/tls/{NODE}.pem": client.certificate.read_bytes(),
        f"eva/tls/{NODE}.key": client.key.read_bytes(),
        "systemd/system/eva-broker.service.d/test.conf": BROKER_DROP_IN,
    }


def provider_files(cloud: Cloud, lease_port: int, metrics_port: int) -> dict[str, str | bytes]:
    """... and of the provider's host. Its MQTT broker is not there: it serves leases over HTTPS all the same."""
    pair = cloud.authority.server("second-provider")
    settings = (
        "keys: {}\n"
        f"mqtt:\n  host: localhost\n  port: {free_port()}\n"
        f"lease:\n  address: 127.0.0.1\n  port: {lease_port}\n"
        "  certificate: /etc/eva/tls/provider-https.pem\n  key: /etc/eva/tls/provider-https.key\n"
        f"metrics:\n  port: {metrics_port}\nadmin: {{}}\nlimits: {{}}\n"
    )
    return {
        "eva/provider.yaml": settings,
        "eva/tls/provider-https.pem": pair.certificate.read_bytes(),
        "eva/tls/provider-https.key": pair.key.read_bytes(),
        "systemd/system/eva-provider.service.d/test.conf": PROVIDER_DROP_IN,
    }


def units() -> dict[str, str | bytes]:
    return {
        **{f"systemd/system/{unit}.service": shipped(f"{unit}.service") for unit in UNITS},
        # The lab's libvirtd lives outside and refuses a uid that its own /etc/passwd does not have
        "sysusers.d/eva.conf": shipped("eva.sysusers").replace("u eva-broker -", f"u eva-broker {BORROWED_UID}"),
        "tmpfiles.d/eva.conf": shipped("eva.tmpfiles"),
    }


@pytest.fixture(scope="module")
def stand(cloud: Cloud, libvirt_host: LibvirtHost, shared_guest: Guest) -> Iterator[Stand]:
    port, metrics_port = free_port(), free_port()
    # the directory above lets nobody in; whom a real libvirtd lets in is polkit's affair
    libvirt_host.socket.chmod(0o777)
    libvirt_host.socket.parent.chmod(0o711)
    files = units() | broker_files(cloud, port, metrics_port) | provider_files(cloud, free_port(), free_port())
    systemd = BootedSystemd(files, {"/run/libvirt": libvirt_host.socket.parent})
    log = systemd.stage / "broker.log"
    node = Ercs(NODE, systemd.stage, systemd.stage / "etc/eva/broker.yaml", port, metrics_port, Program(["true"], log))
    cloud.nodes[NODE] = node
    systemd.start()
    try:
        systemd.do("chown", "-R", "root:eva-broker", "/etc/eva/users.yaml", "/etc/eva/tls")
        systemd.do("chmod", "-R", "u=rwX,g=rX,o=", "/etc/eva/users.yaml", "/etc/eva/tls")
        stand = Stand(systemd, cloud, node, shared_guest)
        public = systemd.stage / "node.pub"
        public.write_text(stand.as_broker("keygen"))
        cloud.provider_command("nodes", "add", NODE, "--key", str(public))
        yield stand
    finally:
        systemd.stop()


@pytest.fixture
def running(stand: Stand) -> Stand:
    """Its broker's unit is active and well, whatever a test before did."""
    stand.systemd.do("systemctl", "start", "eva-broker")
    stand.await_well()
    return stand


@needs_systemd
def test_units_are_whole(stand: Stand) -> None:
    for unit in UNITS:
        assert stand.systemd.do("systemd-analyze", "verify", f"{unit}.service") == ""


@needs_systemd
def test_active_means_that_it_serves(running: Stand) -> None:
    state = running.systemd.properties("eva-broker", ["ActiveState", "StatusText", "Type", "User", "NRestarts"])
    assert state == {"ActiveState": "active", "StatusText": "serving", "Type": "notify", "User": "eva-broker", "NRestarts": "0"}
    with urllib.request.urlopen(f"http://127.0.0.1:{running.node.metrics_port}/metrics", timeout=PATIENCE_S) as answer:
        assert b"eva_hosts_up 1.0" in answer.read()


@needs_systemd
def test_confined_with_all_its_processes(running: Stand, tmp_path: Path) -> None:
    with running.operator_at_console(tmp_path):
        pids = running.systemd.pids_of("eva-broker")
        names = {running.systemd.do("cat", f"/proc/{pid}/comm").strip() for pid in pids}
        assert names == {"eva-broker", "eva-forkserver", "eva-watcher", "eva-worker"}
        for pid in pids:
            status = running.systemd.do("cat", f"/proc/{pid}/status")
            assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)
            assert re.search(r"^CapBnd:\s*0+$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)
            assert re.search(r"^Seccomp:\s*2$", status, re.MULTILINE)


@needs_systemd
def test_reload_takes_the_users_anew(running: Stand) -> None:
    before = running.log.size()
    running.systemd.do("sh", "-c", f"cat > /etc/eva/users.yaml <<'END'\n{users(OPERATOR, 'carol')}END")
    running.systemd.do("systemctl", "reload", "eva-broker")
    running.log.wait_for("users re-read: 2 accounts", after=before)
    assert "carol" in running.cloud.cmdlet("Grant-RdpAccessToErcsVM", account="carol")


@needs_systemd
def test_a_daemon_that_stands_still_is_killed_and_started_again(running: Stand, tmp_path: Path) -> None:
    running.systemd.do("sh", "-c", f"mkdir -p {Path(QUICK_WATCHDOG).parent} && printf '{QUICK}' > {QUICK_WATCHDOG}")
    running.systemd.do("sh", "-c", "systemctl daemon-reload && systemctl restart eva-broker")
    running.await_well()
    with running.operator_at_console(tmp_path):
        before, pid, seen = running.main_pid(), running.systemd.pids_of("eva-broker"), running.log.size()
        running.systemd.do("kill", "-STOP", str(before))
        running.log.wait_for("serves operators", after=seen)  # the next one's
        assert running.main_pid() != before
        assert not set(pid) & set(running.systemd.pids_of("eva-broker"))
        restarts = running.systemd.properties("eva-broker", ["NRestarts"])["NRestarts"]
        assert int(restarts) >= 1
    last = [line for line in running.audit().splitlines() if "session-end" in line][-1]
    assert '"recovered":true' in last
    running.systemd.do("sh", "-c", f"rm {QUICK_WATCHDOG} && systemctl daemon-reload && systemctl restart eva-broker")


@needs_systemd
def test_stop_records_every_session_and_leaves_no_process(running: Stand, tmp_path: Path) -> None:
    with running.operator_at_console(tmp_path):
        running.systemd.do("systemctl", "stop", "eva-broker")
        assert running.systemd.pids_of("eva-broker") == []
        state = running.systemd.properties("eva-broker", ["ActiveState", "Result", "ExecMainStatus"])
        assert state == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    *_, end, stop = running.audit().splitlines()
    assert '"event":"session-end"' in end
    assert '"reason":"node-stopping"' in end
    assert '"event":"node-stop"' in stop
    assert '"sessions":1' in stop


@needs_systemd
def test_a_node_without_its_state_refuses_and_says_why(running: Stand) -> None:
    running.systemd.do("systemctl", "stop", "eva-broker")
    running.systemd.do("mv", "/var/lib/eva-broker/state.db", "/var/lib/eva-broker/state.away")
    before = running.log.size()
    try:
        assert running.systemd.run("systemctl", "start", "eva-broker").returncode != 0
        assert "/var/lib/eva-broker/state.db" in running.log.text(before)
    finally:
        running.systemd.do("systemctl", "stop", "eva-broker")
        running.systemd.do("mv", "/var/lib/eva-broker/state.away", "/var/lib/eva-broker/state.db")


@needs_systemd
def test_the_provider_serves_in_its_sandbox(stand: Stand) -> None:
    stand.systemd.do("/opt/eva/bin/eva-provider", "keys", "init")
    stand.systemd.do("chown", "-R", "root:eva-provider", *(f"/etc/eva/tls/provider-https.{end}" for end in ("pem", "key")))
    stand.systemd.do("chmod", "o+x", "/etc/eva/tls")
    try:
        stand.systemd.do("systemctl", "start", "eva-provider")
        command = ["runuser", "-u", "eva-provider", "--", "/opt/eva/bin/eva-provider"]
        stand.systemd.do(*command, "feature", "enable-subscription", SUBSCRIPTION)
        # through the admin socket in /run/eva-provider, to an answer: there is no node here
        asked = stand.systemd.run(
            *(*command, "consent", "grant", "--resource-id", resource_id_of("vm1"), "--kind", "serial", "--giver", "tenant1")
        )
        assert asked.returncode == 1
        assert "none of 0 enrolled nodes" in asked.stderr
    finally:
        stand.systemd.do("systemctl", "stop", "eva-provider")
    state = stand.systemd.properties("eva-provider", ["ActiveState", "Result", "User"])
    assert state == {"ActiveState": "inactive", "Result": "success", "User": "eva-provider"}


@needs_systemd
def test_a_host_that_does_not_let_the_node_in_is_logged_with_its_reason(stand: Stand) -> None:
    stand.systemd.do("systemctl", "stop", "eva-broker")
    before = stand.log.size()
    stand.systemd.do("chmod", "0700", "/run/libvirt")
    try:
        stand.systemd.do("systemctl", "start", "eva-broker")
        stand.log.wait_for("host host1 is down: ", after=before)
        assert "Permission denied" in stand.log.text(before)
    finally:
        stand.systemd.do("chmod", "0711", "/run/libvirt")
    stand.await_well()
