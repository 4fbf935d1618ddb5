"""provider/rest/caller.py: nobody's id can be read as somebody else's."""

from __future__ import annotations

import pytest

from provider.rest.caller import Caller, is_id, principal

GUID = "7D2F4A3C-5B1E-4C88-9A06-2F3D1E5B7C90"


def caller(identifier: str = "alice", *, home: bool = True, groups: frozenset[str] = frozenset(), name: str = "") -> Caller:
    return Caller("https://login.example", identifier, name, groups, home)


def test_at_home_an_id_stands_alone_or_with_its_issuer():
    assert caller().principals() == {"alice", "https://login.example#alice"}


def test_elsewhere_only_with_its_issuer():
    found = caller(home=False, groups=frozenset({"ops"})).principals()
    assert found == {"https://login.example#alice", "group:https://login.example#ops"}


def test_a_groups_name_is_no_persons():
    assert "ops" not in caller(groups=frozenset({"ops"})).principals()


def test_a_guid_compares_without_case():
    assert caller(GUID).principal == GUID.lower() == principal(GUID)


def test_another_id_compares_with_case():
    assert principal("Alice") != caller().principal


@pytest.mark.parametrize("text", ["group:ops", "a#b", "a b", "", "a\n", "a" * 129, "\u0430lice", 'a"b', "a'b", "a\\b"])
def test_what_could_be_read_otherwise_is_no_id(text: str):
    assert not is_id(text)


@pytest.mark.parametrize("text", ["alice", GUID, "auth0|42", "system:serviceaccount:ns:name", "a@b.example", "x" * 128])
def test_ids_of_real_issuers(text: str):
    assert is_id(text)


@pytest.mark.parametrize("text", ["alice", "group:ops", "https://i.example/x#alice", "group:https://i.example#ops", "group:a:b"])
def test_principals_read_back(text: str):
    assert principal(text) == text


@pytest.mark.parametrize("text", ["", "group:", "#alice", "i.example#alice", "https://a#b#c", "https://a #b", "group:group:ops"])
def test_what_is_no_principal(text: str):
    with pytest.raises(ValueError, match=r"principal|issuer"):
        principal(text)


def test_a_giver_has_name_and_id():
    assert caller(GUID, name="Alice B").giver == f"Alice B ({GUID.lower()})"


def test_a_name_without_room_is_left_out():
    assert caller(GUID, name="x" * 96).giver == GUID.lower()


def test_a_giver_always_fits():
    assert len(caller("i" * 128, home=False).giver) == 128


@pytest.mark.parametrize(
    "one",
    [
        caller(),
        caller(home=False),
        caller(GUID, name="Alice B"),
        caller(name="Alice (of Bath)"),
        caller(name="Alice (bob)", home=False),
        caller("i" * 128),
        caller(name="x" * 96),
    ],
)
def test_who_gave_a_consent_is_known_by_it(one: Caller):
    assert one.gave(one.giver)


def test_another_name_is_no_other_giver():
    assert caller(name="Alice Married").gave(caller(name="Alice").giver)
    assert caller(GUID.lower()).gave(caller(GUID, name="Alice").giver)


@pytest.mark.parametrize(
    "other",
    [
        caller("bob", name="alice"),
        caller("bob", name="Alice (alice)"),
        caller("bob", name="(alice)"),
        caller("bob", name="alice) ("),
        caller(home=False),
        Caller("https://elsewhere.example", "alice", "", frozenset(), False),
    ],
)
def test_nobody_gave_anothers(other: Caller):
    assert not caller().gave(other.giver)
    assert not other.gave(caller().giver)
    assert not other.gave(caller(name="Alice").giver)


def test_where_the_issuer_had_no_room_nobody_gave_it():
    """Two issuers can have one id."""
    far = Caller("https://" + "i" * 100, "a" * 40, "", frozenset(), False)
    assert len(far.principal) > 128
    assert not far.gave(far.giver)
    assert not caller("a" * 40).gave(far.giver)
