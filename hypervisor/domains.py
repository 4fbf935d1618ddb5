"""What the node knows of the domains on its hosts: the watchers' messages in, changes out. Pure.

A VM is pinned by host, UUID and generation. The generation rises whenever the domain has gone, so that one re-created
under the same UUID is another VM. Names mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eva.consent import Kind
from eva.resource_id import BadResourceId, ResourceId
from hypervisor.sighting import Befell, Fate, Listed, Lost, Seen, Sighting


@dataclass(frozen=True, slots=True)
class Vm:
    """A domain as a consent can pin it.

    `resource_id` is None without metadata, or when that is no resource ID: then `fault` says why, for the log.
    """

    host: str
    uuid: str
    name: str
    generation: int
    resource_id: ResourceId | None
    running: bool
    paused: bool
    kinds: frozenset[Kind]
    tcp_display: bool
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class VmChanged:
    """A VM appeared, or something of it is new."""

    vm: Vm


@dataclass(frozen=True, slots=True)
class VmBefell:
    """It is gone also when it was re-created or was missing at a re-read: this generation is no more. It stopped also when
    another run of its guest has begun by now."""

    vm: Vm
    fate: Fate


@dataclass(frozen=True, slots=True)
class HostUp:
    """All of the host's domains are known; the changes since it was last up come before this."""

    host: str


@dataclass(frozen=True, slots=True)
class HostDown:
    """Nothing is known of the host from here on; its VMs stay listed as they were last seen. `why` is for the log."""

    host: str
    why: str


Change = VmChanged | VmBefell | HostUp | HostDown

Key = tuple[str, str]  # host, UUID

MAX_GONE = 65_536  # generations remembered of domains that have gone


@dataclass(slots=True)
class _HostState:
    up: bool | None = None  # None: not heard of yet
    complete: bool = False  # the listing since the last connection has ended
    listing: dict[str, Seen] | None = None


class Inventory:
    """The domains of all hosts, with their generations."""

    def __init__(self, generations: Mapping[Key, int] | None = None) -> None:
        """Takes the generations that an earlier run kept, by host and UUID; a domain without one begins at 1."""
        self._generations: dict[Key, int] = dict(generations or {})
        self._absent: dict[Key, None] = {}  # those of them that have gone, oldest first
        self._first = 1  # above each generation that was forgotten
        self._vms: dict[Key, Vm] = {}
        self._last: dict[Key, Seen] = {}
        self._by_id: dict[ResourceId, set[Key]] = {}
        self._hosts: dict[str, _HostState] = {}

    @property
    def generations(self) -> Mapping[Key, int]:
        """What to keep: the generation of each domain, or that of its next appearance if it has gone."""
        return dict(self._generations)

    @property
    def vms(self) -> tuple[Vm, ...]:
        return tuple(self._vms.values())

    def get(self, host: str, uuid: str) -> Vm | None:
        return self._vms.get((host, uuid))

    def find(self, resource_id: ResourceId) -> tuple[Vm, ...]:
        """Every VM that claims this resource ID, on any host. More than one is the caller's to refuse."""
        return tuple(self._vms[key] for key in sorted(self._by_id.get(resource_id, ())))

    def host_up(self, host: str) -> bool:
        """Whether the host's domains are all known, now."""
        state = self._hosts.get(host)
        return state is not None and state.up is True

    def apply(self, host: str, sighting: Sighting) -> list[Change]:
        """Takes in what a host's watcher said; gives what it changed, the state being changed already."""
        state = self._hosts.setdefault(host, _HostState())
        changes: list[Change] = []
        match sighting:
            case Lost(why):
                changes = self.down(host, why)
            case Seen() if not state.complete:
                state.listing = state.listing or {}
                state.listing[sighting.uuid] = sighting
            case Listed(count):
                changes = self._listed(host, state, count)
            case Seen():
                changes = self._seen(host, sighting)
            case Befell(uuid, Fate.GONE):
                changes = self._gone((host, uuid))
            case Befell(uuid, Fate.STOPPED):
                changes = self._stopped((host, uuid))
            case Befell(uuid, Fate.RESET):
                vm = self.get(host, uuid)
                changes = [] if vm is None else [VmBefell(vm, Fate.RESET)]
        return changes

    def down(self, host: str, why: str) -> list[Change]:
        """The host's watcher has lost it, or was lost itself."""
        state = self._hosts.setdefault(host, _HostState())
        was_up = state.up
        state.up, state.complete, state.listing = False, False, None
        return [] if was_up is False else [HostDown(host, why)]

    def _listed(self, host: str, state: _HostState, count: int) -> list[Change]:
        listing = state.listing or {}
        if len(listing) != count:
            return self.down(host, f"{count} domains announced, {len(listing)} seen")
        state.up, state.complete, state.listing = True, True, None
        changes: list[Change] = []
        # also those known only by the generation that an earlier run kept: they went while nobody looked
        for key in [k for k in {**self._generations, **self._vms} if k[0] == host and k[1] not in listing]:
            changes += self._gone(key)
        for seen in listing.values():
            changes += self._seen(host, seen)
        return [*changes, HostUp(host)]

    def _seen(self, host: str, seen: Seen) -> list[Change]:
        key = host, seen.uuid
        changes: list[Change] = []
        last = self._last.get(key)
        if last is not None and last.number != seen.number:
            changes += self._stopped(key)  # and it may be a new run already
        # a transient domain has one run: whatever has its UUID after that was made anew
        if last is not None and not last.persistent and (last.number != seen.number or last.number < 0):
            changes += self._gone(key)
        old = self._vms.get(key)
        self._absent.pop(key, None)
        resource_id, fault = _resource_id(seen)
        vm = Vm(
            host=host,
            uuid=seen.uuid,
            name=seen.name,
            generation=self._generations.setdefault(key, self._first),
            resource_id=resource_id,
            running=seen.number >= 0,
            paused=seen.paused,
            kinds=frozenset(kind for kind, there in _kinds(seen) if there),
            tcp_display=seen.tcp_display,
            fault=fault,
        )
        self._last[key] = seen
        if vm != old:
            self._put(key, vm)
            changes.append(VmChanged(vm))
        return changes

    def _stopped(self, key: Key) -> list[Change]:
        vm = self._vms.get(key)
        if vm is None or not vm.running:
            return []
        vm = replace(vm, running=False, paused=False)
        self._last[key] = replace(self._last[key], number=-1)
        self._put(key, vm)
        return [VmBefell(vm, Fate.STOPPED)]

    def _gone(self, key: Key) -> list[Change]:
        if key in self._absent:
            return []
        # what comes next under this UUID is another VM
        self._generations[key] = self._generations.get(key, self._first) + 1
        self._absent[key] = None
        if len(self._absent) > MAX_GONE:
            oldest = next(iter(self._absent))
            del self._absent[oldest]
            self._first = max(self._first, self._generations.pop(oldest))
        vm = self._vms.get(key)
        if vm is None:
            return []
        self._put(key, None)
        del self._last[key]
        return [VmBefell(vm, Fate.GONE)]

    def _put(self, key: Key, vm: Vm | None) -> None:
        old = self._vms.pop(key, None)
        if old is not None and old.resource_id is not None:
            claims = self._by_id[old.resource_id]
            claims.discard(key)
            if not claims:
                del self._by_id[old.resource_id]
        if vm is not None:
            self._vms[key] = vm
            if vm.resource_id is not None:
                self._by_id.setdefault(vm.resource_id, set()).add(key)


def _kinds(seen: Seen) -> tuple[tuple[Kind, bool], ...]:
    return (Kind.SERIAL, seen.serial), (Kind.GRAPHICS, seen.graphics)


def _resource_id(seen: Seen) -> tuple[ResourceId | None, str | None]:
    if seen.resource is None:
        return None, seen.fault
    try:
        return ResourceId.parse(seen.resource), seen.fault
    except BadResourceId as error:
        return None, f"the metadata is no resource ID: {error.why}"
