"""provider/command.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eva.wire import Event
from lab.certificates import Authority
from tests.provider_parts import Cloud, Pen, now, resource_id, running_cloud

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
async def cloud(tmp_path: Path, certificates: Authority) -> AsyncIterator[Cloud]:
    async with running_cloud(tmp_path, certificates, receipt_seconds=2) as cloud:
        yield cloud


async def states(cloud: Cloud) -> list[str]:
    return [row["state"] for row in json.loads((await cloud.eva_provider("consent", "list", "--json")).out)]


async def test_grant_prints_the_seeds_lines(cloud: Cloud):
    async with cloud.node() as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments("--hours", "8"))
        assert ran.code == 0, ran.err
        for line in (
            "ERCS Name:\tAzS-ERCS01",
            f"ConnectTo-TenantVm -ResourceID {resource_id()}",
            f"Delete-TenantVMSession -ResourceID {resource_id()}",
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
    assert await states(cloud) == ["granted"]


async def test_without_a_node_named_a_living_one_is_chosen(cloud: Cloud):
    arguments = [word for word in cloud.grant_arguments() if word not in ("--node", cloud.pen.name)]
    ran = await cloud.eva_provider(*arguments)
    assert (ran.code, "no enrolled" in ran.err or "none of 1 enrolled" in ran.err) == (1, True)
    async with cloud.node() as node:
        await node.ask()
        assert (await cloud.eva_provider(*arguments)).code == 0


async def test_a_refused_grant_is_taken_back(cloud: Cloud):
    async with cloud.node(accepts=False) as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert "AzS-ERCS01 refused: vm-unknown" in ran.err
        revocation = await node.has_revocation(1)
        assert revocation.consent == node.consents[0].jti
    assert await states(cloud) == ["revoked"]


async def test_an_unanswered_grant_is_taken_back(cloud: Cloud):
    async with cloud.node(accepts=None) as node:
        ran = await cloud.eva_provider(*cloud.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert "no answer" in ran.err
        assert (await node.has_revocation(1)).consent == node.consents[0].jti
    assert await states(cloud) == ["revoked"]


async def test_revoke_says_when_the_cut_was_confirmed(cloud: Cloud):
    async with cloud.node() as node:
        await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--resource-id", resource_id().upper().replace("RG1", "rg1"))
        assert ran.code == 0, ran.err
        assert re.fullmatch(rf"cut confirmed by AzS-ERCS01 at {UTC}, 37 ms\n", ran.out)
        assert node.revocations[0].resource_id == node.consents[0].resource_id
    assert await states(cloud) == ["revoked"]


async def test_revoke_by_consent_leaves_the_other(cloud: Cloud):
    async with cloud.node():
        first, _ = await cloud.granted(), await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--consent-id", first["consent_id"], "--json")
        assert [cut["seq"] for cut in json.loads(ran.out)] == [1]
    assert sorted(await states(cloud)) == ["granted", "revoked"]


async def test_a_revocation_without_the_nodes_word_says_at_latest(cloud: Cloud):
    async with cloud.node(confirms=False) as node:
        await cloud.granted()
        ran = await cloud.eva_provider("consent", "revoke", "--resource-id", resource_id())
        assert ran.code == 3
        assert re.fullmatch(rf"not confirmed, at latest {UTC} \(AzS-ERCS01\)\n", ran.out)
        # asked again it is the same revocation, and the node's late word is seen
        await node.send(node.pen.receipt(Event.ENDED, node.revocations[0].jti, 1, cut_us="900", sessions="0"))
        again = await cloud.eva_provider("consent", "revoke", "--resource-id", resource_id())
        assert again.code == 0
        assert re.fullmatch(rf"cut confirmed by AzS-ERCS01 at {UTC}, 0\.9 ms, no session was open\n", again.out)
        assert [one.seq for one in node.revocations if one.seq != 1] == []


async def test_the_word_may_come_with_a_lease_request(cloud: Cloud):
    async with cloud.node(confirms=False) as node:
        await cloud.granted()
        running = asyncio.create_task(cloud.eva_provider("consent", "revoke", "--resource-id", resource_id()))
        revocation = await node.has_revocation(1)
        await node.ask(receipts=(node.pen.receipt(Event.ENDED, revocation.jti, 1, cut_us="37400", sessions="1"),))
        assert (await running).code == 0


async def test_revoking_nothing_is_refused(cloud: Cloud):
    ran = await cloud.eva_provider("consent", "revoke", "--resource-id", resource_id())
    assert (ran.code, "no consent" in ran.err) == (1, True)
    assert (await cloud.eva_provider("consent", "revoke")).code == 2


async def test_a_grant_after_a_revocation_is_past_its_watermark(cloud: Cloud):
    async with cloud.node() as node:
        await cloud.granted()
        await cloud.eva_provider("consent", "revoke", "--resource-id", resource_id())
        await cloud.granted()
        assert node.consents[1].issued_at > node.revocations[0].issued_by


async def test_a_bad_resource_id_is_refused(cloud: Cloud):
    ran = await cloud.eva_provider("consent", "revoke", "--resource-id", "/subscriptions/x")
    assert (ran.code, "not the resource ID" in ran.err) == (1, True)


async def test_nodes_list_shows_life_and_evidence(cloud: Cloud):
    async with cloud.node() as node:
        assert "silent" in (await cloud.eva_provider("nodes", "list")).out
        await node.ask(node.pen.request(audit_count=7, audit_head="seven"))
        assert "7 records" in (await cloud.eva_provider("nodes", "list")).out
        await node.ask(node.pen.request(audit_count=7, audit_head="SEVEN"))
        (row,) = json.loads((await cloud.eva_provider("nodes", "list", "--json")).out)
        assert (row["alive"], "CHANGED at record 7" in row["audit"]) == (True, True)
    assert cloud.metric('eva_provider_conflicts_total{about="anchor"}') == 1


async def test_a_name_is_replaced_only_openly(cloud: Cloud):
    path = cloud.place.directory / "other.pub"
    from provider.keys import write_public  # noqa: PLC0415 - only here

    write_public(path, Pen("x").public)
    ran = await cloud.eva_provider("nodes", "add", "AzS-ERCS01", "--key", str(path))
    assert (ran.code, "--replace" in ran.err) == (1, True)


async def test_keys_are_made_once(cloud: Cloud):
    before = sorted(path.name for path in (cloud.place.directory / "keys").iterdir())
    ran = await cloud.eva_provider("keys", "init")
    assert (ran.code, "nothing was changed" in ran.err) == (78, True)
    assert sorted(path.name for path in (cloud.place.directory / "keys").iterdir()) == before
    assert {p.stat().st_mode & 0o777 for p in (cloud.place.directory / "keys").glob("*.pem")} == {0o600}


async def test_check_config_finds_what_is_wrong(cloud: Cloud):
    assert (await cloud.eva_provider("check-config")).code == 0
    (signing,) = (cloud.place.directory / "keys").glob("signing-*.pem")
    signing.chmod(0o644)
    ran = await cloud.eva_provider("check-config")
    assert (ran.code, "0644" in ran.err, str(signing) in ran.err) == (78, True, True)
    cloud.place.config.write_text(cloud.place.config.read_text() + "lmits: {}\n")
    ran = await cloud.eva_provider("check-config")
    assert ran.code == 78
    assert f"{cloud.place.config}:{len(cloud.place.config.read_text().splitlines())}: lmits" in ran.err


async def test_without_a_daemon_a_grant_says_so(cloud: Cloud):
    cloud.daemon.stop()
    ran = await cloud.eva_provider(*cloud.grant_arguments())
    assert (ran.code, "no provider answers" in ran.err) == (1, True)
