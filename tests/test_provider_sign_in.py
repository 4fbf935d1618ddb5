"""provider/watch/sign_in.py: whether who signs in may watch. The way to the issuer and back: tests/test_rest_watch.py."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eva.consent import Consent
from provider.consent.watching import Watchable
from provider.rest.caller import Caller
from provider.rest.roles import Assignment, Role, RoleBooks
from provider.rest.scope import Scope
from provider.store.store import StoreThread
from provider.watch.session import MAX_GROUPS
from provider.watch.sign_in import Gatekeeper, NoRole
from tests.provider_office import OTHER_VM, VM, Office

ISSUER = "https://login.example"


def caller(*groups: str, home: bool = True) -> Caller:
    return Caller(ISSUER, "lessee", "", frozenset(groups), home)


def assigned(office: Office, *principals: str, scope: Scope | None = None) -> None:
    where = scope or Scope.of(VM)
    with office.store.write() as connection:
        for one in principals:
            RoleBooks(connection).assign(Assignment(one, where, Role.READER), 0)


@pytest.fixture
async def gate(office: Office) -> AsyncIterator[Gatekeeper]:
    thread = StoreThread(office.store)
    yield Gatekeeper(thread)
    thread.close()


@pytest.fixture
def found(office: Office) -> Watchable:
    consent: Consent = office.granted()
    return Watchable(consent, consent.node, None, None)


async def test_who_has_no_role_there_is_refused(office: Office, gate: Gatekeeper, found: Watchable):
    assigned(office, "lessee", scope=Scope.of(OTHER_VM))
    with pytest.raises(NoRole):
        await gate.narrowed(caller("team"), found)


async def test_of_the_groups_those_are_kept_that_give_the_right(office: Office, gate: Gatekeeper, found: Watchable):
    assigned(office, "group:team")
    assert (await gate.narrowed(caller("a", "team", "z"), found)).groups == {"team"}


async def test_who_has_the_right_himself_keeps_no_group_that_gives_none(office: Office, gate: Gatekeeper, found: Watchable):
    """They would take the room of the one that counts once his own assignment is gone."""
    assigned(office, "lessee", "group:team")
    many = [f"a{number}" for number in range(MAX_GROUPS)]
    assert (await gate.narrowed(caller("team", *many), found)).groups == {"team"}


async def test_a_foreign_issuers_group_counts_under_its_name(office: Office, gate: Gatekeeper, found: Watchable):
    assigned(office, "group:team")
    with pytest.raises(NoRole):
        await gate.narrowed(caller("team", home=False), found)
    assigned(office, f"group:{ISSUER}#team")
    assert (await gate.narrowed(caller("team", home=False), found)).groups == {"team"}


async def test_no_more_are_kept_than_a_cookie_holds(office: Office, gate: Gatekeeper, found: Watchable):
    many = [f"a{number}" for number in range(MAX_GROUPS + 2)]
    assigned(office, *(f"group:{one}" for one in many))
    assert len((await gate.narrowed(caller(*many), found)).groups) == MAX_GROUPS
