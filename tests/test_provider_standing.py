"""provider/consent/standing.py: what a tenant is shown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from eva.audit import Chains
from eva.audit import Event as Audited
from eva.consent import Consent
from eva.ending import Ending
from eva.members import Json
from eva.wire import Event
from provider.consent.disabling import disable_subscription
from provider.consent.standing import MOST_VISITS, Standing, standing
from provider.store.filed import State
from tests.provider_office import NOW, VM, Office
from tests.provider_parts import Pen


class Witness:
    """A node that records, and tells what it records."""

    def __init__(self, office: Office, consent: Consent, pen: Pen | None = None) -> None:
        self._office = office
        self._consent = consent
        self._pen = pen or office.pen
        self._chains = Chains()
        self.at_ms = NOW * 1000

    def tells(self, event: Audited, facts: Mapping[str, Json]) -> None:
        self.at_ms += 1000
        record = self._chains.next(self._consent.cid, event, facts, self.at_ms)
        self._office.receive(self._pen, self._pen.recorded(record))

    def starts(self, session: str, account: str = "ann") -> None:
        facts = {"session": session, "account": account, "address": "::1", "kind": "serial", "access": "view"}
        self.tells(Audited.SESSION_START, facts)

    def ends(self, session: str) -> None:
        self.tells(Audited.SESSION_END, {"session": session, "reason": "operator-left"})


def shown(office: Office, most: int = 10) -> Standing:
    return office.do(lambda desk: standing(desk.records, desk.visits, desk.features, VM, office.now, most))


def test_nothing_is_shown_of_a_vm_without_consent(office: Office):
    assert shown(office) == Standing(VM, True, None, ())


def test_a_subscription_without_the_feature_is_shown_so(office: Office):
    office.do(lambda desk: disable_subscription(desk, VM.subscription))
    assert not shown(office).enabled


def test_an_offer_is_shown(office: Office):
    consent = office.offer().consent
    current = shown(office).current
    assert current is not None
    assert (current.consent_id, current.state, current.node) == (consent.cid, State.OFFERED, "AzS-ERCS01")


def test_what_stands_is_shown_with_its_scopes(office: Office):
    office.granted()
    current = shown(office).current
    assert current is not None
    assert (current.state, current.giver, current.operators, current.reason, current.uuid) == (
        State.GRANTED,
        "tenant",
        ("group:cloudadmin",),
        "why",
        "u",
    )
    assert (current.expires_at, current.ending) == (NOW + 3600, "")


def test_who_is_connected_is_the_nodes_word(office: Office):
    witness = Witness(office, office.granted())
    witness.starts("s1")
    witness.starts("s2", "bob")
    witness.ends("s1")
    current = shown(office).current
    assert current is not None
    assert [(v.account, v.address, v.node, v.began_ms - NOW * 1000, v.ending) for v in current.visits] == [
        ("ann", "::1", "AzS-ERCS01", 1000, "operator-left"),
        ("bob", "::1", "AzS-ERCS01", 2000, None),
    ]
    assert [visit.account for visit in current.connected()] == ["bob"]


def test_of_another_consent_nothing_is_shown(office: Office):
    other = office.granted(office.vm(1))
    office.granted()
    Witness(office, other).starts("s1")
    current = shown(office).current
    assert current is not None
    assert current.visits == ()


def test_what_was_withdrawn_is_shown_with_its_reason_and_cut(office: Office):
    consent = office.granted()
    (notice,) = office.do(lambda desk: desk.revoke_vm(VM, Ending.FEATURE_DISABLED))
    office.receive(office.pen, office.pen.receipt(Event.ENDED, notice.jti, notice.seq, cut_us="900", sessions="1"))
    found = shown(office)
    (earlier,) = found.earlier
    assert found.current is None
    assert (earlier.consent_id, earlier.state, earlier.ending) == (consent.cid, State.REVOKED, "feature-disabled")
    assert [(cut.node, cut.cut_us, cut.sessions) for cut in earlier.cuts] == [("AzS-ERCS01", 900, 1)]
    assert earlier.connected() == ()


def test_an_end_at_the_node_is_shown_with_its_reason(office: Office):
    consent = office.granted()
    office.receive(office.pen, office.pen.receipt(Event.ENDED, consent.jti, reason="vm-gone"))
    (earlier,) = shown(office).earlier
    assert (earlier.state, earlier.ending) == (State.ENDED, "vm-gone")


def test_one_that_ran_out_is_shown_so(office: Office):
    office.granted()
    office.now += 3600
    (earlier,) = shown(office).earlier
    assert (earlier.state, earlier.ending) == (State.EXPIRED, "consent-expired")


def test_the_history_is_the_newest_first_and_bounded(office: Office):
    cids = []
    for _ in range(5):
        cids.append(office.granted().cid)
        office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
        office.now += 10
    assert [one.consent_id for one in shown(office, 3).earlier] == cids[:-4:-1]


def test_what_stands_is_shown_before_what_would_have_lasted_longer(office: Office):
    office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.now += 10
    short = office.offer(seconds=60).consent
    office.receive(office.pen, office.pen.receipt(Event.ACCEPTED, short.jti, uuid="u"))
    office.do(lambda desk: desk.acknowledge(short.jti))
    current = shown(office, 1).current
    assert current is not None
    assert current.consent_id == short.cid


def test_a_node_that_never_had_the_consent_tells_nothing(office: Office):
    Witness(office, office.granted(), office.other).starts("s1", "mallory")
    current = shown(office).current
    assert current is not None
    assert current.visits == ()


def test_of_many_sessions_the_newest_are_shown(office: Office):
    witness = Witness(office, office.granted())
    for number in range(MOST_VISITS + 3):
        witness.starts(f"s{number}", f"op{number}")
    current = shown(office).current
    assert current is not None
    assert [one.account for one in current.visits] == [f"op{number}" for number in range(3, MOST_VISITS + 3)]


def test_all_that_is_shown_has_one_bound(office: Office):
    """A look must stay cheap however much was recorded: nodes wait for their leases meanwhile."""
    for _ in range(2):
        witness = Witness(office, office.granted())
        for number in range(MOST_VISITS):
            witness.starts(f"s{number}")
        office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
        office.now += 10
    assert [len(one.visits) for one in shown(office).earlier] == [MOST_VISITS, 0]


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\u202e", "x" * 300])
def test_a_text_that_is_none_is_left_out(office: Office, text: str):
    """Neither database nor page could take it, and the node that told it is refused nothing for it."""
    Witness(office, office.granted()).starts("s1", text)
    current = shown(office).current
    assert current is not None
    assert [one.account for one in current.visits] == [""]
