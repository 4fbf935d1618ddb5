"""eva/whereabouts.py: a query reads back or is refused, and so is its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import PROVIDER
from eva.members import MAX_INTEGER, BadMember, Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Claims, Fault, b64
from eva.whereabouts import Query, Whereabouts

NONCE = b64(bytes(range(16)))
QUERY = Query("AzS-ERCS01", NONCE, 1_790_000_000, ResourceId("0b1c9f6e-3a5d-4c8e-9f10-2a3b4c5d6e7f", "rg", "vm-01"))

jtis = st.binary(min_size=16, max_size=16).map(b64)
printable = st.text(max_size=60).filter(str.isprintable)
counts = st.integers(0, MAX_INTEGER)


def again(query: Query, changes: dict[str, Json] | None = None, without: str = "") -> Query:
    claims = query.to_claims() | (changes or {})
    claims.pop(without, None)
    return Query.from_claims(Claims(claims, "k"))


@given(st.builds(Query, printable, jtis, counts, st.just(QUERY.resource_id)))
def test_every_query_reads_back(query: Query) -> None:
    assert again(query) == query


@pytest.mark.parametrize(("seconds", "fault"), [(-61, Fault.TIME), (-60, None), (0, None), (60, None), (61, Fault.TIME)])
def test_a_query_is_good_for_a_minute(seconds: int, fault: Fault | None) -> None:
    assert QUERY.time_fault(QUERY.issued_at + seconds) is fault


def test_whereabouts_read_back() -> None:
    assert Whereabouts.decode(Whereabouts("AzS-ERCS02").encode()).node == "AzS-ERCS02"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"node":1}', b'{"node":"a b"}', rb'{"node":"\u001b[31m"}', b'{"node":"n","more":1}'], ids=ascii
)
def test_whereabouts_that_name_no_node_are_refused(raw: bytes) -> None:
    with pytest.raises(BadMember):
        Whereabouts.decode(raw)


def test_a_query_is_the_nodes_to_the_provider() -> None:
    assert (QUERY.to_claims()["iss"], QUERY.to_claims()["aud"]) == ("AzS-ERCS01", PROVIDER)


@pytest.mark.parametrize("name", QUERY.to_claims())
def test_a_query_without_one_of_its_claims_is_refused(name: str) -> None:
    with pytest.raises(BadToken):
        again(QUERY, without=name)


@pytest.mark.parametrize("name", [*QUERY.to_claims(), "more"])
@pytest.mark.parametrize("value", [None, True, 1.0, [], -1, 1 << 64, "\0", "\ud800", {"a": 1}], ids=ascii)
def test_a_querys_claim_of_another_sort_is_refused(name: str, value: Json) -> None:
    with pytest.raises(BadToken):
        again(QUERY, {name: value})
