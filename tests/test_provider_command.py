"""provider/command.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from provider.keys import write_public
from tests.provider_parts import Cloud, Pen, until


async def test_nodes_list_shows_life_and_evidence(provider: Cloud):
    def listed() -> dict[str, Any]:
        rows = json.loads(provider.run("nodes", "list", "--json").out)
        return next(row for row in rows if row["name"] == provider.pen.name)

    before = provider.metric('eva_provider_conflicts_total{about="anchor"}')
    async with provider.node() as node:
        assert not listed()["alive"]
        await node.ask(node.pen.request(audit_count=7, audit_head="seven"))
        shown = listed()
        assert (shown["alive"], shown["audit"]) == (True, "7 records")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.ask(node.pen.request(audit_count=7, audit_head="SEVEN")), 1)
        until(lambda: listed()["rolled_back"])
        shown = listed()
        assert "ROLLED BACK: another record 7 than before" in shown["audit"]
        assert not shown["alive"]
        assert f"{provider.pen.name}\tREFUSED" in provider.run("nodes", "list").out
        until(lambda: provider.metric('eva_provider_refused_total{reason="rolled-back"}') >= 1)
        assert node.leases.empty()
    assert provider.metric('eva_provider_conflicts_total{about="anchor"}') == before + 1


def test_a_name_is_replaced_only_openly(still_provider: Cloud):
    path = still_provider.place.directory / "other.pub"
    write_public(path, Pen("x").public)
    arguments = ("nodes", "add", still_provider.pen.name, "--key", str(path))
    ran = still_provider.run(*arguments)
    assert (ran.code, "--replace" in ran.err) == (1, True)
    assert still_provider.run(*arguments, "--replace").code == 0


def test_a_private_key_is_no_nodes_key(still_provider: Cloud):
    ran = still_provider.run("nodes", "add", "AzS-ERCS09", "--key", str(still_provider.place.directory / "keys" / "root.pem"))
    assert (ran.code, "PEM public key" in ran.err) == (78, True)


def test_keys_are_made_once(still_provider: Cloud):
    keys = still_provider.place.directory / "keys"
    before = sorted(path.name for path in keys.iterdir())
    ran = still_provider.run("keys", "init")
    assert (ran.code, "nothing was changed" in ran.err) == (78, True)
    assert sorted(path.name for path in keys.iterdir()) == before
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.pem")} == {0o600}


def test_the_daemon_needs_no_root_key(still_provider: Cloud):
    (still_provider.place.directory / "keys" / "root.pem").unlink()
    assert still_provider.run("check-config").code == 0


def test_check_config_finds_a_key_open_to_others(still_provider: Cloud):
    assert still_provider.run("check-config").code == 0
    (signing,) = (still_provider.place.directory / "keys").glob("signing-*.pem")
    signing.chmod(0o644)
    ran = still_provider.run("check-config")
    assert (ran.code, "0644" in ran.err, str(signing) in ran.err) == (78, True, True)


def test_check_config_names_file_and_line(still_provider: Cloud):
    text = still_provider.place.config.read_text() + "lmits: {}\n"
    still_provider.place.config.write_text(text)
    ran = still_provider.run("check-config")
    assert (ran.code, f"{still_provider.place.config}:{len(text.splitlines())}: lmits" in ran.err) == (78, True)


def test_a_missing_settings_file_is_named(still_provider: Cloud):
    still_provider.place.config.unlink()
    ran = still_provider.run("check-config")
    assert (ran.code, str(still_provider.place.config) in ran.err) == (1, True)
