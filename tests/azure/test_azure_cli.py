"""The whole flow by Azure's own command line, on a real guest, signed in at an OpenID Connect server that others wrote.

What is typed and said must be what docs/azure-cli.md shows; this run's is left in .lab/azure-cli.md.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab.cloud import OPERATOR, SUBSCRIPTION, Cloud
from lab.libvirt_host import Guest
from lab.rest import ADMINISTRATOR, DIRECTORY, FEATURE, TENANT, VM_VERSION
from tests.azure.adfs import Adfs
from tests.azure.az import ROOT, Az, Transcript
from tests.conftest import resource_id_of
from tests.system_operator import signed_in
from tests.system_parts import calm, listening, well

pytestmark = [pytest.mark.azure, pytest.mark.timeout(600)]

PROGRAM, SECRET = "operator1", "5e4a0d2f-secret-of-a-minute"
PERSON = "olivia"
RESOURCES = ("https://tenant.eva.example", "https://admin.eva.example")
DRAFT = ROOT / ".lab/azure-cli.md"


class Stage:
    """A cloud that believes the OpenID Connect server too; three callers; the transcript of it all."""

    def __init__(self, cloud: Cloud, adfs: Adfs, vm: Guest, directory: Path) -> None:
        self.cloud = cloud
        self.adfs = adfs
        self.vm = vm
        self.resource_id = str(vm.resource_id)
        self.transcript = Transcript()
        bundle = directory / "authorities.pem"
        bundle.write_text(cloud.authority.ca.read_text() + adfs.authority.ca.read_text())
        self.operator, self.tenant, self.other = (
            Az(directory / name, bundle, self.transcript) for name in ("operator", "tenant", "other")
        )
        self.headers = {name: directory / f"{name}.json" for name in ("tenant", "operator")}
        for (name, header), principal in zip(self.headers.items(), (TENANT, ADMINISTRATOR), strict=True):
            token = cloud.token(principal, "tenant" if name == "tenant" else "admin")
            header.write_text(json.dumps({"Authorization": f"Bearer {token}"}))
        for found, shown in {
            str(directory): "~",
            cloud.endpoints.tenant: "https://management.local.eva.example",
            cloud.endpoints.admin: "https://adminmanagement.local.eva.example",
            adfs.url: "https://login.eva.example/adfs",
            SECRET: "$SECRET",
            vm.name: "vm1",
        }.items():
            self.transcript.name(found, shown)

    def machine(self, action: str) -> str:
        return f"{self.resource_id}/{action}?api-version={VM_VERSION}"

    def sign_in_person(self) -> None:
        waiting = self.tenant.begin("login", "--use-device-code", "--tenant", DIRECTORY)
        try:
            asked = re.search(r"open the page (\S+) and enter the code (\S+) ", self.tenant.said(waiting))
            assert asked
            self.adfs.sign_in(asked[1], asked[2], PERSON)
            assert [one["id"] for one in self.tenant.finish(waiting)] == [SUBSCRIPTION]
        finally:
            waiting.kill()


@pytest.fixture
def stage(vm: Guest, tmp_path: Path) -> Iterator[Stage]:
    with Adfs(tmp_path / "login", {PROGRAM: SECRET}, RESOURCES) as adfs:
        hosts = {"host1": vm.host.uri}
        with Cloud(hosts, subscriptions=(), issuers=[adfs.issuer], login=adfs.url) as cloud:
            mine = f"/subscriptions/{SUBSCRIPTION}"
            cloud.assign(f"{adfs.url}#{PROGRAM}", "EVA Cloud Administrator")
            cloud.assign(f"{adfs.url}#{PERSON}", "Owner", mine)
            cloud.assign(TENANT, "Owner", mine)
            cloud.assign(ADMINISTRATOR, "EVA Cloud Administrator")
            yield Stage(cloud, adfs, vm, tmp_path)


@asynccontextmanager
async def connected(stage: Stage, ending: int) -> AsyncIterator[None]:
    """An operator at the guest's console, who is cut with this close code before the block is left."""
    of_vm = ("--resource-id", stage.resource_id)
    async with signed_in(stage.cloud) as alice:
        console = await alice.console(stage.resource_id)
        await listening(console)
        while "connected" not in await asyncio.to_thread(stage.cloud.provider_command, "consent", "show", *of_vm):
            pass  # the node's word is on its way
        yield
        assert await console.ended() == ending
    calm(stage.vm)


async def test_whole_flow_by_azures_command_line(stage: Stage) -> None:
    told, endpoints = stage.transcript, stage.cloud.endpoints
    await well(stage.cloud)

    def off_loop(*words: str, by: Az = stage.tenant, expect: int = 0):
        return asyncio.to_thread(by.run, *words, expect=expect)

    told.section("The operator enables a subscription, signed in as a service principal")
    await off_loop("cloud", "register", "-n", "EvaAdmin", "--endpoint-resource-manager", endpoints.admin, by=stage.operator)
    await off_loop("cloud", "set", "-n", "EvaAdmin", by=stage.operator)
    secret = ("--service-principal", "--username", PROGRAM, "--password", SECRET, "--tenant", DIRECTORY)
    await off_loop("login", *secret, by=stage.operator)
    enabling = ("--action", "enableTenantSubscriptionFeature", "--request-body")
    body = json.dumps({"TenantSubscriptionId": SUBSCRIPTION})
    await off_loop("resource", "invoke-action", "--ids", FEATURE, *enabling, body, by=stage.operator)
    shown = await off_loop("resource", "show", "--ids", FEATURE, "--api-version", "2020-11-01", by=stage.operator)
    assert shown["properties"]["enabledTenantSubscriptionIds"] == [SUBSCRIPTION]

    told.section("The tenant signs in with a device code")
    await off_loop("cloud", "register", "-n", "Eva", "--endpoint-resource-manager", endpoints.tenant)
    await off_loop("cloud", "set", "-n", "Eva")
    await asyncio.to_thread(stage.sign_in_person)

    told.section("The tenant consents, sees who is connected, and withdraws")
    # az prints {} whatever an action answers; who asks again is told again
    assert await off_loop("resource", "invoke-action", "--ids", stage.resource_id, "--action", "enableVmAccess") == {}
    answer = await off_loop("rest", "--method", "post", "--url", stage.machine("enableVmAccess"))
    assert (answer["ERCSName"], answer["outcome"]) == ("AzS-ERCS01", "repeated")
    async with connected(stage, 4002):
        looking = ("rest", "--method", "get", "--url", stage.machine("vmAccess"), "--query", "connected[].account")
        assert await off_loop(*looking) == [OPERATOR]
        answer = await off_loop("rest", "--method", "post", "--url", stage.machine("disableVmAccess"))
    assert [cut["sessions"] for cut in answer["cuts"]] == [1]

    told.section("What is not the tenant's is refused")
    elsewhere = resource_id_of("vm1").replace(SUBSCRIPTION, "8a3f5b4d-6c2f-4d99-8b17-3a4e2f6c8da1")
    refused = ("resource", "invoke-action", "--ids", elsewhere, "--action", "enableVmAccess", "--api-version", VM_VERSION)
    assert "AuthorizationFailed" in await off_loop(*refused, expect=1)

    told.section("Without signing in: a bearer token, from whomever the provider believes")
    plain = ("rest", "--method", "post", "--headers", f"@{stage.headers['tenant']}", "--url")
    platform = ("rest", "--method", "post", "--headers", f"@{stage.headers['operator']}", "--url")
    await off_loop("cloud", "register", "-n", "Eva", "--endpoint-resource-manager", endpoints.tenant, by=stage.other)
    await off_loop("cloud", "set", "-n", "Eva", by=stage.other)
    await off_loop(*platform, endpoints.feature("enableTenantSubscriptionFeature"), "--body", body, by=stage.other)
    await off_loop(*plain, stage.machine("enableVmAccess"), "--body", '{"kinds": ["serial"]}', by=stage.other)
    async with connected(stage, 4003):
        await off_loop(*platform, endpoints.feature("disableTenantSubscriptionFeature"), "--body", body, by=stage.other)
    assert "OperationNotAllowed" in await off_loop(*plain, stage.machine("enableVmAccess"), by=stage.other, expect=1)

    DRAFT.write_text(told.markdown)
    page = (ROOT / "docs/azure-cli.md").read_text()
    assert [title for title, text in told.blocks if f"```console\n{text}\n```" not in page] == [], f"compare with {DRAFT}"
