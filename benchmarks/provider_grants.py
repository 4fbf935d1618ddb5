"""Consents from end to end:  python -m benchmarks.provider_grants ROUNDS COUNT FOLDER      prints one line of JSON

REST over TLS with a bearer token, the provider's store, mosquitto with the shipped configuration, a real broker daemon with its
journal and audit, its signed receipt, the answer. Two clouds stand side by side, one on SQLite and one on PostgreSQL, and take
turns. The virtual machines are domains of libvirt's test driver: what a consent needs of a host is that it lists them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.bare_steps import RULES, BareProvider, Disk, PostgresqlDisk, SqliteDisk, bare_provider
from benchmarks.machines import host_xml, machines
from benchmarks.measures import BARE, BARE_8, EIGHT, NODE_WORK, ONE, PROVIDER_WORK
from benchmarks.stand import cpu_seconds
from benchmarks.tenants import Spell, Tenant
from eva.resource_id import ResourceId
from lab.cloud import Cloud
from lab.postgresql import Postgresql
from lab.rest import TENANT

CLIENTS = 8
MACHINES = 512

Figures = tuple[float, float | None]  # the median or a rate, and the 99th percentile
Samples = dict[str, dict[str, list[Figures]]]  # by measure and contender


@dataclass
class Contest:
    """One database's cloud with who consents there, and the bare steps through its mosquitto."""

    name: str
    cloud: Cloud
    tenant: Tenant
    bare: BareProvider


def milliseconds(spell: Spell) -> Figures:
    percentiles = statistics.quantiles(spell.times, n=100, method="inclusive")
    return statistics.median(spell.times) * 1000, percentiles[98] * 1000


def rate(spell: Spell) -> Figures:
    return len(spell.times) / spell.seconds, None


def new_cloud(xml: Path, store: Postgresql | None) -> Cloud:
    """Not started yet; its mosquitto lets the bare steps in too."""
    cloud = Cloud({"host1": f"test://{xml}"}, subscriptions=(), store=store)
    with (cloud.directory / "mosquitto.acl").open("a") as rules:
        rules.write(RULES)
    return cloud


@asynccontextmanager
async def contest(name: str, cloud: Cloud, disk: Disk, folder: Path) -> AsyncIterator[Contest]:
    cloud.provider_command("feature", "set-state", "Enabled")
    cloud.assign(TENANT, "Owner")
    tenant = Tenant(cloud.endpoints.tenant_port, cloud.token(TENANT), cloud.authority.ca)
    home = folder / name
    home.mkdir()
    async with bare_provider(cloud.mosquitto.port, cloud.authority, disk, home) as bare:
        yield Contest(name, cloud, tenant, bare)


async def take_turn(here: Contest, ids: Sequence[ResourceId], samples: Samples) -> None:
    """One round of one database."""

    def note(measure: str, who: str, figures: Figures) -> None:
        samples[f"{measure}-{here.name}"][who].append(figures)

    processes = {PROVIDER_WORK: here.cloud.provider.pid, NODE_WORK: here.cloud.nodes["AzS-ERCS01"].program.pid}
    steps = await here.bare.steps(len(ids), 1)
    note("grant", BARE, milliseconds(steps))
    note("grants", BARE, rate(steps))
    note("grants", BARE_8, rate(await here.bare.steps(len(ids), CLIENTS)))
    for who, at_once in ((ONE, 1), (EIGHT, CLIENTS)):
        before = {process: cpu_seconds(pid) for process, pid in processes.items()}
        granted = await here.tenant.consent(ids, at_once)
        if at_once == 1:
            for process, pid in processes.items():
                note("grant-cpu", process, ((cpu_seconds(pid) - before[process]) / len(ids) * 1000, None))
        note("grant", who, milliseconds(granted))
        note("grants", who, rate(granted))
        withdrawn = await here.tenant.withdraw(ids, at_once)
        note("withdraw", who, milliseconds(withdrawn))
        note("withdrawals", who, rate(withdrawn))


async def measure(rounds: int, count: int, folder: Path) -> Samples:
    samples: Samples = defaultdict(lambda: defaultdict(list))
    ids = machines(MACHINES)
    xml = folder / "host.xml"
    xml.write_text(host_xml(ids))
    with ExitStack() as running:
        server = running.enter_context(Postgresql())
        disks: dict[str, Disk] = {"sqlite": SqliteDisk(folder / "bare.db"), "pg": PostgresqlDisk(server, "bare")}
        clouds = {"sqlite": new_cloud(xml, None), "pg": new_cloud(xml, server)}
        for cloud in clouds.values():
            running.callback(cloud.close)
        for cloud in clouds.values():
            running.enter_context(cloud)
        async with AsyncExitStack() as stack:
            contests = [await stack.enter_async_context(contest(name, clouds[name], disks[name], folder)) for name in clouds]
            for number in range(-1, rounds):  # the first turn warms up and does not count
                for here in contests if number % 2 else reversed(contests):
                    start = (number + 1) * count % MACHINES
                    some = (ids[start:] + ids)[: count if number >= 0 else CLIENTS]
                    await take_turn(here, some, samples if number >= 0 else defaultdict(lambda: defaultdict(list)))
    return samples


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=Path(sys.argv[3]).resolve()))
    try:
        print(json.dumps(uvloop.run(measure(int(sys.argv[1]), int(sys.argv[2]), folder))))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
