"""eva/members.py: JSON as one reading only, and members that are what they must be."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.members import MAX_INTEGER, BadMember, Json, Members, strict_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refused(read: Callable[[Members], object], value: Json) -> str:
    with pytest.raises(BadMember) as caught:
        read(Members({"x": value}))
    return str(caught.value)


# The text


@given(st.dictionaries(st.text(), json_values))
def test_what_json_writes_is_read_back(found: dict[str, Json]) -> None:
    assert strict_json(json.dumps(found).encode()) == found


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b"{}x",
        b"{}{}",
        b"{},",
        b'{"a":1,}',
        b'{"a":1 "b":2}',
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1}//c',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":0x1}',
        b'{"a":1_0}',
        b'{"a":"\x00"}',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are the library's
        strict_json(raw)


@pytest.mark.parametrize("number", ["1.0", "1e3", "1E3", "-0.0", "1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_no_integer_is_refused_at_any_depth(number: str) -> None:
    with pytest.raises(ValueError, match="no integer"):
        strict_json(f'{{"a":[{{"b":{number}}}]}}'.encode())


@pytest.mark.parametrize("raw", [b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'{"x":[{"a":1,"b":2,"a":3}]}'])
def test_a_key_twice_is_refused_at_any_depth(raw: bytes) -> None:
    with pytest.raises(ValueError, match="a key twice"):
        strict_json(raw)


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_is_refused_and_breaks_nothing(depth: int) -> None:
    for opening in (b"[", b'{"a":'):
        with pytest.raises(ValueError, match="nested too deeply"):
            strict_json(b'{"a":' + opening * depth)


@given(st.binary())
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(strict_json(raw), dict)
    except ValueError:
        return


# The members


@pytest.mark.parametrize("value", ["", "x", "é", "漢", "\U0001f600", "x" * 512])
def test_a_text(value: str) -> None:
    assert Members({"x": value}).text("x") == value


@pytest.mark.parametrize(
    "value",
    [None, 1, True, [], {}, "\0", "\n", "\x1b[31m", "\x7f", "\x9b", "\u202e", "\u200b", "\u2028", "\ud800", "\ufeff", "x" * 513],
)
def test_no_text(value: Json) -> None:
    refused(lambda members: members.text("x"), value)


def test_an_empty_text_where_one_is_needed() -> None:
    refused(lambda members: members.text("x", empty=False), "")


@pytest.mark.parametrize("value", [0, 1, MAX_INTEGER])
def test_an_integer(value: int) -> None:
    assert Members({"x": value}).integer("x") == value


@pytest.mark.parametrize("value", [None, True, False, "1", [1], {}, -1, MAX_INTEGER + 1, 10**100, 1.0])
def test_no_integer(value: Json) -> None:
    refused(lambda members: members.integer("x"), value)


def test_an_integer_has_a_least() -> None:
    refused(lambda members: members.integer("x", least=1), 0)


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], {}])
def test_no_truth(value: Json) -> None:
    refused(lambda members: members.truth("x"), value)


@pytest.mark.parametrize("value", [[], ["1"] * 2, ["1", "2", "3"], ["x"], [1], [None], [["1"]], "1", {"1": 1}, None])
def test_no_list_of_different_convertible_texts(value: Json) -> None:
    refused(lambda members: members.each("x", int, most=2), value)


def test_each_is_converted_in_order() -> None:
    assert Members({"x": ["2", "1"]}).each("x", int, most=2) == [2, 1]


@pytest.mark.parametrize("value", [None, [], "x", 1, {"a": 1, "b": 2}])
def test_no_table(value: Json) -> None:
    refused(lambda members: members.table("x", most=1), value)


@pytest.mark.parametrize("value", [None, {}, "x", 1, [1], [[]], [None], [{}, {}]])
def test_no_list_of_tables(value: Json) -> None:
    refused(lambda members: members.tables("x", most=1), value)


READERS: list[Callable[[Members], object]] = [
    lambda m: m.text("x"),
    lambda m: m.integer("x"),
    lambda m: m.truth("x"),
    lambda m: m.null("x"),
    lambda m: m.exactly("x", "y"),
    lambda m: m.convert("x", int),
    lambda m: m.each("x", int, 1),
    lambda m: m.table("x", 1),
    lambda m: m.tables("x", 1),
    lambda m: m.resource_id("x"),
]


@pytest.mark.parametrize("read", READERS)
def test_a_missing_member_is_refused_by_every_reader(read: Callable[[Members], object]) -> None:
    with pytest.raises(BadMember, match="no x"):
        read(Members({}))


@pytest.mark.parametrize("read", [*READERS[:3], *READERS[4:]])
def test_no_refusal_quotes_the_value(read: Callable[[Members], object]) -> None:
    assert "5ecret" not in refused(read, ["5ecret", {"5ecret": "5ecret"}]) + refused(read, {"5ecret": 1, "b": 2})


@pytest.mark.parametrize("value", ["5ecret", "5ecret\0"])
def test_nor_does_a_conversions(value: str) -> None:
    assert "5ecret" not in refused(lambda m: m.convert("x", int), value) + refused(lambda m: m.exactly("x", "y"), value)


def test_a_member_that_nobody_read_is_refused_and_not_named() -> None:
    members = Members({"x": "1", "5ecret": 1})
    members.text("x")
    with pytest.raises(BadMember) as caught:
        members.nothing_else()
    assert "5ecret" not in str(caught.value)


def test_members_that_were_all_read_are_enough() -> None:
    members = Members({"x": None})
    assert members.null("x")
    members.nothing_else()
