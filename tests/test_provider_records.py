"""provider/store/records.py: what the store knows beyond a single token."""

from __future__ import annotations

from eva.ending import Ending
from eva.wire import Event
from provider.store.records import CHUNK
from tests.provider_office import NOW, OTHER_VM, VM, Office


def test_more_revocations_than_one_statement_names_are_found(office: Office):
    keys = [("AzS-ERCS01", seq) for seq in range(1, 2 * CHUNK + 5)]
    for number in range(3):
        vm = office.vm(number)
        office.granted(vm)
        office.do(lambda desk, vm=vm: desk.revoke_vm(vm, Ending.CONSENT_REVOKED))
    found = office.do(lambda desk: desk.records.notices([*keys, ("AzS-ERCS02", 1)]))
    assert [(one.node, one.seq) for one in found] == keys[:3]


def test_what_lives_is_told_by_subscription_and_whole(office: Office):
    other = office.in_other_subscription()
    for vm in (VM, other):
        office.granted(vm)
    office.offer(OTHER_VM)
    assert len(office.do(lambda desk: desk.records.living(NOW))) == 3
    mine = office.do(lambda desk: desk.records.living(NOW, other.subscription.upper()))
    assert [one.resource_key for one in mine] == [other.key]


def test_what_is_over_does_not_live(office: Office):
    office.granted(VM)
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))
    office.granted(OTHER_VM)
    assert office.do(lambda desk: desk.records.living(NOW + 3600)) == []
    assert [one.resource_key for one in office.do(lambda desk: desk.records.living(NOW))] == [OTHER_VM.key]


def test_what_a_node_serves_is_what_stands_there(office: Office):
    ended = office.granted(office.vm(1))
    office.receive(office.pen, office.pen.receipt(Event.ENDED, ended.jti, reason="vm-gone"))
    office.offer(office.vm(2))
    office.granted(office.vm(3), office.other)
    stands = office.granted(office.vm(4))

    def served(*nodes: str) -> list[str]:
        return [one.jti for one in office.do(lambda desk: desk.records.served_by(nodes, NOW, 10))]

    assert served("AzS-ERCS01") == [stands.jti]
    assert len(served("AzS-ERCS01", "AzS-ERCS02")) == 2
    assert office.do(lambda desk: desk.records.served_by(["AzS-ERCS01"], NOW + 3600, 10)) == []


def test_a_consents_revocations_are_those_by_name_and_by_watermark(office: Office):
    first = office.granted()
    office.do(lambda desk: desk.revoke_consent(first.cid, Ending.CONSENT_REVOKED))
    second = office.granted()
    office.do(lambda desk: desk.revoke_vm(VM, Ending.CONSENT_REVOKED))

    def seqs(cid: str) -> list[int]:
        return [one.seq for one in office.do(lambda desk: desk.records.revocations_of(desk.records.tokens_of(cid)))]

    assert (seqs(first.cid), seqs(second.cid)) == ([1, 2], [2])
    assert office.do(lambda desk: desk.records.revocations_of([])) == []
