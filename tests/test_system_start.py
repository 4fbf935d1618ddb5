"""What the real daemon does with its disk at a start (invariant 3)."""

import asyncio
import json
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from eva.control import Method, Refused
from lab.cloud import BIN, Cloud, CommandFailed, Ercs, run
from lab.libvirt_host import Guest, LibvirtHost
from tests.conftest import resource_id_of
from tests.system_operator import LOOK, NODE, PATIENCE, signed_in
from tests.system_parts import audit_of, consented, end_of, ends, until, well

SOON = 10.0  # seconds, less than until the time is noted again in the ordinary way
ASKS = 4.0  # seconds in which a node asks twice: so long is waited for what must not happen


async def _listed(cloud: Cloud) -> list[object]:
    async with signed_in(cloud) as alice:
        return list((await alice.ask(Method.CONSENTS_LIST)).tables("consents", 100))


def test_a_start_trusts_the_audit_and_notes_the_time(libvirt_host: LibvirtHost, mortal: Guest) -> None:
    """SQLite keeps no checksums: an ending whose row was lost is known from the audit; and the clock is on disk at once."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        asyncio.run(well(cloud))
        granted = cloud.grant(mortal.resource_id)
        cloud.revoke(consent=granted["consent_id"])
        node.program.kill()
        with sqlite3.connect(node.directory / "state/state.db") as damage:
            assert damage.execute("DELETE FROM ended").rowcount == 1
        began = time.time_ns()
        node.start()
        asyncio.run(until(lambda: _wall_seen(node) >= began, "the time of this start on disk", SOON))
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        assert asyncio.run(_listed(cloud)) == []


def _wall_seen(node: Ercs) -> int:
    """The latest time that its state knows of."""
    with sqlite3.connect(node.directory / "state/state.db") as state:
        (seen,) = state.execute("SELECT value FROM meta WHERE key = 'wall_seen'").fetchone()
    return int(seen)


def _row(cloud: Cloud) -> dict[str, object]:
    """The node as `nodes list` has it."""
    (row,) = json.loads(cloud.provider_command("nodes", "list", "--json"))
    return dict(row)


async def _opens(cloud: Cloud, resource_id: str, seconds: float) -> bool:
    """Whether an operator gets a console within that time."""
    deadline = time.monotonic() + seconds
    async with signed_in(cloud) as alice:
        while time.monotonic() < deadline:
            try:
                await alice.ask(Method.SESSION_OPEN, resource_id=resource_id, kind="serial")
            except Refused:
                await asyncio.sleep(LOOK)
            else:
                return True
    return False


async def _told(cloud: Cloud) -> None:
    """Return when the provider has heard what is in the audit now."""
    count = len(audit_of(cloud.nodes[NODE]).records)
    await until(lambda: int(str(_row(cloud)["audit"]).split()[0]) >= count, "what the node tells since")


def _put_back(node: Ercs, old: Path) -> None:
    """Its state becomes what it was."""
    node.program.kill()
    shutil.rmtree(node.directory / "state")
    old.rename(node.directory / "state")
    node.start()


def _new_node(cloud: Cloud) -> str:
    """As docs/operations.md has it; give what `nodes add` said."""
    node = cloud.nodes[NODE]
    node.program.stop()
    shutil.rmtree(node.directory / "state")
    (node.directory / "node.pub").write_text(cloud.node_command(NODE, "keygen"))
    said = cloud.provider_command("nodes", "add", NODE, "--key", str(node.directory / "node.pub"), "--replace")
    node.start()
    return said


async def _assert_refused(cloud: Cloud, resource_id: str) -> None:
    assert not await _opens(cloud, resource_id, ASKS)
    await until(lambda: _row(cloud)["rolled_back"], "the provider's word")
    row = _row(cloud)
    assert (row["rolled_back"], row["alive"]) == (True, False)
    assert "ROLLED BACK" in str(row["audit"])
    await cloud.provider.transcript.seen("is refused from now on")


async def test_an_old_state_brought_back_revives_nothing_that_the_provider_revoked(
    libvirt_host: LibvirtHost, mortal: Guest
) -> None:
    """Nor what it did not: the node is refused until it is a new one, and that ends what stood there."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        await well(cloud)
        granted, other = cloud.grant(mortal.resource_id), resource_id_of("another")
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        double = libvirt_host.define_guest(resource_id=other)
        try:
            await consented(cloud, other)
            node.program.stop()
            shutil.copytree(node.directory / "state", node.directory / "old")
            node.start()
            cloud.revoke(consent=granted["consent_id"])
            await _told(cloud)
            _put_back(node, node.directory / "old")
            await _assert_refused(cloud, str(mortal.resource_id))
            cloud.node_command(NODE, "verify-audit")
            assert "1 consents that stood there are ended" in _new_node(cloud)
            await well(cloud)
            cloud.cmdlet("Grant-RdpAccessToErcsVM")
            assert await _listed(cloud) == []
            await consented(cloud, mortal)
            assert await _opens(cloud, str(mortal.resource_id), PATIENCE)
        finally:
            double.discard()


async def test_an_old_state_brought_back_revives_nothing_that_the_node_alone_had_ended(
    libvirt_host: LibvirtHost, mortal: Guest, vm: Guest
) -> None:
    """The virtual machine was re-created under its UUID: by the old state it is still the one that was consented to.

    The copy was made of a running node, whose start adds more records than the true state had: an END for each session.
    """
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        await well(cloud)
        await consented(cloud, mortal)
        await consented(cloud, vm)
        async with signed_in(cloud) as alice:
            for _ in range(4):
                await alice.console(vm.resource_id, "graphics")
            node.program.signal(signal.SIGSTOP)  # a snapshot of the disk is of one moment
            shutil.copytree(node.directory / "state", node.directory / "old")
            node.program.signal(signal.SIGCONT)
            mortal.destroy()
            mortal.undefine()
            again = mortal.host.start_guest(mortal.name, mortal.uuid, resource_id=mortal.resource_id, wait=False)
            try:
                await until(lambda: "vm-gone" in cloud.node_command(NODE, "consents"), "the consent's end in the node's books")
                await _told(cloud)
                _put_back(node, node.directory / "old")
                await _assert_refused(cloud, str(mortal.resource_id))
            finally:
                again.discard()


async def test_a_second_daemon_on_the_same_files_is_refused_and_breaks_nothing(libvirt_host: LibvirtHost, mortal: Guest) -> None:
    """Somebody runs `eva-broker` by hand beside the service: each would write into the other's chain."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        await well(cloud)
        granted = await consented(cloud, mortal)
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        async with signed_in(cloud) as alice:
            console = await alice.console(granted.resource_id)
            await asyncio.to_thread(mortal.wait_ready)
            with pytest.raises(CommandFailed, match="in use"):
                await asyncio.to_thread(run, [str(BIN / "eva-broker"), "--config", str(cloud.nodes[NODE].settings)])
            assert b"42" in await console.ask("echo $((6*7))")
            assert ends(cloud.nodes[NODE]) == {}
            await alice.ask(Method.SESSION_LEAVE, session=console.opened.session)
        assert (await end_of(cloud.nodes[NODE], console.opened))["reason"] == "operator-left"
        cloud.node_command(NODE, "verify-audit")
