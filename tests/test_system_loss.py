"""A node that is lost: its consents are served by another, and it cannot take them up again when it is back."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from eva.control import Method, Refusal, Refused
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import LOOK, PATIENCE, Console, Operator, signed_in, until_refused
from tests.system_parts import consented, is_gone, well

FIRST, SECOND = "AzS-ERCS01", "AzS-ERCS02"
PROMISE = 60.0  # seconds from the loss to the next open console


@contextlib.contextmanager
def two_nodes(host: LibvirtHost, limits: dict[str, int]) -> Iterator[Cloud]:
    with Cloud({"host1": host.uri}, nodes=(FIRST, SECOND), limits=limits) as cloud:
        yield cloud


async def used(console: Console) -> None:
    await console.type(b"\n")
    await console.shows(b"# ")
    assert b"42" in await console.ask("echo $((6*7))")


async def opened_at(cloud: Cloud, node: str, resource_id: str, patience: float) -> float:
    """Ask until this node admits to the VM's console, and use it; give when it was open."""
    deadline = time.monotonic() + patience
    async with signed_in(cloud, node=node) as alice:
        while (console := await admitted(alice, resource_id)) is None:
            assert time.monotonic() < deadline, f"{node} does not serve it"
            await asyncio.sleep(10 * LOOK)
        at = time.monotonic()
        await used(console)
        # or the session would wait for him, and keep the keyboard
        await alice.ask(Method.SESSION_LEAVE, session=console.opened.session)
        return at


async def admitted(alice: Operator, resource_id: str) -> Console | None:
    """The console; None while the node has no consent for it. Raises Refused."""
    try:
        return await alice.console(resource_id)
    except Refused as error:
        if error.refusal is Refusal.NO_CONSENT:
            return None
        raise


def tokens(cloud: Cloud, consent: str) -> list[dict[str, Any]]:
    rows = json.loads(cloud.provider_command("consent", "list", "--json"))
    return [row for row in rows if row["consent_id"] == consent]


async def lose_the_first(cloud: Cloud, vm: Guest) -> None:
    for node in (FIRST, SECOND):
        await well(cloud, node)
    grant = await consented(cloud, vm, FIRST)
    async with signed_in(cloud, node=FIRST) as alice:
        console = await alice.console(vm.resource_id)
        await used(console)
        killed = time.monotonic()
        cloud.nodes[FIRST].program.kill()
        await console.ended()
    at = await opened_at(cloud, SECOND, grant.resource_id, PROMISE)
    assert at - killed < PROMISE
    # the tenant sees where it went, under the same id and to the same end
    newer, older = await asyncio.to_thread(tokens, cloud, grant.consent)
    assert [(row["node"], row["state"]) for row in (older, newer)] == [(FIRST, "moved"), (SECOND, "granted")]
    assert newer["expires_at"] == older["expires_at"] == grant.expires_at
    shown = await asyncio.to_thread(cloud.provider_command, "consent", "show", "--resource-id", grant.resource_id)
    assert f"{grant.consent}\tgranted\tat {SECOND}" in shown
    # and the first, back again, cannot serve it
    await asyncio.to_thread(cloud.nodes[FIRST].start)
    await well(cloud, FIRST)
    async with signed_in(cloud, node=FIRST) as alice:
        await until_refused(alice, grant.resource_id)
    await opened_at(cloud, SECOND, grant.resource_id, PATIENCE)


async def test_a_killed_nodes_consent_is_served_by_the_other(libvirt_host: LibvirtHost, vm: Guest) -> None:
    with two_nodes(libvirt_host, {"lease_open_seconds": 5, "lease_cut_seconds": 7}) as cloud:
        await lose_the_first(cloud, vm)


@pytest.mark.faults
async def test_within_a_minute_by_the_shipped_limits(libvirt_host: LibvirtHost, vm: Guest) -> None:
    with two_nodes(libvirt_host, {}) as cloud:
        await lose_the_first(cloud, vm)


@pytest.mark.faults
async def test_a_provider_that_was_away_takes_nothing_from_nodes_that_are_well(libvirt_host: LibvirtHost, vm: Guest) -> None:
    with two_nodes(libvirt_host, {"lease_open_seconds": 5, "lease_cut_seconds": 7}) as cloud:
        for node in (FIRST, SECOND):
            await well(cloud, node)
        grant = await consented(cloud, vm, FIRST)
        pid = cloud.provider.pid
        cloud.provider.kill()
        assert is_gone(pid)
        await asyncio.sleep(24)  # longer than it takes for a node to count as lost
        cloud.provider.start()
        await well(cloud, FIRST)
        await opened_at(cloud, FIRST, grant.resource_id, PATIENCE)
        (row,) = await asyncio.to_thread(tokens, cloud, grant.consent)
        assert (row["node"], row["state"]) == (FIRST, "granted")
