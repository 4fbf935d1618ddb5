"""provider/rest/scope.py: which scope holds which, and which spellings are scopes at all."""

from __future__ import annotations

import pytest

from eva.resource_id import ResourceId
from provider.rest.scope import CLOUD, BadScope, Scope

MINE = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"
OTHER = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c91"
GROUP = f"/subscriptions/{MINE}/resourceGroups/rg1"
VM = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm1"


@pytest.mark.parametrize("text", ["/", f"/subscriptions/{MINE}", GROUP, VM])
def test_each_kind_reads_back(text: str):
    assert Scope.parse(text).text == text


@pytest.mark.parametrize("text", [f"/SUBSCRIPTIONS/{MINE.upper()}", GROUP.upper(), VM.swapcase()])
def test_case_does_not_matter(text: str):
    assert Scope.parse(text) == Scope.parse(text.lower())


HELD = [
    ("/", VM),
    ("/", "/"),
    (f"/subscriptions/{MINE}", VM),
    (f"/subscriptions/{MINE.upper()}", VM),
    (f"/subscriptions/{MINE}", f"/subscriptions/{MINE}"),
    (GROUP, VM),
    (GROUP.upper(), VM),
    (VM, VM),
    (VM.upper(), VM.lower()),
]


@pytest.mark.parametrize(("outer", "inner"), HELD)
def test_holds(outer: str, inner: str):
    assert Scope.parse(outer).holds(Scope.parse(inner))


NOT_HELD = [
    (f"/subscriptions/{OTHER}", VM),
    (f"/subscriptions/{MINE}", "/"),
    (GROUP, f"/subscriptions/{MINE}"),
    (GROUP, f"/subscriptions/{MINE}/resourceGroups/rg10"),  # begins alike
    (GROUP, f"/subscriptions/{MINE}/resourceGroups/rg10/providers/Microsoft.Compute/virtualMachines/vm1"),
    (GROUP, f"/subscriptions/{OTHER}/resourceGroups/rg1"),
    (VM, VM + "0"),
    (VM, GROUP),
    (VM, VM.replace("rg1", "rg2")),
]


@pytest.mark.parametrize(("outer", "inner"), NOT_HELD)
def test_does_not_hold(outer: str, inner: str):
    assert not Scope.parse(outer).holds(Scope.parse(inner))


REFUSED = [
    "",
    "//",
    "/subscriptions",
    f"/subscriptions/{MINE}/",
    f"/subscriptions/{MINE[:-1]}",
    f"/subscriptions/{{{MINE}}}",
    f"subscriptions/{MINE}",
    f"//subscriptions/{MINE}",
    f"/subscriptions//{MINE}",
    f"/subscriptions/{MINE}/resourceGroups",
    f"/subscriptions/{MINE}/resourceGroups/",
    f"/subscriptions/{MINE}/resourceGroups/..",
    f"/subscriptions/{MINE}/resourceGroups/rg1/../rg2",
    f"/subscriptions/{MINE}/resourceGroups/rg%31",
    f"/subscriptions/{MINE}/resourceGroups/rg1%2Fproviders",
    f"/subscriptions/{MINE}/resourceGroups/r\u04331",  # Cyrillic
    f"/subscriptions/{MINE}/resourceGroups/rg\uff11",  # full width
    f"/subscr\u0131ptions/{MINE}",  # dotless i
    f"/\u017fubscriptions/{MINE}",  # long s, whose upper case is S
    f"/subscriptions/{MINE}/resourceGroups/rg1 ",
    f"/subscriptions/{MINE}/resourceGroups/rg1\n",
    f"/subscriptions/{MINE}/resourceGroups/rg1\x00",
    f"/subscriptions/{MINE}/resourceGroups/rg1/providers/Microsoft.Network/virtualMachines/vm1",
    f"/subscriptions/{MINE}/resourceGroups/rg1/providers/Microsoft.Compute/disks/vm1",
    VM + "/extensions/x",
    VM.replace("/", "\\"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_scope(text: str):
    with pytest.raises(BadScope):
        Scope.parse(text)


def test_a_machine_is_looked_for_in_its_four_scopes():
    assert Scope.of(ResourceId.parse(VM)).around() == ("/", f"/subscriptions/{MINE}", GROUP.lower(), VM.lower())


def test_the_cloud_is_in_no_subscription():
    assert (CLOUD.in_subscription, Scope.parse(VM.upper()).in_subscription) == (None, MINE)
