"""A new signing key and the end of an old one, on real parts: nodes hear of both with their lease, without a restart."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from eva.consent import Access, Consent, Kind, Principal
from eva.resource_id import ResourceId
from eva.token import Typ, b64
from eva.wire import Envelope, consent_topic
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from provider.keys import read_private, signing_path
from tests.system_operator import NODE, PATIENCE, doing, signed_in, typing, until_refused
from tests.system_parts import (
    PROMISE,
    SLACK,
    assert_silence_after,
    calm,
    consented,
    count_in,
    end_of,
    is_gone,
    listening,
    measured,
    publish_as_provider,
    revoked,
    until,
    well,
    workers,
)

LEASE = 2.0  # seconds between two asks


@pytest.fixture(scope="module")
def own_cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give a cloud whose keys change under it."""
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        yield cloud


def keys_of(cloud: Cloud) -> list[dict[str, Any]]:
    return json.loads(cloud.provider_command("keys", "list", "--json"))


async def changed(cloud: Cloud, *words: str) -> None:
    await asyncio.to_thread(cloud.provider_command, "keys", *words)


async def test_both_keys_serve_until_one_is_withdrawn(own_cloud: Cloud, vm: Guest, mortal: Guest) -> None:
    """One story: a session under each key; the old one's ends with its key, the other goes on, through a restart too."""
    await well(own_cloud)
    pid = own_cloud.nodes[NODE].program.pid
    old_grant = await consented(own_cloud, vm)
    async with signed_in(own_cloud) as alice, signed_in(own_cloud, "bob") as bob:
        console = await alice.console(vm.resource_id)
        await listening(console)
        await changed(own_cloud, "rotate")
        old, new = keys_of(own_cloud)[-2:]
        assert (old["consents"], new["consents"]) == (1, 0)
        # the consent's letter brings the set with it: no lease need be waited for
        new_grant = await consented(own_cloud, mortal)
        screen = await bob.console(mortal.resource_id, "graphics", "view")
        await screen.shows(b"RFB 003.008\n")
        assert [row["consents"] for row in keys_of(own_cloud)[-2:]] == [1, 1]
        after = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", after) > 20, "what is typed in the guest, under the old key")
            before = workers(own_cloud.nodes[NODE])
            await changed(own_cloud, "withdraw", old["kid"])
            withdrawn = time.monotonic()
            assert await console.ended() == 4002
            assert console.ended_at is not None
            assert console.ended_at - withdrawn < LEASE + PROMISE + SLACK
            await until(lambda: any(map(is_gone, before)), "the end of the worker", PROMISE + SLACK)
            await assert_silence_after(own_cloud.nodes[NODE], console, vm, console.ended_at, after)
        assert (await end_of(own_cloud.nodes[NODE], console.opened))["reason"] == "consent-revoked"
        await until_refused(alice, vm.resource_id)
        assert screen.ended_at is None
    assert own_cloud.nodes[NODE].program.pid == pid
    states = {row["consent_id"]: row["state"] for row in json.loads(own_cloud.provider_command("consent", "list", "--json"))}
    assert (states[old_grant.consent], states[new_grant.consent]) == ("ended", "granted")
    # what the withdrawn key signed stays ended, and the other stands, after a kill of the node
    own_cloud.nodes[NODE].program.kill()
    own_cloud.nodes[NODE].start()
    await well(own_cloud)
    async with signed_in(own_cloud) as alice:
        await until_refused(alice, vm.resource_id)
        again = await alice.console(mortal.resource_id, "graphics", "view")
        await again.shows(b"RFB 003.008\n")
    await revoked(own_cloud, new_grant)
    await asyncio.to_thread(calm, vm)


async def test_what_a_withdrawn_key_signs_is_refused(own_cloud: Cloud, vm: Guest) -> None:
    """Whoever stole it can sign what he likes, and bring it by MQTT."""
    await well(own_cloud)
    old = keys_of(own_cloud)[-1]
    await changed(own_cloud, "rotate")
    await changed(own_cloud, "withdraw", old["kid"])
    grant = await consented(own_cloud, vm)  # the node knows the set without it, as this letter brought it
    await revoked(own_cloud, grant)
    stolen = read_private(signing_path(own_cloud.directory / "provider", old["kid"]))
    now = int(time.time())
    jti = b64(bytes(range(16)))
    consent = Consent(
        jti=jti,
        cid=jti,
        node=NODE,
        resource_id=ResourceId.parse(str(vm.resource_id)),
        giver="nobody",
        operators=frozenset({Principal.parse("group:cloudadmin")}),
        kinds=frozenset(Kind),
        access=Access.VIEW,
        issued_at=now + 1,
        expires_at=now + 600,
        watched=False,
    )
    refused = await measured(own_cloud, "eva_tokens_refused_total")
    letter = Envelope(stolen.sign(Typ.CONSENT, consent.to_claims())).encode()
    await publish_as_provider(own_cloud, consent_topic(NODE), letter)
    deadline = time.monotonic() + PATIENCE
    while await measured(own_cloud, "eva_tokens_refused_total") == refused:
        assert time.monotonic() < deadline, "the forged consent was not counted"
        await asyncio.sleep(0.05)
    async with signed_in(own_cloud) as alice:
        await until_refused(alice, vm.resource_id)


async def test_without_the_root_key_here_a_rotation_goes_by_files(own_cloud: Cloud, vm: Guest) -> None:
    await well(own_cloud)
    home = own_cloud.directory / "provider"
    root = (home / "root.pem").rename(own_cloud.directory / "offline-root.pem")
    request, signed = own_cloud.directory / "request", own_cloud.directory / "signed"
    await changed(own_cloud, "request", str(request))
    await changed(own_cloud, "sign", str(request), "--root", str(root), "--out", str(signed), "--yes")
    await changed(own_cloud, "install", str(signed))
    new = keys_of(own_cloud)[-1]
    grant = await consented(own_cloud, vm)
    assert (new["state"], keys_of(own_cloud)[-1]["consents"]) == ("signs", 1)
    await revoked(own_cloud, grant)
    root.rename(home / "root.pem")
