"""A consent that is renewed while an operator is on, and one that has gone to another node, on real parts by the REST."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from eva.audit import Event as Audited
from eva.audit import Record, verify_records
from eva.control import Event, Method, Refusal, Refused
from eva.members import Json
from lab.cloud import SUBSCRIPTION, Cloud, CommandFailed
from lab.libvirt_host import Guest, LibvirtHost
from lab.rest import TENANT
from tests.system_operator import LOOK, PATIENCE, Operator, doing, signed_in, trusting, typing, until_refused
from tests.system_parts import PROMISE, SLACK, assert_silence_after, audit_of, calm, count_in, end_of, listening, until, well

FIRST, SECOND = "AzS-ERCS01", "AzS-ERCS02"


@pytest.fixture(scope="module")
def own_cloud(libvirt_host: LibvirtHost) -> Iterator[Cloud]:
    """Give a cloud of two nodes on one host, and a tenant who may ask."""
    limits = {"lease_open_seconds": 5, "lease_cut_seconds": 7}
    with Cloud({"host1": libvirt_host.uri}, nodes=(FIRST, SECOND), limits=limits) as cloud:
        cloud.assign(TENANT, "Owner", f"/subscriptions/{SUBSCRIPTION}")
        yield cloud


class Tenant:
    """Who owns the VM, with a token."""

    def __init__(self, cloud: Cloud, vm: Guest) -> None:
        self._cloud = cloud
        self._vm = vm
        self._headers = {"authorization": f"Bearer {cloud.token(TENANT)}"}

    async def asks(self, action: str, body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON; a body makes it a POST."""
        url = self._cloud.endpoints.machine(str(self._vm.resource_id), action)
        async with httpx.AsyncClient(verify=trusting(self._cloud), timeout=PATIENCE) as https:
            method = "GET" if body is None else "POST"
            answer = await https.request(method, url, headers=self._headers, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def consents(self, **body: object) -> tuple[str, str, float]:
        """The node, the consent's id and its end (Unix seconds); asked again while the nodes have not heard of the VM yet."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = await self.asks("enableVmAccess", body)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK)
                continue
            return found["ERCSName"], found["consentId"], datetime.fromisoformat(found["expiresOn"]).timestamp()


async def told_of_the_renewal(alice: Operator) -> int:
    """When it ends, by the node's notice."""
    found: list[Any] = []
    await until(lambda: found.extend(n for n in alice.notices if n.event is Event.RENEWED) or found, "the node's word of it")
    return int(found[0].params["expires_at"])


async def seconds_until(wall: float) -> None:
    await asyncio.sleep(max(0.0, wall - time.time()))


async def sent_elsewhere(cloud: Cloud, node: str, method: Method, **params: Json) -> str:
    """The node that this one names to an operator who asks for the VM; asked again where the provider was slow to tell it."""
    deadline = time.monotonic() + PATIENCE
    async with signed_in(cloud, node=node) as alice:
        while True:
            with pytest.raises(Refused) as caught:
                await alice.ask(method, **params)
            if caught.value.node is not None:
                assert caught.value.refusal is Refusal.NO_CONSENT
                return caught.value.node
            assert time.monotonic() < deadline, f"it names none: {caught.value.refusal}"
            await asyncio.sleep(LOOK)


async def test_a_session_lives_through_a_renewal_and_ends_with_it(own_cloud: Cloud, vm: Guest) -> None:
    for node in (FIRST, SECOND):
        await well(own_cloud, node)
    calm(vm)
    tenant = Tenant(own_cloud, vm)
    node, consent, first_end = await tenant.consents(durationInSeconds=15)
    async with signed_in(own_cloud, node=node) as alice:
        console = await alice.console(vm.resource_id)
        assert b"41" in await console.ask("echo $((6*7-1))")
        assert console.opened.consent == consent
        again = await tenant.consents(durationInSeconds=25, renew=True)
        assert again[:2] == (node, consent)
        second_end = again[2]
        assert second_end > first_end
        assert await told_of_the_renewal(alice) == second_end
        assert b"42" in await console.ask("echo $((6*7))")
        await seconds_until(first_end + 1.5)
        assert b"43" in await console.ask("echo $((6*7+1))")
        assert (console.code, [mark for mark, _ in console.marks].count("attached")) == (None, 1)
        await listening(console)
        before = vm.serial.size()
        async with doing(typing(console, b"Q\n")):
            await until(lambda: count_in(vm, b"Q", before) > 5, "what is typed in the guest, past the first end")
            assert await console.ended() == 4001
        assert console.ended_at is not None
        # a term is whole seconds on the node's own clock, so it may end within the last of them
        ended = time.time() - (time.monotonic() - console.ended_at)
        assert second_end - 1.0 <= ended < second_end + PROMISE + SLACK
        await assert_silence_after(own_cloud.nodes[node], console, vm, console.ended_at, before)
    assert (await end_of(own_cloud.nodes[node], console.opened))["reason"] == "consent-expired"
    await whole_story(own_cloud, node, consent, tenant)


async def whole_story(cloud: Cloud, node: str, consent: str, tenant: Tenant) -> None:
    """One chain, at the node and, by its receipts, at the provider."""

    def read() -> list[Record]:
        return [record for record in audit_of(cloud.nodes[node]).records if record.chain == consent]

    await until(lambda: read()[-1].event is Audited.CONSENT_ENDED, "the consent's end in the audit, behind the session's")
    records = read()
    story = verify_records(consent, [record.told for record in records])
    assert [told.event for told in story.records] == [
        Audited.CONSENT_ACCEPTED,
        Audited.SESSION_START,
        Audited.CONSENT_ACCEPTED,
        Audited.SESSION_END,
        Audited.CONSENT_ENDED,
    ]
    file = cloud.directory / "receipt.json"
    keys = [word for one in cloud.nodes.values() for word in ("--node-key", str(one.directory / "node.pub"))]
    deadline = time.monotonic() + PATIENCE
    while True:
        file.write_text(json.dumps(await tenant.asks("vmAccess/receipt")))
        try:
            said = await asyncio.to_thread(cloud.provider_command, "verify-receipt", str(file), *keys)
            break
        except CommandFailed:
            assert time.monotonic() < deadline, "the provider was not told of it all"
            await asyncio.sleep(0.2)
    assert consent in said
    assert "every record is genuine and none is missing" in said


async def test_the_other_node_names_the_one_that_has_it(own_cloud: Cloud, vm: Guest) -> None:
    tenant = Tenant(own_cloud, vm)
    node, _, _ = await tenant.consents()
    other = SECOND if node == FIRST else FIRST
    name = str(vm.resource_id)
    assert await sent_elsewhere(own_cloud, other, Method.SESSION_OPEN, resource_id=name, kind="serial") == node
    assert await sent_elsewhere(own_cloud, other, Method.SESSION_DELETE, resource_id=name) == node
    await tenant.asks("disableVmAccess", {})


async def test_a_node_that_slept_while_its_consent_moved_ends_it_when_it_wakes(own_cloud: Cloud, vm: Guest) -> None:
    for name in (FIRST, SECOND):
        await well(own_cloud, name)
    calm(vm)
    tenant = Tenant(own_cloud, vm)
    node, consent, end = await tenant.consents()
    other = SECOND if node == FIRST else FIRST
    program = own_cloud.nodes[node].program
    async with signed_in(own_cloud, node=node) as alice:
        console = await alice.console(vm.resource_id)
        await listening(console)
        program.signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            while (found := await tenant.asks("vmAccess")).get("ERCSName") != other or found["state"] != "granted":
                assert time.monotonic() < deadline, f"it does not move: {found}"
                await asyncio.sleep(0.5)
        finally:
            program.signal(signal.SIGCONT)
        assert await console.ended() == 4004
    await well(own_cloud, node)
    async with signed_in(own_cloud, node=node) as alice:
        await until_refused(alice, vm.resource_id)
    assert await sent_elsewhere(own_cloud, node, Method.SESSION_OPEN, resource_id=str(vm.resource_id), kind="serial") == other
    async with signed_in(own_cloud, node=other) as alice:
        opened = await alice.open(vm.resource_id)
        assert (opened.consent, opened.expires_at) == (consent, end)
    await tenant.asks("disableVmAccess", {})
