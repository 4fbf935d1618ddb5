"""eva/control.py: what a client and a node say to each other, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.consent import Access, Kind
from eva.control import (
    MAX_MESSAGE,
    QUERIES,
    Answer,
    Event,
    Failure,
    Mark,
    Method,
    Notice,
    Opened,
    Refusal,
    Refused,
    Request,
    decode_from_node,
    decode_mark,
    encode_mark,
)
from eva.members import MAX_INTEGER, BadMember, Json, Members

ids = st.integers(0, MAX_INTEGER)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.text(max_size=20), values, max_size=8)

OPENED = Opened(
    session="s1",
    ticket="T" * 43,
    kind=Kind.SERIAL,
    access=Access.VIEW,
    keyboard=False,
    consent="c",
    resource_id="/subscriptions/x",
    node="AzS-ERCS01",
    giver="tenant",
    reason="",
    expires_at=1_790_000_000,
    remaining_s=60,
)


def message(**changes: Json) -> str:
    whole = {"jsonrpc": "2.0", "id": 1, "method": "sign_in", "params": {}} | changes
    return json.dumps({name: value for name, value in whole.items() if value != "ABSENT"})


# Round trips


@given(st.builds(Request, ids, st.sampled_from(Method), tables))
def test_every_request_reads_back(request: Request) -> None:
    assert Request.decode(request.encode()) == request


@given(st.builds(Answer, ids, tables))
def test_every_answer_reads_back(answer: Answer) -> None:
    assert decode_from_node(answer.encode()) == answer


@given(st.builds(Failure, st.none() | ids, st.sampled_from(Refusal)))
def test_every_failure_reads_back(failure: Failure) -> None:
    assert decode_from_node(failure.encode()) == failure


@given(st.builds(Notice, st.sampled_from(Event), tables))
def test_every_notice_reads_back(notice: Notice) -> None:
    assert decode_from_node(notice.encode()) == notice


@given(st.sampled_from(Mark), st.dictionaries(st.from_regex(r"[a-z_]{1,10}", fullmatch=True).filter(lambda n: n != "mark"), ids))
def test_every_mark_reads_back(mark: Mark, members: dict[str, int]) -> None:
    members.pop("notice", None)
    found, rest = decode_mark(encode_mark(mark, **members))
    assert found is mark
    assert {name: rest.integer(name) for name in members} == members


def test_what_is_opened_reads_back() -> None:
    answer = decode_from_node(Answer(1, OPENED.to_members()).encode())
    assert isinstance(answer, Answer)
    assert Opened.from_members(Members(answer.result)) == OPENED


# What is no message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[" + message() + "]",  # a batch
        "{}",
        message() + message(),
        message().replace('"id": 1', '"id": 1, "id": 2'),
        message().replace('"params": {}', '"params": {"a": 1, "a": 2}'),
        message().replace('"id": 1', '"id": 1.0'),
        message().replace('"id": 1', '"id": 1e0'),
        message(id="1"),
        message(id=None),
        message(id=True),
        message(id=-1),
        message(id=MAX_INTEGER + 1),
        message(id=[1]),
        message(id="ABSENT"),
        message(jsonrpc="ABSENT"),
        message(jsonrpc="1.0"),
        message(jsonrpc=2),
        message(method="ABSENT"),
        message(method="SIGN_IN"),
        message(method="session.open "),
        message(method="__init__"),
        message(method=None),
        message(params="ABSENT"),
        message(params=None),
        message(params=[]),
        message(params={str(i): i for i in range(9)}),
        message(more=1),
        message(result={}),
        "\ud800",
        message().replace("sign_in", "sign\x00in"),
        '{"a":' * 3000,
        "9" * 5000,
        " " * (MAX_MESSAGE + 1),
    ],
    ids=lambda text: ascii(text)[:50],
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(BadMember):
        Request.decode(text)


def test_the_model_of_those_is_one() -> None:
    assert Request.decode(message()) == Request(1, Method.SIGN_IN, {})


@pytest.mark.parametrize(
    "whole",
    [
        {},
        {"id": 1},
        {"id": 1, "result": {}, "error": {"code": 1, "message": "", "data": {"reason": "stopping"}}},
        {"id": 1, "result": []},
        {"id": None, "result": {}},
        {"id": 1, "result": {}, "more": 1},
        {"id": 1, "result": {str(i): i for i in range(33)}},
        {"method": "session.ended", "params": {}, "id": 1},
        {"method": "session.ended", "params": {}, "result": {}},
        {"method": "session.forgiven", "params": {}},
        {"method": "session.ended"},
        {"method": "session.ended", "params": {str(i): i for i in range(17)}},
        {"id": 1, "error": {}},
        {"id": 1, "error": {"data": {}}},
        {"id": 1, "error": {"data": {"reason": "because"}}},
        {"id": 1, "error": {"data": {"reason": "stopping", "more": 1}}},
        {"id": 1, "error": {"code": 1, "message": "", "data": {"reason": "stopping"}, "more": 1}},
        {"error": {"code": 1, "message": "", "data": {"reason": "stopping"}}},
    ],
    ids=lambda whole: ascii(whole)[:60],
)
def test_what_is_no_word_of_a_node_is_refused(whole: dict[str, Json]) -> None:
    with pytest.raises(BadMember):
        decode_from_node(json.dumps({"jsonrpc": "2.0"} | whole))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"notice":"attached","notice":"ended"}',
        '{"notice":"x"}',
        '{"notice":1}',
        "\ud800",
        " " * (MAX_MESSAGE + 1),
    ],
)
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(BadMember):
        decode_mark(text)


@pytest.mark.parametrize("decode", [Request.decode, decode_from_node, decode_mark])
@given(st.text())
def test_any_text_is_read_or_refused(decode: Callable[[str], object], text: str) -> None:
    try:
        decode(text)
    except BadMember:
        return


@pytest.mark.parametrize("name", sorted(OPENED.to_members()))
@pytest.mark.parametrize("value", [None, 1.5, [], {}, -1, "\x1b[31m", "x" * 513], ids=ascii)
def test_what_is_opened_is_checked_member_by_member(name: str, value: Json) -> None:
    with pytest.raises(BadMember):
        Opened.from_members(Members(OPENED.to_members() | {name: value}))


# Refusals


@pytest.mark.parametrize("refusal", Refusal)
def test_each_refusal_is_told_with_a_code_and_a_sentence_of_its_own(refusal: Refusal) -> None:
    def error(of: Refusal) -> tuple[int, str]:
        found = json.loads(Failure(1, of).encode())["error"]
        return found["code"], found["message"]

    code, text = error(refusal)
    assert text == Refused(refusal).text
    assert all(error(other)[0] != code and error(other)[1] != text for other in Refusal if other is not refusal)


@pytest.mark.parametrize("refusal", Refusal)
def test_codes_are_those_that_json_rpc_leaves_us(refusal: Refusal) -> None:
    """JSON-RPC 2.0, 5.1: -32000 to -32099 are the server's own; -32602 is invalid params."""
    code = json.loads(Failure(1, refusal).encode())["error"]["code"]
    assert code == -32602 or -32099 <= code <= -32000


def test_a_detail_is_not_told_to_the_peer() -> None:
    refused = Refused(Refusal.CONSOLE_FAILED, "libvirt: domain i-00000007")
    assert "i-00000007" in str(refused)
    assert "i-00000007" not in refused.text + Failure(1, refused.refusal).encode()


def test_unknown_accounts_and_wrong_passwords_have_one_word() -> None:
    assert [refusal for refusal in Refusal if "account" in refusal or "password" in refusal or "credential" in refusal] == [
        Refusal.WRONG_CREDENTIALS
    ]


# Secrets


def test_no_repr_shows_a_password() -> None:
    assert "hunter2" not in repr(Request(1, Method.SIGN_IN, {"account": "alice", "password": "hunter2"}))


def test_no_repr_shows_a_ticket() -> None:
    assert OPENED.ticket not in repr(OPENED) + repr(Answer(1, OPENED.to_members()))


def test_no_refusal_of_a_message_quotes_it() -> None:
    with pytest.raises(BadMember) as caught:
        Request.decode(message(params={"password": "hunter2"}, more="hunter2"))
    assert "hunter2" not in str(caught.value)


def test_queries_are_fixed_bytes() -> None:
    assert QUERIES == {"da1": b"\x1b[c", "dsr5": b"\x1b[5n", "dsr6": b"\x1b[6n"}
