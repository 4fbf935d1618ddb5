"""provider/command.py: what a person types, against the real daemon and a node written by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.certificates import Authority
from provider.keys import write_public
from tests.provider_parts import Cloud, Pen, running_cloud

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Authority) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("provider"), certificates, receipt_seconds=2) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: Cloud) -> Cloud:
    """The module's provider, with a node and a virtual machine of the test's own."""
    running.fresh()
    return running


@pytest.fixture
def still(tmp_path: Path, certificates: Authority) -> Iterator[Cloud]:
    """One whose daemon does not run."""
    cloud = Cloud(tmp_path, certificates)
    yield cloud
    cloud.close()


async def test_nodes_list_shows_life_and_evidence(cloud: Cloud):
    def listed() -> dict[str, Any]:
        rows = json.loads(cloud.run("nodes", "list", "--json").out)
        return next(row for row in rows if row["name"] == cloud.pen.name)

    before = cloud.metric('eva_provider_conflicts_total{about="anchor"}')
    async with cloud.node() as node:
        assert not listed()["alive"]
        await node.ask(node.pen.request(audit_count=7, audit_head="seven"))
        assert (listed()["alive"], listed()["audit"]) == (True, "7 records")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.ask(node.pen.request(audit_count=7, audit_head="SEVEN")), 1)
        assert "ROLLED BACK: another record 7 than before" in listed()["audit"]
        assert (listed()["alive"], listed()["rolled_back"]) == (False, True)
        assert f"{cloud.pen.name}\tREFUSED" in cloud.run("nodes", "list").out
        assert cloud.metric('eva_provider_refused_total{reason="rolled-back"}') >= 1
    assert cloud.metric('eva_provider_conflicts_total{about="anchor"}') == before + 1


def test_a_name_is_replaced_only_openly(still: Cloud):
    path = still.place.directory / "other.pub"
    write_public(path, Pen("x").public)
    arguments = ("nodes", "add", still.pen.name, "--key", str(path))
    ran = still.run(*arguments)
    assert (ran.code, "--replace" in ran.err) == (1, True)
    assert still.run(*arguments, "--replace").code == 0


def test_a_private_key_is_no_nodes_key(still: Cloud):
    ran = still.run("nodes", "add", "AzS-ERCS09", "--key", str(still.place.directory / "keys" / "root.pem"))
    assert (ran.code, "PEM public key" in ran.err) == (78, True)


def test_keys_are_made_once(still: Cloud):
    keys = still.place.directory / "keys"
    before = sorted(path.name for path in keys.iterdir())
    ran = still.run("keys", "init")
    assert (ran.code, "nothing was changed" in ran.err) == (78, True)
    assert sorted(path.name for path in keys.iterdir()) == before
    assert {path.stat().st_mode & 0o777 for path in keys.glob("*.pem")} == {0o600}


def test_the_daemon_needs_no_root_key(still: Cloud):
    (still.place.directory / "keys" / "root.pem").unlink()
    assert still.run("check-config").code == 0


def test_check_config_finds_a_key_open_to_others(still: Cloud):
    assert still.run("check-config").code == 0
    (signing,) = (still.place.directory / "keys").glob("signing-*.pem")
    signing.chmod(0o644)
    ran = still.run("check-config")
    assert (ran.code, "0644" in ran.err, str(signing) in ran.err) == (78, True, True)


def test_check_config_names_file_and_line(still: Cloud):
    text = still.place.config.read_text() + "lmits: {}\n"
    still.place.config.write_text(text)
    ran = still.run("check-config")
    assert (ran.code, f"{still.place.config}:{len(text.splitlines())}: lmits" in ran.err) == (78, True)


def test_a_missing_settings_file_is_named(still: Cloud):
    still.place.config.unlink()
    ran = still.run("check-config")
    assert (ran.code, str(still.place.config) in ran.err) == (1, True)
