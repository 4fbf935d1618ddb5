"""broker/command.py as its users run it: processes, their exit codes, and files that are good, edited, torn or gone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from broker.accounts import Accounts
from broker.audit_log import AuditLog
from broker.state import State
from eva.consent import Kind
from eva.ending import Ending
from lab.certificates import Authority
from lab.cloud import BIN
from tests.broker_parts import ALICE, BOB, NODE, START, Domain, core, vm_id, watermark_over


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Home:
    """A node's directory: its settings and every file that they name."""

    directory: Path

    @property
    def settings(self) -> Path:
        return self.directory / "broker.yaml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def run(self, *words: str, stdin: str = "") -> Ran:
        argv = [str(BIN / "eva-broker"), "--config", str(self.settings), *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def replace(self, old: str, new: str) -> None:
        text = self.settings.read_text()
        assert text.count(old) == 1
        self.settings.write_text(text.replace(old, new))

    def line_of(self, text: str) -> int:
        """The line of the settings that holds this, from 1."""
        (number,) = (n for n, line in enumerate(self.settings.read_text().splitlines(), start=1) if text in line)
        return number


def public_pem(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def settled(directory: Path, authority: Authority) -> Home:
    """A node before `keygen`."""
    operators, mqtt = authority.server("ercs", ["ercs01"]), authority.client(NODE)
    for path in (operators.certificate, operators.key, mqtt.certificate, mqtt.key, authority.ca):
        shutil.copy(path, directory)
    (directory / "root.pub").write_bytes(public_pem(Ed25519PrivateKey.generate()))
    (directory / "users.yaml").write_text("accounts: []\n")
    (directory / "mqtt.password").write_text("a word of its own\n")
    (directory / "broker.yaml").write_text(
        f"node: {NODE}\n"
        f"state_directory: {directory}/state\n"
        f"root_key: {directory}/root.pub\n"
        f"users: {directory}/users.yaml\n"
        "operators:\n"
        f"  certificate: {directory}/ercs.pem\n"
        f"  key: {directory}/ercs.key\n"
        f"  client_ca: {directory}/ca.pem  # operators'\n"
        "  names: [ercs01]\n"
        "mqtt:\n"
        "  host: mqtt.example\n"
        f"  username: {NODE}\n"
        f"  password_file: {directory}/mqtt.password\n"
        "  tls:\n"
        f"    ca: {directory}/ca.pem  # MQTT's\n"
        f"    certificate: {directory}/{NODE}.pem\n"
        f"    key: {directory}/{NODE}.key\n"
        "provider:\n"
        "  url: https://provider.example:8443\n"
        f"  ca: {directory}/ca.pem  # the provider's\n"
        "hosts:\n"
        "  - {name: host1, uri: 'qemu:///system'}\n"
        "limits:\n"
        "  sessions: 1000\n"
    )
    return Home(directory)


@pytest.fixture
def bare(tmp_path: Path, certificates: Authority) -> Home:
    """Give a node that has no key yet."""
    return settled(tmp_path, certificates)


@pytest.fixture(scope="module")
def _enrolled(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Home:
    home = settled(tmp_path_factory.mktemp("enrolled"), certificates)
    assert home.run("keygen").code == 0
    return home


@pytest.fixture
def home(_enrolled: Home, tmp_path: Path) -> Home:
    """Give one with its key, in a directory of the test's own."""
    shutil.copytree(_enrolled.directory, tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "broker.yaml"
    settings.write_text(settings.read_text().replace(str(_enrolled.directory), str(tmp_path)))
    return Home(tmp_path)


# -- keygen ----------------------------------------------------------------------------------------------------------


def test_keygen_makes_a_node_and_prints_its_public_half(bare: Home):
    ran = bare.run("keygen")
    assert (ran.code, ran.err) == (0, "")
    assert load_pem_public_key(ran.out.encode())
    assert sorted(path.name for path in bare.state.iterdir()) == ["audit.jsonl", "node.pem", "state.db"]


def test_only_the_nodes_user_may_read_what_keygen_made(bare: Home):
    bare.run("keygen")
    assert bare.state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in bare.state.iterdir()} == {0o600}


def test_a_second_keygen_changes_nothing_and_prints_the_same(bare: Home):
    first = bare.run("keygen")
    before = {path.name: path.read_bytes() for path in bare.state.iterdir()}
    assert bare.run("keygen") == first
    assert {path.name: path.read_bytes() for path in bare.state.iterdir()} == before


@pytest.mark.parametrize("lost", ["node.pem", "state.db", "audit.jsonl"])
def test_keygen_refuses_a_node_that_lost_a_part(home: Home, lost: str):
    (home.state / lost).unlink()
    before = {path.name: path.read_bytes() for path in home.state.iterdir()}
    ran = home.run("keygen")
    assert (ran.code, ran.out) == (1, "")
    assert f"{home.state / lost} is missing" in ran.err
    assert "must become a new one" in ran.err
    assert {path.name: path.read_bytes() for path in home.state.iterdir()} == before


def test_keygen_says_why_it_can_make_nothing(bare: Home):
    bare.state.write_text("a file in the directory's place")
    ran = bare.run("keygen")
    assert (ran.code, ran.out) == (1, "")
    assert str(bare.state) in ran.err


# -- check-config ----------------------------------------------------------------------------------------------------


def test_check_config_finds_all_in_order(home: Home):
    assert home.run("check-config") == Ran(0, f"{NODE}: settings and files are in order\n", "")


SETTINGS_FAULTS = {
    "a key twice": (
        "  sessions: 1000",
        "  sessions: 1000\n  sessions: 10",
        "sessions: 10\n",
        "limits.sessions",
        "is there twice",
    ),
    "an unknown key": ("  sessions: 1000", "  session: 1000", "session: 1000", "limits.session", "is not a key of this section"),
    "a wrong type": ("  sessions: 1000", "  sessions: many", "sessions: many", "limits.sessions", "a whole number"),
    "out of bounds": ("  sessions: 1000", "  sessions: 0", "sessions: 0", "limits.sessions", "from 1 to 10000"),
    "no such node name": (f"node: {NODE}", "node: a_b", "node: a_b", "node", "letters, digits and hyphens"),
    "another spelling of true": ("  names: [ercs01]", "  names: [yes]", "names: [yes]", "operators.names", "true or false"),
    "a URI that is no local socket": ("qemu:///system", "qemu+tls://h/system", "qemu+tls", "hosts[0].uri", ""),
    "a missing key": ("  host: mqtt.example\n", "", "  username:", "mqtt.host", "is missing"),
    "a relative path": ("root_key: /", "root_key: ", "root_key:", "root_key", "begin it with /"),
    "no mapping": ("limits:\n  sessions: 1000", "limits: 1", "limits: 1", "limits", "needs keys and values"),
    "no YAML": ("  names: [ercs01]", "  names: [ercs01", "mqtt:", "", "not YAML"),
}


@pytest.mark.parametrize("name", SETTINGS_FAULTS)
def test_a_fault_in_the_settings_is_told_with_file_and_line(home: Home, name: str):
    old, new, line, key, why = SETTINGS_FAULTS[name]
    home.replace(old, new)
    ran = home.run("check-config")
    assert (ran.code, ran.out) == (1, "")
    number = home.line_of(line.strip()) if "\n" not in line else len(home.settings.read_text().splitlines())
    assert re.match(rf"Error: {re.escape(f'{home.settings}:{number}: {key}')}", ran.err), ran.err
    assert why in ran.err


def test_settings_that_are_not_there_are_named(tmp_path: Path):
    ran = Home(tmp_path).run("check-config")
    assert ran.code == 1
    assert str(tmp_path / "broker.yaml") in ran.err


def test_an_issuers_secret_that_everybody_may_read_is_told(home: Home):
    secret = home.directory / "oidc.secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    oidc = "{name: C, url: 'https://ercs01', issuer: 'https://id.example', client_id: c, groups: {a: b}, client_secret_file: %s}"
    home.replace("  names: [ercs01]", f"  names: [ercs01]\n  oidc: {oidc % secret}")
    ran = home.run("check-config")
    assert (ran.code, str(secret) in ran.err, "everybody" in ran.err, "s3cret" in ran.err) == (1, True, True, False)


def test_a_fault_in_the_users_file_is_told_with_file_and_line(home: Home):
    (home.directory / "users.yaml").write_text("accounts:\n  - name: alice\n    groups: [cloudadmin]\n    pasword: x\n")
    ran = home.run("check-config")
    assert ran.code == 1
    assert f"{home.directory}/users.yaml:4: accounts[0].pasword: " in ran.err


def other_key(home: Home) -> None:
    private = generate_private_key(SECP256R1())
    (home.state / "node.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def state_of_another(home: Home) -> None:
    (home.state / "state.db").unlink()
    State.create(home.state / "state.db", "AzS-ERCS02")


FILE_FAULTS: dict[str, tuple[str, Callable[[Home], object], str]] = {
    "no node key": ("state/node.pem", lambda home: (home.state / "node.pem").unlink(), "no private key"),
    "a node key that others may read": ("state/node.pem", lambda home: (home.state / "node.pem").chmod(0o640), "chmod 600"),
    "a node key of another sort": ("state/node.pem", other_key, "not an Ed25519 key"),
    "no root key": ("root.pub", lambda home: (home.directory / "root.pub").unlink(), "bring the platform's root.pub here"),
    "a root key that is none": ("root.pub", lambda home: (home.directory / "root.pub").write_text("x"), "no public key"),
    "no users": ("users.yaml", lambda home: (home.directory / "users.yaml").unlink(), "no users file"),
    "no state": ("state/state.db", lambda home: (home.state / "state.db").unlink(), "eva-broker keygen"),
    "another node's state": ("state/state.db", state_of_another, "AzS-ERCS02"),
    "a damaged state": ("state/state.db", lambda home: (home.state / "state.db").write_text("x" * 4096), "cannot be read"),
    "no audit": ("state/audit.jsonl", lambda home: (home.state / "audit.jsonl").unlink(), "No such file"),
    "no certificate for operators": ("ercs.pem", lambda home: (home.directory / "ercs.pem").unlink(), "No such file"),
    "no key for operators": ("ercs.key", lambda home: (home.directory / "ercs.key").unlink(), "No such file"),
    "a certificate that is none": ("ercs.pem", lambda home: (home.directory / "ercs.pem").write_text("x"), ""),
    "another's key": (
        "ercs.key",
        lambda home: shutil.copy(home.directory / f"{NODE}.key", home.directory / "ercs.key"),
        "mismatch",
    ),
    "no certificate for MQTT": (f"{NODE}.pem", lambda home: (home.directory / f"{NODE}.pem").unlink(), "No such file"),
    "no password for MQTT": ("mqtt.password", lambda home: (home.directory / "mqtt.password").unlink(), "No such file"),
}


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_a_fault_in_a_file_is_told_with_its_name(home: Home, name: str):
    file, spoil, why = FILE_FAULTS[name]
    spoil(home)
    ran = home.run("check-config")
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert str(home.directory / file) in line
    assert why in line


@pytest.mark.parametrize("what", ["operators'", "MQTT's", "the provider's"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "no certificate"])
def test_an_authority_that_cannot_be_read_is_named(home: Home, what: str, missing: bool):
    home.replace(f"ca.pem  # {what}", "other-ca.pem")
    if not missing:
        (home.directory / "other-ca.pem").write_text("x")
    ran = home.run("check-config")
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert f"{home.directory}/other-ca.pem" in line


def test_check_config_tells_of_all_that_is_wrong(home: Home):
    for name in ("root.pub", "users.yaml", "ercs.pem"):
        (home.directory / name).unlink()
    ran = home.run("check-config")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 3


def test_check_config_changes_nothing(home: Home):
    before = {path: path.read_bytes() for path in home.directory.rglob("*") if path.is_file()}
    home.run("check-config")
    assert {path: path.read_bytes() for path in before} == before
    # SQLite's own, of a reader that did not open it for writing; the next writer takes them away
    made = {path.name for path in home.directory.rglob("*") if path.is_file()} - {path.name for path in before}
    assert made <= {"state.db-shm", "state.db-wal"}


def test_the_daemon_does_not_start_on_a_fault_and_names_the_file(home: Home):
    (home.directory / "ercs.pem").unlink()
    ran = home.run()
    assert (ran.code, ran.out) == (1, "")
    assert f"eva-broker does not start: [Errno 2] No such file or directory: '{home.directory}/ercs.pem'" in ran.err


# -- what the node has done ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """A node that crashed: `cid`s of its consents, ids of its sessions."""

    home: Home
    standing: str
    revoked: str
    covered: str
    ended: str
    open: str


async def _live(home: Home) -> Past:
    for name in ("state.db", "audit.jsonl"):
        (home.state / name).unlink()
    async with core(home.state) as node:
        node.domains.by_id |= {vm_id("vm2"): (Domain(uuid="u2"),), vm_id("vm3"): (Domain(uuid="u3"),)}
        revoked, standing, covered = node.grant(), node.grant(vm="vm2", seconds=3600), node.grant(vm="vm3")
        await node.settle()
        ended = await node.open(Kind.SERIAL, ALICE)
        node.revoke(revoked)
        await node.settle()
        open_ = await node.open(Kind.GRAPHICS, BOB, vm="vm2")
        node.consents.take_revocation(node.signer.letter(watermark_over(covered, seq=2)))
        await node.settle()
        await node.journal.stop()  # as a crash leaves it: the session has no END
    return Past(home, standing.cid, revoked.cid, covered.cid, ended.id, open_.id)


@pytest.fixture
async def past(home: Home) -> Past:
    """Give a node with something behind it."""
    return await _live(home)


def test_a_new_node_has_no_sessions_and_no_consents(home: Home):
    assert (home.run("sessions"), home.run("consents")) == (Ran(0, "", ""), Ran(0, "", ""))


async def test_sessions_are_listed_with_who_where_and_how_they_ended(past: Past):
    ran = past.home.run("sessions")
    assert (ran.code, ran.err) == (0, "")
    assert [re.split(r"  +", line) for line in ran.out.splitlines()] == [
        [
            *("2027-01-15T08:00:00Z", "serial", "keyboard", "alice at 127.0.0.1", "11111111-2222-4333-8444-555555555555"),
            f"{Ending.CONSENT_REVOKED.word} at 2027-01-15T08:00:00Z",
        ],
        ["2027-01-15T08:00:00Z", "graphics", "keyboard", "bob at 127.0.0.1", "u2", "open"],
    ]


async def test_consents_are_listed_with_how_they_ended(past: Past):
    ran = past.home.run("consents")
    assert (ran.code, ran.err) == (0, "")
    assert {tuple(re.split(r"  +", line)) for line in ran.out.splitlines()} == {
        (past.revoked, "until 2027-01-15T16:00:00Z", Ending.CONSENT_REVOKED.word, str(vm_id())),
        (past.standing, "until 2027-01-15T09:00:00Z", "stands", str(vm_id("vm2"))),
        (past.covered, "until 2027-01-15T16:00:00Z", Ending.CONSENT_REVOKED.word, str(vm_id("vm3"))),
    }


async def test_a_consent_that_ran_out_while_the_node_was_off_does_not_stand(home: Home):
    for name in ("state.db", "audit.jsonl"):
        (home.state / name).unlink()
    async with core(home.state) as node:
        node.clock.step(1_700_000_000 - START)
        cid = node.grant().cid
        await node.settle()
        await node.journal.stop()
    assert home.run("consents").out.startswith(f"{cid}  until 2023-11-15T06:13:20Z  {Ending.CONSENT_EXPIRED.word}  ")


@pytest.mark.parametrize(("command", "file"), [("sessions", "audit.jsonl"), ("consents", "state.db")])
def test_what_cannot_be_listed_is_named(home: Home, command: str, file: str):
    (home.state / file).unlink()
    ran = home.run(command)
    assert (ran.code, ran.out) == (1, "")
    assert str(home.state / file) in ran.err


# -- verify-audit ----------------------------------------------------------------------------------------------------


def records(home: Home) -> list[bytes]:
    return (home.state / "audit.jsonl").read_bytes().splitlines(keepends=True)


def write(home: Home, lines: list[bytes]) -> None:
    (home.state / "audit.jsonl").write_bytes(b"".join(lines))


def test_the_audit_of_a_new_node_is_valid(home: Home):
    ran = home.run("verify-audit")
    assert ran == Ran(0, f"{home.state}/audit.jsonl: 0 records, chain valid, head {'0' * 16}\n", "")


async def test_a_valid_audit_is_told_with_its_head_and_what_is_open(past: Past):
    ran = past.home.run("verify-audit")
    count = len(records(past.home))
    head = re.search(rb'"node_digest":"(\w{16})', records(past.home)[-1])
    assert head is not None
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"{past.home.state}/audit.jsonl: {count} records, chain valid, head {head[1].decode()}",
        "1 sessions without an end: live now, or cut by a crash and closed at the next start",
    ]


async def test_a_torn_tail_is_told_and_no_fault(past: Past):
    lines = records(past.home)
    write(past.home, [*lines, lines[-1][:100]])
    ran = past.home.run("verify-audit")
    assert ran.code == 0
    assert "a torn tail of 100 bytes follows" in ran.out


async def test_an_edited_record_is_found(past: Past):
    lines = records(past.home)
    place = next(n for n, line in enumerate(lines) if b'"alice"' in line)
    lines[place] = lines[place].replace(b'"alice"', b'"mallo"')
    write(past.home, lines)
    ran = past.home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert f"{past.home.state}/audit.jsonl: record {place + 1}: it was edited" in ran.err


async def test_a_record_taken_out_is_found(past: Past):
    lines = records(past.home)
    write(past.home, lines[:1] + lines[2:])
    ran = past.home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert "record 2: it does not follow the record before it" in ran.err


async def test_an_audit_cut_short_is_found(past: Past):
    lines = records(past.home)
    write(past.home, lines[:-1])
    ran = past.home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert f"it ends at record {len(lines) - 1}, and the state file knows {len(lines)}" in ran.err


async def test_a_line_that_is_no_record_is_found(past: Past):
    write(past.home, [*records(past.home), b"and nobody was here\n"])
    ran = past.home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert f"record {len(records(past.home))}: " in ran.err


async def test_another_audit_in_its_place_is_found(past: Past):
    (past.home.state / "audit.jsonl").unlink()
    AuditLog.create(past.home.state / "audit.jsonl")
    ran = past.home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert "it ends at record 0" in ran.err


@pytest.mark.parametrize("file", ["audit.jsonl", "state.db"])
def test_a_missing_file_is_named(home: Home, file: str):
    (home.state / file).unlink()
    ran = home.run("verify-audit")
    assert (ran.code, ran.out) == (1, "")
    assert str(home.state / file) in ran.err


# -- passwd, and what is no command ----------------------------------------------------------------------------------


def test_passwd_prints_what_a_users_file_takes(home: Home):
    ran = home.run("passwd", stdin="correct horse battery\ncorrect horse battery\n")
    assert ran.code == 0
    phc = ran.out.splitlines()[-1]
    accounts = Accounts.parse(f'accounts:\n  - {{name: ann, groups: [g], password: "{phc}"}}\n', "users.yaml")
    assert accounts.get("ann") is not None
    assert "correct horse" not in ran.out + ran.err


def test_passwd_refuses_a_short_one(home: Home):
    ran = home.run("passwd", stdin="short\nshort\n")
    assert ran.code == 1
    assert "12 to" in ran.err


def test_an_unknown_command_is_refused(home: Home):
    assert home.run("unlock-everything").code == 2
