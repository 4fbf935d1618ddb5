"""The OpenAPI documents are true: schemathesis, with all its checks, against the running provider and a real node.

Nothing that it makes up brings an answer of the server's own failing, or one that the document does not tell of.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lab.cloud import SUBSCRIPTION, Cloud
from lab.libvirt_host import LibvirtHost
from lab.rest import ADMINISTRATOR, TENANT
from provider.rest.openapi import EXAMPLE
from tests.conftest import resource_id_of

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
READER, STRANGER = "reader1", "stranger1"

# The machine that is really there, in more than one spelling, among all that is made up.
SETTINGS = """
color = false
[auth.openapi]
bearer = { bearer = "${EVA_TOKEN}" }
[cache]
enabled = false
[generation]
database = "none"
[dictionaries]
guid = { values = ["7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90", "7D2F4A3C-5B1E-4C88-9A06-2F3D1E5B7C90"] }
group = { values = ["rg1", "RG1"] }
machine = { values = ["vm1", "VM1", "vm10"] }
[parameters]
"path.resourceGroupName" = { dictionary = "group", probability = 0.8 }
"path.vmName" = { dictionary = "machine", probability = 0.8 }
[[operations]]
include-path-regex = "virtualMachines"
parameters = { "path.subscriptionId" = { dictionary = "guid", probability = 0.8 } }
"""
# ARM's own requests have fifty api-versions that are all alike, and that phase takes each: not where time is short
BRIEF = """
[[operations]]
include-path-regex = "^/(tenants|providers|subscriptions($|/[^/]*($|/providers($|/[^/]*$))))"
phases = { coverage = { enabled = false } }
"""


@dataclass(frozen=True)
class Run:
    """What schemathesis said, and its report."""

    code: int
    said: str
    report: dict[str, Any]

    def accepted(self, last: str) -> int:
        """How many requests to the operation whose path ends so were answered with 200."""
        rates = [rate for name, rate in self.report["valid_rates"].items() if name.endswith(f"/{last}")]
        return sum(phase["accepted"] for rate in rates for phase in rate.values())


@pytest.fixture(scope="module")
def cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """A cloud whose one guest has the resource ID of the documents' examples."""
    assert SUBSCRIPTION == EXAMPLE
    libvirt_host.revive()
    guest = libvirt_host.start_guest(f"vm-{uuid4().hex[:8]}", resource_id=resource_id_of("vm1"), wait=False)
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        _lift_rates(cloud)
        cloud.assign(TENANT, "Owner", "/")
        cloud.assign(READER, "Reader", f"/subscriptions/{SUBSCRIPTION}")
        cloud.assign(ADMINISTRATOR, "EVA Cloud Administrator")
        yield cloud
    guest.discard()


def _lift_rates(cloud: Cloud) -> None:
    """Schemathesis asks more in a minute than a tenant may in an hour."""
    text = cloud.provider_settings.read_text()
    lifted = text.replace("  audiences:", "  reads_per_hour: 10000000\n  writes_per_hour: 10000000\n  audiences:")
    cloud.provider_settings.write_text(lifted)
    cloud.provider.stop()
    cloud.providers[0].start()


def schemathesis(cloud: Cloud, directory: Path, url: str, token: str, *words: str, more: str = "") -> Run:
    settings, report = directory / "schemathesis.toml", directory / "report.json"
    settings.write_text(SETTINGS + more)
    # who enabled what before must not matter
    cloud.provider_command("feature", "set-state", "Enabled")
    argv = [SCHEMATHESIS, "--config-file", settings, "run", f"{url}/openapi.json", "--tls-verify", cloud.authority.ca]
    argv += ["--checks", "all", "--report", "json", "--report-json-path", report, *words]
    environment = os.environ | {"EVA_TOKEN": token}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=directory, timeout=3000, check=False)
    return Run(done.returncode, done.stdout + done.stderr, json.loads(report.read_text()))


def held(run: Run, cloud: Cloud) -> None:
    """Every operation was tried, and nothing was found."""
    operations = run.report["operations"]
    assert run.code == 0, run.said
    assert (operations["tested"], run.report["errors"]) == (operations["total"], [])
    log = cloud.provider.transcript.path.read_text()
    assert "Traceback" not in log
    assert cloud.token(TENANT).rpartition(".")[2] not in log


def test_tenants(cloud: Cloud, tmp_path: Path):
    token = cloud.token(TENANT)
    run = schemathesis(cloud, tmp_path, cloud.endpoints.tenant, token, "--max-examples", "5", "--seed", "1", more=BRIEF)
    held(run, cloud)
    assert min(run.accepted(last) for last in ("enableVmAccess", "disableVmAccess", "vmAccess", "vmAccess/receipt")) > 0


def test_operators(cloud: Cloud, tmp_path: Path):
    token = cloud.token(ADMINISTRATOR, "admin")
    run = schemathesis(cloud, tmp_path, cloud.endpoints.admin, token, "--max-examples", "5", "--seed", "1", more=BRIEF)
    held(run, cloud)
    actions = ("enableTenantSubscriptionFeature", "disableTenantSubscriptionFeature", "updateGlobalFeatureSettings")
    assert min(run.accepted(last) for last in actions) > 0


# who calls, at which endpoint, and with a token for which
CALLERS = [
    (TENANT, "tenant", "tenant"),
    (READER, "tenant", "tenant"),
    (STRANGER, "tenant", "tenant"),
    (ADMINISTRATOR, "tenant", "tenant"),
    (TENANT, "tenant", "admin"),
    (ADMINISTRATOR, "admin", "admin"),
    (TENANT, "admin", "admin"),
    (ADMINISTRATOR, "admin", "tenant"),
]


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("who", "endpoint", "audience"), CALLERS)
def test_whoever_calls_for_long(cloud: Cloud, tmp_path: Path, who: str, endpoint: str, audience: str):
    """Another seed each time: a failure's own is in what is printed."""
    url = cloud.endpoints.tenant if endpoint == "tenant" else cloud.endpoints.admin
    held(schemathesis(cloud, tmp_path, url, cloud.token(who, audience), "--max-examples", "150"), cloud)
