"""provider/rest/admin_api.py, over HTTPS against the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.certificates import Authority
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import (
    DIRECTORY,
    FEATURE,
    FEATURES,
    OPERATOR,
    OTHER_SUBSCRIPTION,
    PLATFORM,
    REGION,
    RestCloud,
    error,
    rest_cloud,
    vm_path,
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


async def listed(cloud: RestCloud) -> list[str]:
    found = (await cloud.ask("GET", FEATURE, OPERATOR, admin=True)).json()
    return found["properties"]["enabledTenantSubscriptionIds"]


async def test_the_feature_looks_as_the_originals_does(cloud: RestCloud):
    found = (await cloud.ask("GET", FEATURE, OPERATOR, admin=True)).json()
    assert found == {
        "id": FEATURE,
        "name": "Microsoft.Compute.EmergencyVMAccess",
        "type": "Microsoft.Compute.Admin/locations/features",
        "location": REGION,
        "properties": {
            "featureName": "Microsoft.Compute.EmergencyVMAccess",
            "globalFeatureSettings": {"globalFeatureState": "TenantSubscriptionLevel"},
            "enabledTenantSubscriptionIds": [SUBSCRIPTION],
        },
    }
    assert (await cloud.ask("GET", FEATURES, OPERATOR, admin=True)).json() == {"value": [found]}


async def test_the_seeds_request(cloud: RestCloud):
    """Invoke-AzureRmResourceAction with -ResourceName "<region>/Microsoft.Compute.EmergencyVMAccess" and a capital T."""
    answer = await cloud.operate("enableTenantSubscriptionFeature", {"TenantSubscriptionId": OTHER_SUBSCRIPTION.upper()})
    assert (answer.status_code, answer.content) == (200, b"")
    assert OTHER_SUBSCRIPTION.upper() in await listed(cloud)
    answer = await cloud.operate("disableTenantSubscriptionFeature", {"tenantSubscriptionId": OTHER_SUBSCRIPTION})
    assert (answer.status_code, answer.content) == (200, b"")
    assert await listed(cloud) == [SUBSCRIPTION]


async def test_enabling_twice_is_once(cloud: RestCloud):
    for _ in range(2):
        answer = await cloud.operate("enableTenantSubscriptionFeature", {"tenantSubscriptionId": SUBSCRIPTION})
        assert answer.status_code == 200
    assert await listed(cloud) == [SUBSCRIPTION]


NO_GUIDS = [
    {"tenantSubscriptionId": "my-subscription"},
    {"tenantSubscriptionId": {"Guid": SUBSCRIPTION}},  # PowerShell's [guid], which the original takes and enables nothing
    {"tenantSubscriptionId": [SUBSCRIPTION]},
    {"tenantSubscriptionId": None},
    {"tenantSubscriptionId": f" {SUBSCRIPTION}"},
    {"tenantSubscriptionId": ""},
    {},
]


@pytest.mark.parametrize("action", ["enableTenantSubscriptionFeature", "disableTenantSubscriptionFeature"])
@pytest.mark.parametrize("body", NO_GUIDS)
async def test_what_is_no_guid_string_is_refused(cloud: RestCloud, action: str, body: object):
    answer = await cloud.operate(action, body)
    assert (error(answer), answer.json()["error"]["target"]) == ((400, "InvalidParameter"), "tenantSubscriptionId")


async def test_a_second_property_is_refused(cloud: RestCloud):
    body = {"tenantSubscriptionId": OTHER_SUBSCRIPTION, "tenantSubscriptionIds": [OTHER_SUBSCRIPTION]}
    answer = await cloud.operate("enableTenantSubscriptionFeature", body)
    assert (error(answer)[0], await listed(cloud)) == (400, [SUBSCRIPTION])


async def test_disabling_a_subscription_ends_its_consents(cloud: RestCloud):
    vm = vm_path("vm-disabled")
    async with cloud.serving() as node:
        await cloud.ask("POST", f"{vm}/enableVmAccess")
        await cloud.operate("disableTenantSubscriptionFeature", {"tenantSubscriptionId": SUBSCRIPTION})
        again = await cloud.ask("POST", f"{vm}/enableVmAccess")
        await cloud.operate("enableTenantSubscriptionFeature", {"tenantSubscriptionId": SUBSCRIPTION})
        stands = (await cloud.ask("GET", f"{vm}/vmAccess")).json()
    # the module's one node may have other tests' consents, too
    assert [one.reason.word for one in node.revocations if str(one.resource_id) == vm] == ["feature-disabled"]
    assert (error(again), stands["state"]) == ((409, "OperationNotAllowed"), "none")
    assert stands["earlier"][0]["ending"] == "feature-disabled"


async def test_the_global_state_overrides_the_list(cloud: RestCloud):
    vm = vm_path("vm-global")
    states = ("Disabled", "Enabled", "TenantSubscriptionLevel")
    found = []
    async with cloud.serving():
        for state in states:
            assert (await cloud.operate("updateGlobalFeatureSettings", {"GlobalFeatureState": state})).status_code == 200
            shown = (await cloud.ask("GET", FEATURE, OPERATOR, admin=True)).json()["properties"]["globalFeatureSettings"]
            found.append((shown["globalFeatureState"], (await cloud.ask("POST", f"{vm}/enableVmAccess")).status_code))
    assert found == list(zip(states, (409, 200, 200), strict=True))


@pytest.mark.parametrize("state", ["enabled", "On", "", None, 1, ["Enabled"]])
async def test_another_state_is_refused(cloud: RestCloud, state: object):
    answer = await cloud.operate("updateGlobalFeatureSettings", {"globalFeatureState": state})
    assert (error(answer), answer.json()["error"]["target"]) == ((400, "InvalidParameter"), "globalFeatureState")


ELSEWHERE = [
    (FEATURE.replace(PLATFORM, SUBSCRIPTION), "SubscriptionNotFound", 404),
    (FEATURE.replace("/local/", "/redmond/"), "ResourceNotFound", 404),
    (FEATURE.replace("EmergencyVMAccess", "Other"), "ResourceNotFound", 404),
    (FEATURE.replace(PLATFORM, "platform"), "InvalidSubscriptionId", 400),
]


@pytest.mark.parametrize(("path", "code", "status"), ELSEWHERE)
async def test_what_this_cloud_does_not_have(cloud: RestCloud, path: str, code: str, status: int):
    assert error(await cloud.ask("GET", path, OPERATOR, admin=True)) == (status, code)


async def test_words_of_a_path_in_any_case(cloud: RestCloud):
    path = FEATURE.upper().replace("PROVIDERS", "Providers")
    answer = await cloud.ask("GET", path, OPERATOR, admin=True)
    assert (answer.status_code, answer.json()["name"]) == (200, "Microsoft.Compute.EmergencyVMAccess")


async def test_a_tenants_path_is_nothing_here(cloud: RestCloud):
    answer = await cloud.ask(
        "POST", f"{vm_path('vm1')}/enableVmAccess", OPERATOR, admin=True, params={"api-version": "2020-06-01"}
    )
    assert error(answer) == (404, "InvalidResourceType")


async def test_the_platforms_subscription_is_the_one_there_is(cloud: RestCloud):
    version = {"api-version": "2016-06-01"}
    one = (await cloud.ask("GET", f"/subscriptions/{PLATFORM}", OPERATOR, admin=True, params=version)).json()
    other = await cloud.ask("GET", f"/subscriptions/{SUBSCRIPTION}", OPERATOR, admin=True, params=version)
    assert (one["subscriptionId"], one["tenantId"], error(other)) == (PLATFORM, DIRECTORY, (404, "SubscriptionNotFound"))
    assert (await cloud.ask("GET", "/subscriptions", OPERATOR, admin=True, params=version)).json() == {"value": [one]}
