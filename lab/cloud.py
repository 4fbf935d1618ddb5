"""The whole of Emergency VM Access on loopback: mosquitto with the shipped configuration, provider, ERCS nodes, operators.

with Cloud({"host1": libvirt.uri}) as cloud:
    node = cloud.nodes["AzS-ERCS01"]                node.program, node.port, node.metrics_port, node.settings
    cloud.grant(resource_id, kinds=("serial",))     the JSON of `eva-provider consent grant --json`
    cloud.revoke(consent=jti)                       ... of `consent revoke --json`
    cloud.assign(TENANT, "Owner", f"/subscriptions/{SUBSCRIPTION}")     who may call the REST, and
    cloud.token(TENANT)                             with which bearer token; at cloud.endpoints
    cloud.cmdlet("ConnectTo-TenantVm", "-ResourceID", id)   run an operator's command
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

from lab.certificates import Authority, KeyPair
from lab.mosquitto import Mosquitto
from lab.ports import free_port
from lab.postgresql import Postgresql
from lab.process import Program
from lab.rest import LOGIN, Endpoints, Identity, Issuer, WatchClient, write_caller
from lab.transcript import PATIENCE_S

CONFIG = Path(__file__).parent.parent / "config"
BIN = Path(sys.executable).parent
SUBSCRIPTION = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"  # of the guests of demo, tests and benchmarks
OPERATOR = "alice"
PASSWORD = "correct horse battery staple"  # noqa: S105 - of a cloud that lives for a minute on loopback
# The least that a users file may ask for: a test signs in hundreds of times.
# for each list of words on standard input, as `eva-provider` does
_IN_TURN = """
import json, sys
from provider.command import cli
for words in json.load(sys.stdin):
    cli(["--config", sys.argv[1], *words], standalone_mode=False)
"""
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
    watch_port: int | None = None

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"

    @property
    def public_key(self) -> Path:
        """The file that is brought to the provider."""
        return self.directory / "node.pub"

    def start(self, timeout: float = PATIENCE_S) -> None:
        """Start the daemon and wait until it serves."""
        if self.program.notify is not None:
            self.program.notify.take()
            self.program.notify.heard.clear()
        self.program.start()
        self.program.wait_notified("READY=1", timeout)

    @property
    def log(self) -> str:
        return self.program.transcript.path.read_text()


@dataclass
class Provider:
    """One resource provider: `program` is its daemon, `home` has its settings and admin socket."""

    home: Path
    settings: Path
    lease_port: int
    metrics_port: int
    endpoints: Endpoints
    program: Program

    def start(self, timeout: float = PATIENCE_S) -> None:
        """Start the daemon and wait until it serves."""
        self._start()
        self.program.wait_notified("READY=1", timeout)

    async def started(self, timeout: float = PATIENCE_S) -> None:
        """Start it without blocking the loop."""
        self._start()
        await self.program.notified("READY=1", timeout)

    def _start(self) -> None:
        if self.program.notify is not None:
            self.program.notify.take()
            self.program.notify.heard.clear()
        self.program.start()

    def command(self, *words: str) -> str:
        """Run `eva-provider` with these words and give its standard output. Raises CommandFailed."""
        return run([str(BIN / "eva-provider"), "--config", str(self.settings), *words])

    def commands(self, *many: Sequence[str]) -> None:
        """Run `eva-provider` for each of them in turn, in one process: to load it takes longest. Raises CommandFailed."""
        run([sys.executable, "-c", _IN_TURN, str(self.settings)], given=json.dumps(many))


class Cloud:
    """`hosts`: libvirt URIs by name, the same for every node. `accounts`: groups by operator's name, all with PASSWORD.

    `subscriptions`: those that may consent from the start. `store`: a PostgreSQL server for the provider's, instead of a
    file; only then may there be more than one of the `providers`. They share the key files, as if these had been brought.
    `issuers`: those whose tokens the REST takes besides its own, `login` where it sends people to sign in.
    `origins`: pages from elsewhere that may reach every node. `watch`: where tenants sign in to watch; each node has a
    listener for them then.
    """

    def __init__(
        self,
        hosts: Mapping[str, str],
        nodes: Sequence[str] = ("AzS-ERCS01",),
        accounts: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, int] | None = None,
        subscriptions: Sequence[str] = (SUBSCRIPTION,),
        store: Postgresql | None = None,
        providers: Sequence[str] = ("eva-provider",),
        issuers: Sequence[Issuer] = (),
        login: str = LOGIN,
        origins: Sequence[str] = (),
        watch: WatchClient | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eva-cloud-"))
        self.authority = Authority(self.directory / "tls")
        self.accounts = dict(accounts or {OPERATOR: ("cloudadmin",), "bob": ("cloudadmin",), "eve": ("helpdesk",)})
        self._hosts = dict(hosts)
        self._limits = dict(limits or {})
        self._origins = tuple(origins)
        self._subscriptions = tuple(subscriptions)
        self.password_file = self.directory / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self._store = store
        self._provider_names = tuple(providers)
        self.mosquitto = Mosquitto(self._mosquitto_config())
        self.providers = tuple(self._new_provider(name) for name in providers)
        self.identity = Identity(self.directory / "issuer", issuers, login, watch)
        self.identity.home.mkdir(mode=0o700)
        self.names = tuple(nodes)
        self.nodes: dict[str, Ercs] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # also KeyboardInterrupt: without an __enter__ there is no __exit__
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all of it: a few seconds."""
        self.mosquitto.start()
        store = self._store_lines()
        for name, provider in zip(self._provider_names, self.providers, strict=True):
            self._write_provider(name, provider, store)
        for name in self.names:
            self.nodes[name] = self._make_node(name)
        enabled = [("feature", "enable-subscription", subscription) for subscription in self._subscriptions]
        enrolled = [("nodes", "add", name, "--key", str(node.public_key)) for name, node in self.nodes.items()]
        self.providers[0].commands(("keys", "init"), *enabled, *enrolled)
        for provider in self.providers:
            provider.start()
        for node in self.nodes.values():
            node.start()

    def close(self) -> None:
        """Stop all of it and remove the directory."""
        for node in self.nodes.values():
            node.program.close()
        for provider in self.providers:
            provider.program.close()
        self.mosquitto.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # the first provider, for a cloud that has one

    @property
    def provider(self) -> Program:
        """Give its daemon."""
        return self.providers[0].program

    @property
    def provider_settings(self) -> Path:
        """Give its settings file."""
        return self.providers[0].settings

    @property
    def lease_port(self) -> int:
        """Give the port where nodes ask over HTTPS."""
        return self.providers[0].lease_port

    @property
    def provider_metrics_port(self) -> int:
        """Give the port of its numbers."""
        return self.providers[0].metrics_port

    @property
    def endpoints(self) -> Endpoints:
        """Give where its REST listens."""
        return self.providers[0].endpoints

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

    def assign(self, principal: str, role: str, scope: str = "/") -> None:
        """Let this principal do that there by REST."""
        self.provider_command("roles", "add", "--principal", principal, "--role", role, "--scope", scope)

    def token(self, principal: str, audience: str = "tenant", *options: str) -> str:
        """A bearer token of the home issuer for the `tenant` or `admin` endpoint; the issuer's key is made first."""
        if not self.identity.key.exists():
            self.provider_command("issuer", "init")
        return self.provider_command("token", "--principal", principal, "--audience", audience, *options).strip()

    def caller(self, principal: str, audience: str = "tenant") -> Path:
        """A file for `curl --config` with such a token."""
        path = self.directory / f"{principal}.curl"
        write_caller(path, self.token(principal, audience), self.authority.ca)
        return path

    def provider_command(self, *words: str) -> str:
        """Run `eva-provider` with these words and give its standard output. Raises CommandFailed."""
        return self.providers[0].command(*words)

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
        rules = (CONFIG / "mosquitto.acl").read_text()
        theirs = rules[rules.index("user eva-provider\n") :]
        more = [theirs.replace("eva-provider", name, 1) for name in self._provider_names if name != "eva-provider"]
        acl.write_text("\n".join([rules, *more]))
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

    def _new_provider(self, name: str) -> Provider:
        home = self.directory / name.removeprefix("eva-")
        settings = home.with_suffix(".yaml")
        program = Program([str(BIN / "eva-provider"), "--config", str(settings)], home.with_suffix(".log"), notify=True)
        return Provider(home, settings, free_port(), free_port(), Endpoints.free(), program)

    def _store_lines(self) -> str:
        """Where the store is; on a server in a database of this cloud's own."""
        if self._store is None:
            return f"store: {self.providers[0].home}/provider.db\n"
        url = self._store.database(self.directory.name.replace("-", "_"))
        return f"store: {url}\nstore_password_file: {self._store.password_file}\n"

    def _write_provider(self, name: str, provider: Provider, store: str) -> None:
        pair = self.authority.server(provider.home.name)
        home, keys = provider.home, self.providers[0].home
        home.mkdir(mode=0o700)
        provider.settings.write_text(
            f"{store}"
            f"keys:\n  root: {keys}/root.pem\n  root_public: {keys}/root.pub\n  signing: {keys}\n"
            f"{self._mqtt(name)}  client_id: {name}\n"
            f"lease:\n  address: 127.0.0.1\n  port: {provider.lease_port}\n"
            f"  certificate: {pair.certificate}\n  key: {pair.key}\n"
            f"metrics:\n  address: 127.0.0.1\n  port: {provider.metrics_port}\n"
            f"admin:\n  socket: {home}/admin.sock\n"
            f"limits:\n  cut_seconds: {self._limits.get('lease_cut_seconds', 15)}\n"
            f"{self.identity.lines(provider.endpoints, pair)}"
        )

    def _make_node(self, name: str) -> Ercs:
        home = self.directory / name
        home.mkdir(mode=0o700)
        settings = home / "broker.yaml"
        port, metrics_port = free_port(), free_port()
        watch_port = None if self.identity.watch is None else free_port()
        users = "".join(
            f'  - name: {account}\n    groups: [{", ".join(groups)}]\n    password: "{_HASHER.hash(PASSWORD)}"\n'
            for account, groups in self.accounts.items()
        )
        (home / "users.yaml").write_text(f"accounts:\n{users}")
        pair = self.authority.server(f"{name}-operators")
        origins = json.dumps([f"https://localhost:{port}", *self._origins])
        hosts = "".join(f"  - name: {host}\n    uri: {uri}\n" for host, uri in self._hosts.items())
        limits = "".join(f"  {key}: {value}\n" for key, value in self._limits.items())
        settings.write_text(
            f"node: {name}\nstate_directory: {home}/state\n"
            f"root_key: {self.directory}/provider/root.pub\nusers: {home}/users.yaml\n"
            f"operators:\n  address: 127.0.0.1\n  port: {port}\n  certificate: {pair.certificate}\n  key: {pair.key}\n"
            f"  client_ca: {self.authority.ca}\n  names: [localhost, 127.0.0.1]\n  origins: {origins}\n"
            f"{'' if watch_port is None else self._watch_listener(pair, watch_port)}"
            f"metrics:\n  port: {metrics_port}\n"
            f"{self._mqtt(name)}"
            f"provider:\n  url: https://localhost:{self.lease_port}\n  ca: {self.authority.ca}\n"
            f"hosts:\n{hosts}"
            f"limits:{' {}' if not limits else ''}\n{limits}"
        )
        program = Program([str(BIN / "eva-broker"), "--config", str(settings)], home / "broker.log", notify=True)
        node = Ercs(name, home, settings, port, metrics_port, program, watch_port)
        node.public_key.write_text(run([str(BIN / "eva-broker"), "--config", str(settings), "keygen"]))
        return node

    def _watch_listener(self, pair: KeyPair, port: int) -> str:
        """A node's section for tenants who watch: the pages of every provider may reach it."""
        origins = json.dumps([provider.endpoints.tenant for provider in self.providers])
        return (
            f"watch:\n  address: 127.0.0.1\n  port: {port}\n  certificate: {pair.certificate}\n  key: {pair.key}\n"
            f"  names: [localhost]\n  origins: {origins}\n  url: https://localhost:{port}\n"
        )


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 120.0, given: str = "") -> str:
    """Run a command on this standard input and give its output. Raises CommandFailed with all that it said."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=timeout, input=given, check=False)
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stdout + done.stderr)
    return done.stdout
