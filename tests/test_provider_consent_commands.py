"""provider/commands/consents.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva.wire import Event
from lab.certificates import Authority
from tests.provider_parts import Cloud, now, running_cloud

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("provider"), certificates, receipt_seconds=2) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: Cloud) -> Cloud:
    """The module's provider, with a node and a virtual machine of the test's own."""
    running.fresh()
    return running


@pytest.fixture
def still(tmp_path: Path, certificates: Authority) -> Iterator[Cloud]:
    """One whose daemon does not run."""
    cloud = Cloud(tmp_path, certificates)
    yield cloud
    cloud.close()


async def test_grant_prints_the_seeds_lines(cloud: Cloud):
    async with cloud.node() as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments("--hours", "8"))
        assert ran.code == 0, ran.err
        for line in (
            f"ERCS Name:\t{cloud.pen.name}",
            f"ConnectTo-TenantVm -ResourceID {cloud.resource_id}",
            f"Delete-TenantVMSession -ResourceID {cloud.resource_id}",
        ):
            assert line in ran.out.splitlines()
        (consent,) = node.consents
        assert consent.jti in ran.out
        assert "uuid-1" in ran.out
        assert consent.expires_at - consent.issued_at == 28_800


async def test_grant_signs_what_was_asked_for(cloud: Cloud):
    async with cloud.node() as node:
        more = ("--kind", "graphics", "--access", "view", "--operators", "account:ann", "--minutes", "1", "--seconds", "30")
        granted = await cloud.granted(*more, "--reason", "locked out")
        (consent,) = node.consents
        assert (granted["consent_id"], granted["vm_uuid"]) == (consent.jti, "uuid-1")
        assert (sorted(consent.kinds), str(consent.access), consent.reason) == (["graphics", "serial"], "view", "locked out")
        assert [str(one) for one in consent.operators] == ["account:ann"]
        assert 0 < consent.expires_at - now() <= 90
    assert cloud.states() == ["granted"]


async def test_a_refused_grant_is_taken_back(cloud: Cloud):
    async with cloud.node(accepts=False) as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert f"{cloud.pen.name} refused: vm-unknown" in ran.err
        revocation = await node.has_revocation(1)
        assert revocation.consent == node.consents[0].jti
    assert cloud.states() == ["revoked"]


async def test_an_unanswered_grant_is_taken_back(cloud: Cloud):
    async with cloud.node(accepts=None) as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert "no answer" in ran.err
        assert (await node.has_revocation(1)).consent == node.consents[0].jti
    assert cloud.states() == ["revoked"]


async def test_revoke_says_when_the_cut_was_confirmed(cloud: Cloud):
    async with cloud.node() as node:
        await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id.replace("rg1", "RG1"))
        assert ran.code == 0, ran.err
        assert re.fullmatch(rf"cut confirmed by {cloud.pen.name} at {UTC}, 37 ms\n", ran.out)
        assert node.revocations[0].resource_id == node.consents[0].resource_id
    assert cloud.states() == ["revoked"]


async def test_revoke_by_consent_leaves_the_other(cloud: Cloud):
    async with cloud.node():
        first, _ = await cloud.granted(), await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--consent-id", first["consent_id"], "--json")
        assert [cut["seq"] for cut in json.loads(ran.out)] == [1]
    assert sorted(cloud.states()) == ["granted", "revoked"]


async def test_a_revocation_without_the_nodes_word_says_at_latest(cloud: Cloud):
    async with cloud.node(confirms=False) as node:
        await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
        assert ran.code == 3
        assert re.fullmatch(rf"not confirmed, at latest {UTC} \({cloud.pen.name}\)\n", ran.out)
        # asked again it is the same revocation, and the node's late word is seen
        await node.send(node.pen.receipt(Event.ENDED, node.revocations[0].jti, 1, cut_us="900", sessions="0"))
        again = await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
        assert again.code == 0
        assert re.fullmatch(rf"cut confirmed by {cloud.pen.name} at {UTC}, 0\.9 ms, no session was open\n", again.out)
        assert [one.seq for one in node.revocations if one.seq != 1] == []


async def test_the_word_may_come_with_a_lease_request(cloud: Cloud):
    async with cloud.node(confirms=False) as node:
        await cloud.granted()
        running = asyncio.create_task(cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id))
        revocation = await node.has_revocation(1)
        await node.ask(receipts=(node.pen.receipt(Event.ENDED, revocation.jti, 1, cut_us="37400", sessions="1"),))
        assert (await running).code == 0


async def test_revoking_nothing_is_refused(cloud: Cloud):
    ran = await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
    assert (ran.code, "no consent" in ran.err) == (1, True)
    assert (await cloud.eva_provider("consent", "revoke")).code == 2


async def test_a_grant_after_a_revocation_is_past_its_watermark(cloud: Cloud):
    async with cloud.node() as node:
        await cloud.granted()
        await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
        await cloud.granted()
        assert node.consents[1].issued_at > node.revocations[0].issued_by


async def test_a_bad_resource_id_is_refused(cloud: Cloud):
    ran = await cloud.eva_provider("consent", "revoke", "--resource-id", "/subscriptions/x")
    assert (ran.code, "not the resource ID" in ran.err) == (1, True)


def test_without_a_daemon_a_grant_says_so(still: Cloud):
    ran = still.run(*still.grant_arguments())
    assert (ran.code, "no provider answers" in ran.err) == (1, True)
