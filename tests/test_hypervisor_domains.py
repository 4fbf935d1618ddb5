"""hypervisor.domains: sightings in, changes out; generations; who claims a resource ID."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import Kind
from eva.resource_id import ResourceId
from hypervisor import domains
from hypervisor.domains import Change, HostDown, HostUp, Inventory, VmBefell, VmChanged
from hypervisor.sighting import Beat, Befell, Fate, Listed, Lost, Seen, Sighting

HOST = "kvm01"
GROUP = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines"
ID = f"{GROUP}/vm1"
A = Seen("a", "vm1", 1, True, False, ID, True, True, False, None)
B = Seen("b", "vm2", 2, True, False, f"{GROUP}/vm2", True, False, False, None)


def listed(*sightings: Seen, generations: dict[tuple[str, str], int] | None = None) -> Inventory:
    inventory = Inventory(generations)
    apply(inventory, *sightings, Listed(len(sightings)))
    return inventory


def apply(inventory: Inventory, *sightings: Sighting) -> list[Change]:
    return [change for sighting in sightings for change in inventory.apply(HOST, sighting)]


def kinds(changes: Sequence[Change]) -> list[type | Fate]:
    return [change.fate if isinstance(change, VmBefell) else type(change) for change in changes]


def gone(uuid: str) -> Befell:
    return Befell(uuid, Fate.GONE)


def stopped(uuid: str) -> Befell:
    return Befell(uuid, Fate.STOPPED)


def test_nothing_changes_before_the_listing_is_whole() -> None:
    inventory = Inventory()
    assert apply(inventory, A, B) == []
    assert inventory.vms == ()
    assert not inventory.host_up(HOST)


def test_the_first_listing_gives_every_vm_and_then_the_host() -> None:
    inventory = Inventory()
    assert kinds(apply(inventory, A, B, Listed(2))) == [VmChanged, VmChanged, HostUp]
    assert inventory.host_up(HOST)


def test_a_listing_that_does_not_count_is_a_host_down() -> None:
    inventory = Inventory()
    assert kinds(apply(inventory, A, Listed(2))) == [HostDown]
    assert inventory.vms == ()


def test_a_vm_is_what_was_seen_of_it() -> None:
    vm = listed(A).get(HOST, "a")
    assert vm is not None
    assert (vm.generation, vm.running, vm.paused, vm.kinds) == (1, True, False, {Kind.SERIAL, Kind.GRAPHICS})
    assert vm.resource_id == ResourceId.parse(ID)


def test_the_same_again_is_no_change() -> None:
    assert apply(listed(A), A, Beat()) == []


def test_a_pause_and_a_new_name_are_changes_of_one_vm() -> None:
    inventory = listed(A)
    assert kinds(apply(inventory, replace(A, paused=True), replace(A, name="other"))) == [VmChanged, VmChanged]
    assert [vm.generation for vm in inventory.vms] == [1]


def test_a_vm_is_found_by_its_resource_id_in_any_case() -> None:
    assert [vm.uuid for vm in listed(A, B).find(ResourceId.parse(ID.upper()))] == ["a"]


def test_two_that_claim_one_resource_id_are_both_found() -> None:
    inventory = listed(A, replace(B, resource=ID))
    inventory.apply("kvm02", replace(A, uuid="c"))
    inventory.apply("kvm02", Listed(1))
    assert [(vm.host, vm.uuid) for vm in inventory.find(ResourceId.parse(ID))] == [(HOST, "a"), (HOST, "b"), ("kvm02", "c")]


def test_a_vm_is_not_found_by_a_resource_id_it_had() -> None:
    inventory = listed(A)
    apply(inventory, replace(A, resource=None))
    assert inventory.find(ResourceId.parse(ID)) == ()


def test_metadata_that_is_no_resource_id_is_told_and_not_believed() -> None:
    vm = listed(replace(A, resource="vm1")).get(HOST, "a")
    assert vm is not None
    assert vm.resource_id is None
    assert vm.fault is not None


def test_a_stop_is_told_once_though_the_state_comes_too() -> None:
    inventory = listed(A)
    assert kinds(apply(inventory, stopped("a"), replace(A, number=-1))) == [Fate.STOPPED]
    vm = inventory.get(HOST, "a")
    assert vm is not None
    assert not vm.running


def test_a_stop_is_told_when_only_the_state_tells_it() -> None:
    assert kinds(apply(listed(A), replace(A, number=-1))) == [Fate.STOPPED]


def test_another_run_of_the_guest_is_a_stop_and_a_change() -> None:
    assert kinds(apply(listed(A), replace(A, number=9))) == [Fate.STOPPED, VmChanged]


def test_a_stop_keeps_the_generation() -> None:
    inventory = listed(A)
    apply(inventory, stopped("a"), replace(A, number=-1), replace(A, number=3))
    assert [vm.generation for vm in inventory.vms] == [1]


def test_another_run_of_a_transient_domain_is_another_vm() -> None:
    transient = replace(A, persistent=False)
    changes = apply(listed(transient), replace(transient, number=9))
    assert kinds(changes) == [Fate.STOPPED, Fate.GONE, VmChanged]
    assert isinstance(changes[-1], VmChanged)
    assert changes[-1].vm.generation == 2


def test_whatever_follows_the_one_run_of_a_transient_domain_is_another_vm() -> None:
    inventory = listed(replace(A, persistent=False))
    changes = apply(inventory, stopped("a"), replace(A, number=-1))
    assert kinds(changes) == [Fate.STOPPED, Fate.GONE, VmChanged]
    assert [vm.generation for vm in inventory.vms] == [2]


def test_a_transient_domain_that_is_defined_is_the_same_vm() -> None:
    inventory = listed(replace(A, persistent=False))
    assert apply(inventory, A) == []
    assert kinds(apply(inventory, stopped("a"), replace(A, number=9))) == [Fate.STOPPED, VmChanged]


def test_a_reset_is_told_and_changes_nothing() -> None:
    inventory = listed(A)
    before = inventory.vms
    assert kinds(apply(inventory, Befell("a", Fate.RESET))) == [Fate.RESET]
    assert inventory.vms == before


def test_a_re_created_vm_is_another_generation() -> None:
    inventory = listed(A)
    over, changed = apply(inventory, gone("a"), A)
    assert isinstance(over, VmBefell)
    assert over.fate is Fate.GONE
    assert isinstance(changed, VmChanged)
    assert (over.vm.generation, changed.vm.generation) == (1, 2)


def test_gone_twice_is_gone_once() -> None:
    inventory = listed(A)
    assert kinds(apply(inventory, gone("a"), gone("a"))) == [Fate.GONE]
    assert apply(inventory, A)[0].vm.generation == 2


def test_a_vm_that_is_gone_is_neither_found_nor_got() -> None:
    inventory = listed(A)
    apply(inventory, gone("a"))
    assert inventory.get(HOST, "a") is None
    assert inventory.find(ResourceId.parse(ID)) == ()


def test_the_same_uuid_on_another_host_is_another_vm() -> None:
    inventory = listed(A)
    apply(inventory, gone("a"), A)
    inventory.apply("kvm02", A)
    inventory.apply("kvm02", Listed(1))
    other = inventory.get("kvm02", "a")
    assert other is not None
    assert other.generation == 1


def test_kept_generations_are_gone_on_with() -> None:
    assert listed(A, generations={(HOST, "a"): 7}).vms[0].generation == 7


def test_a_vm_that_an_earlier_run_knew_and_this_one_did_not_find_is_gone() -> None:
    inventory = listed(B, generations={(HOST, "a"): 7, ("kvm02", "a"): 3})
    assert inventory.generations == {(HOST, "a"): 8, ("kvm02", "a"): 3, (HOST, "b"): 1}
    assert apply(inventory, A)[0].vm.generation == 8


def test_what_is_gone_at_each_re_read_rises_once() -> None:
    inventory = listed(generations={(HOST, "a"): 7})
    apply(inventory, Lost("x"), Listed(0), Lost("x"), Listed(0))
    assert inventory.generations == {(HOST, "a"): 8}


def test_a_lost_host_is_told_once_and_keeps_its_vms() -> None:
    inventory = listed(A)
    assert apply(inventory, Lost("x"), Lost("y")) == [HostDown(HOST, "x")]
    assert not inventory.host_up(HOST)
    assert [vm.uuid for vm in inventory.vms] == ["a"]


def test_a_host_that_was_never_up_is_told_to_be_down() -> None:
    assert Inventory().down(HOST, "x") == [HostDown(HOST, "x")]


def test_a_re_read_gives_the_differences_and_then_the_host() -> None:
    inventory = listed(A, B)
    changes = apply(inventory, Lost("x"), replace(B, number=-1), Listed(1))
    assert kinds(changes) == [HostDown, Fate.GONE, Fate.STOPPED, HostUp]
    assert apply(inventory, A)[0].vm.generation == 2


def test_a_host_that_comes_back_unchanged_changes_nothing() -> None:
    assert kinds(apply(listed(A), Lost("x"), A, Listed(1))) == [HostDown, HostUp]


def test_half_a_listing_is_forgotten_with_its_connection() -> None:
    inventory = Inventory()
    assert kinds(apply(inventory, A, Lost("x"), B, Listed(1))) == [HostDown, VmChanged, HostUp]
    assert [vm.uuid for vm in inventory.vms] == ["b"]


def test_a_forgotten_generation_is_never_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "MAX_GONE", 2)
    inventory = listed(A, B)
    apply(inventory, gone("a"), A, gone("a"))  # its next would be 3
    for number in range(4):
        apply(inventory, replace(B, uuid=f"n{number}"), gone(f"n{number}"))
    assert (HOST, "a") not in inventory.generations
    assert apply(inventory, A)[0].vm.generation >= 3


UUIDS = st.sampled_from("abc")
SIGHTINGS = st.one_of(
    st.builds(
        Seen,
        UUIDS,
        st.just("vm"),
        st.integers(-1, 2),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, ID, "no id"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.none(),
    ),
    st.builds(Listed, st.integers(0, 3)),
    st.builds(Befell, UUIDS, st.sampled_from(Fate)),
    st.builds(Lost, st.just("x")),
)


@given(st.lists(SIGHTINGS, max_size=40))
def test_a_generation_that_has_ended_never_comes_back_and_claims_are_exact(sightings: list[Sighting]) -> None:
    inventory = Inventory()
    over: set[tuple[str, int]] = set()
    for sighting in sightings:
        for change in inventory.apply(HOST, sighting):
            if isinstance(change, VmBefell) and change.fate is Fate.GONE:
                over.add((change.vm.uuid, change.vm.generation))
        live = {(vm.uuid, vm.generation) for vm in inventory.vms}
        assert not live & over
        claimed = [vm for vm in inventory.vms if vm.resource_id is not None]
        assert list(inventory.find(ResourceId.parse(ID))) == sorted(claimed, key=lambda vm: vm.uuid)


def test_every_order_of_an_undefine_and_a_define_ends_in_a_new_generation() -> None:
    for order in itertools.permutations([stopped("a"), gone("a"), replace(A, number=-1)]):
        inventory = listed(A)
        apply(inventory, *order, A)
        assert [vm.generation for vm in inventory.vms] == [2]
