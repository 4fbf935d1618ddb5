"""The inventory, as the broker uses it: the VMs of all hosts and the watch that keeps them known. No libvirt here.

Errors: none of its own. What a host or its watcher does wrong is a HostDown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import get_args

from hypervisor.child import Child
from hypervisor.control import BadMessage, Lines, decode
from hypervisor.domains import (
    Change,
    HostDown,
    HostUp,
    Inventory,
    Vm,
    VmBefell,
    VmChanged,
)
from hypervisor.host import Host
from hypervisor.sighting import Fate, Sighting

__all__ = [
    "Change",
    "Fate",
    "HostDown",
    "HostUp",
    "Inventory",
    "Vm",
    "VmBefell",
    "VmChanged",
    "Watch",
]

SILENCE = 10.0  # seconds without a word from a watcher, five of its beats
BACKOFF = (0.25, 5.0)  # seconds between two runs of a watcher: first, longest
LONG_LIFE = 10.0  # seconds after which an end is no part of a row of them

_SIGHTINGS = get_args(Sighting)

log = logging.getLogger(__name__)


class Watch:
    """Keeps one watcher process for each host running and takes what they see into the inventory."""

    def __init__(self, hosts: Sequence[Host], inventory: Inventory, on_change: Callable[[Change], None]) -> None:
        """`on_change` is called on the loop, at once and in order, when the inventory has changed already. It must not raise."""
        self.inventory = inventory
        self._hosts = tuple(hosts)
        self._on_change = on_change
        self._heard_of: set[str] = set()
        self._ready = asyncio.Event()
        if not self._hosts:
            self._ready.set()

    def host_up(self, name: str) -> bool:
        """Whether all domains of the host are known, now."""
        return self.inventory.host_up(name)

    async def ready(self) -> None:
        """Returns when every host's domains have been listed once, or the host was reported down."""
        await self._ready.wait()

    async def run(self) -> None:
        """Watches until it is cancelled; then no process of ours is left."""
        async with asyncio.TaskGroup() as group:
            for host in self._hosts:
                group.create_task(self._keep(host), name=f"watch {host.name}")

    async def _keep(self, host: Host) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            began = loop.time()
            why = await self._follow(host)
            self._report(host, self.inventory.down(host.name, why))
            pause = BACKOFF[0] if loop.time() - began > LONG_LIFE else min(max(pause * 2, BACKOFF[0]), BACKOFF[1])
            await asyncio.sleep(pause)

    async def _follow(self, host: Host) -> str:
        """One run of the host's watcher. Gives why it ended."""
        try:
            child = Child("hypervisor.watcher", host.uri)
        except OSError as error:
            return f"no watcher: {error}"
        try:
            return await self._listen(host, child)
        finally:
            child.kill()
            await child.gone()

    async def _listen(self, host: Host, child: Child) -> str:
        loop = asyncio.get_running_loop()
        lines = Lines()
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    data = await loop.sock_recv(child.sock, 65536)
                if not data:
                    return "its watcher ended"
                for line in lines.feed(data):
                    self._report(host, self.inventory.apply(host.name, decode(line, *_SIGHTINGS)[0]))
        except TimeoutError:
            return "silent"
        except (BadMessage, OSError) as error:
            return f"its watcher: {error}"

    def _report(self, host: Host, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, VmChanged):
                _log_faults(change.vm)
            self._on_change(change)
            if isinstance(change, HostUp | HostDown):
                self._heard_of.add(host.name)
        if len(self._heard_of) == len(self._hosts):
            self._ready.set()


def _log_faults(vm: Vm) -> None:
    where = {"host": vm.host, "uuid": vm.uuid}
    if vm.fault is not None:
        log.warning("host %(host)s, domain %(uuid)s: %(fault)s", where | {"fault": vm.fault})
    if vm.tcp_display:
        log.warning("host %(host)s, domain %(uuid)s: its display listens on a network, not by our doing", where)
