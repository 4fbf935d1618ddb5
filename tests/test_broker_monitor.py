"""broker/monitor.py over a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from broker.metrics import Metrics
from broker.monitor import Monitor
from eva.endpoint import MetricsListener
from lab.ports import free_port
from tests.broker_parts import PATIENCE


@dataclass
class Told:
    url: str
    amiss: list[str] = field(default_factory=list)
    refreshed: int = 0

    def refresh(self) -> None:
        self.refreshed += 1


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    port = free_port()
    one = Told(f"http://127.0.0.1:{port}")
    monitor = Monitor(MetricsListener("127.0.0.1", port), Metrics(), lambda: one.amiss, one.refresh)
    await monitor.start()
    yield one
    await monitor.stop()


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        return await client.get(url)


async def test_metrics_are_brought_up_to_date_and_told(told: Told):
    answer = await get(f"{told.url}/metrics")
    assert (answer.status_code, told.refreshed, "eva_sessions" in answer.text) == (200, 1, True)


async def test_all_well(told: Told):
    answer = await get(f"{told.url}/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_something_amiss(told: Told):
    told.amiss = ["no fresh lease", "the disk is slow"]
    answer = await get(f"{told.url}/healthz")
    assert (answer.status_code, answer.text) == (503, "no fresh lease\nthe disk is slow\n")


async def test_nothing_else_is_there(told: Told):
    assert (await get(f"{told.url}/")).status_code == 404
