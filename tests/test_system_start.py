"""What the real daemon does with its disk at a start (invariant 3)."""

import asyncio
import shutil
import sqlite3
import time

from eva.control import Method
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import NODE, signed_in
from tests.system_parts import well


async def _listed(cloud: Cloud) -> list[object]:
    async with signed_in(cloud) as alice:
        return list((await alice.ask(Method.CONSENTS_LIST)).tables("consents", 100))


def test_a_start_trusts_the_audit_and_notes_the_time(libvirt_host: LibvirtHost, mortal: Guest) -> None:
    """SQLite keeps no checksums: an ending whose row was lost is known from the audit; and the clock is on disk at once."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        granted = cloud.grant(mortal.resource_id)
        cloud.revoke(consent=granted["consent_id"])
        node.program.kill()
        with sqlite3.connect(node.directory / "state/state.db") as damage:
            assert damage.execute("DELETE FROM ended").rowcount == 1
        began = time.time_ns()
        node.start()
        with sqlite3.connect(node.directory / "state/state.db") as state:
            (seen,) = state.execute("SELECT value FROM meta WHERE key = 'wall_seen'").fetchone()
        assert int(seen) >= began
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        assert asyncio.run(_listed(cloud)) == []


def test_an_old_state_brought_back_revives_nothing_that_the_provider_revoked(libvirt_host: LibvirtHost, mortal: Guest) -> None:
    """Nobody should bring it back (docs/operations.md); the lease that opens the node has the revocation in it all the same."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        node = cloud.nodes[NODE]
        state, old = node.directory / "state", node.directory / "old"
        granted = cloud.grant(mortal.resource_id)
        node.program.stop()
        shutil.copytree(state, old)
        node.start()
        cloud.revoke(consent=granted["consent_id"])
        node.program.kill()
        shutil.rmtree(state)
        old.rename(state)
        node.start()
        asyncio.run(well(cloud))
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        assert asyncio.run(_listed(cloud)) == []
        assert "consent-revoked" in cloud.node_command(NODE, "consents")
        cloud.node_command(NODE, "verify-audit")
