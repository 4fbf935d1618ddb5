"""The whole of Emergency VM Access on loopback: mosquitto with the shipped configuration, provider, ERCS nodes, operators.

with Cloud({"host1": libvirt.uri}) as cloud:
    node = cloud.nodes["AzS-ERCS01"]                node.program, node.port, node.metrics_port, node.settings
    cloud.grant(resource_id, kinds=("serial",))     the JSON of `eva-provider consent grant --json`
    cloud.revoke(consent=jti)                       ... of `consent revoke --json`
    cloud.cmdlet("ConnectTo-TenantVm", "-ResourceID", id)   argv and environment for an operator's command
Everything runs as processes of its own with PDEATHSIG; close() stops them and removes the directory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from argon2 import PasswordHasher

from lab.certificates import Authority
from lab.mosquitto import Mosquitto
from lab.ports import free_port
from lab.process import Program

CONFIG = Path(__file__).parent.parent / "config"
BIN = Path(sys.executable).parent
OPERATOR = "alice"
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a cloud that lives for a minute on loopback
# The least that a users file may ask for: a test signs in hundreds of times.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class CommandFailed(Exception):
    """`code` and `output` of a command that did not end with 0."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(argv, code, output)
        self.code = code
        self.output = output


@dataclass
class Ercs:
    """One ERCS node: `program` is its daemon."""

    name: str
    directory: Path
    settings: Path
    port: int
    metrics_port: int
    program: Program

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"

    def start(self, timeout: float = 30.0) -> None:
        """Start the daemon and wait until it serves."""
        if self.program.notify is not None:
            self.program.notify.take()
            self.program.notify.heard.clear()
        self.program.start()
        self.program.wait_notified("READY=1", timeout)

    @property
    def log(self) -> str:
        return self.program.transcript.path.read_text()


class Cloud:
    """`hosts`: libvirt URIs by name, the same for every node. `accounts`: groups by operator's name, all with PASSWORD."""

    def __init__(
        self,
        hosts: Mapping[str, str],
        nodes: Sequence[str] = ("AzS-ERCS01",),
        accounts: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eva-cloud-"))
        self.authority = Authority(self.directory / "tls")
        self.accounts = dict(accounts or {OPERATOR: ("cloudadmin",), "bob": ("cloudadmin",), "eve": ("helpdesk",)})
        self._hosts = dict(hosts)
        self._limits = dict(limits or {})
        self.password_file = self.directory / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self.mosquitto = Mosquitto(self._mosquitto_config())
        self.provider_settings = self.directory / "provider.yaml"
        self.provider = Program(
            [str(BIN / "eva-provider"), "--config", str(self.provider_settings)], self.directory / "provider.log", notify=True
        )
        self.lease_port = free_port()
        self.provider_metrics_port = free_port()
        self.names = tuple(nodes)
        self.nodes: dict[str, Ercs] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all of it: a few seconds."""
        self.mosquitto.start()
        self._write_provider()
        self.provider_command("keys", "init")
        for name in self.names:
            self.nodes[name] = self._make_node(name)
        self.provider.start()
        self.provider.wait_notified("READY=1")
        for node in self.nodes.values():
            node.start()

    def close(self) -> None:
        """Stop all of it and remove the directory."""
        for node in self.nodes.values():
            node.program.close()
        self.provider.close()
        self.mosquitto.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- what people do ------------------------------------------------------------------------------------------

    def grant(self, resource_id: str, *options: str, kinds: Sequence[str] = ("serial", "graphics")) -> dict[str, Any]:
        """A tenant's consent by the platform's command. Raises CommandFailed."""
        asked = [word for kind in kinds for word in ("--kind", kind)]
        return json.loads(  # type: ignore[no-any-return]
            self.provider_command(
                "consent", "grant", "--resource-id", resource_id, *asked, "--giver", "tenant1", "--json", *options
            )
        )

    def revoke(self, consent: str | None = None, resource_id: str | None = None) -> dict[str, Any]:
        """Raises CommandFailed, also where the node did not confirm."""
        what = ["--consent-id", consent] if consent is not None else ["--resource-id", str(resource_id)]
        return json.loads(self.provider_command("consent", "revoke", *what, "--json"))  # type: ignore[no-any-return]

    def provider_command(self, *words: str) -> str:
        """Run `eva-provider` with these words and give its standard output. Raises CommandFailed."""
        return run([str(BIN / "eva-provider"), "--config", str(self.provider_settings), *words])

    def node_command(self, node: str, *words: str) -> str:
        """Run `eva-broker` likewise, for one node."""
        return run([str(BIN / "eva-broker"), "--config", str(self.nodes[node].settings), *words])

    def environment(self, node: str = "AzS-ERCS01", account: str = OPERATOR) -> dict[str, str]:
        """What an operator's command needs in its environment to reach the node as this account."""
        home = self.directory / "home" / account
        (home / ".config/eva").mkdir(parents=True, exist_ok=True)
        nodes = "".join(f"  {n.name}:\n    url: {n.url}\n    ca: {self.authority.ca}\n" for n in self.nodes.values())
        (home / ".config/eva/client.yaml").write_text(f"nodes:\n{nodes}")
        return {
            "HOME": str(home),
            "EVA_ERCS": node,
            "EVA_ACCOUNT": account,
            "EVA_PASSWORD_FILE": str(self.password_file),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def cmdlet(self, *words: str, node: str = "AzS-ERCS01", account: str = OPERATOR) -> str:
        """Run an operator's command to its end and give its standard output. Raises CommandFailed."""
        return run([str(BIN / words[0]), *words[1:]], os.environ | self.environment(node, account))

    # -- the files -----------------------------------------------------------------------------------------------

    def _mosquitto_config(self) -> str:
        """The shipped configuration, with this cloud's paths."""
        acl = self.directory / "mosquitto.acl"
        shutil.copy(CONFIG / "mosquitto.acl", acl)
        pair = self.authority.server("mqtt")
        text = (CONFIG / "mosquitto.conf").read_text()
        for old, new in {
            "listener 8883": "listener @PORT@ 127.0.0.1",
            "/etc/eva/mosquitto.acl": str(acl),
            "/etc/eva/tls/ca.pem": str(self.authority.ca),
            "/etc/eva/tls/mqtt.pem": str(pair.certificate),
            "/etc/eva/tls/mqtt.key": str(pair.key),
            "/var/lib/mosquitto/": "@DIRECTORY@/",
        }.items():
            if old not in text:
                raise ValueError(f"config/mosquitto.conf has no {old!r} any more")
            text = text.replace(old, new)
        return text

    def _mqtt(self, name: str) -> str:
        pair = self.authority.client(name)
        return (
            f"mqtt:\n  host: localhost\n  port: {self.mosquitto.port}\n"
            f"  tls:\n    ca: {self.authority.ca}\n    certificate: {pair.certificate}\n    key: {pair.key}\n"
        )

    def _write_provider(self) -> None:
        pair = self.authority.server("provider")
        home = self.directory / "provider"
        home.mkdir(mode=0o700)
        self.provider_settings.write_text(
            f"store: {home}/provider.db\n"
            f"keys:\n  root: {home}/root.pem\n  root_public: {home}/root.pub\n  signing: {home}\n"
            f"{self._mqtt('eva-provider')}"
            f"lease:\n  address: 127.0.0.1\n  port: {self.lease_port}\n  certificate: {pair.certificate}\n  key: {pair.key}\n"
            f"metrics:\n  address: 127.0.0.1\n  port: {self.provider_metrics_port}\n"
            f"admin:\n  socket: {home}/admin.sock\n"
            f"limits:\n  cut_seconds: {self._limits.get('lease_cut_seconds', 15)}\n"
        )

    def _make_node(self, name: str) -> Ercs:
        home = self.directory / name
        home.mkdir(mode=0o700)
        settings = home / "broker.yaml"
        port, metrics_port = free_port(), free_port()
        users = "".join(
            f'  - name: {account}\n    groups: [{", ".join(groups)}]\n    password: "{_HASHER.hash(PASSWORD)}"\n'
            for account, groups in self.accounts.items()
        )
        (home / "users.yaml").write_text(f"accounts:\n{users}")
        pair = self.authority.server(f"{name}-operators")
        hosts = "".join(f"  - name: {host}\n    uri: {uri}\n" for host, uri in self._hosts.items())
        limits = "".join(f"  {key}: {value}\n" for key, value in self._limits.items())
        settings.write_text(
            f"node: {name}\nstate_directory: {home}/state\n"
            f"root_key: {self.directory}/provider/root.pub\nusers: {home}/users.yaml\n"
            f"operators:\n  address: 127.0.0.1\n  port: {port}\n  certificate: {pair.certificate}\n  key: {pair.key}\n"
            f"  client_ca: {self.authority.ca}\n  names: [localhost, 127.0.0.1]\n  origins: ['https://localhost:{port}']\n"
            f"metrics:\n  port: {metrics_port}\n"
            f"{self._mqtt(name)}"
            f"provider:\n  url: https://localhost:{self.lease_port}\n  ca: {self.authority.ca}\n"
            f"hosts:\n{hosts}"
            f"limits:{' {}' if not limits else ''}\n{limits}"
        )
        public = home / "node.pub"
        public.write_text(run([str(BIN / "eva-broker"), "--config", str(settings), "keygen"]))
        self.provider_command("nodes", "add", name, "--key", str(public))
        program = Program([str(BIN / "eva-broker"), "--config", str(settings)], home / "broker.log", notify=True)
        return Ercs(name, home, settings, port, metrics_port, program)


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 60.0) -> str:
    """Run a command and give its standard output. Raises CommandFailed with all that it said."""
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, timeout=timeout, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stdout + done.stderr)
    return done.stdout
