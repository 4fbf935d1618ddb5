"""broker/admission.py: who may open what, one reason a test."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from broker.admission import Wish, admit
from broker.session import Operator
from eva.consent import Access, Kind
from eva.control import Refusal, Refused
from eva.ledger import Accepted, Pin, Term
from tests.broker_parts import PIN, consent, principal, vm_id

ALICE = Operator("alice", frozenset({"cloudadmin"}), "10.0.0.1")


@dataclass(frozen=True)
class Domain:
    host: str = PIN.host
    uuid: str = PIN.uuid
    generation: int = PIN.generation
    running: bool = True
    kinds: frozenset[Kind] = frozenset(Kind)


def accepted(term: int = 10, pin: Pin = PIN, **other: object) -> Accepted:
    return Accepted(consent(**other), pin, Term(term, term))  # type: ignore[arg-type]


def refusal(wish: Wish, operator: Operator, standing: list[Accepted], domains: list[Domain]) -> Refusal:
    with pytest.raises(Refused) as caught:
        admit(wish, operator, standing, domains)
    return caught.value.refusal


SERIAL = Wish(vm_id(), Kind.SERIAL)


def test_the_consent_admits():
    one = accepted()
    assert admit(SERIAL, ALICE, [one], [Domain()]).accepted is one


def test_as_much_access_as_was_granted():
    assert admit(SERIAL, ALICE, [accepted(access=Access.VIEW)], [Domain()]).access is Access.VIEW


def test_less_access_may_be_asked():
    assert admit(Wish(vm_id(), Kind.SERIAL, Access.VIEW), ALICE, [accepted()], [Domain()]).access is Access.VIEW


def test_more_access_may_not():
    wish = Wish(vm_id(), Kind.SERIAL, Access.KEYBOARD)
    assert refusal(wish, ALICE, [accepted(access=Access.VIEW)], [Domain()]) is Refusal.NOT_CONSENTED


def test_no_consent():
    assert refusal(SERIAL, ALICE, [], [Domain()]) is Refusal.NO_CONSENT


def test_a_consent_for_another_vm():
    assert refusal(SERIAL, ALICE, [accepted(vm="vm2")], [Domain()]) is Refusal.NO_CONSENT


def test_a_consent_for_other_operators():
    one = accepted(operators=frozenset({principal("account:bob"), principal("group:helpdesk")}))
    assert refusal(SERIAL, ALICE, [one], [Domain()]) is Refusal.NO_CONSENT


def test_a_consent_for_this_account():
    assert admit(SERIAL, ALICE, [accepted(operators=frozenset({principal("account:alice")}))], [Domain()])


def test_a_group_of_an_accounts_name_is_not_the_account():
    assert refusal(SERIAL, ALICE, [accepted(operators=frozenset({principal("group:alice")}))], [Domain()]) is Refusal.NO_CONSENT


def test_another_kind():
    one = accepted(kinds=frozenset({Kind.GRAPHICS}))
    assert refusal(SERIAL, ALICE, [one], [Domain()]) is Refusal.NOT_CONSENTED


def test_two_domains_with_one_id():
    domains = [Domain(), Domain(uuid="other")]
    assert refusal(SERIAL, ALICE, [accepted()], domains) is Refusal.VM_AMBIGUOUS


def test_a_domain_that_is_gone():
    assert refusal(SERIAL, ALICE, [accepted()], []) is Refusal.NO_CONSENT


@pytest.mark.parametrize("domain", [Domain(uuid="other"), Domain(generation=2), Domain(host="host2")])
def test_another_domain_under_the_same_id(domain: Domain):
    assert refusal(SERIAL, ALICE, [accepted()], [domain]) is Refusal.NO_CONSENT


def test_a_domain_that_is_off():
    assert refusal(SERIAL, ALICE, [accepted()], [Domain(running=False)]) is Refusal.VM_NOT_RUNNING


def test_a_domain_without_that_device():
    assert refusal(SERIAL, ALICE, [accepted()], [Domain(kinds=frozenset())]) is Refusal.CONSOLE_FAILED


def test_of_two_consents_the_longer_one():
    short, long = accepted(term=1), accepted(term=2)
    assert admit(SERIAL, ALICE, [short, long], [Domain()]).accepted is long


def test_case_makes_no_difference():
    assert admit(Wish(vm_id("VM1"), Kind.SERIAL), ALICE, [accepted()], [Domain()])
