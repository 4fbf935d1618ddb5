"""provider/rest/metadata_api.py: what Azure's clients read before they do anything, over HTTPS against the daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.certificates import Authority
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import (
    ARM_VERSION,
    DIRECTORY,
    OPERATOR,
    OTHER_SUBSCRIPTION,
    OWNER,
    PLATFORM,
    STRANGER,
    RestCloud,
    error,
    rest_cloud,
    vm_path,
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


async def endpoints(cloud: RestCloud, version: str, *, admin: bool = False) -> dict[str, object]:
    answer = await cloud.ask("GET", "/metadata/endpoints", None, admin=admin, params={"api-version": version})
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("version", ["2015-01-01", "1.0"])
async def test_the_old_shape(cloud: RestCloud, version: str):
    """Add-AzureRmEnvironment wants none of them empty, and asks with 1.0."""
    found = await endpoints(cloud, version)
    assert found.keys() == {"galleryEndpoint", "graphEndpoint", "portalEndpoint", "authentication"}
    assert all(found.values())
    assert found["authentication"] == {"loginEndpoint": "https://login.example", "audiences": [cloud.tenant_url]}


async def test_the_shape_that_az_wants(cloud: RestCloud):
    """azure-cli's cloud.py reads name, authentication, resourceManager and suffixes, and stops without one of them."""
    found = await endpoints(cloud, "2022-09-01")
    assert (found["name"], found["resourceManager"], found["suffixes"]) == ("EVA-local", cloud.tenant_url, {})
    authentication = found["authentication"]
    assert isinstance(authentication, dict)
    assert (authentication["loginEndpoint"], authentication["audiences"]) == ("https://login.example", [cloud.tenant_url])
    assert authentication["tenant"] == DIRECTORY


async def test_the_operators_endpoint_has_its_own(cloud: RestCloud):
    assert (await endpoints(cloud, "2022-09-01", admin=True))["resourceManager"] == cloud.admin_url


async def test_another_version_is_refused(cloud: RestCloud):
    answer = await cloud.ask("GET", "/metadata/endpoints", None, params={"api-version": "2099-01-01"})
    assert error(answer) == (400, "InvalidApiVersionParameter")


async def subscriptions(cloud: RestCloud, who: str) -> list[str]:
    answer = await cloud.ask("GET", "/subscriptions", who, params=ARM_VERSION)
    return [one["subscriptionId"] for one in answer.json()["value"]]


async def test_a_caller_sees_his_own(cloud: RestCloud):
    assert (await subscriptions(cloud, OWNER), await subscriptions(cloud, STRANGER)) == ([SUBSCRIPTION], [])


async def test_a_right_to_one_machine_shows_its_subscription(cloud: RestCloud):
    cloud.assign("Vera", "Reader", vm_path("vm1", OTHER_SUBSCRIPTION.upper()))
    assert await subscriptions(cloud, "Vera") == [OTHER_SUBSCRIPTION.upper()]
    answer = await cloud.ask("GET", f"/subscriptions/{OTHER_SUBSCRIPTION}", "Vera", params=ARM_VERSION)
    assert (answer.status_code, answer.json()["id"]) == (200, f"/subscriptions/{OTHER_SUBSCRIPTION}")


async def test_who_has_the_cloud_sees_them_all(cloud: RestCloud):
    cloud.assign("Rita", "Reader", "/")
    assert await subscriptions(cloud, "Rita") == [SUBSCRIPTION, OTHER_SUBSCRIPTION]


async def test_an_operator_sees_no_tenants(cloud: RestCloud):
    assert await subscriptions(cloud, OPERATOR) == []


async def test_anothers_subscription(cloud: RestCloud):
    answer = await cloud.ask("GET", f"/subscriptions/{OTHER_SUBSCRIPTION}", OWNER, params=ARM_VERSION)
    assert error(answer) == (403, "AuthorizationFailed")


async def test_at_the_operators_endpoint_a_tenant_sees_none(cloud: RestCloud):
    answer = await cloud.ask("GET", "/subscriptions", OWNER, admin=True, params=ARM_VERSION)
    assert answer.json() == {"value": []}
    assert error(await cloud.ask("GET", f"/subscriptions/{SUBSCRIPTION}", OWNER, admin=True, params=ARM_VERSION))[0] == 403


async def test_the_one_directory(cloud: RestCloud):
    (one,) = (await cloud.ask("GET", "/tenants", STRANGER, params=ARM_VERSION)).json()["value"]
    assert (one["id"], one["tenantId"]) == (f"/tenants/{DIRECTORY}", DIRECTORY)


@pytest.mark.parametrize("prefix", ["", f"/subscriptions/{SUBSCRIPTION}"])
async def test_az_finds_the_version_of_a_machines_action(cloud: RestCloud, prefix: str):
    """`az resource invoke-action` without --api-version."""
    answer = await cloud.ask("GET", f"{prefix}/providers/microsoft.compute", params=ARM_VERSION)
    (found,) = answer.json()["resourceTypes"]
    assert (found["resourceType"], found["apiVersions"], found["locations"]) == ("virtualMachines", ["2020-06-01"], ["local"])


@pytest.mark.parametrize("prefix", ["", f"/subscriptions/{PLATFORM}"])
async def test_az_finds_the_version_of_a_features_action(cloud: RestCloud, prefix: str):
    """It asks for the versions of the type's first part."""
    answer = await cloud.ask("GET", f"{prefix}/providers/Microsoft.Compute.Admin", OPERATOR, admin=True, params=ARM_VERSION)
    found = {one["resourceType"]: one["apiVersions"] for one in answer.json()["resourceTypes"]}
    assert found == {"locations": ["2020-11-01"], "locations/features": ["2020-11-01"]}


@pytest.mark.parametrize("prefix", ["", f"/subscriptions/{SUBSCRIPTION}"])
async def test_all_providers(cloud: RestCloud, prefix: str):
    answer = await cloud.ask("GET", f"{prefix}/providers", params=ARM_VERSION)
    assert [one["id"] for one in answer.json()["value"]] == [f"{prefix}/providers/Microsoft.Compute"]


@pytest.mark.parametrize("path", ["/tenants", "/subscriptions", "/providers", f"/subscriptions/{SUBSCRIPTION}"])
async def test_nothing_of_it_without_a_token(cloud: RestCloud, path: str):
    assert error(await cloud.ask("GET", path, None, params=ARM_VERSION)) == (401, "AuthenticationFailed")
