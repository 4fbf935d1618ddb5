"""Taking the feature from a subscription ends what it consented to as fast as a revocation, on real parts."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from eva.control import Refusal
from lab.cloud import SUBSCRIPTION, Cloud
from lab.libvirt_host import Guest
from tests.system_operator import NODE, doing, signed_in, typing, until_refused
from tests.system_parts import (
    PROMISE,
    SLACK,
    assert_silence_after,
    consented,
    count_in,
    end_of,
    listening,
    tell_provider,
    until,
    well,
)


@pytest.fixture
async def enabled(cloud: Cloud) -> AsyncIterator[Cloud]:
    """Give the cloud, whose subscription may consent again afterwards."""
    await well(cloud)
    yield cloud
    await tell_provider(cloud, "/feature/set-state", {"state": "TenantSubscriptionLevel"})
    await asyncio.to_thread(cloud.provider_command, "feature", "enable-subscription", SUBSCRIPTION)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/feature/disable-subscription", {"subscription": SUBSCRIPTION.upper()}),
        ("/feature/set-state", {"state": "Disabled"}),
    ],
)
async def test_a_live_session_is_cut_within_a_second(enabled: Cloud, vm: Guest, path: str, body: dict[str, str]) -> None:
    grant = await consented(enabled, vm)
    async with signed_in(enabled) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 20, "what is typed in the guest")
            asked = time.monotonic()
            cuts = (await tell_provider(enabled, path, body))["cuts"]
            assert any(cut["sessions"] for cut in cuts)
            assert all(cut["confirmed_at_ms"] is not None for cut in cuts if cut["sessions"])
            assert all(cut["cut_us"] < PROMISE * 1e6 for cut in cuts if cut["sessions"])
            assert await console.ended() == 4003
            assert console.ended_at is not None
            assert console.ended_at - asked < PROMISE + SLACK
            await assert_silence_after(enabled.nodes[NODE], console, vm, asked, after)
        assert (await end_of(enabled.nodes[NODE], console.opened))["reason"] == "feature-disabled"
        await until_refused(alice, grant.resource_id, Refusal.NO_CONSENT)
    with pytest.raises(AssertionError, match="not enabled for subscription"):
        await consented(enabled, vm)
