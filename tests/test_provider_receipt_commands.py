"""provider/commands/receipts.py, and the commands by which a consent is looked up: a consent's story from grant to proof."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from eva.audit import Chains
from eva.audit import Event as Audited
from provider.keys import write_public
from tests.provider_parts import Cloud, Node, Pen, now, until


async def told(provider: Cloud, node: Node, granted: dict[str, Any], *, end: bool) -> None:
    """The node records a session of the consent, and the consent's end."""
    chains, cid = Chains(), granted["consent_id"]
    start = {"session": "s1", "account": "ann", "address": "::1", "kind": "serial", "access": "keyboard"}
    records: list[tuple[Audited, dict[str, Any]]] = [
        (Audited.CONSENT_ACCEPTED, {"resource_id": provider.resource_id, "expires_at": granted["expires_at"]}),
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


def key_of(provider: Cloud, tmp_path: Path, pen: Pen | None = None) -> str:
    path = tmp_path / "node.pub"
    write_public(path, (pen or provider.pen).public)
    return str(path)


async def test_a_receipt_is_written_and_proved(provider: Cloud, tmp_path: Path):
    async with provider.node() as node:
        granted = await provider.granted()
        await told(provider, node, granted, end=True)
        await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
    file = tmp_path / "receipt.json"
    written = provider.run("consent", "receipt", "--resource-id", provider.resource_id.upper(), "--output", str(file))
    assert written.code == 0, written.err
    ran = provider.run("verify-receipt", str(file), "--node-key", key_of(provider, tmp_path))
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"consent {granted['consent_id']} for {provider.resource_id}\n")
    assert ran.out.endswith("every record is genuine and none is missing\n")
    assert "session-start access=keyboard account=ann" in ran.out
    # and what was changed in it is found
    body = json.loads(file.read_text())
    del body["tokens"][1]
    file.write_text(json.dumps(body))
    ran = provider.run("verify-receipt", str(file), "--node-key", str(tmp_path / "node.pub"))
    assert (ran.code, "eva-provider: " in ran.err) == (1, True)


async def test_one_that_does_not_reach_the_end_says_so(provider: Cloud, tmp_path: Path):
    async with provider.node() as node:
        await told(provider, node, await provider.granted(), end=False)
    file = tmp_path / "receipt.json"
    provider.run("consent", "receipt", "--resource-id", provider.resource_id, "--output", str(file))
    ran = provider.run("verify-receipt", str(file), "--node-key", key_of(provider, tmp_path))
    assert (ran.code, "does not reach" in ran.err) == (4, True)


async def test_by_another_key_nothing_is_proved(provider: Cloud, tmp_path: Path):
    async with provider.node() as node:
        await told(provider, node, await provider.granted(), end=False)
    file = tmp_path / "receipt.json"
    provider.run("consent", "receipt", "--resource-id", provider.resource_id, "--output", str(file))
    ran = provider.run("verify-receipt", str(file), "--node-key", key_of(provider, tmp_path, Pen("x")))
    assert (ran.code, "not signed by any" in ran.err) == (1, True)


def test_it_needs_no_settings(provider: Cloud, tmp_path: Path):
    file = tmp_path / "receipt.json"
    file.write_text("{}")
    provider.place.config.rename(tmp_path / "gone")
    try:
        ran = provider.run("verify-receipt", str(file), "--node-key", key_of(provider, tmp_path))
    finally:
        (tmp_path / "gone").rename(provider.place.config)
    assert (ran.code, "no receipt" in ran.err) == (1, True)


async def test_a_consent_is_shown_with_who_is_connected(provider: Cloud):
    async with provider.node() as node:
        granted = await provider.granted("--reason", "locked out")
        await told(provider, node, granted, end=False)
        shown = provider.run("consent", "show", "--resource-id", provider.resource_id).out
        assert f"{granted['consent_id']}\tgranted\tat {provider.pen.name}\t" in shown
        assert "serial, keyboard, for group:cloudadmin; locked out" in shown
        assert "ann from ::1, serial, keyboard, since " in shown
        assert shown.endswith(", connected\n")
        await provider.eva_provider("consent", "revoke", "--resource-id", provider.resource_id)
        after = provider.run("consent", "show", "--resource-id", provider.resource_id).out
    assert "its end is not recorded" in after
    assert f"revoked at {provider.pen.name}" in after
    assert after.endswith("no consent is in force\n")


async def test_a_node_ahead_of_the_store_is_repaired_openly(provider: Cloud):
    def refused() -> float:
        return provider.metric('eva_provider_refused_total{reason="ahead"}')

    before = refused()
    async with provider.node() as node:
        node.pen.seq = 7
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await node.ask()
        until(lambda: refused() == before + 1)
        assert provider.run("nodes", "repair", provider.pen.name).code == 2
        ran = await provider.eva_provider("nodes", "repair", provider.pen.name, "--yes")
        assert (ran.code, "after 7" in ran.out) == (0, True)
        assert (await node.ask())[0].seq == 7
