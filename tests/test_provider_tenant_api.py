"""provider/rest/tenant_api.py, over HTTPS against the daemon with a node that answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from eva.consent import Access, Kind
from lab.certificates import Authority
from tests.provider_parts import SUBSCRIPTION
from tests.rest_parts import NEIGHBOUR, OWNER, READER, STRANGER, RestCloud, error, rest_cloud, vm_path

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[RestCloud]:
    with rest_cloud(tmp_path_factory.mktemp("rest"), certificates) as cloud:
        yield cloud


@pytest.fixture
def vm() -> str:
    """Give the resource ID of a machine of the test's own."""
    return vm_path(f"Vm-{next(_numbers)}")


async def test_the_seeds_request(cloud: RestCloud, vm: str):
    """Invoke-AzureRMResourceAction without -Parameters: a POST without content."""
    async with cloud.serving() as node:
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess")
    found = answer.json()
    consent = node.consents[0]
    assert (answer.status_code, found["ERCSName"]) == (200, cloud.pen.name)
    assert found["connectCommand"] == f"ConnectTo-TenantVm -ResourceID {vm}"
    assert found["deleteCommand"] == f"Delete-TenantVMSession -ResourceID {vm}"
    assert (found["consentId"], found["state"], found["outcome"]) == (consent.cid, "granted", "fresh")
    assert (consent.expires_at - consent.issued_at, consent.giver) == (28_800, OWNER)
    assert (found["kinds"], found["access"], found["operators"]) == (["graphics", "serial"], "keyboard", ["group:cloudadmin"])


async def test_every_wish_reaches_the_node(cloud: RestCloud, vm: str):
    wish = {
        "Kinds": ["serial"],
        "ACCESS": "view",
        "operators": ["account:bob", "group:ops"],
        "durationinseconds": 600,
        "reason": "ssh is gone",
        "renew": False,
    }
    async with cloud.serving() as node:
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json=wish)
    consent = node.consents[0]
    assert answer.status_code == 200
    assert (consent.kinds, consent.access, consent.reason) == ({Kind.SERIAL}, Access.VIEW, "ssh is gone")
    assert ({str(one) for one in consent.operators}, consent.expires_at - consent.issued_at) == (
        {"account:bob", "group:ops"},
        600,
    )


async def test_a_repeat_is_the_same_consent(cloud: RestCloud, vm: str):
    async with cloud.serving() as node:
        first = (await cloud.ask("POST", f"{vm}/enableVmAccess", json={"durationInSeconds": 900})).json()
        again = (await cloud.ask("POST", f"{vm.upper()}/ENABLEVMACCESS")).json()
    same = ("ERCSName", "consentId", "expiresOn")
    assert ([first[name] for name in same], again["outcome"], len(node.consents)) == (
        [again[name] for name in same],
        "repeated",
        1,
    )


async def test_renewing_is_asked_for(cloud: RestCloud, vm: str):
    async with cloud.serving() as node:
        first = (await cloud.ask("POST", f"{vm}/enableVmAccess", json={"durationInSeconds": 900})).json()
        again = (await cloud.ask("POST", f"{vm}/enableVmAccess", json={"renew": True})).json()
    assert (again["consentId"], again["outcome"]) == (first["consentId"], "renewed")
    assert again["expiresOn"] > first["expiresOn"]
    assert node.consents[0].jti != node.consents[1].jti


async def test_other_scopes_without_renewing_are_a_conflict(cloud: RestCloud, vm: str):
    async with cloud.serving():
        await cloud.ask("POST", f"{vm}/enableVmAccess")
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"access": "view"})
    assert error(answer) == (409, "Conflict")


async def test_withdrawn_and_confirmed(cloud: RestCloud, vm: str):
    async with cloud.serving():
        await cloud.ask("POST", f"{vm}/enableVmAccess")
        answer = await cloud.ask("POST", f"{vm}/disableVmAccess", json={})
    (cut,) = answer.json()["cuts"]
    assert (answer.status_code, cut["ERCSName"], cut["notConfirmed"], cut["sessions"]) == (200, cloud.pen.name, False, 1)
    assert cut["confirmedAt"].endswith("Z")
    assert (cut["cutMilliseconds"], "atLatest" in cut) == (37.4, False)


async def test_withdrawn_and_not_confirmed_says_when_at_latest(cloud: RestCloud, vm: str):
    async with cloud.serving(confirms=False):
        await cloud.ask("POST", f"{vm}/enableVmAccess")
        with cloud.hurried():
            answer = await cloud.ask("POST", f"{vm}/disableVmAccess")
    (cut,) = answer.json()["cuts"]
    assert (answer.status_code, cut["notConfirmed"], "confirmedAt" in cut, cut["atLatest"][-1]) == (200, True, False, "Z")


async def test_withdrawing_nothing(cloud: RestCloud, vm: str):
    assert error(await cloud.ask("POST", f"{vm}/disableVmAccess")) == (404, "ConsentNotFound")


async def test_what_stands(cloud: RestCloud, vm: str):
    none = (await cloud.ask("GET", f"{vm}/vmAccess", READER)).json()
    async with cloud.serving():
        enabled = (await cloud.ask("POST", f"{vm}/enableVmAccess", json={"reason": "why"})).json()
        stands = (await cloud.ask("GET", f"{vm}/vmAccess", READER)).json()
        await cloud.ask("POST", f"{vm}/disableVmAccess")
        after = (await cloud.ask("GET", f"{vm}/vmAccess", READER)).json()
    assert (none["state"], none["featureEnabled"], none["earlier"]) == ("none", True, [])
    assert (stands["state"], stands["ERCSName"], stands["expiresOn"]) == ("granted", enabled["ERCSName"], enabled["expiresOn"])
    assert (stands["consent"]["giver"], stands["consent"]["reason"], stands["connected"]) == (OWNER, "why", [])
    assert (after["state"], after["earlier"][0]["state"], after["earlier"][0]["ending"]) == ("none", "revoked", "consent-revoked")


async def test_the_receipt_is_what_verify_receipt_takes(cloud: RestCloud, vm: str):
    async with cloud.serving():
        consent_id = (await cloud.ask("POST", f"{vm}/enableVmAccess")).json()["consentId"]
        answer = await cloud.ask(
            "GET", f"{vm}/vmAccess/receipt", READER, params={"api-version": "2020-06-01", "consentId": consent_id}
        )
    path = cloud.place.directory / "receipt.json"
    path.write_bytes(answer.content)
    ran = cloud.run("verify-receipt", str(path), "--node-key", str(cloud.place.directory / f"{cloud.pen.key.kid}.pub"))
    # genuine, and not whole: the consent still stands
    assert (answer.status_code, ran.code, consent_id in ran.out) == (200, 4, True), ran.err


async def test_no_receipt_of_anothers_consent(cloud: RestCloud, vm: str):
    async with cloud.serving():
        consent_id = (await cloud.ask("POST", f"{vm}/enableVmAccess")).json()["consentId"]
    other = vm_path(f"Vm-{next(_numbers)}")
    answer = await cloud.ask("GET", f"{other}/vmAccess/receipt", params={"api-version": "2020-06-01", "consentId": consent_id})
    assert error(answer) == (404, "ConsentNotFound")


# what goes wrong


async def test_a_node_without_the_machine(cloud: RestCloud, vm: str):
    async with cloud.serving(accepts=False):
        answer = await cloud.ask("POST", f"{vm}/enableVmAccess")
    assert (error(answer), answer.json()["error"]["target"]) == ((404, "ResourceNotFound"), vm)


async def test_a_silent_node(cloud: RestCloud, vm: str):
    async with cloud.serving(accepts=None):
        with cloud.hurried():
            answer = await cloud.ask("POST", f"{vm}/enableVmAccess")
    assert error(answer) == (504, "NodeSilent")


async def test_a_subscription_without_the_feature(cloud: RestCloud):
    vm = vm_path("vm1", "8A3F5B4D-6c2f-4d99-8b17-3a4e2f6c8da1")
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", NEIGHBOUR)
    assert error(answer) == (409, "OperationNotAllowed")
    message = "The Emergency VM Access feature is not enabled for subscription '8A3F5B4D-6c2f-4d99-8b17-3a4e2f6c8da1'"
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize("action", ["enableVmAccess", "disableVmAccess"])
@pytest.mark.parametrize("who", [READER, STRANGER, NEIGHBOUR])
async def test_who_may_not_write(cloud: RestCloud, vm: str, action: str, who: str):
    answer = await cloud.ask("POST", f"{vm}/{action}", who)
    assert error(answer) == (403, "AuthorizationFailed")
    assert f"action 'Microsoft.Compute/virtualMachines/{action}/action' over scope '{vm}'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("what", ["vmAccess", "vmAccess/receipt"])
@pytest.mark.parametrize("who", [STRANGER, NEIGHBOUR])
async def test_who_may_not_read(cloud: RestCloud, vm: str, what: str, who: str):
    assert error(await cloud.ask("GET", f"{vm}/{what}", who)) == (403, "AuthorizationFailed")


BODIES: list[tuple[object, str | None]] = [
    ({"kinds": ["usb"]}, "kinds"),
    ({"access": "root"}, "access"),
    ({"operators": []}, "operators"),
    ({"operators": ["bob"]}, "operators"),
    ({"durationInSeconds": 28_801}, "durationInSeconds"),
    ({"durationInSeconds": 0}, "durationInSeconds"),
    ({"durationInSeconds": "PT1H"}, "durationInSeconds"),
    ({"reason": "x" * 257}, "reason"),
    ({"renew": "yes"}, "renew"),
    ({"node": "AzS-ERCS01"}, "node"),
    ({"giver": "somebody"}, "giver"),
    ([], None),
]


@pytest.mark.parametrize(("body", "target"), BODIES)
async def test_a_wish_that_is_not_taken(cloud: RestCloud, vm: str, body: object, target: str | None):
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json=body)
    assert (answer.status_code, answer.json()["error"].get("target")) == (400, target)


async def test_content_of_another_kind(cloud: RestCloud, vm: str):
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", content="renew=true", headers={"content-type": "text/plain"})
    assert error(answer) == (415, "UnsupportedMediaType")


async def test_too_much_content(cloud: RestCloud, vm: str):
    answer = await cloud.ask("POST", f"{vm}/enableVmAccess", json={"reason": "x" * 70_000})
    assert error(answer) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize("top", ["0", "51", "x", "-1", "1.0", ""])
async def test_a_history_of_no_length(cloud: RestCloud, vm: str, top: str):
    answer = await cloud.ask("GET", f"{vm}/vmAccess", params={"api-version": "2020-06-01", "$top": top})
    assert (error(answer), answer.json()["error"]["target"]) == ((400, "InvalidParameter"), "$top")


async def test_a_consent_id_that_is_none(cloud: RestCloud, vm: str):
    answer = await cloud.ask("GET", f"{vm}/vmAccess/receipt", params={"api-version": "2020-06-01", "consentId": "../x"})
    assert error(answer) == (400, "InvalidParameter")


async def test_answers_are_json_that_nobody_keeps(cloud: RestCloud, vm: str):
    answer = await cloud.ask("GET", f"{vm}/vmAccess")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert (answer.headers["cache-control"], json.loads(answer.content)["id"]) == ("no-cache", f"{vm}/vmAccess")


async def test_a_guid_comes_back_as_it_was_spelled(cloud: RestCloud):
    vm = vm_path("Vm-x", SUBSCRIPTION.upper())
    assert SUBSCRIPTION.upper() in (await cloud.ask("GET", f"{vm}/vmAccess")).json()["id"]
