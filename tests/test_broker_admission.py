"""broker/admission.py: who may open what, one reason a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from broker.admission import Wish, admit
from broker.session import Operator
from eva.consent import Access, Consent, Kind
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


def always(_: Consent) -> bool:
    """Every giver who has to watch does."""
    return True


def unwatched(one: Consent) -> bool:
    """Nobody watches."""
    return not one.watched


def refusal(
    wish: Wish,
    operator: Operator,
    standing: list[Accepted],
    domains: list[Domain],
    attended: Callable[[Consent], bool] = always,
) -> Refusal:
    with pytest.raises(Refused) as caught:
        admit(wish, operator, standing, domains, attended)
    return caught.value.refusal


SERIAL = Wish(vm_id(), Kind.SERIAL)


def test_the_consent_admits():
    one = accepted()
    assert admit(SERIAL, ALICE, [one], [Domain()], always).accepted is one


def test_as_much_access_as_was_granted():
    assert admit(SERIAL, ALICE, [accepted(access=Access.VIEW)], [Domain()], always).access is Access.VIEW


def test_less_access_may_be_asked():
    assert admit(Wish(vm_id(), Kind.SERIAL, Access.VIEW), ALICE, [accepted()], [Domain()], always).access is Access.VIEW


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
    assert admit(SERIAL, ALICE, [accepted(operators=frozenset({principal("account:alice")}))], [Domain()], always)


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
    assert admit(SERIAL, ALICE, [short, long], [Domain()], always).accepted is long


def test_case_makes_no_difference():
    assert admit(Wish(vm_id("VM1"), Kind.SERIAL), ALICE, [accepted()], [Domain()], always)


# -- who watches -------------------------------------------------------------------------------------------------------


def test_only_while_the_giver_watches():
    one = accepted(watched=True)
    assert refusal(SERIAL, ALICE, [one], [Domain()], unwatched) is Refusal.NOT_WATCHED
    assert admit(SERIAL, ALICE, [one], [Domain()], always).accepted is one


def test_a_consent_that_needs_nobody_comes_before_one_that_lasts_longer():
    free, watched = accepted(10), accepted(20, watched=True)
    assert admit(SERIAL, ALICE, [free, watched], [Domain()], unwatched).accepted is free
    assert admit(SERIAL, ALICE, [free, watched], [Domain()], always).accepted is watched


GIVER = Operator.tenant("tenant1", "10.0.0.2")


def look(one: Accepted, kind: Kind = Kind.SERIAL, access: Access = Access.VIEW) -> Wish:
    return Wish(one.consent.resource_id, kind, access, one.consent.cid)


def test_the_giver_may_look_though_no_operator():
    one = accepted(watched=True)
    assert admit(look(one), GIVER, [one], [Domain()], unwatched).access is Access.VIEW


def test_the_giver_looks_under_that_very_consent():
    one, other = accepted(10), accepted(20)
    assert admit(look(one), GIVER, [one, other], [Domain()], always).accepted is one


def test_another_giver_may_not_look():
    one = accepted(giver="tenant2")
    assert refusal(look(one), GIVER, [one], [Domain()]) is Refusal.NO_CONSENT


def test_the_giver_looks_at_what_was_consented_to_only():
    one = accepted(kinds=frozenset({Kind.SERIAL}))
    assert refusal(look(one, Kind.GRAPHICS), GIVER, [one], [Domain()]) is Refusal.NOT_CONSENTED


def test_an_operator_called_like_the_giver_is_not_the_giver():
    one = accepted(giver="alice", operators=frozenset({principal("account:bob")}))
    assert refusal(SERIAL, ALICE, [one], [Domain()]) is Refusal.NO_CONSENT


def test_a_giver_is_in_no_group():
    assert Operator.tenant("tenant1", "10.0.0.2").groups == frozenset()
