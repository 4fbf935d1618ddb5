"""broker/node.py: what a start reads from disk, and what it refuses. The daemon whole: tests/test_system_*.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.audit_log import BadAudit, Entry
from broker.node import CannotStart, read_private_key, read_root_key
from eva.audit import Event
from eva.instant import NS
from tests.broker_parts import Core, core

KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""


async def test_a_log_cut_short_by_its_last_record_is_found(tmp_path: Path):
    async with core(tmp_path) as node:
        await node.journal.write(None, Entry("", Event.WORKSTATION, {}, 1), Entry("", Event.WORKSTATION, {}, 2))
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(BadAudit, match="state file knows"):
        Core(tmp_path, node.signer, node.clock, node_key=node.node_key)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path):
    path = tmp_path / "node.pem"
    path.write_text(KEY)
    path.chmod(0o640)
    with pytest.raises(CannotStart, match="others may read"):
        read_private_key(path)


def test_a_key_of_ones_own_is_read(tmp_path: Path):
    path = tmp_path / "node.pem"
    path.write_text(KEY)
    path.chmod(0o600)
    assert len(read_private_key(path).kid) == 22


@pytest.mark.parametrize("text", [None, "", KEY])
def test_a_root_key_that_is_none_is_refused(tmp_path: Path, text: str | None):
    path = tmp_path / "root.pub"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CannotStart, match=r"root\.pub"):
        read_root_key(path)


async def test_a_deadline_made_anew_after_a_reboot_is_kept(tmp_path: Path):
    """Found by the model: read again from a wall clock that was set back, the end would have been later."""
    async with core(tmp_path) as node:
        node.grant(seconds=60)
        await node.journal.write()
    node.clock.boot = 5 * NS
    second = Core(tmp_path, node.signer, node.clock, boot_id="boot2", node_key=node.node_key).start()
    second.consents.begin(node.clock.now())
    await second.stop()
    node.clock.run(60)
    node.clock.step(-60)
    third = Core(tmp_path, node.signer, node.clock, boot_id="boot2", node_key=node.node_key)
    assert third.standing() == set()


async def test_what_ran_out_on_the_boot_clock_is_over_after_a_reboot_too(tmp_path: Path):
    async with core(tmp_path) as node:
        node.grant(seconds=60)
        await node.journal.write()
    node.clock.boot += 60 * NS  # and the wall clock stood still
    second = Core(tmp_path, node.signer, node.clock, node_key=node.node_key).start()
    second.consents.begin(node.clock.now())
    await second.stop()
    node.clock.boot = 5 * NS
    third = Core(tmp_path, node.signer, node.clock, boot_id="boot2", node_key=node.node_key)
    assert third.standing() == set()
