"""The four commands as processes: pasted lines, what they print, and one clear line and a status for each kind of failure."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from cmdlets.command import explain
from eva.control import Method, Refusal, Refused
from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.scripted_node import ACCOUNT, PASSWORD, VM, PlayedSession, ScriptedNode, server_tls

PROGRAMS = {
    "ConnectTo-TenantVm": "cmdlets.connect:main",
    "Delete-TenantVMSession": "cmdlets.delete:main",
    "Grant-RdpAccessToErcsVM": "cmdlets.safelist:grant",
    "Revoke-RdpAccessToErcsVM": "cmdlets.safelist:revoke",
}


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@dataclass
class Operator:
    """Someone with a client.yaml and a password file, who pastes lines."""

    home: Path
    node: ScriptedNode

    def configure(self, text: str) -> None:
        folder = self.home / ".config" / "eva"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "client.yaml").write_text(text)

    async def run(self, *command: str, stdin: bytes = b"", password: str | None = PASSWORD, **variables: str) -> Outcome:
        secret = self.home / "password"
        secret.write_text(password or "")
        secret.chmod(0o600)
        module, _, function = PROGRAMS[command[0]].partition(":")
        program = f"from {module} import {function} as main; main(prog_name={command[0]!r})"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", **variables}
        if password is not None:
            environment["EVA_PASSWORD_FILE"] = str(secret)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", program, *command[1:]),
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE_S)
        assert process.returncode is not None
        outcome = Outcome(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in outcome.err
        assert PASSWORD not in outcome.out + outcome.err
        return outcome


@pytest.fixture
async def operator(certificates: Authority, tmp_path: Path) -> AsyncIterator[Operator]:
    async with ScriptedNode().serving(server_tls(certificates)) as node:
        found = Operator(tmp_path, node)
        found.configure(
            f"ercs: AzS-ERCS01\naccount: {ACCOUNT}\n"
            f"nodes:\n  AzS-ERCS01: {{url: 'wss://localhost:{node.port}', ca: {certificates.ca}}}\n"
        )
        yield found


async def test_the_tenants_lines_can_be_pasted(operator: Operator):
    connect = await operator.run(*f"ConnectTo-TenantVm -ResourceID {VM}".split(), stdin=b"uname\n")
    assert (connect.status, connect.out) == (0, "uname\n")
    assert "serial console of web-01 at AzS-ERCS01: the keyboard is yours." in connect.err
    delete = await operator.run(*f"Delete-TenantVMSession -ResourceID {VM}".split())
    assert delete.status == 0


@pytest.mark.parametrize("option", ["-ResourceID", "-resourceid", "-RESOURCEID", "-ResourceId", "--resource-id", "--Resource-Id"])
async def test_the_option_is_taken_in_any_case(operator: Operator, option: str):
    assert (await operator.run("Delete-TenantVMSession", option, VM)).status == 0
    assert operator.node.asked[-1].params == {"resource_id": VM}


async def test_delete_tells_when_it_was_cut_and_how_many(operator: Operator):
    out = (await operator.run("Delete-TenantVMSession", "-ResourceID", VM)).out.splitlines()
    assert out[0] == "web-01 at AzS-ERCS01: 1 consent ended, 2 sessions cut"
    assert out[1].startswith("cut at 20")
    assert out[1].endswith(", 0.8 ms after the request")


async def test_grant_tells_the_address_and_until_when(operator: Operator):
    outcome = await operator.run("Grant-RdpAccessToErcsVM")
    assert outcome.out.startswith("127.0.0.1 may connect to AzS-ERCS01 as ruth until 20")
    assert operator.node.methods() == [Method.SIGN_IN, Method.WORKSTATION_GRANT]


async def test_revoke_tells_what_it_cut(operator: Operator):
    outcome = await operator.run("Revoke-RdpAccessToErcsVM")
    assert outcome.out == "127.0.0.1 may no longer connect to AzS-ERCS01 as ruth; 1 session cut\n"


async def test_output_is_byte_for_byte(operator: Operator):
    everything = bytes(range(256)) * 2000

    def prepare(session: PlayedSession) -> None:
        session.on_input = lambda data: b"" if data != b"go\n" else everything

    operator.node.prepare = prepare
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from cmdlets.connect import main; main()", "-ResourceID", VM),
        env={"PATH": os.environ["PATH"], "HOME": str(operator.home), "EVA_PASSWORD_FILE": _secret(operator.home)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    assert await asyncio.wait_for(process.stdout.readexactly(len(everything)), PATIENCE_S) == everything
    out, _ = await asyncio.wait_for(process.communicate(b""), PATIENCE_S)
    assert out == b""


def _secret(home: Path) -> str:
    file = home / "secret"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    return str(file)


@pytest.mark.parametrize("sink", ["file", "null"])
async def test_files_serve_as_input_and_output(operator: Operator, tmp_path: Path, sink: str):
    (tmp_path / "in").write_bytes(b"hello\n")
    target = tmp_path / "out" if sink == "file" else Path(os.devnull)
    with (tmp_path / "in").open("rb") as source, target.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", "from cmdlets.connect import main; main()", "-ResourceID", VM, "--linger", "0.2"),
            env={"PATH": os.environ["PATH"], "HOME": str(operator.home), "EVA_PASSWORD_FILE": _secret(operator.home)},
            stdin=source,
            stdout=output,
        )
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    session = await operator.node.session()
    assert bytes(session.input) == b"hello\n"
    assert sink == "null" or target.read_bytes() == b"hello\n"


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_has_one_line(refusal: Refusal):
    told = explain(Refused(refusal, "detail for the log"))
    assert told is not None
    assert told[1] == 1
    assert "\n" not in told[0]
    assert "detail" not in told[0]


def one_line(outcome: Outcome) -> str:
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    return lines[0]


async def test_a_refusal_is_one_line_and_status_1(operator: Operator):
    operator.node.refusals[Method.SESSION_OPEN] = Refusal.NO_CONSENT
    outcome = await operator.run("ConnectTo-TenantVm", "-ResourceID", VM)
    assert outcome.status == 1
    assert one_line(outcome).startswith("ConnectTo-TenantVm: There is no consent in force for you")


async def test_who_comes_to_the_wrong_node_is_told_the_line_to_type(operator: Operator):
    operator.node.refusals[Method.SESSION_OPEN] = Refusal.NO_CONSENT
    operator.node.whereabouts = "AzS-ERCS02"
    told = one_line(await operator.run("ConnectTo-TenantVm", "-ResourceID", VM))
    assert told.endswith(f"is at AzS-ERCS02: ConnectTo-TenantVm -ResourceID {VM} --ercs AzS-ERCS02")


async def test_so_is_who_wants_to_delete_there(operator: Operator):
    operator.node.refusals[Method.SESSION_DELETE] = Refusal.NO_CONSENT
    operator.node.whereabouts = "AzS-ERCS02"
    told = one_line(await operator.run("Delete-TenantVMSession", "-ResourceID", VM))
    assert told.endswith(f"is at AzS-ERCS02: Delete-TenantVMSession -ResourceID {VM} --ercs AzS-ERCS02")


async def test_a_workstation_off_the_safelist_is_told_what_to_run(operator: Operator):
    operator.node.refusals[Method.SESSION_OPEN] = Refusal.NOT_SAFELISTED
    assert "Run Grant-RdpAccessToErcsVM first." in one_line(await operator.run("ConnectTo-TenantVm", "-ResourceID", VM))


async def test_a_wrong_password_is_one_line_without_it(operator: Operator):
    outcome = await operator.run("ConnectTo-TenantVm", "-ResourceID", VM, password="not-the-one")
    assert outcome.status == 1
    assert "wrong" in one_line(outcome)
    assert "not-the-one" not in outcome.err


async def test_no_node_is_one_line_and_status_3(operator: Operator):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody else's, and nobody listens there
        port = taken.getsockname()[1]
        outcome = await operator.run("Grant-RdpAccessToErcsVM", "--ercs", f"wss://127.0.0.1:{port}")
    assert outcome.status == 3
    assert "Connection refused" in one_line(outcome)


async def test_an_unknown_authority_is_one_line_that_names_the_option(operator: Operator):
    outcome = await operator.run("Grant-RdpAccessToErcsVM", "--ercs", f"wss://localhost:{operator.node.port}")
    assert outcome.status == 3
    assert "--ca FILE" in one_line(outcome)
    assert operator.node.asked == []


async def test_a_node_of_another_name_is_not_trusted(operator: Operator, certificates: Authority, tmp_path: Path):
    other = Authority(tmp_path / "other").server(hosts=["elsewhere.example.org"])
    ca = tmp_path / "other" / "ca.pem"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(other.certificate, other.key)
    async with ScriptedNode().serving(context) as impostor:
        outcome = await operator.run("Grant-RdpAccessToErcsVM", "--ercs", f"wss://localhost:{impostor.port}", "--ca", str(ca))
    assert outcome.status == 3
    assert "does not verify" in one_line(outcome)
    assert impostor.asked == []


async def test_a_redirect_to_another_host_is_not_followed(operator: Operator, certificates: Authority):
    def elsewhere(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(302, "")
        response.headers["Location"] = f"wss://127.0.0.1:{operator.node.port}/v1/control"
        return response

    async with serve(lambda _: None, "127.0.0.1", 0, ssl=server_tls(certificates), process_request=elsewhere) as server:
        url = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
        outcome = await operator.run("Grant-RdpAccessToErcsVM", "--ercs", url, "--ca", str(certificates.ca))
    assert outcome.status == 3
    assert operator.node.asked == []


async def test_a_proxy_in_the_environment_is_passed_by(operator: Operator):
    assert (await operator.run("Grant-RdpAccessToErcsVM", https_proxy="http://127.0.0.1:1")).status == 0


async def test_an_unencrypted_node_is_refused(operator: Operator):
    outcome = await operator.run("Grant-RdpAccessToErcsVM", "--ercs", "ws://localhost:1")
    assert outcome.status == 2
    assert "wss://host:port" in one_line(outcome)


async def test_a_wrong_settings_file_is_one_line_with_file_and_line(operator: Operator):
    operator.configure("account: ruth\nercz: x\n")
    outcome = await operator.run("Grant-RdpAccessToErcsVM")
    assert outcome.status == 2
    assert "client.yaml:2: ercz: is not a key" in one_line(outcome)


async def test_nobody_to_ask_is_one_line(operator: Operator):
    outcome = await operator.run("Grant-RdpAccessToErcsVM", password=None)
    assert outcome.status == 2
    assert "no terminal to ask on" in one_line(outcome)


async def test_what_is_no_resource_id_is_a_usage_error(operator: Operator):
    outcome = await operator.run("ConnectTo-TenantVm", "-ResourceID", "/subscriptions/x")
    assert outcome.status == 2
    assert "not the resource ID" in outcome.err


async def test_a_password_is_no_option(operator: Operator):
    outcome = await operator.run("Grant-RdpAccessToErcsVM", "--password", "x")
    assert outcome.status == 2
    assert operator.node.asked == []


@pytest.mark.parametrize("program", list(PROGRAMS))
async def test_the_help_tells_the_statuses(operator: Operator, program: str):
    outcome = await operator.run(program, "-help")
    assert outcome.status == 0
    assert "Exit status:" in outcome.out
