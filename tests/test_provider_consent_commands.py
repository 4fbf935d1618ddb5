"""provider/commands/consents.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio
import json
import re

from eva.wire import Event
from tests.provider_parts import Cloud, now

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


async def test_grant_prints_the_seeds_lines(provider: Cloud):
    async with provider.node() as node:
        ran = await provider.eva_provider(*provider.grant_arguments("--hours", "8"))
        assert ran.code == 0, ran.err
        for line in (
            f"ERCS Name:\t{provider.pen.name}",
            f"ConnectTo-TenantVm -ResourceID {provider.resource_id}",
            f"Delete-TenantVMSession -ResourceID {provider.resource_id}",
        ):
            assert line in ran.out.splitlines()
        (consent,) = node.consents
        assert consent.jti in ran.out
        assert "uuid-1" in ran.out
        assert consent.expires_at - consent.issued_at == 28_800


async def test_grant_signs_what_was_asked_for(provider: Cloud):
    async with provider.node() as node:
        more = ("--kind", "graphics", "--access", "view", "--operators", "account:ann", "--minutes", "1", "--seconds", "30")
        granted = await provider.granted(*more, "--reason", "locked out")
        (consent,) = node.consents
        assert (granted["consent_id"], granted["vm_uuid"]) == (consent.jti, "uuid-1")
        assert (sorted(consent.kinds), str(consent.access), consent.reason) == (["graphics", "serial"], "view", "locked out")
        assert [str(one) for one in consent.operators] == ["account:ann"]
        assert 0 < consent.expires_at - now() <= 90
    assert provider.states() == ["granted"]


async def test_grant_only_while_somebody_watches(provider: Cloud):
    async with provider.node(watch="https://ercs01-watch.example:8446") as node:
        ran = await provider.eva_provider(*provider.grant_arguments("--only-while-watched"))
        assert ran.code == 0, ran.err
        assert "only while its giver watches" in ran.out
        assert node.consents[0].watched
    shown = provider.run("consent", "show", "--resource-id", provider.resource_id).out
    assert "serial, keyboard, for group:cloudadmin, only while its giver watches" in shown


async def test_where_nobody_can_watch_such_a_grant_is_taken_back(provider: Cloud):
    async with provider.node() as node:
        ran = await provider.eva_provider(*provider.grant_arguments("--only-while-watched"))
        assert (ran.code, ran.out) == (1, "")
        assert f"tenants cannot watch at {provider.pen.name}" in ran.err
        assert (await node.has_revocation(1)).consent == node.consents[0].jti
    assert provider.states() == ["revoked"]


async def test_a_refused_grant_is_taken_back(provider: Cloud):
    async with provider.node(accepts=False) as node:
        ran = await provider.eva_provider(*provider.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert f"{provider.pen.name} refused: vm-unknown" in ran.err
        revocation = await node.has_revocation(1)
        assert revocation.consent == node.consents[0].jti
    assert provider.states() == ["revoked"]


async def test_an_unanswered_grant_is_taken_back(provider: Cloud):
    async with provider.node(accepts=None) as node:
        with provider.hurried():
            ran = await provider.eva_provider(*provider.grant_arguments())
        assert (ran.code, ran.out) == (1, "")
        assert "no answer" in ran.err or "MQTT" in ran.err  # a second may be too short for the letter alone
        assert (await node.has_revocation(1)).consent == node.consents[0].jti
    assert provider.states() == ["revoked"]


async def test_revoke_says_when_the_cut_was_confirmed(provider: Cloud):
    async with provider.node() as node:
        await provider.granted()
        ran = await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id.replace("rg1", "RG1"))
        assert ran.code == 0, ran.err
        assert re.fullmatch(rf"cut confirmed by {provider.pen.name} at {UTC}, 37 ms\n", ran.out)
        assert node.revocations[0].resource_id == node.consents[0].resource_id
    assert provider.states() == ["revoked"]


async def test_revoke_by_consent_leaves_the_other(provider: Cloud):
    async with provider.node():
        first, _ = await provider.granted(), await provider.granted()
        ran = await provider.eva_provider("consent", "revoke", "--consent-id", first["consent_id"], "--json")
        assert [cut["seq"] for cut in json.loads(ran.out)] == [1]
    assert sorted(provider.states()) == ["granted", "revoked"]


async def test_a_revocation_without_the_nodes_word_says_at_latest(provider: Cloud):
    async with provider.node(confirms=False) as node:
        await provider.granted()
        with provider.hurried():
            ran = await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
        assert ran.code == 3
        assert re.fullmatch(rf"not confirmed, at latest {UTC} \({provider.pen.name}\)\n", ran.out)
        # asked again it is the same revocation, and the node's late word is seen
        revocation = await node.has_revocation(1)
        await node.send(node.pen.receipt(Event.ENDED, revocation.jti, 1, cut_us="900", sessions="0"))
        again = await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
        assert again.code == 0
        assert re.fullmatch(rf"cut confirmed by {provider.pen.name} at {UTC}, 0\.9 ms, no session was open\n", again.out)
        assert [one.seq for one in node.revocations if one.seq != 1] == []


async def test_the_word_may_come_with_a_lease_request(provider: Cloud):
    async with provider.node(confirms=False) as node:
        await provider.granted()
        running = asyncio.create_task(provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id))
        revocation = await node.has_revocation(1)
        await node.ask(receipts=(node.pen.receipt(Event.ENDED, revocation.jti, 1, cut_us="37400", sessions="1"),))
        assert (await running).code == 0


async def test_revoking_nothing_is_refused(provider: Cloud):
    ran = await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
    assert (ran.code, "no consent" in ran.err) == (1, True)
    assert (await provider.eva_provider("consent", "revoke")).code == 2


async def test_a_grant_after_a_revocation_is_past_its_watermark(provider: Cloud):
    async with provider.node() as node:
        await provider.granted()
        await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
        await provider.granted()
        assert node.consents[1].issued_at > node.revocations[0].issued_by


async def test_a_bad_resource_id_is_refused(provider: Cloud):
    ran = await provider.eva_provider("consent", "revoke", "--resource-id", "/subscriptions/x")
    assert (ran.code, "not the resource ID" in ran.err) == (1, True)


def test_without_a_daemon_a_grant_says_so(still_provider: Cloud):
    ran = still_provider.run(*still_provider.grant_arguments())
    assert (ran.code, "no provider answers" in ran.err) == (1, True)
