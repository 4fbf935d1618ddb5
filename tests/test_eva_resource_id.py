"""eva/resource_id.py: one spelling for one VM, and nothing that only looks like one."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.resource_id import MAX_LENGTH, BadResourceId, ResourceId, is_guid

SUBSCRIPTION = "0b1c9f6e-3a5d-4c8e-9f10-2a3b4c5d6e7f"
TEXT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-Prod/providers/Microsoft.Compute/virtualMachines/vm-01"
VM = ResourceId.parse(TEXT)

KELVIN, DOTLESS, LONG_S, FULLWIDTH_A, CYRILLIC_A = "\u212a", "\u0131", "\u017f", "\uff41", "\u0430"

guids = st.uuids().map(str)
groups = st.from_regex(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]", fullmatch=True)
vms = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", fullmatch=True).filter(str.isascii)
ids = st.builds(ResourceId, guids, groups.filter(str.isascii), vms)


def spelled(group: str = "rg-Prod", vm: str = "vm-01", subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{vm}"


def refused(text: str) -> BadResourceId:
    with pytest.raises(BadResourceId) as caught:
        ResourceId.parse(text)
    return caught.value


# What it is


def test_the_parts_are_read_as_written() -> None:
    assert (VM.subscription, VM.resource_group, VM.vm) == (SUBSCRIPTION, "rg-Prod", "vm-01")


def test_it_is_written_as_it_was_read() -> None:
    assert str(VM) == TEXT


@pytest.mark.parametrize("text", [TEXT.upper(), TEXT.lower(), TEXT.swapcase(), TEXT.replace("resourceGroups", "RESOURCEgroups")])
def test_case_makes_no_difference(text: str) -> None:
    other = ResourceId.parse(text)
    assert other == VM
    assert hash(other) == hash(VM)
    assert other.key == VM.key


def test_fixed_words_are_written_in_arms_case_whatever_was_read() -> None:
    assert str(ResourceId.parse(TEXT.upper())).startswith("/subscriptions/")


@pytest.mark.parametrize("text", [spelled(vm="vm-02"), spelled(group="rg-prod2"), spelled(subscription="f" + SUBSCRIPTION[1:])])
def test_each_part_makes_a_difference(text: str) -> None:
    assert ResourceId.parse(text) != VM


@given(ids)
def test_what_is_written_reads_as_itself(rid: ResourceId) -> None:
    again = ResourceId.parse(str(rid))
    assert again == rid
    assert str(again) == str(rid)


@given(ids)
def test_every_id_fits_the_length_that_is_read(rid: ResourceId) -> None:
    assert len(str(rid)) <= MAX_LENGTH


@given(ids, st.data())
def test_any_case_of_any_id_is_that_id(rid: ResourceId, data: st.DataObject) -> None:
    text = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in str(rid))
    assert ResourceId.parse(text) == rid


@given(ids)
def test_the_key_is_lower_case_ascii(rid: ResourceId) -> None:
    assert rid.key.isascii()
    assert rid.key == rid.key.lower()


# What it is not


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        TEXT + "/",
        TEXT + "//",
        "/" + TEXT,
        TEXT[1:],
        TEXT + "/extensions/x",
        TEXT.replace("/subscriptions/", "/subscriptions//"),
        TEXT.replace("/", "\\"),
        TEXT.replace("/providers", "/./providers"),
        TEXT.replace("/rg-Prod", "/rg-Prod/../rg-Prod"),
        spelled(vm=""),
        spelled(group=""),
        spelled(subscription=""),
        TEXT.replace("Microsoft.Compute", "Microsoft.Network"),
        TEXT.replace("virtualMachines", "virtualMachineScaleSets"),
        TEXT.replace("subscriptions", "subscription"),
        " " + TEXT,
        TEXT + " ",
        TEXT + "\n",
        TEXT + "\0",
        TEXT + "?x=1",
        TEXT + "#x",
        TEXT.replace("vm-01", "vm%2d01"),
        "\ud800" + TEXT,
    ],
)
def test_another_shape_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    "vm",
    [
        "..",
        ".",
        "a.",
        "a-",
        "_a",
        "-a",
        ".a",
        "a b",
        "a\0",
        "a\tb",
        "a/b",
        "a\\b",
        "a%41",
        "a'",
        'a"',
        "a;b",
        "a$b",
        "a*",
        "a:b",
        "x" * 65,
        KELVIN,
        f"vm{DOTLESS}",
        f"v{LONG_S}",
        FULLWIDTH_A,
        CYRILLIC_A,
        "\u0661",
        "a\u0301",
        "a\u200b",
        "\u202evm",
        "vm\n",
    ],
)
def test_a_vm_name_that_arm_refuses_or_that_only_looks_like_one_is_refused(vm: str) -> None:
    refused(spelled(vm=vm))


@pytest.mark.parametrize(
    "group",
    ["..", ".", "a.", "a b", "a\0", "a%2f", "x" * 91, KELVIN, DOTLESS, FULLWIDTH_A, CYRILLIC_A, "\u00e9tage", "a+b", "a\n", "a~"],
)
def test_a_resource_group_name_likewise(group: str) -> None:
    refused(spelled(group=group))


@pytest.mark.parametrize("vm", ["a", "0", "a.b", "a..b", "a-b", "a_", "x" * 64, "VM", "1-2"])
def test_vm_names_that_arm_takes(vm: str) -> None:
    assert ResourceId.parse(spelled(vm=vm)).vm == vm


@pytest.mark.parametrize("group", ["a", "(x)", "-", "_", "a.b", ".a", "x" * 90])
def test_resource_group_names_that_arm_takes(group: str) -> None:
    assert ResourceId.parse(spelled(group=group)).resource_group == group


@pytest.mark.parametrize(
    "subscription",
    [
        "x",
        SUBSCRIPTION[:-1],
        SUBSCRIPTION + "0",
        SUBSCRIPTION.replace("-", ""),
        "{" + SUBSCRIPTION + "}",
        SUBSCRIPTION[:-1] + "g",
        SUBSCRIPTION[:-1] + "\uff17",
        SUBSCRIPTION[:-1] + "\u0667",
        SUBSCRIPTION + "\n",
        "urn:uuid:" + SUBSCRIPTION,
    ],
)
def test_a_subscription_that_is_no_guid_is_refused(subscription: str) -> None:
    assert not is_guid(subscription)
    refused(spelled(subscription=subscription))


@pytest.mark.parametrize(
    ("word", "alike"),
    [
        ("subscriptions", f"{LONG_S}ubscriptions"),
        ("subscriptions", f"subscr{DOTLESS}ptions"),
        ("providers", f"prov{DOTLESS}ders"),
        ("providers", "prov\u0130ders"),  # its lower case is i and a combining dot
        ("Microsoft.Compute", f"Micro{LONG_S}oft.Compute"),
        ("resourceGroups", f"resourceGroup{LONG_S}"),
        ("virtualMachines", "virtualMa\u0441hines"),
        ("virtualMachines", "v\uff49rtualMachines"),
    ],
)
def test_a_look_alike_in_a_fixed_word_is_refused(word: str, alike: str) -> None:
    refused(TEXT.replace(word, alike))


def test_a_part_built_by_hand_is_checked_too() -> None:
    with pytest.raises(BadResourceId):
        ResourceId(SUBSCRIPTION, "rg", "vm/../other")


def test_a_long_text_is_refused_and_cut_in_the_error() -> None:
    found = refused(spelled(vm="x" * 1_000_000))
    assert len(found.text) == 128
    assert len(str(found)) < 400


@given(st.text())
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        ResourceId.parse(text)
    except BadResourceId:
        return


@given(st.integers(0, len(TEXT)), st.characters(min_codepoint=128))
def test_no_character_beyond_ascii_stands_anywhere(place: int, letter: str) -> None:
    refused(TEXT[:place] + letter + TEXT[place:])
    refused(TEXT[:place] + letter + TEXT[place + 1 :])


# In a URL


def from_url(path: str) -> ResourceId | None:
    try:
        return ResourceId.parse_url_path(path)
    except BadResourceId:
        return None


@given(ids)
def test_a_quoted_path_is_read_back(rid: ResourceId) -> None:
    assert from_url(quote(str(rid))) == rid


@given(ids, st.data())
def test_any_percent_encoding_of_what_is_no_slash_is_the_same_id(rid: ResourceId, data: st.DataObject) -> None:
    def maybe(c: str) -> str:
        return data.draw(st.sampled_from([c, f"%{ord(c):02x}", f"%{ord(c):02X}"])) if c != "/" else c

    assert from_url("".join(map(maybe, str(rid)))) == rid


@pytest.mark.parametrize(
    "path",
    [
        TEXT.replace("/", "%2F"),
        TEXT.replace("/vm-01", "%2fvm-01"),
        TEXT.replace("/vm-01", "/vm%2f01"),
        TEXT.replace("vm", "%2576m"),  # %76 once decoded: it is decoded once only
        TEXT + "%",
        TEXT + "%2",
        TEXT + "%zz",
        TEXT + "%00",
        TEXT + "%0a",
        TEXT + "%20",
        TEXT + "+",
        TEXT + "/%2e%2e",
        TEXT + "%2e",
        TEXT.replace("vm-01", "%2e%2e"),
        TEXT.replace("vm-01", "%c0%ae"),  # an overlong full stop
        TEXT.replace("vm-01", "%e2%84%aa"),  # the Kelvin sign
        TEXT.replace("vm-01", "%ff"),
        TEXT.replace("vm-01", "%u0076m"),
        TEXT.replace("vm-01", KELVIN),
        TEXT.replace("vm-01", "\ud800"),
        TEXT.replace("vm-01", "%\uff16\uff11"),
        "%" * 100_000,
        "%41" * MAX_LENGTH * 4,
    ],
)
def test_a_path_that_two_programs_may_read_differently_is_refused(path: str) -> None:
    assert from_url(path) is None


@given(st.text())
def test_any_path_is_an_id_or_refused(path: str) -> None:
    from_url(path)
