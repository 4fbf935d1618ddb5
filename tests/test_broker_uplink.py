"""broker/uplink.py: when it asks. What it asks and what comes of that, tests/test_system_mqtt.py and _lease.py show."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from broker.settings import Mqtt
from broker.uplink import Uplink
from lab.certificates import Authority
from lab.ports import free_port
from tests.answering_provider import answering_provider
from tests.broker_parts import NODE, PATIENCE, core


async def test_what_hurries_while_an_ask_is_under_way_is_asked_behind_it(tmp_path: Path, certificates: Authority):
    """It came too late for that ask: a pause, or that there are more revocations than one answer holds."""
    async with core(tmp_path) as node, answering_provider(certificates) as provider:
        provider.go.clear()
        uplink = Uplink(
            NODE,
            Mqtt("127.0.0.1", free_port(), None, None, None),
            provider.settings,
            60.0,
            node.node_key,
            node.clock,
            node.boot_id,
            node.consents,
            node.outbox,
            node.metrics,
            secrets.token_bytes,
            lambda: node.journal.anchor,
            lambda: False,
        )
        running = asyncio.ensure_future(uplink.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await provider.came.wait()
                provider.came.clear()
                node.consents.behind()
                provider.go.set()
                await provider.came.wait()
        finally:
            running.cancel()
            await asyncio.wait([running])
    assert len(provider.asked) == 2
