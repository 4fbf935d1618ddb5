"""provider/rest/roles.py: what each role permits, and the assignments in a real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provider.rest.caller import Caller
from provider.rest.roles import Action, Assignment, Role, RoleBooks, permitted
from provider.rest.scope import CLOUD, Scope
from provider.store.place import Place
from provider.store.store import Store

MINE = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"
OTHER = "8d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"
VM = Scope.parse(f"/subscriptions/{MINE}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1")
THEIRS = Scope.parse(f"/subscriptions/{OTHER}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm1")
SUBSCRIPTION = Scope.subscription(MINE)

READS = {Action.SUBSCRIPTION_READ, Action.PROVIDERS_READ, Action.ACCESS_READ, Action.RECEIPT_READ, Action.WATCH_ACCESS}
WRITES = READS | {Action.ENABLE_ACCESS, Action.DISABLE_ACCESS}
ADMIN = set(Action) - WRITES

TABLE = [
    (Role.OWNER, WRITES),
    (Role.CONTRIBUTOR, WRITES),
    (Role.VM_CONTRIBUTOR, WRITES),
    (Role.READER, READS),
    (Role.ADMINISTRATOR, ADMIN),
]


@pytest.mark.parametrize(("role", "allowed"), TABLE)
def test_a_role_at_the_cloud_permits_this_and_no_more(role: Role, allowed: set[Action]):
    mine = [Assignment("me", CLOUD, role)]
    assert {action for action in Action if permitted(mine, action, VM)} == allowed


def test_every_role_is_in_the_table():
    assert {role for role, _ in TABLE} == set(Role)


def test_nobody_is_permitted_anything_without_an_assignment():
    assert not any(permitted([], action, VM) for action in Action)


@pytest.mark.parametrize("scope", [SUBSCRIPTION, Scope.parse(f"/subscriptions/{MINE}/resourceGroups/RG1"), VM])
def test_an_owner_of_a_scope_reaches_what_is_in_it_and_nothing_else(scope: Scope):
    mine = [Assignment("me", scope, Role.OWNER)]
    assert permitted(mine, Action.ENABLE_ACCESS, VM)
    assert not permitted(mine, Action.ENABLE_ACCESS, THEIRS)


def test_a_machines_owner_has_no_right_to_its_neighbour():
    neighbour = Scope.parse(VM.text + "0")
    assert not permitted([Assignment("me", VM, Role.OWNER)], Action.ENABLE_ACCESS, neighbour)


def test_the_administrator_is_the_clouds_only():
    with pytest.raises(ValueError, match="at / only"):
        Assignment("me", SUBSCRIPTION, Role.ADMINISTRATOR)


def test_a_role_is_named_in_any_case():
    assert Role.named("virtual machine CONTRIBUTOR") is Role.VM_CONTRIBUTOR


def test_another_role_is_refused():
    with pytest.raises(ValueError, match="one of Owner"):
        Role.named("Root")


# the store


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    store = Store(place, create=True)
    yield store
    store.close()


def assign(store: Store, *assignments: Assignment) -> list[bool]:
    with store.write() as connection:
        return [RoleBooks(connection).assign(one, 1) for one in assignments]


def test_an_assignment_twice_is_one(store: Store):
    one = Assignment("me", VM, Role.OWNER)
    spelled_otherwise = Assignment("me", Scope.parse(VM.text.upper()), Role.OWNER)
    assert assign(store, one, spelled_otherwise) == [True, False]
    with store.read() as connection:
        assert RoleBooks(connection).all() == [one]


def test_what_is_removed_is_gone(store: Store):
    assign(store, Assignment("me", VM, Role.OWNER), Assignment("me", VM, Role.READER))
    with store.write() as connection:
        books = RoleBooks(connection)
        taken = [books.remove(Assignment("me", VM, Role.OWNER)) for _ in range(2)]
        assert (taken, [one.role for one in books.all()]) == ([True, False], [Role.READER])


def test_only_what_holds_the_scope_is_found(store: Store):
    assign(
        store,
        Assignment("me", CLOUD, Role.READER),
        Assignment("me", SUBSCRIPTION, Role.OWNER),
        Assignment("me", Scope.parse(VM.text + "0"), Role.OWNER),
        Assignment("me", Scope.subscription(OTHER), Role.OWNER),
        Assignment("you", VM, Role.OWNER),
    )
    with store.read() as connection:
        found = RoleBooks(connection).of({"me"}, VM)
    assert {(one.scope.key, one.role) for one in found} == {("/", Role.READER), (SUBSCRIPTION.key, Role.OWNER)}


def test_a_group_and_its_member_are_found_by_the_callers_principals(store: Store):
    caller = Caller("https://i", "me", "", frozenset({"ops"}), home=True)
    assign(store, Assignment("group:ops", CLOUD, Role.ADMINISTRATOR), Assignment("ops", CLOUD, Role.OWNER))
    with store.read() as connection:
        assert [one.role for one in RoleBooks(connection).of(caller.principals())] == [Role.ADMINISTRATOR]


def test_subscriptions_are_those_that_scopes_name(store: Store):
    assign(store, Assignment("me", VM, Role.OWNER), Assignment("me", CLOUD, Role.READER), Assignment("you", THEIRS, Role.OWNER))
    with store.read() as connection:
        assert RoleBooks(connection).subscriptions() == {MINE, OTHER}
