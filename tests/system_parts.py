"""What the tests of the whole share: the provider's desk, the MQTT broker, and what the guest, /proc and the audit know."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiomqtt
import httpx
import libvirt

from broker import audit_log
from broker.audit_log import Read
from broker.state import State
from broker.uplink import client_tls
from eva.audit import Event as Audited
from eva.control import (
    Opened,
)
from eva.endpoint import ClientTls
from lab.cloud import Cloud, Ercs
from lab.libvirt_host import Guest
from lab.transcript import NotSeen
from tests.system_operator import LOOK, NODE, PATIENCE, Console

CALM = 3.0  # seconds for a shell that is at its prompt; QEMU looks once a second whether its pty is opened again
PROMISE = 1.0  # seconds in which a cut is done
STALE = 256  # bytes that may lie below the gate
KEPT = 2  # strokes that QEMU's keyboard keeps for a guest
SLACK = 2.0  # seconds by which a busy machine may be late to look; the promise itself is measured by the node


async def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> float:
    """Return once it holds; give the seconds that took. For what cannot be awaited."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience, f"not in {patience:g} s: {what}"
        await asyncio.sleep(LOOK)
    return time.monotonic() - began


# --- the provider's desk


@dataclass(frozen=True)
class Grant:
    consent: str
    resource_id: str
    expires_at: int


@dataclass(frozen=True)
class Cut:
    """`asked`, `answered`: time.monotonic() here; `cut_us`: from the node's hearing of it to the cut, by its receipt."""

    asked: float
    answered: float
    cut_us: int | None
    sessions: int | None
    confirmed: bool


async def tell_provider(cloud: Cloud, path: str, body: dict[str, Any]) -> Any:
    """What the provider's commands say to its daemon, without their start-up. Raises AssertionError where it refuses."""
    transport = httpx.AsyncHTTPTransport(uds=str(cloud.directory / "provider/admin.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://provider", timeout=PATIENCE) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def granted(
    cloud: Cloud,
    vm: Guest | str,
    *,
    kinds: tuple[str, ...] = ("serial", "graphics"),
    access: str = "keyboard",
    seconds: int = 28_800,
    operators: tuple[str, ...] = ("group:cloudadmin",),
    node: str | None = None,
    watched: bool = False,
) -> Grant:
    """A tenant's consent, accepted by the node."""
    resource_id = vm if isinstance(vm, str) else str(vm.resource_id)
    wish = {
        "resource_id": resource_id,
        "giver": "tenant1",
        "operators": list(operators),
        "kinds": list(kinds),
        "access": access,
        "seconds": seconds,
        "reason": "",
        "node": node,
        "watched": watched,
    }
    found = await tell_provider(cloud, "/grant", wish)
    return Grant(found["consent_id"], resource_id, found["expires_at"])


async def consented(cloud: Cloud, vm: Guest | str, node: str | None = None, **wish: Any) -> Grant:
    """A consent, once the node has heard of the VM, and of what a test before did to another."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await granted(cloud, vm, node=node, **wish)
        except AssertionError as error:
            if time.monotonic() > deadline or ("vm-unknown" not in str(error) and "vm-ambiguous" not in str(error)):
                raise
            await asyncio.sleep(LOOK)


async def revoked(cloud: Cloud, grant: Grant, *, confirmed: bool = True) -> Cut:
    """The tenant withdraws; returns when the node's receipt is in, or the provider has waited for it in vain."""
    asked = time.monotonic()
    cuts = (await tell_provider(cloud, "/revoke", {"consent_id": grant.consent}))["cuts"]
    cut = Cut(asked, time.monotonic(), cuts[0]["cut_us"], cuts[0]["sessions"], cuts[0]["confirmed_at_ms"] is not None)
    assert cut.confirmed or not confirmed, f"not confirmed: {cuts}"
    return cut


async def well(cloud: Cloud, node: str = NODE, patience: float = PATIENCE) -> None:
    """Returns when the node has a fresh lease and knows its hosts' domains."""
    deadline = time.monotonic() + patience
    said = ""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.get(f"http://127.0.0.1:{cloud.nodes[node].metrics_port}/healthz")
                if answer.status_code == 200:
                    return
                said = answer.text
            await asyncio.sleep(LOOK)
    raise AssertionError(f"the node is not well: {said}")


async def measured(cloud: Cloud, name: str, node: str = NODE) -> float:
    """The sum over a metric's labels that begin with `name`."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        text = (await client.get(f"http://127.0.0.1:{cloud.nodes[node].metrics_port}/metrics")).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


# --- the MQTT broker


@contextlib.asynccontextmanager
async def speaking(cloud: Cloud, identity: str) -> AsyncIterator[aiomqtt.Client]:
    """A client with that identity's certificate: it throws another of that name off."""
    pair = cloud.authority.client(identity)
    tls = client_tls(ClientTls(cloud.authority.ca, pair.certificate, pair.key))
    async with aiomqtt.Client(
        "localhost", cloud.mosquitto.port, identifier=identity, protocol=aiomqtt.ProtocolVersion.V5, tls_context=tls
    ) as client:
        yield client


async def publish_as_provider(cloud: Cloud, topic: str, payload: bytes) -> None:
    """Say it with the provider's certificate; it comes back by itself, and may throw us off in its turn."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            async with speaking(cloud, "eva-provider") as client:
                await client.publish(topic, payload, qos=1, timeout=5)
            break
        except aiomqtt.MqttError:
            if time.monotonic() > deadline:
                raise
    await provider_has_mqtt(cloud)


async def provider_has_mqtt(cloud: Cloud) -> None:
    deadline = time.monotonic() + PATIENCE
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        while not (await client.get(f"http://127.0.0.1:{cloud.provider_metrics_port}/healthz")).json()["mqtt"]:
            assert time.monotonic() < deadline, "the provider has no MQTT"
            await asyncio.sleep(LOOK)


# --- the guest


def calm(guest: Guest) -> None:
    """Bring the guest's serial line back to its shell, whatever runs on it; every session on it is over."""
    deadline, patience = time.monotonic() + PATIENCE, CALM
    while True:
        interrupt(guest, deadline)
        try:
            guest.run("stty sane", timeout=patience)
        except NotSeen:
            # a terminal with no room for input loses Ctrl+C as well: again, once what fills it has been read
            if time.monotonic() > deadline:
                raise
            patience *= 2  # or it gets too little processor
        else:
            return


def interrupt(guest: Guest, deadline: float) -> None:
    """Type Ctrl+C, and take back what stands on the line."""
    while True:
        stream = guest.host.connection.newStream(0)
        try:
            guest.domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
            break
        except libvirt.libvirtError:
            # libvirtd hears of a killed worker's end a moment later than we
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK)
    stream.send(b"\x03")
    stream.send(b"\x15\n")
    stream.abort()


def brought_to_its_shell(guest: Guest) -> bool:
    """Whether the guest is as it was defined and at its shell, whatever a test did to it."""
    try:
        if guest.domain.info()[0] == libvirt.VIR_DOMAIN_PAUSED:
            guest.resume()
        calm(guest)
    except (libvirt.libvirtError, NotSeen):
        return False
    return True


async def listening(console: Console, mark: bytes = b"listening") -> None:
    """Let the guest take what is typed and echo it, so that its transcript shows each byte that reached it."""
    await console.type(b"echo %s-''now; cat >/dev/null\n" % mark)
    await console.shows(mark + b"-now\r\n")
    console.before = console.typed


def count_in(guest: Guest, byte: bytes, after: int) -> int:
    """How often this byte has come on the guest's serial line since then."""
    return guest.serial.content(after).count(byte)


async def assert_silence_after(
    node: Ercs, console: Console, guest: Guest, asked: float, after: int, *, each: int = len(b"Q\n")
) -> None:
    """Hold that no Q passes the gate once the session has ended, nor little lies below it a second after that was `asked`.

    A guest that got no processor takes what lay there when it gets some, so not time alone tells: `each` Q is so many bytes, and
    there are no more of them in the guest than had passed by the END; and of these no more come late than may lie there.
    """
    await asyncio.sleep(max(0.0, asked + PROMISE - time.monotonic()))
    count = count_in(guest, b"Q", after)
    await asyncio.sleep(1.5)
    came = count_in(guest, b"Q", after)
    assert came * each <= (await end_of(node, console.opened))["to_guest"] - console.before
    assert came - count <= STALE // each + KEPT


# --- what the machine knows


def children(pid: int) -> list[int]:
    """The pids of a process's children; none where it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def family(pid: int) -> set[int]:
    """A process with all its descendants."""
    found = {pid}
    for child in children(pid):
        found |= family(child)
    return found


def name_of(pid: int) -> str:
    """The process's own name for itself; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def workers(node: Ercs) -> set[int]:
    """The pids of the node's hypervisor workers."""
    return {pid for pid in family(node.program.pid) if name_of(pid) == "eva-worker"}


def descriptors(pid: int) -> list[str]:
    """What the open descriptors of a process lead to; none where it is gone."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.append(str(link.readlink()))
    return sorted(found)


def threads(pid: int) -> int:
    """How many there are; none where it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def is_gone(pid: int) -> bool:
    """Whether the process has ended: a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# --- the audit


def audit_of(node: Ercs) -> Read:
    """The audit as it is on disk, checked against itself and against the node's state. Raises BadAudit."""
    home = node.directory / "state"
    state = State.open(home / "state.db", node.name, read_only=True)
    try:
        loaded = state.load()
    finally:
        state.close()
    return audit_log.read(home / "audit.jsonl", loaded.audit_count, loaded.audit_head)


def ends(node: Ercs) -> dict[str, dict[str, Any]]:
    """The facts of each session's END, by session. Holds that every session has one START first, and at most one END."""
    started: set[str] = set()
    ended: dict[str, dict[str, Any]] = {}
    for record in audit_of(node).records:
        session = str(record.facts.get("session", ""))
        if record.event is Audited.SESSION_START:
            assert session not in started
            started.add(session)
        elif record.event is Audited.SESSION_END:
            assert session in started
            assert session not in ended
            ended[session] = dict(record.facts)
        elif session:
            assert session in started
            assert session not in ended
    return ended


async def end_of(node: Ercs, opened: Opened) -> dict[str, Any]:
    """The facts of this session's END, once it is on disk."""
    await until(lambda: opened.session in ends(node), "the session's END in the audit")
    return ends(node)[opened.session]


# --- a wire that breaks


class Wire:
    """A TCP proxy to a node, on a port of its own; `cut` breaks every connection that it carries."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                self._writers.discard(one)
                one.transport.abort()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
