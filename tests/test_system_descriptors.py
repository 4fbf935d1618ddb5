"""A node without a descriptor left, as strangers who connect and say nothing can make it, goes on with what it serves."""

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva.consent import Kind
from eva.control import Method, Refusal, Refused
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.system_operator import NODE, Operator, signed_in
from tests.system_parts import consented, descriptors, until, well


async def at_rest(pid: int, alice: Operator) -> None:
    """Return when the node has closed what a connection left: its descriptors stay as they are over what it is asked."""
    known, same = descriptors(pid), 0
    while same < 3:
        await alice.ask(Method.CONSENTS_LIST)
        now = descriptors(pid)
        same = same + 1 if now == known else 0
        known = now


@contextlib.contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    used = {int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir()}
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(n for n in range(len(used) + 1) if n not in used), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_what_is_open_goes_on_what_would_open_is_refused_and_the_node_lives(
    libvirt_host: LibvirtHost, mortal: Guest, shared_guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")  # the node is to say that it lives every 0.2 s
    with Cloud({"host1": libvirt_host.uri}) as cloud:
        pid = cloud.nodes[NODE].program.pid
        await well(cloud)
        one, another = await consented(cloud, mortal), await consented(cloud, shared_guest)
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        async with signed_in(cloud) as alice:
            console = await alice.console(one.resource_id)
            await asyncio.to_thread(mortal.wait_ready)
            await at_rest(pid, alice)
            with no_descriptor_left(pid):
                for kind in Kind:
                    with pytest.raises(Refused) as refused:
                        await alice.open(another.resource_id, kind)
                    assert refused.value.refusal is Refusal.CONSOLE_FAILED
                cloud.mosquitto.stop()
            with no_descriptor_left(pid):  # and those of its connections are lost now as well
                await until(lambda: "no MQTT" in cloud.nodes[NODE].log, "a try to connect")
                cloud.mosquitto.start()
                await asyncio.sleep(1)  # tries that fail, each its own way
                assert b"42" in await console.ask("echo $((6*7))")
            await well(cloud)
            (await alice.console(another.resource_id, Kind.GRAPHICS)).websocket.transport.abort()
            assert b"42" in await console.ask("echo $((6*7))")
        assert cloud.nodes[NODE].program.pid == pid
