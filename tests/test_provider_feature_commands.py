"""provider/commands/features.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import json

import pytest

from eva.ending import Ending
from eva.wire import Event
from tests.provider_parts import SUBSCRIPTION, Cloud

OTHER = "0D2F4A3C-5b1e-4c88-9a06-2f3d1e5b7c91"


async def test_disabling_a_subscription_says_that_its_consents_are_cut(provider: Cloud):
    async with provider.node() as node:
        await provider.granted()
        ran = await provider.eva_provider("feature", "disable-subscription", SUBSCRIPTION.upper())
        assert ran.code == 0, ran.err
        assert f"cut confirmed by {provider.pen.name}" in ran.out
        assert node.revocations[0].reason is Ending.FEATURE_DISABLED
        refused = await provider.eva_provider(*provider.grant_arguments())
        why = f"The Emergency VM Access feature is not enabled for subscription '{SUBSCRIPTION}'"
        assert (refused.code, why in refused.err) == (1, True)
        assert provider.run("feature", "enable-subscription", SUBSCRIPTION).code == 0
        await provider.granted()
        assert (await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)).code == 0


async def test_the_global_state_ends_consents_too(provider: Cloud):
    async with provider.node() as node:
        await provider.granted()
        ran = await provider.eva_provider("feature", "set-state", "Disabled")
        assert f"cut confirmed by {provider.pen.name}" in ran.out
        assert node.revocations[0].reason is Ending.FEATURE_DISABLED
        listed = provider.run("feature", "enable-subscription", SUBSCRIPTION)
        assert "disabled for everybody" in listed.out
        again = await provider.eva_provider("feature", "set-state", "TenantSubscriptionLevel")
        assert (again.code, again.out) == (0, "done; consents ended: none\n")


async def test_a_node_that_says_nothing_is_told(provider: Cloud):
    async with provider.node(confirms=False) as node:
        await provider.granted()
        with provider.hurried():
            for _ in range(2):  # to say it again makes it no more done
                ran = await provider.eva_provider("feature", "disable-subscription", SUBSCRIPTION)
                assert (ran.code, f"({provider.pen.name})" in ran.out) == (3, True)
        revocation = await node.has_revocation(1)
        await node.send(node.pen.receipt(Event.ENDED, revocation.jti, revocation.seq))
        ran = await provider.eva_provider("feature", "disable-subscription", SUBSCRIPTION)
        assert ran.code == 0, ran.out
    assert provider.run("feature", "enable-subscription", SUBSCRIPTION).code == 0


def test_the_list_is_shown_as_it_was_given(provider: Cloud):
    assert provider.run("feature", "enable-subscription", OTHER).code == 0
    shown = json.loads(provider.run("feature", "show", "--json").out)
    assert (shown["name"], shown["state"]) == ("Microsoft.Compute.EmergencyVMAccess", "TenantSubscriptionLevel")
    assert OTHER in [one["subscription"] for one in shown["subscriptions"]]
    assert f"{OTHER}\tsince " in provider.run("feature", "show").out


@pytest.mark.parametrize("words", [("enable-subscription", "x"), ("disable-subscription", "x"), ("set-state", "enabled")])
def test_what_is_no_guid_or_state_is_wrong_usage(provider: Cloud, words: tuple[str, ...]):
    assert provider.run("feature", *words).code == 2
