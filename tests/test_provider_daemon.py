"""provider/daemon.py: start, stop, and what a kill leaves."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from provider.store.books import Books
from provider.store.store import Store
from tests.provider_parts import Cloud, now, running_cloud


async def test_an_acknowledged_grant_survives_a_kill(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        async with cloud.node() as node:
            granted = await cloud.granted()
            cloud.daemon.kill()
            assert cloud.states() == ["granted"]
            cloud.start()
            ran = await cloud.eva_provider("consent", "revoke", "--consent-id", granted["consent_id"])
            assert ran.code == 0
            assert [one.consent for one in node.revocations] == [granted["consent_id"]]
            # and so does what was confirmed
            cloud.daemon.kill()
            cloud.start()
            lease, envelope, _ = await node.ask()
            assert (lease.seq, len(envelope.revocations)) == (1, 1)


async def test_a_grant_cut_short_by_a_kill_is_taken_back(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        async with cloud.node(accepts=None) as node:
            running = asyncio.create_task(cloud.eva_provider(*cloud.grant_arguments()))
            await node.has_consents(1)
            cloud.daemon.kill()
            assert (await running).code == 1
            assert cloud.states() == ["offered"]
            time_is_up(cloud, node.consents[0].jti)
            cloud.start()
            revocation = await node.has_revocation(1)
            assert revocation.consent == node.consents[0].jti
        assert cloud.states() == ["revoked"]


def time_is_up(cloud: Cloud, jti: str) -> None:
    """As if the time in which to answer the offer, and the sweep's margin, had passed."""
    store = Store(cloud.place.store)
    with store.write() as connection:
        Books(connection).update_consent(jti, offered_until_ms=now() * 1000 - 1)
    store.close()


async def test_without_a_node_named_a_living_one_is_chosen(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        silent = cloud.pen.name
        cloud.fresh()
        arguments = list(cloud.grant_arguments("--json"))
        del arguments[arguments.index("--node") : arguments.index("--node") + 2]
        ran = await cloud.eva_provider(*arguments)
        assert (ran.code, "none of 2 enrolled nodes" in ran.err) == (1, True)
        async with cloud.node() as node:
            await node.ask()
            ran = await cloud.eva_provider(*arguments)
            assert (ran.code, cloud.pen.name in ran.out, silent in ran.out) == (0, True, False)


async def test_sigterm_stops_it_cleanly_and_it_starts_without_mqtt(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        assert await cloud.daemon.stopped(PATIENCE_S) == 0
        assert cloud.daemon.notify is not None
        assert cloud.daemon.notify.take() == ["READY=1", "STOPPING=1"]
        assert not (tmp_path / "admin.sock").exists()
        cloud.mosquitto.stop()
        cloud.daemon.notify.heard.clear()
        os.environ["WATCHDOG_USEC"] = "200000"
        try:
            cloud.daemon.start()
        finally:
            del os.environ["WATCHDOG_USEC"]
        await cloud.daemon.notified("WATCHDOG=1")
        assert cloud.healthz() == {"store": True, "mqtt": False}
        # what MQTT cannot bring is refused in time, and nothing stands
        with cloud.hurried():
            ran = await cloud.eva_provider(*cloud.grant_arguments())
        assert (ran.code, cloud.states()) == (1, ["revoked"])
        assert "MQTT" in ran.err


async def test_a_damaged_store_is_refused_with_its_name(tmp_path: Path, certificates: Authority):
    with running_cloud(tmp_path, certificates) as cloud:
        await cloud.daemon.stopped()
        cloud.place.store.write_bytes(b"")
        ran = await asyncio.to_thread(subprocess.run, cloud.argv, capture_output=True, text=True, check=False, timeout=60)
        assert (ran.returncode, str(cloud.place.store) in ran.stderr) == (78, True)
