"""provider/consent/features.py: who may consent, as a rule and as rows."""

from __future__ import annotations

import pytest

from provider.consent.authority import Refusal
from provider.consent.disabling import disable_subscription, set_global_state
from provider.consent.features import FEATURE, Feature, GlobalState, allows
from tests.provider_office import NOW, VM, Office
from tests.provider_parts import SUBSCRIPTION

OTHER = "0d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c91"


@pytest.mark.parametrize(
    ("state", "listed", "may"),
    [
        (GlobalState.TENANT_SUBSCRIPTION_LEVEL, True, True),
        (GlobalState.TENANT_SUBSCRIPTION_LEVEL, False, False),
        (GlobalState.ENABLED, True, True),
        (GlobalState.ENABLED, False, True),
        (GlobalState.DISABLED, True, False),
        (GlobalState.DISABLED, False, False),
    ],
)
def test_the_global_state_overrides_the_list(state: GlobalState, listed: bool, may: bool):
    assert allows(state, listed) is may


def test_a_new_store_goes_by_its_list(office: Office):
    found = office.do(lambda desk: desk.features.feature())
    assert (found.name, found.state) == (FEATURE, GlobalState.TENANT_SUBSCRIPTION_LEVEL)
    assert [one.subscription for one in found.subscriptions] == [SUBSCRIPTION]


def test_subscriptions_compare_without_case_and_are_shown_as_given(office: Office):
    office.do(lambda desk: desk.features.enable(OTHER.upper(), "ann", 5))
    office.do(lambda desk: desk.features.enable(OTHER, "bob", 6))

    def look(feature: Feature) -> list[tuple[str, int, str]]:
        return [(one.subscription, one.enabled_ms, one.enabled_by) for one in feature.subscriptions]

    assert look(office.do(lambda desk: desk.features.feature()))[0] == (OTHER.upper(), 5, "ann")
    assert office.do(lambda desk: desk.features.allows(OTHER.title()))
    office.do(lambda desk: desk.features.disable(OTHER))
    assert not office.do(lambda desk: desk.features.allows(OTHER.upper()))


def test_the_state_is_kept(office: Office):
    for state in (GlobalState.DISABLED, GlobalState.ENABLED):
        office.do(lambda desk, one=state: set_global_state(desk, one))
        assert office.do(lambda desk: desk.features.state()) is state


def test_without_the_feature_no_offer_is_made(office: Office):
    office.do(lambda desk: disable_subscription(desk, SUBSCRIPTION.upper()))
    assert office.refusal(office.offer) is Refusal.FEATURE_OFF
    assert office.do(lambda desk: desk.books.unexpired(VM, NOW)) == []
