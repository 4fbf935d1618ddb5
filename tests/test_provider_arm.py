"""provider/rest/arm.py: api-versions, request ids and errors as Azure Resource Manager has them."""

from __future__ import annotations

import json

import pytest

from provider.rest.arm import ADMIN, ARM, VM, ArmError, Exchange, api_version, feature_id, nothing_at, throttled


def refused(query: list[tuple[str, str]]) -> str:
    with pytest.raises(ArmError) as caught:
        api_version(query)
    assert caught.value.status == 400
    return caught.value.code


@pytest.mark.parametrize("name", ["api-version", "Api-Version", "API-VERSION"])
def test_the_one_version(name: str):
    assert api_version([("x", "y"), (name, "2020-06-01")]) == "2020-06-01"


@pytest.mark.parametrize("query", [[], [("x", "y")], [("api-version", "")], [("apiversion", "2020-06-01")]])
def test_without_one(query: list[tuple[str, str]]):
    assert refused(query) == "MissingApiVersionParameter"


def test_two():
    assert refused([("api-version", "2020-06-01"), ("Api-Version", "2020-06-01")]) == "InvalidApiVersionParameter"


def test_a_resource_type_lists_its_versions():
    with pytest.raises(ArmError) as caught:
        VM.check("2099-01-01", "local")
    found = caught.value
    assert (found.status, found.code) == (400, "NoRegisteredProviderFound")
    assert "'2099-01-01' for type 'virtualMachines'" in found.message
    assert "supported api-versions are '2020-06-01'" in found.message


def test_arm_itself_lists_its_own():
    with pytest.raises(ArmError) as caught:
        ARM.check("1999-01-01", "local")
    assert (caught.value.code, "2022-12-01" in caught.value.message) == ("InvalidApiVersionParameter", True)


@pytest.mark.parametrize(("versions", "version"), [(VM, "2020-06-01"), (ADMIN, "2020-11-01"), (ARM, "2016-06-01")])
def test_a_supported_version_passes(versions: object, version: str):
    assert versions.check(version, "local") is None  # type: ignore[attr-defined]


# request ids


def test_a_correlation_is_kept_and_a_request_id_is_new():
    found = Exchange.of({"x-ms-correlation-request-id": "abc-1", "x-ms-request-id": "theirs"}, "new").answer_headers()
    assert (found["x-ms-correlation-request-id"], found["x-ms-request-id"]) == ("abc-1", "new")


def test_without_one_the_request_is_its_own_correlation():
    assert Exchange.of({}, "new").correlation_id == "new"


@pytest.mark.parametrize("name", ["x-ms-client-request-id", "client-request-id"])
def test_the_clients_id_comes_back(name: str):
    assert Exchange.of({name: "mine-1"}, "new").answer_headers()[name] == "mine-1"


@pytest.mark.parametrize("name", ["x-ms-return-client-request-id", "return-client-request-id"])
def test_unless_it_is_not_wanted(name: str):
    assert "client-request-id" not in Exchange.of({"client-request-id": "mine", name: "False"}, "new").answer_headers()


@pytest.mark.parametrize("value", ["", "a b", "x" * 65, "a\x0bb", "caf\xe9", "<script>"])
def test_what_is_no_id_is_not_repeated(value: str):
    headers = {"client-request-id": value, "x-ms-correlation-request-id": value}
    assert value not in Exchange.of(headers, "new").answer_headers().values()


# errors


def test_an_error_has_a_target_only_where_there_is_one():
    assert json.loads(ArmError(400, "Code", "why").body()) == {"error": {"code": "Code", "message": "why"}}
    assert json.loads(ArmError(400, "Code", "why", "kinds").body())["error"]["target"] == "kinds"


NOTHING = [
    ("/", "NotFound"),
    ("/favicon.ico", "NotFound"),
    ("/subscriptions/x/providers/Microsoft.Network/vnets", "InvalidResourceNamespace"),
    ("/subscriptions/x/resourceGroups/g/providers/MICROSOFT.COMPUTE/disks/d", "InvalidResourceType"),
]


@pytest.mark.parametrize(("path", "code"), NOTHING)
def test_what_is_not_there(path: str, code: str):
    assert (nothing_at(path).status, nothing_at(path).code) == (404, code)


def test_too_many_says_when():
    assert throttled("s", "read", "me", 7).headers == {"retry-after": "7"}


def test_a_features_id_is_the_originals():
    found = feature_id("67ddffc1-1bfa-4dd9-80a6-62ba2e348b6c", "redmond")
    there = "/subscriptions/67ddffc1-1bfa-4dd9-80a6-62ba2e348b6c/providers/Microsoft.Compute.Admin/locations/redmond/features/"
    assert found == there + "Microsoft.Compute.EmergencyVMAccess"
