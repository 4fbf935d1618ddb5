"""provider/commands/features.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from eva.ending import Ending
from lab.certificates import Authority
from tests.provider_parts import SUBSCRIPTION, Cloud, running_cloud

OTHER = "0D2F4A3C-5b1e-4c88-9a06-2f3d1e5b7c91"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("provider"), certificates, receipt_seconds=2) as cloud:
        yield cloud


async def test_disabling_a_subscription_says_that_its_consents_are_cut(cloud: Cloud):
    cloud.fresh()
    async with cloud.node() as node:
        await cloud.granted()
        ran = await cloud.eva_provider("feature", "disable-subscription", SUBSCRIPTION.upper())
        assert ran.code == 0, ran.err
        assert f"cut confirmed by {cloud.pen.name}" in ran.out
        assert node.revocations[0].reason is Ending.FEATURE_DISABLED
        refused = await cloud.eva_provider(*cloud.grant_arguments())
        why = f"The Emergency VM Access feature is not enabled for subscription '{SUBSCRIPTION}'"
        assert (refused.code, why in refused.err) == (1, True)
        assert cloud.run("feature", "enable-subscription", SUBSCRIPTION).code == 0
        await cloud.granted()


async def test_the_global_state_ends_consents_too(cloud: Cloud):
    cloud.fresh()
    async with cloud.node() as node:
        await cloud.granted()
        ran = await cloud.eva_provider("feature", "set-state", "Disabled")
        assert f"cut confirmed by {cloud.pen.name}" in ran.out
        assert node.revocations[0].reason is Ending.FEATURE_DISABLED
        listed = cloud.run("feature", "enable-subscription", SUBSCRIPTION)
        assert "disabled for everybody" in listed.out
        again = await cloud.eva_provider("feature", "set-state", "TenantSubscriptionLevel")
        assert (again.code, again.out) == (0, "done; consents ended: none\n")


async def test_a_node_that_says_nothing_is_told(cloud: Cloud):
    cloud.fresh()
    async with cloud.node(confirms=False):
        await cloud.granted()
        ran = await cloud.eva_provider("feature", "disable-subscription", SUBSCRIPTION)
        assert (ran.code, f"({cloud.pen.name})" in ran.out) == (3, True)
    assert cloud.run("feature", "enable-subscription", SUBSCRIPTION).code == 0


def test_the_list_is_shown_as_it_was_given(cloud: Cloud):
    assert cloud.run("feature", "enable-subscription", OTHER).code == 0
    shown = json.loads(cloud.run("feature", "show", "--json").out)
    assert (shown["name"], shown["state"]) == ("Microsoft.Compute.EmergencyVMAccess", "TenantSubscriptionLevel")
    assert OTHER in [one["subscription"] for one in shown["subscriptions"]]
    assert f"{OTHER}\tsince " in cloud.run("feature", "show").out


@pytest.mark.parametrize("words", [("enable-subscription", "x"), ("disable-subscription", "x"), ("set-state", "enabled")])
def test_what_is_no_guid_or_state_is_wrong_usage(cloud: Cloud, words: tuple[str, ...]):
    assert cloud.run("feature", *words).code == 2
