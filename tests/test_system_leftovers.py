"""What is left when all is over: nothing. What the node may do: little."""

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eva.control import Method
from lab.cloud import Cloud
from lab.guest_image import ROOT
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import LOOK, NODE, PATIENCE, Operator, signed_in
from tests.system_parts import consented, descriptors, ends, family, name_of, tell_provider, threads, until, well
from tests.test_lab import tcp_listeners


@pytest.fixture
async def ready(cloud: Cloud, vm: Guest) -> AsyncIterator[Cloud]:
    await well(cloud)
    yield cloud
    with contextlib.suppress(AssertionError):  # none was left
        await tell_provider(cloud, "/revoke", {"resource_id": vm.resource_id})


TOOLS = shutil.ignore_patterns(
    "playwright*", "mypy*", "ruff*", "schemathesis*", "hypothesis*", "__pycache__"
)  # that no daemon loads
Inventory = dict[str, tuple[int, int]]


def taken_stock(cloud: Cloud, host: LibvirtHost) -> Inventory:
    """Descriptors and threads of each process of the node, and of libvirtd."""
    pids = {**{f"{name_of(pid)}": pid for pid in family(cloud.nodes[NODE].program.pid)}, "libvirtd": host.pid}
    return {name: (len(descriptors(pid)), threads(pid)) for name, pid in pids.items()} | {
        "processes": (len(family(cloud.nodes[NODE].program.pid)), 0)
    }


async def nothing_left_after(cloud: Cloud, vm: Guest, rounds: int) -> None:
    await consented(cloud, vm)
    async with signed_in(cloud) as alice:
        for _ in range(5):  # what is made once and kept is made by then
            await one_round(alice, vm)
        before = await settled(cloud, vm.host)
        for _ in range(rounds):
            await one_round(alice, vm)
        after: Inventory = {}
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            after = taken_stock(cloud, vm.host)
            if all(after.get(name, (0, 0)) <= count for name, count in before.items()) and after.keys() <= before.keys():
                break
            await asyncio.sleep(LOOK)
        assert {name: count for name, count in after.items() if count > before.get(name, (0, 0))} == {}
    assert sum(end["reason"] == "operator-left" for end in ends(cloud.nodes[NODE]).values()) >= 2 * rounds


async def settled(cloud: Cloud, host: LibvirtHost) -> Inventory:
    """The stock once it stands still: the last session's parts end a moment after it."""
    stock, same = taken_stock(cloud, host), 0
    while same < 25:
        await asyncio.sleep(LOOK)
        now = taken_stock(cloud, host)
        same = same + 1 if now == stock else 0
        stock = now
    return stock


async def one_round(operator: Operator, vm: Guest) -> None:
    serial = await operator.console(vm.resource_id)
    screen = await operator.console(vm.resource_id, "graphics")
    await screen.wait(lambda: len(screen.data) >= 12, "the screen")
    for console in (serial, screen):
        await operator.ask(Method.SESSION_LEAVE, session=console.opened.session)
        assert await console.ended() == 4000
        await console.close()


async def test_a_hundred_rounds_leave_nothing(ready: Cloud, vm: Guest) -> None:
    await nothing_left_after(ready, vm, 100)


async def test_nothing_of_the_console_is_open_anywhere_after_the_cut(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    node = ready.nodes[NODE]
    async with signed_in(ready) as alice:
        await settled(ready, vm.host)
        before = {pid: set(descriptors(pid)) for pid in family(node.program.pid)}
        serial = await alice.console(vm.resource_id)
        screen = await alice.console(vm.resource_id, "graphics")
        await screen.wait(lambda: len(screen.data) >= 12, "the screen")
        added = {
            link
            for pid in family(node.program.pid)
            for link in set(descriptors(pid)) - before.get(pid, set())
            if link.startswith("socket:")  # the one name among them that is unique
        }
        added -= those_to(node.program.pid, {ready.lease_port, ready.mosquitto.port})  # a lease may be asked for anew meanwhile
        assert len(added) >= 4, "a TCP connection and a console, twice"
        await tell_provider(ready, "/revoke", {"resource_id": vm.resource_id})
        assert (await serial.ended(), await screen.ended()) == (4002, 4002)
        await until(
            lambda: not any(added & set(descriptors(pid)) for pid in family(node.program.pid)),
            "the end of every descriptor that the sessions had",
        )


async def test_no_display_and_no_node_listens_but_where_the_settings_say(ready: Cloud, vm: Guest) -> None:
    await consented(ready, vm)
    node = ready.nodes[NODE]
    async with signed_in(ready) as alice:
        screen = await alice.console(vm.resource_id, "graphics")
        await screen.wait(lambda: len(screen.data) >= 12, "the screen")
        assert tcp_listeners(vm.qemu_pid) == []
        ports = {int(row.partition(":")[2], 16) for pid in family(node.program.pid) for row in tcp_listeners(pid)}
        assert ports == {node.port, node.metrics_port}


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may become another user")
async def test_a_node_needs_no_root(libvirt_host: LibvirtHost, vm: Guest) -> None:
    """It runs as nobody, as whom libvirtd runs here, without a capability, and serves both consoles."""
    nobody = pwd.getpwnam("nobody")
    with Cloud({"host1": libvirt_host.uri}) as own:
        node = own.nodes[NODE]
        node.program.stop()
        await asyncio.to_thread(give_away, own.directory, node.directory, nobody.pw_uid, nobody.pw_gid)
        python = await asyncio.to_thread(python_for_all, own.directory)
        user = ["setpriv", "--reuid=nobody", f"--regid={nobody.pw_gid}", "--clear-groups", "--inh-caps=-all"]
        node.program.argv = [*user, "--bounding-set=-all", "--pdeathsig=KILL", "--", python]
        node.program.argv += ["-c", "from broker.command import main; main()", "--config", str(node.settings)]
        node.start()
        await well(own)
        await consented(own, vm)
        async with signed_in(own) as alice:
            console = await alice.console(vm.resource_id)
            assert await console.ask("echo $((40+2))") == b"42\n"
            screen = await alice.console(vm.resource_id, "graphics")
            await screen.wait(lambda: len(screen.data) >= 12, "the screen")
            statuses = statuses_of(family(node.program.pid))
            assert len(statuses) > 3, "the daemon, the fork server, the watcher, a worker"
            for status in statuses:
                assert f"\nUid:\t{nobody.pw_uid}\t{nobody.pw_uid}\t" in status
                assert "\nCapEff:\t0000000000000000\n" in status
        own.nodes[NODE].program.stop()


def those_to(pid: int, ports: set[int]) -> set[str]:
    """The descriptors of TCP connections to these ports, as `descriptors` names them (proc_pid_net(5))."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[2].partition(":")[2], 16) in ports}


def statuses_of(pids: set[int]) -> list[str]:
    """Of those that are there: a worker that has handed its screen over ends."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/status").read_text())
    return found


def give_away(top: Path, home: Path, uid: int, gid: int) -> None:
    """Give the node's directory to its user, and let him read the certificates of the lab."""
    top.chmod(0o755)
    (top / "provider").chmod(0o711)
    for path in (home, *home.rglob("*"), *(top / "tls").rglob("*"), top / "tls"):
        os.chown(path, uid, gid)


def python_for_all(directory: Path) -> str:
    """A Python that every user may run, with what this one has installed: this one's own, and ours, may lie in root's home."""
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not system.exists():
        pytest.skip(f"there is no {system} for another user to run")
    venv = directory / "python"
    subprocess.run([str(system), "-m", "venv", "--without-pip", str(venv)], check=True)
    place = next(venv.glob("lib/python*/site-packages"))
    for installed in (Path(path) for path in sys.path if path.endswith("site-packages")):
        shutil.copytree(installed, place, copy_function=link, ignore=TOOLS, dirs_exist_ok=True)
    for package in ("broker", "eva", "hypervisor", "oidc", "web"):
        shutil.copytree(ROOT / package, place / package, copy_function=link)
    return str(venv / "bin/python")


def link(source: str, target: str) -> None:
    """A name for the same file where the disk is the same, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
