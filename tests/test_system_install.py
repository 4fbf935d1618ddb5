"""docs/operations.md played as it is written, on a machine of its own: installed, used, upgraded, lost and brought back.

Each indented line of its sections is run by a shell, in order. What is done otherwise here stands in `SKIPPED`, `INSTEAD` and
`Machine`'s answers to "then edit" and "by hand".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.certificates import Authority, KeyPair
from lab.cloud import PASSWORD
from lab.libvirt_host import Guest, LibvirtHost
from lab.process import Program
from lab.transcript import LOOK_S, PATIENCE_S
from tests.booted_systemd import ROOT, BootedSystemd, why_not
from tests.conftest import SUBSCRIPTION, resource_id_of
from tests.test_systemd import BORROWED_UID

NODE = "AzS-ERCS01"
OPERATOR = "alice"
HOSTS = ("mqtt.eva.example", "provider.eva.example", "ercs01.eva.example")
CHECKOUT = "/srv/checkout"
LIBVIRT = "qemu+unix:///session?socket=/run/libvirt/libvirt-sock"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFUSED = 1  # of ConnectTo-TenantVm

# Where a line begins so, it is not run, and why
SKIPPED = {
    "apt install ": "lab/setup.py has installed them",
    "python3 -m venv /opt/eva-build ": "the wheel is built outside, where there may be no network either",
    "make web": "npm may find no registry here; what it brings is copied with the checkout",
    "systemctl restart polkit libvirtd": "libvirtd is the lab's, and outside",
    "curl ": "the machine may have none; healthz is asked by another",
}
# ... and what is different in it
INSTEAD = {
    # the dependencies are those of this Python
    r"(\S+)/bin/pip (install .*)": r"\1/bin/pip \2 --no-deps; echo /opt/site | tee $(echo \1/lib/python3.*/site-packages)/it.pth",
    r"virsh metadata vm1 (.*)": rf"virsh -c '{LIBVIRT}' metadata vm1 \1",
    "/subscriptions/GUID/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/vm1": resource_id_of("vm1"),
}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.skipif(not Path("/usr/sbin/mosquitto").exists(), reason="needs Debian's mosquitto"),
]


def lines_of(heading: str) -> list[str]:
    """The commands of a section of docs/operations.md with all below it, each whole."""
    level = heading.partition(" ")[0]
    text = (ROOT / "docs/operations.md").read_text()
    section = text.split(f"\n{heading}\n")[1]
    section = re.split(rf"\n#{{1,{len(level)}}} ", section)[0]
    block = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    return block.replace("\\\n", "").splitlines()


def version_of(checkout: Path) -> str:
    found = re.search(r"^version = (\S+)$", (checkout / "setup.cfg").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def copied(to: Path) -> Path:
    """The checkout as git has it, and what `make web` brings; eva-broker gets a user id that the lab's libvirtd knows."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = (
        listed.stdout.decode().split("\0")[:-1] if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    )
    for name in names:
        if (ROOT / name).is_file() and not name.startswith((".", "build/")):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    shutil.copytree(ROOT / "web/vendor", to / "web/vendor")
    users = to / "systemd/eva.sysusers"
    users.write_text(users.read_text().replace("u eva-broker -", f"u eva-broker {BORROWED_UID}"))
    return to


def build(checkout: Path) -> None:
    """What `pip wheel .` makes of ours: a wheel in `wheels`."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--wheel-dir", "wheels"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=checkout, check=True, capture_output=True)
    shutil.rmtree(checkout / "build")


@dataclass
class Machine:
    """`home`: what is CHECKOUT in there. `words`: what stands for itself in the manual's lines."""

    systemd: BootedSystemd
    home: Path
    words: Mapping[str, str]
    authority: Authority
    ran: list[str] = field(default_factory=list)

    def shell(self, line: str, *, fails: bool = False) -> str:
        """Run it as root would type it, in the checkout; give what it printed. `fails`: it may."""
        environment = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
        done = self.systemd.run(*environment, "bash", "-euo", "pipefail", "-c", f"cd {CHECKOUT}\n{line}")
        assert done.returncode == 0 or fails, (line, done.returncode, done.stdout, done.stderr)
        return done.stdout + (done.stderr if fails else "")

    def play(self, heading: str) -> None:
        for line in lines_of(heading):
            self.play_line(line)

    def play_line(self, line: str) -> None:
        if any(line.startswith(beginning) for beginning in SKIPPED):
            return
        for old, new in self.words.items():
            line = re.sub(rf"\b{old}\b", new, line)
        for old, new in INSTEAD.items():
            line = re.sub(old, new, line)
        self.shell(line)
        self.ran.append(line)
        self._by_hand(line)

    def _by_hand(self, line: str) -> None:
        """What the manual's sentences say after this line."""
        if line.endswith("systemd-tmpfiles --create eva.conf"):
            self._bring_certificates()
        elif "/etc/eva/provider.yaml" in line:
            self._edit_provider()
        elif line.endswith("keys init"):
            self.shell("cp /etc/eva/provider-keys/root.pub .")
        elif "/etc/eva/broker.yaml" in line:
            self.shell(f"sed -i 's,(provider.*:)8443,\\18453,; s,qemu:///system,{LIBVIRT},' -E /etc/eva/broker.yaml")
        elif "/etc/eva/users.yaml" in line:
            self._edit_users()
        elif "/etc/eva/client.yaml" in line:
            self.shell("cp /etc/eva/tls/ca.pem /etc/eva/node-ca.pem")

    def _bring_certificates(self) -> None:
        made: dict[str, tuple[KeyPair, str]] = {
            "mqtt": (self.authority.server("mqtt", ["mqtt.eva.example"]), "mosquitto"),
            NODE: (self.authority.client(NODE), "eva-broker"),
            "eva-provider": (self.authority.client("eva-provider"), "eva-provider"),
            "provider-https": (self.authority.server("provider-https", ["provider.eva.example"]), "eva-provider"),
            "ercs": (self.authority.server("ercs", ["ercs01.eva.example"]), "eva-broker"),
        }
        for name, (pair, group) in made.items():
            for file, end, mode, owner in ((pair.certificate, "pem", "644", "root"), (pair.key, "key", "640", group)):
                shutil.copy(file, self.home / file.name)
                self.shell(f"install -m {mode} -g {owner} {file.name} /etc/eva/tls/{name}.{end} && rm {file.name}")
        shutil.copy(self.authority.ca, self.home / "ca.pem")
        self.shell("install -m 644 ca.pem /etc/eva/tls/ca.pem && install -m 644 ca.pem /etc/eva/tls/operators-ca.pem")

    def _edit_provider(self) -> None:
        """Both on one machine: the lease listener leaves the port to the broker. Nobody needs the REST here."""
        shipped = (self.home / "config/provider.yaml").read_text()
        kept = re.sub(r"^(region|tenant_api|admin_api|identity):.*\n((  .*|#.*)?\n)*", "", shipped, flags=re.MULTILINE)
        kept = re.sub(r"(?m)^(lease:\n(?:  .*\n)*?  port: )8443$", r"\g<1>8453", kept)
        (self.home / "provider.yaml").write_text(kept)
        self.shell("cat provider.yaml > /etc/eva/provider.yaml && rm provider.yaml")

    def _edit_users(self) -> None:
        said = self.shell(f"printf '%s\\n' '{PASSWORD}' '{PASSWORD}' | /opt/eva/bin/eva-broker passwd")
        users = f'accounts:\n  - {{name: {OPERATOR}, groups: [cloudadmin], password: "{said.split()[-1]}"}}\n'
        (self.home / "users.yaml").write_text(users)
        self.shell("cat users.yaml > /etc/eva/users.yaml && rm users.yaml")

    # -- what people do

    def provider(self, *words: str, fails: bool = False) -> str:
        return self.shell(f"/opt/eva/bin/eva-provider {' '.join(words)}", fails=fails)

    def broker(self, *words: str) -> str:
        return self.shell(f"runuser -u eva-broker -- /opt/eva/bin/eva-broker {' '.join(words)}")

    def grant(self) -> str:
        """A tenant's consent; give its id."""
        asked = f"consent grant --resource-id {resource_id_of('vm1')} --kind serial --giver tenant1 --json"
        return str(json.loads(self.provider(asked))["consent_id"])

    def revoke(self, consent: str) -> None:
        """Returns when the node has confirmed it."""
        self.provider("consent revoke --consent-id", consent)

    def await_well(self) -> None:
        """Return when the node has a lease and its host."""
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/healthz').read().decode())"
        deadline = time.monotonic() + PATIENCE_S
        while "ok" not in (said := self.shell(f'python3 -c "{ask}"', fails=True)).splitlines():
            assert time.monotonic() < deadline, (said, self.log())
            time.sleep(0.1)  # nothing tells of it but /healthz

    def await_word(self, word: str, said: Callable[[], str]) -> None:
        """Return once it is said: the node asks every two seconds."""
        deadline = time.monotonic() + PATIENCE_S
        while word not in (text := said()):
            assert time.monotonic() < deadline, text
            time.sleep(0.2)  # what a command prints cannot be awaited

    def await_told(self) -> None:
        """Return when the node has told what is in its audit: by the ask after the one that may be under way."""

        def asked() -> int:
            (row,) = json.loads(self.provider("nodes list --json"))
            return int(row["asked_ms"])

        first = asked()
        self.await_word("told", lambda: "told" if asked() > first + 3000 else "")

    def log(self) -> str:
        return self.shell("journalctl --no-pager -n 60 -u eva-broker -u eva-provider -u mosquitto", fails=True)

    def operator(self, command: str) -> list[str]:
        """The argv of an operator's command."""
        (self.home / "password").write_text(PASSWORD + "\n")
        (self.home / "password").chmod(0o600)
        known = [f"PATH={PATH}", "HOME=/root", f"EVA_ACCOUNT={OPERATOR}", f"EVA_PASSWORD_FILE={CHECKOUT}/password"]
        return [
            *self.systemd.enter,
            "env",
            "-i",
            *known,
            "bash",
            "-c",
            command,
        ]

    def let_in(self) -> None:
        """The operator puts the workstation on the safelist."""
        let_in = subprocess.run(
            self.operator("Grant-RdpAccessToErcsVM"), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert let_in.returncode == 0, (let_in, self.log())

    def answers(self) -> bool:
        """Whether an operator gets to the guest's shell by the commands that the manual has put on the PATH."""
        self.let_in()
        with tempfile.TemporaryDirectory() as home, Session(self, Path(home, "operator.log")) as session:
            return session.answers()


class Session:
    """An operator who asks the guest's shell something, and is there until the block ends."""

    def __init__(self, machine: Machine, log: Path) -> None:
        self._machine = machine
        reader, self._writer = os.pipe()
        machine.let_in()
        self.program = Program(
            machine.operator(f"exec ConnectTo-TenantVm -ResourceID {resource_id_of('vm1')}"), log, stdin=reader
        )
        self.program.start()
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):  # refused already
            os.write(self._writer, b"echo answer-$((40+2))\n")

    def answers(self) -> bool:
        """Whether the shell does, or the operator is refused."""
        deadline = time.monotonic() + PATIENCE_S
        while "answer-42" not in self.program.transcript.text():
            if not self.program.running:
                assert self.program.returncode == REFUSED, self.program.transcript.text()
                return False
            assert time.monotonic() < deadline, self.program.transcript.text()
            time.sleep(LOOK_S)  # a file cannot be awaited
        return True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._writer)
        self.program.stop(PATIENCE_S)  # one that was killed would not have left


@pytest.fixture(scope="module")
def vm1(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """Give a guest that has no resource ID yet: the manual gives it one."""
    libvirt_host.revive()
    guest = libvirt_host.start_guest("vm1")
    yield guest
    guest.discard()


@pytest.fixture(scope="module")
def machine(libvirt_host: LibvirtHost, vm1: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine on which the section Install was played, with all on it that a cloud has in several places."""
    home = copied(tmp_path_factory.mktemp("checkout"))
    version = version_of(home)
    newer = f"{version}.post1"
    build(home)
    settings = home / "setup.cfg"
    settings.write_text(settings.read_text().replace(f"version = {version}", f"version = {newer}"))
    build(home)
    # whom a real libvirtd lets in is polkit's affair
    libvirt_host.socket.chmod(0o777)
    libvirt_host.socket.parent.chmod(0o711)
    hosts = "127.0.0.1 localhost " + " ".join(HOSTS) + "\n"
    shown = {"/run/libvirt": libvirt_host.socket.parent, CHECKOUT: home}
    systemd = BootedSystemd({"hosts": hosts}, shown, bare=True)
    words = {"VERSION": version, "NEW": newer}
    machine = Machine(systemd, home, words, Authority(tmp_path_factory.mktemp("authority")))
    systemd.start()
    try:
        machine.shell("install -d -o mosquitto -g mosquitto /var/lib/mosquitto")  # as its package does
        machine.play("## Install")
        machine.provider("feature enable-subscription", SUBSCRIPTION)
        yield machine
    finally:
        systemd.stop()


@pytest.fixture
def well(machine: Machine) -> Machine:
    """Give it with all daemons running, and no consent in force."""
    machine.shell("systemctl start mosquitto eva-provider eva-broker")
    machine.await_well()
    machine.provider("consent revoke --resource-id", resource_id_of("vm1"), fails=True)
    return machine


def environment_of(machine: Machine, unit: str) -> str:
    """Where the Python lies that a unit's main process runs in."""
    pid = machine.systemd.properties(unit, ["MainPID"])["MainPID"]
    return machine.shell(f"tr '\\0' '\\n' < /proc/{pid}/cmdline | head -n 1").strip().rpartition("/")[0]


def test_what_was_installed_runs_from_the_wheel_as_its_own_users(well: Machine) -> None:
    for unit in ("eva-broker", "eva-provider"):
        state = well.systemd.properties(unit, ["ActiveState", "User", "UnitFileState"])
        assert state == {"ActiveState": "active", "User": unit, "UnitFileState": "enabled"}
        assert environment_of(well, unit) == f"/opt/eva-{well.words['VERSION']}/bin"
    for package in ("broker", "provider", "eva", "hypervisor", "cmdlets"):
        assert well.shell(f"cd / && /opt/eva/bin/python -c 'import {package}; print({package}.__file__)'").startswith(
            "/opt/eva/lib/"
        )


def test_every_file_of_the_packages_is_in_the_wheel(well: Machine) -> None:
    """Also what is no Python: the store's migrations need theirs at run time."""
    packages = ("broker", "provider", "eva", "hypervisor", "cmdlets")
    installed = "/opt/eva/lib/python3.*/site-packages"
    missing = [
        str(path.relative_to(well.home))
        for package in packages
        for path in (well.home / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    found = set(well.shell(f"cd {installed} && find {' '.join(packages)} -type f").split())
    assert [name for name in missing if name not in found] == []


def test_a_consent_opens_the_console_and_its_end_is_confirmed(well: Machine) -> None:
    assert not well.answers()
    consent = well.grant()
    assert well.answers()
    assert f"cut confirmed by {NODE}" in well.provider("consent revoke --consent-id", consent)
    assert not well.answers()
    assert "chain valid" in well.broker("verify-audit")


def test_an_upgrade_ends_sessions_and_keeps_consents_and_so_does_the_way_back(well: Machine, tmp_path: Path) -> None:
    well.grant()
    old, new = (f"/opt/eva-{well.words[word]}/bin" for word in ("VERSION", "NEW"))
    with Session(well, tmp_path / "operator.log") as session:
        assert session.answers()
        well.play("## Upgrade")
        session.program.transcript.wait_for("node-stopping")
    assert environment_of(well, "eva-broker") == new
    well.await_well()
    assert well.answers()
    well.shell(f"ln -sfn eva-{well.words['VERSION']} /opt/eva && systemctl restart eva-broker")
    assert environment_of(well, "eva-broker") == old
    well.await_well()
    assert well.answers()
    assert "chain valid" in well.broker("verify-audit")


@pytest.mark.faults
def test_a_node_that_lost_its_state_is_a_new_one(well: Machine) -> None:
    consent = well.grant()
    well.play("### A node")
    well.await_well()
    assert not well.answers()
    assert well.broker("consents") == ""
    well.revoke(consent)  # at a node that never heard of it
    well.grant()
    assert well.answers()


@pytest.mark.faults
def test_an_old_state_brought_back_revives_no_revoked_consent_and_no_session(well: Machine, tmp_path: Path) -> None:
    """It should not be done, and this is what holds when it is: the provider was told of more, and refuses the node."""
    consent = well.grant()
    with Session(well, tmp_path / "operator.log") as session:
        assert session.answers()
        well.shell("rm -rf /root/old && cp -a /var/lib/eva-broker /root/old")  # as a snapshot of the disk has it
        well.revoke(consent)
    well.await_told()
    well.shell("systemctl stop eva-broker && rm -r /var/lib/eva-broker/* && cp -a /root/old/. /var/lib/eva-broker/")
    well.shell("systemctl start eva-broker")
    well.await_word("ROLLED BACK", lambda: well.provider("nodes list"))
    assert not well.answers()
    assert "open" not in [line.split()[-1] for line in well.broker("sessions").splitlines()]
    assert "chain valid" in well.broker("verify-audit")
    well.play("### A node")
    well.await_well()
    assert not well.answers()
    well.grant()
    assert well.answers()


@pytest.mark.faults
def test_the_providers_store_comes_back_from_its_backup(well: Machine) -> None:
    """A node that has heard more than the copy knows gets no lease, until somebody takes its word."""
    backup, *restore, repair = lines_of("### The provider")
    well.play_line(backup)
    well.revoke(well.grant())
    well.await_told()  # and has put away the receipts that came
    for line in restore:
        well.play_line(line)
    well.await_word("refused: ahead", well.log)
    well.play_line(repair)
    well.await_word("\talive\t", lambda: well.provider("nodes list"))
    assert "no answer" in well.provider(
        f"consent grant --resource-id {resource_id_of('vm1')} --kind serial --giver t", fails=True
    )
    assert "this store lacks receipts" in well.log()
    well.play_line(repair)
    well.provider("consent revoke --everywhere --resource-id", resource_id_of("vm1"), fails=True)
    consent = well.grant()
    assert well.answers()
    well.revoke(consent)
    assert not well.answers()
