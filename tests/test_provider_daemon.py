"""provider/daemon.py: start, stop, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from lab.certificates import Authority
from tests.provider_parts import Cloud, running_cloud


async def state_of(cloud: Cloud, consent: str) -> str:
    rows = json.loads((await cloud.eva_provider("consent", "list", "--json")).out)
    return next(row["state"] for row in rows if row["consent_id"] == consent)


async def test_an_acknowledged_grant_survives_a_kill(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud, cloud.node() as node:
        granted = await cloud.granted()
        cloud.daemon.kill()
        assert await state_of(cloud, granted["consent_id"]) == "granted"
        await cloud.start()
        ran = await cloud.eva_provider("consent", "revoke", "--consent-id", granted["consent_id"])
        assert ran.code == 0
        assert [one.consent for one in node.revocations] == [granted["consent_id"]]


async def test_a_confirmed_revocation_survives_a_kill(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud, cloud.node() as node:
        granted = await cloud.granted()
        await cloud.eva_provider("consent", "revoke", "--consent-id", granted["consent_id"])
        cloud.daemon.kill()
        await cloud.start()
        lease, envelope, _ = await node.ask()
        assert (lease.seq, len(envelope.revocations)) == (1, 1)


async def test_a_grant_cut_short_by_a_kill_is_taken_back(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates, receipt_seconds=1) as cloud, cloud.node(accepts=None) as node:
        running = asyncio.create_task(cloud.eva_provider(*cloud.grant_arguments()))
        await node.has_consents(1)
        cloud.daemon.kill()
        assert (await running).code == 1
        assert await state_of(cloud, node.consents[0].jti) == "offered"
        await cloud.start()
        # 1 s to answer, the sweep's margin of 5 s, and its round of 5 s
        async with asyncio.timeout(15):
            assert (await node.has_revocation(1)).consent == node.consents[0].jti
        assert await state_of(cloud, node.consents[0].jti) == "revoked"


async def test_sigterm_stops_it_cleanly(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud:
        assert await cloud.daemon.stopped() == 0
        assert cloud.daemon.notify is not None
        assert cloud.daemon.notify.take() == ["READY=1", "STOPPING=1"]
        assert not (tmp_path / "admin.sock").exists()


async def test_it_starts_and_serves_https_without_mqtt(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud:
        await cloud.daemon.stopped()
        cloud.mosquitto.stop()
        cloud.daemon.start()
        await cloud.daemon.notified()
        assert cloud.healthz() == {"store": True, "mqtt": False}


async def test_the_watchdog_is_fed(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud:
        await cloud.daemon.stopped()
        os.environ["WATCHDOG_USEC"] = "200000"
        try:
            cloud.daemon.start()
        finally:
            del os.environ["WATCHDOG_USEC"]
        await cloud.daemon.notified("WATCHDOG=1")


async def test_a_damaged_store_is_refused_with_its_name(tmp_path: Path, certificates: Authority):
    async with running_cloud(tmp_path, certificates) as cloud:
        await cloud.daemon.stopped()
        cloud.place.store.write_bytes(b"")
        ran = await cloud.eva_provider()
        assert (ran.code, str(cloud.place.store) in ran.err) == (78, True)
