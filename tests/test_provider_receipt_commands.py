"""provider/commands/receipts.py, and the commands by which a consent is looked up: a consent's story from grant to proof."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eva.audit import Chains
from eva.audit import Event as Audited
from lab.certificates import Authority
from provider.keys import write_public
from tests.provider_parts import Cloud, Node, Pen, now, running_cloud


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("provider"), certificates, receipt_seconds=2) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: Cloud) -> Cloud:
    running.fresh()
    return running


async def told(cloud: Cloud, node: Node, granted: dict[str, Any], *, end: bool) -> None:
    """The node records a session of the consent, and the consent's end."""
    chains, cid = Chains(), granted["consent_id"]
    start = {"session": "s1", "account": "ann", "address": "::1", "kind": "serial", "access": "keyboard"}
    records: list[tuple[Audited, dict[str, Any]]] = [
        (Audited.CONSENT_ACCEPTED, {"resource_id": cloud.resource_id, "expires_at": granted["expires_at"]}),
        (Audited.SESSION_START, start),
    ]
    if end:
        records += [
            (Audited.SESSION_END, {"session": "s1", "reason": "consent-revoked"}),
            (Audited.CONSENT_ENDED, {"reason": "consent-revoked"}),
        ]
    for event, facts in records:
        await node.send(node.pen.recorded(chains.next(cid, event, facts, now() * 1000)))
    await node.ask()


def key_of(cloud: Cloud, tmp_path: Path, pen: Pen | None = None) -> str:
    path = tmp_path / "node.pub"
    write_public(path, (pen or cloud.pen).public)
    return str(path)


async def test_a_receipt_is_written_and_proved(cloud: Cloud, tmp_path: Path):
    async with cloud.node() as node:
        granted = await cloud.granted()
        await told(cloud, node, granted, end=True)
        await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
    file = tmp_path / "receipt.json"
    written = cloud.run("consent", "receipt", "--resource-id", cloud.resource_id.upper(), "--output", str(file))
    assert written.code == 0, written.err
    ran = cloud.run("verify-receipt", str(file), "--node-key", key_of(cloud, tmp_path))
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"consent {granted['consent_id']} for {cloud.resource_id}\n")
    assert ran.out.endswith("every record is genuine and none is missing\n")
    assert "session-start access=keyboard account=ann" in ran.out
    # and what was changed in it is found
    body = json.loads(file.read_text())
    del body["tokens"][1]
    file.write_text(json.dumps(body))
    ran = cloud.run("verify-receipt", str(file), "--node-key", str(tmp_path / "node.pub"))
    assert (ran.code, "eva-provider: " in ran.err) == (1, True)


async def test_one_that_does_not_reach_the_end_says_so(cloud: Cloud, tmp_path: Path):
    async with cloud.node() as node:
        await told(cloud, node, await cloud.granted(), end=False)
    file = tmp_path / "receipt.json"
    cloud.run("consent", "receipt", "--resource-id", cloud.resource_id, "--output", str(file))
    ran = cloud.run("verify-receipt", str(file), "--node-key", key_of(cloud, tmp_path))
    assert (ran.code, "does not reach" in ran.err) == (4, True)


async def test_by_another_key_nothing_is_proved(cloud: Cloud, tmp_path: Path):
    async with cloud.node() as node:
        await told(cloud, node, await cloud.granted(), end=False)
    file = tmp_path / "receipt.json"
    cloud.run("consent", "receipt", "--resource-id", cloud.resource_id, "--output", str(file))
    ran = cloud.run("verify-receipt", str(file), "--node-key", key_of(cloud, tmp_path, Pen("x")))
    assert (ran.code, "not signed by any" in ran.err) == (1, True)


def test_it_needs_no_settings(cloud: Cloud, tmp_path: Path):
    file = tmp_path / "receipt.json"
    file.write_text("{}")
    cloud.place.config.rename(tmp_path / "gone")
    try:
        ran = cloud.run("verify-receipt", str(file), "--node-key", key_of(cloud, tmp_path))
    finally:
        (tmp_path / "gone").rename(cloud.place.config)
    assert (ran.code, "no receipt" in ran.err) == (1, True)


async def test_a_consent_is_shown_with_who_is_connected(cloud: Cloud):
    async with cloud.node() as node:
        granted = await cloud.granted("--reason", "locked out")
        await told(cloud, node, granted, end=False)
        shown = cloud.run("consent", "show", "--resource-id", cloud.resource_id).out
        assert f"{granted['consent_id']}\tgranted\tat {cloud.pen.name}\t" in shown
        assert "serial, keyboard, for group:cloudadmin; locked out" in shown
        assert "ann from ::1, serial, keyboard, since " in shown
        assert shown.endswith(", connected\n")
        await cloud.eva_provider("consent", "revoke", "--resource-id", cloud.resource_id)
        after = cloud.run("consent", "show", "--resource-id", cloud.resource_id).out
    assert "its end is not recorded" in after
    assert f"revoked at {cloud.pen.name}" in after
    assert after.endswith("no consent is in force\n")


async def test_a_node_ahead_of_the_store_is_repaired_openly(cloud: Cloud):
    async with cloud.node() as node:
        node.pen.seq = 7
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await node.ask()
        assert cloud.run("nodes", "repair", cloud.pen.name).code == 2
        ran = await cloud.eva_provider("nodes", "repair", cloud.pen.name, "--yes")
        assert (ran.code, "after 7" in ran.out) == (0, True)
        assert (await node.ask())[0].seq == 7
