"""provider/rest/uri.py: paths that every program reads alike, and no others."""

from __future__ import annotations

import pytest

from provider.rest.arm import ArmError
from provider.rest.uri import MAX_PATH, folded, segments, template

VM = "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.Compute/virtualMachines/{vm}/enableVmAccess"
TEMPLATES = [template(one) for one in (VM, "/subscriptions/{s}", "/subscriptions/{s}/providers", "/{a}/{b}", "/providers/{n}")]


@pytest.mark.parametrize("raw", [b"/subscriptions/x", b"/sub%73criptions/x", b"/s%75bscriptions/%78"])
def test_it_is_decoded_once(raw: bytes):
    assert segments(raw) == ("subscriptions", "x")


def test_parentheses_may_be_encoded():
    assert segments(b"/a/rg%28x%29") == ("a", "rg(x)")


def test_the_root():
    assert segments(b"/") == ()


REFUSED = [
    b"",
    b"subscriptions",
    b"//subscriptions",
    b"/subscriptions/",
    b"/subscriptions//x",
    b"/subscriptions/./x",
    b"/subscriptions/../x",
    b"/subscriptions/%2e%2e/x",
    b"/subscriptions/%2E/x",
    b"/subscriptions/a%2Fb",
    b"/subscriptions/a%2fb",
    b"/subscriptions/a%5Cb",
    b"/subscriptions/a\\b",
    b"/subscriptions/a%252Fb",  # would be an encoded slash to whoever decodes twice
    b"/subscriptions/a%25",
    b"/subscriptions/a%",
    b"/subscriptions/a%2",
    b"/subscriptions/a%zz",
    b"/subscriptions/a%00",
    b"/subscriptions/a%0a",
    b"/subscriptions/a%0D%0AX:y",
    b"/subscriptions/a%20b",
    b"/subscriptions/a;b",
    b"/subscriptions/a:b",
    b"/subscriptions/a@b",
    b"/subscriptions/%D0%B0",  # Cyrillic a
    b"/subscriptions/%EF%BC%91",  # full-width 1
    b"/subscriptions/%C0%AF",  # an overlong slash
    b"/subscr%C4%B1ptions/x",
    b"/subscriptions/caf\xc3\xa9",
    b"https://other.example/subscriptions",
    b"*",
    b"/" + b"a" * MAX_PATH,
]


@pytest.mark.parametrize("raw", REFUSED)
def test_what_could_be_read_two_ways_is_refused(raw: bytes):
    with pytest.raises(ArmError) as caught:
        segments(raw)
    assert (caught.value.status, caught.value.code) == (400, "InvalidRequestUri")


def test_fixed_words_take_our_case_and_names_keep_theirs():
    asked = "/SUBSCRIPTIONS/AbC/resourcegroups/Rg1/PROVIDERS/microsoft.compute/VirtualMachines/VM1/enablevmaccess"
    ours = "/subscriptions/AbC/resourceGroups/Rg1/providers/Microsoft.Compute/virtualMachines/VM1/enableVmAccess"
    assert folded(tuple(asked.split("/")[1:]), TEMPLATES) == ours


def test_the_route_with_the_most_fixed_words_counts():
    assert folded(("SUBSCRIPTIONS", "x"), TEMPLATES) == "/subscriptions/x"


def test_a_path_that_fits_none_stays():
    assert folded(("Some", "Other", "Thing", "x", "y"), TEMPLATES) == "/Some/Other/Thing/x/y"


def test_a_longer_path_fits_no_shorter_route():
    assert folded(("Subscriptions", "x", "Y"), TEMPLATES) == "/Subscriptions/x/Y"
