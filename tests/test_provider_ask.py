"""provider/consent/ask.py: what an open question means."""

from __future__ import annotations

from dataclasses import replace

from eva.consent import CLOUDADMIN, Access, Consent, Kind, Principal
from eva.resource_id import ResourceId
from provider.consent.ask import Ask, Scopes
from tests.provider_parts import jti, resource_id

VM = ResourceId.parse(resource_id())
ANN = frozenset({Principal(False, "ann")})
STANDING = Consent(jti(), jti(), "n", VM, "t", ANN, frozenset({Kind.SERIAL}), Access.VIEW, 1, 2, False)


def test_where_nothing_stands_it_is_all_for_cloudadmin():
    assert Ask(VM, "t").scopes() == Scopes(frozenset(Kind), Access.KEYBOARD, frozenset({CLOUDADMIN}), watched=False)


def test_where_a_consent_stands_it_is_that():
    assert Ask(VM, "t").scopes(STANDING) == Scopes.of(STANDING)


def test_what_is_said_counts():
    found = Ask(VM, "t", access=Access.KEYBOARD).scopes(STANDING)
    assert found == replace(Scopes.of(STANDING), access=Access.KEYBOARD)
