"""A tenant's receipt from a real node: who was connected, shown while it lasts, and proved offline afterwards."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from lab.cloud import Cloud, CommandFailed
from lab.libvirt_host import Guest
from provider.commands.receipts import NOT_WHOLE
from tests.system_operator import NODE, PATIENCE, signed_in
from tests.system_parts import consented, revoked, well


async def shows(cloud: Cloud, resource_id: str, text: str) -> str:
    """What `consent show` says, once it says this: the node's word comes a moment later."""
    deadline = time.monotonic() + PATIENCE
    while text not in (said := await asyncio.to_thread(cloud.provider_command, "consent", "show", "--resource-id", resource_id)):
        assert time.monotonic() < deadline, said
    return said


def receipt(cloud: Cloud, resource_id: str, consent: str, file: Path) -> None:
    words = ("--resource-id", resource_id, "--consent-id", consent, "--output", str(file))
    cloud.provider_command("consent", "receipt", *words)


def verify(cloud: Cloud, file: Path) -> str:
    """Raises CommandFailed."""
    return cloud.provider_command("verify-receipt", str(file), "--node-key", str(cloud.nodes[NODE].directory / "node.pub"))


def proof(cloud: Cloud, resource_id: str, consent: str, file: Path) -> str | None:
    """What a new receipt proves; None for one that does not reach the end. Raises CommandFailed."""
    receipt(cloud, resource_id, consent, file)
    try:
        return verify(cloud, file)
    except CommandFailed as error:
        if error.code == NOT_WHOLE:
            return None
        raise


async def test_who_was_connected_is_shown_and_proved(cloud: Cloud, vm: Guest, tmp_path: Path) -> None:
    await well(cloud)
    grant = await consented(cloud, vm)
    file = tmp_path / "receipt.json"
    async with signed_in(cloud) as alice:
        console = await alice.console(vm.resource_id)
        session = console.opened.session
        said = await shows(cloud, grant.resource_id, ", connected")
        assert "alice from 127.0.0.1, serial, keyboard, since " in said
        receipt(cloud, grant.resource_id, grant.consent, file)
        with pytest.raises(CommandFailed) as caught:
            verify(cloud, file)
        assert (caught.value.code, "with 1 sessions open" in caught.value.output) == (NOT_WHOLE, True)
        await revoked(cloud, grant)
        assert await console.ended() == 4002
    await shows(cloud, grant.resource_id, ", consent-revoked")
    deadline = time.monotonic() + PATIENCE
    while (proved := proof(cloud, grant.resource_id, grant.consent, file)) is None:
        assert time.monotonic() < deadline, file.read_text()
    assert f"session-start access=keyboard account=alice address=127.0.0.1 kind=serial session={session}" in proved
    assert "consent-ended" in proved
    assert proved.endswith("every record is genuine and none is missing\n")
    body = json.loads(file.read_text())
    del body["tokens"][2]
    file.write_text(json.dumps(body))
    with pytest.raises(CommandFailed):
        verify(cloud, file)
