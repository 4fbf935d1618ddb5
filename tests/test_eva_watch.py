"""eva/watch.py: a watch token reads back or is refused, and an origin is one and nothing more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import MAX_AHEAD, PROVIDER
from eva.members import BadMember, Json
from eva.resource_id import ResourceId
from eva.token import BadToken, Claims, Fault, b64
from eva.watch import MAX_ORIGIN, MAX_WATCH_SECONDS, Watch, WatchMethod, WatchRequest, watch_origin, watch_socket

NOW = 1_790_000_000
JTI = b64(bytes(range(16)))
RID = ResourceId("0b1c9f6e-3a5d-4c8e-9f10-2a3b4c5d6e7f", "rg", "vm-01")
WATCH = Watch(JTI, b64(bytes(16)), "AzS-ERCS01", RID, "tenant@example.com", NOW, NOW + MAX_WATCH_SECONDS)


def again(changes: dict[str, Json] | None = None, without: str = "") -> Watch:
    claims = WATCH.to_claims() | (changes or {})
    claims.pop(without, None)
    return Watch.from_claims(Claims(claims, "k"))


def test_a_watch_reads_back() -> None:
    assert again() == WATCH


def test_it_is_the_providers_for_one_node() -> None:
    assert (WATCH.to_claims()["iss"], WATCH.to_claims()["aud"]) == (PROVIDER, "AzS-ERCS01")


@pytest.mark.parametrize("name", WATCH.to_claims())
def test_a_watch_without_one_of_its_claims_is_refused(name: str) -> None:
    with pytest.raises(BadToken):
        again(without=name)


@pytest.mark.parametrize("name", [*WATCH.to_claims(), "more"])
@pytest.mark.parametrize("value", [None, True, 1.0, [], -1, 1 << 64, "\0", "\u202e", "\ud800", {"a": 1}], ids=ascii)
def test_a_claim_of_another_sort_is_refused(name: str, value: Json) -> None:
    with pytest.raises(BadToken):
        again({name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "AzS-ERCS01"},
        {"jti": JTI[:-1]},
        {"cid": JTI + "A"},
        {"cid": ""},
        {"sub": ""},
        {"sub": "x" * 129},
        {"resource_id": f"{RID}/"},
    ],
    ids=ascii,
)
def test_a_claim_that_means_nothing_is_refused(changes: dict[str, Json]) -> None:
    with pytest.raises(BadToken):
        again(changes)


@pytest.mark.parametrize("seconds", [1, MAX_WATCH_SECONDS])
def test_a_length_of_up_to_a_minute_is_taken(seconds: int) -> None:
    assert again({"exp": NOW + seconds}).expires_at == NOW + seconds


@pytest.mark.parametrize("seconds", [0, MAX_WATCH_SECONDS + 1, 28_800])
def test_another_length_is_refused(seconds: int) -> None:
    with pytest.raises(BadToken) as caught:
        again({"exp": NOW + seconds})
    assert caught.value.fault is Fault.TIME


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        (NOW, None),
        (NOW - MAX_AHEAD, None),
        (NOW - MAX_AHEAD - 1, Fault.TIME),
        (NOW + MAX_WATCH_SECONDS - 1, None),
        (NOW + MAX_WATCH_SECONDS, Fault.TIME),
    ],
)
def test_it_is_in_time_until_its_end(at: int, fault: Fault | None) -> None:
    assert WATCH.time_fault(at) is fault


# Origins


@pytest.mark.parametrize("text", ["https://ercs01-watch.example:8446", "https://a", "https://127.0.0.1:1", "https://[::1]:65535"])
def test_an_origin(text: str) -> None:
    assert watch_origin(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "http://ercs01.example",
        "wss://ercs01.example",
        "HTTPS://ercs01.example",
        "https://ERCS01.example",
        "https://ercs01.example/",
        "https://ercs01.example:0",
        "https://ercs01.example:65536",
        "https://ercs01.example:08446",
        "https://user@ercs01.example",
        "https://ercs01.example?x",
        "https://ercs01.example#x",
        "https://ercs01.example\n",
        "https://ercs01.example 'self'",
        "https://ercs01.example;script-src",
        "https://*.example",
        "https://*",
        "https://.example",
        "https://[::1",
        "https://\u212a.example",
    ],
    ids=ascii,
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        watch_origin(text)


def test_a_long_origin_is_refused() -> None:
    with pytest.raises(ValueError, match="https://"):
        watch_origin("https://" + "a" * MAX_ORIGIN)


@given(st.text())
def test_an_origin_never_ends_a_policys_source(text: str) -> None:
    try:
        found = watch_origin("https://" + text)
    except ValueError:
        return
    assert not set(found) & set(" ;,'\"\t\r\n")


def test_the_socket_at_an_origin() -> None:
    assert watch_socket("https://a:8446") == "wss://a:8446/v1/watch"


# Requests


def request(**changes: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "watch.open", "params": {"kind": "serial"}} | changes)


def test_a_request_is_read() -> None:
    assert WatchRequest.decode(request()) == WatchRequest(7, WatchMethod.WATCH_OPEN, {"kind": "serial"})


@pytest.mark.parametrize(
    "changes",
    [
        {"jsonrpc": "1.0"},
        {"id": "7"},
        {"id": None},
        {"method": "session.open"},
        {"method": "sign_in"},
        {"params": []},
        {"params": {str(number): 1 for number in range(9)}},
        {"more": 1},
    ],
    ids=ascii,
)
def test_what_is_no_request_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadMember):
        WatchRequest.decode(request(**changes))
