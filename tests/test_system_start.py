"""What the real daemon does with its disk at a start (invariant 3)."""

import asyncio
import sqlite3
import time

from eva.control import Method
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import NODE, signed_in


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
