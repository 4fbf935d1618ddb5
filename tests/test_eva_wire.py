"""eva/wire.py: envelopes and the tokens' bodies that travel between node and provider."""

from __future__ import annotations

import dataclasses
import json
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from eva import wire
from eva.audit import MAX_RECORD
from eva.consent import PROVIDER
from eva.members import MAX_INTEGER, Json
from eva.token import MAX_BYTES, BadToken, Claims, Fault, b64, thumbprint
from eva.wire import (
    MAX_ENVELOPE,
    MAX_RECEIPTS,
    MAX_REVOCATIONS,
    NODES,
    Envelope,
    Event,
    KeySet,
    Lease,
    LeaseRequest,
    Receipt,
)

NONCE = b64(bytes(range(16)))
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32).public_key() for i in range(17)]

jtis = st.binary(min_size=16, max_size=16).map(b64)
printable = st.text(max_size=60).filter(str.isprintable)
counts = st.integers(0, MAX_INTEGER)
tokens = st.text(st.sampled_from("abcXYZ019-_."), max_size=80)
facts = st.dictionaries(printable, printable, max_size=8).map(lambda found: tuple(sorted(found.items())))

REQUEST = LeaseRequest("AzS-ERCS01", NONCE, 1_790_000_000, "boot", 3, 1, 10, "ab" * 32)
LEASE = Lease("AzS-ERCS01", NONCE, 3, 2, 1_790_000_000)
RECEIPT = Receipt(
    "AzS-ERCS01", NONCE, 1, Event.ENDED, NONCE, 1_790_000_000_123, 3, (("reason", "consent-revoked"), ("sessions", "1"))
)
RECORDED = Receipt("AzS-ERCS01", NONCE, 2, Event.RECORDED, NONCE, 1_790_000_000_123, record='{"chain":"c"}')
KEY_SET = KeySet(2, {thumbprint(key): key for key in KEYS[:2]})
BODIES = [REQUEST, LEASE, RECEIPT, RECORDED, KEY_SET]
Body: TypeAlias = LeaseRequest | Lease | Receipt | KeySet


def again(body: Body, changes: dict[str, Json] | None = None, without: str = "") -> object:
    claims = body.to_claims() | (changes or {})
    claims.pop(without, None)
    return type(body).from_claims(Claims(claims, "k"))


def refused(body: Body, changes: dict[str, Json] | None = None, without: str = "") -> BadToken:
    with pytest.raises(BadToken) as caught:
        again(body, changes, without)
    return caught.value


# Topics


def test_the_topics_are_those_that_the_acl_names() -> None:
    assert [
        topic("AzS-ERCS01")
        for topic in (
            wire.consent_topic,
            wire.revocation_topic,
            wire.lease_topic,
            wire.lease_request_topic,
            wire.receipt_topic,
            wire.status_topic,
        )
    ] == [
        "eva/v1/node/AzS-ERCS01/consent",
        "eva/v1/node/AzS-ERCS01/revocation",
        "eva/v1/node/AzS-ERCS01/lease",
        "eva/v1/lease-request/AzS-ERCS01",
        "eva/v1/receipt/AzS-ERCS01",
        "eva/v1/status/AzS-ERCS01",
    ]


# Envelopes


@given(
    st.builds(
        Envelope,
        token=tokens,
        keys=st.none() | tokens,
        revocations=st.lists(tokens, max_size=MAX_REVOCATIONS).map(tuple),
        receipts=st.lists(tokens, max_size=MAX_RECEIPTS).map(tuple),
    )
)
def test_every_envelope_reads_back(envelope: Envelope) -> None:
    assert Envelope.decode(envelope.encode()) == envelope


def test_the_fullest_envelope_fits() -> None:
    token = "x" * MAX_BYTES
    lease = Envelope(token, token, (token,) * MAX_REVOCATIONS)
    request = Envelope(token, receipts=(token,) * MAX_RECEIPTS)
    assert len(lease.encode()) <= MAX_ENVELOPE
    assert len(request.encode()) <= MAX_ENVELOPE


def test_what_is_absent_is_not_written() -> None:
    assert Envelope("t").encode() == b'{"token":"t"}'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.JSON),
        (b"t", Fault.JSON),
        (b'"t"', Fault.JSON),
        (b'["t"]', Fault.JSON),
        (b'{"token":"t","token":"u"}', Fault.JSON),
        (b'{"token":"t","keys":1.0}', Fault.JSON),
        (b'{"token":"\xff"}', Fault.JSON),
        (b"[" * 100_000, Fault.JSON),
        (b"{}", Fault.CLAIMS),
        (b'{"token":null}', Fault.CLAIMS),
        (b'{"token":["t"]}', Fault.CLAIMS),
        (b'{"token":1}', Fault.CLAIMS),
        (b'{"token":"t","keys":["k"]}', Fault.CLAIMS),
        (b'{"token":"t","more":1}', Fault.CLAIMS),
        (b'{"Token":"t"}', Fault.CLAIMS),
        (b'{"token":"t","revocations":"r"}', Fault.CLAIMS),
        (b'{"token":"t","revocations":null}', Fault.CLAIMS),
        (b'{"token":"t","revocations":{}}', Fault.CLAIMS),
        (b'{"token":"t","revocations":[null]}', Fault.CLAIMS),
        (b'{"token":"t","revocations":["r",1]}', Fault.CLAIMS),
        (b'{"token":"t","receipts":[["r"]]}', Fault.CLAIMS),
        (json.dumps({"token": "t", "revocations": ["r"] * (MAX_REVOCATIONS + 1)}).encode(), Fault.CLAIMS),
        (json.dumps({"token": "t", "receipts": ["r"] * (MAX_RECEIPTS + 1)}).encode(), Fault.CLAIMS),
        (b" " * (MAX_ENVELOPE + 1), Fault.SIZE),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_another_shape_is_refused(body: bytes, fault: Fault) -> None:
    with pytest.raises(BadToken) as caught:
        Envelope.decode(body)
    assert caught.value.fault is fault


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    try:
        Envelope.decode(raw)
    except BadToken:
        return


# Bodies


@given(st.builds(LeaseRequest, printable, jtis, counts, printable, counts, counts, counts, printable))
def test_every_lease_request_reads_back(request: LeaseRequest) -> None:
    assert again(request) == request


@given(st.builds(Lease, printable, jtis, counts, counts, counts))
def test_every_lease_reads_back(lease: Lease) -> None:
    assert again(lease) == lease


@given(
    st.builds(
        Receipt,
        printable,
        jtis,
        st.integers(1, MAX_INTEGER),
        st.sampled_from([event for event in Event if event is not Event.RECORDED]),
        jtis,
        counts,
        counts,
        facts,
    )
)
def test_every_receipt_reads_back(receipt: Receipt) -> None:
    assert again(receipt) == receipt


@given(st.text(min_size=1, max_size=MAX_RECORD).filter(str.isprintable))
def test_every_record_that_is_told_reads_back(record: str) -> None:
    told = dataclasses.replace(RECORDED, record=record)
    assert again(told) == told


@pytest.mark.parametrize("record", ["", "x" * (MAX_RECORD + 1), 1, None, {"chain": "c"}], ids=lambda value: ascii(value)[:20])
def test_a_record_that_is_none_is_refused(record: Json) -> None:
    refused(RECORDED, {"record": record})


def test_other_receipts_tell_no_record() -> None:
    refused(RECEIPT, {"record": "x"})


@given(st.integers(1, MAX_INTEGER), st.sets(st.integers(0, 16), max_size=16))
def test_every_key_set_reads_back(version: int, which: set[int]) -> None:
    made = KeySet(version, {thumbprint(KEYS[i]): KEYS[i] for i in which})
    assert again(made) == made


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_body_without_one_of_its_claims_is_refused(body: Body) -> None:
    for name in body.to_claims():
        refused(body, without=name)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
@pytest.mark.parametrize("value", [None, True, 1.0, [], [[]], -1, 1 << 64, "\0", "\u202e", "\ud800", {"a": 1}], ids=ascii)
def test_a_claim_of_another_sort_is_refused(body: Body, value: Json) -> None:
    for name in body.to_claims():
        refused(body, {name: value})


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_claim_more_is_refused(body: Body) -> None:
    refused(body, {"more": 1})


def test_each_body_names_its_signer_and_its_audience() -> None:
    assert [(body.to_claims()["iss"], body.to_claims()["aud"]) for body in BODIES] == [
        ("AzS-ERCS01", PROVIDER),
        (PROVIDER, "AzS-ERCS01"),
        ("AzS-ERCS01", PROVIDER),
        ("AzS-ERCS01", PROVIDER),
        ("eva-root", NODES),
    ]


@pytest.mark.parametrize(
    "changes", [{"iss": "AzS-ERCS02"}, {"nonce": NONCE[:-1]}, {"nonce": NONCE + "A"}, {"seq": "3"}], ids=ascii
)
def test_a_lease_that_is_not_the_providers_or_answers_no_nonce_is_refused(changes: dict[str, Json]) -> None:
    refused(LEASE, changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"event": "ACCEPTED"},
        {"event": "forgiven"},
        {"about": "x"},
        {"facts": {"a": 1}},
        {"facts": {"a": None}},
        {"facts": {"a": ["b"]}},
        {"facts": {"a": "\x1b[31m"}},
        {"facts": {"\n": "a"}},
        {"facts": {"a": "\ud800"}},
        {"facts": {"a": "x" * 256}},
        {"facts": {str(i): "x" for i in range(9)}},
        {"facts": [["a", "b"]]},
    ],
    ids=ascii,
)
def test_a_receipt_that_means_nothing_is_refused(changes: dict[str, Json]) -> None:
    refused(RECEIPT, changes)


def test_a_fact_is_found_by_its_name() -> None:
    assert (RECEIPT.fact("reason"), RECEIPT.fact("uuid")) == ("consent-revoked", "")


def raw_key(index: int) -> str:
    return b64(KEYS[index].public_bytes_raw())


@pytest.mark.parametrize(
    "keys",
    [
        {thumbprint(KEYS[0]): raw_key(1)},  # a key under another's name
        {"k1": raw_key(0)},
        {thumbprint(KEYS[0]): raw_key(0)[:-1]},
        {thumbprint(KEYS[0]): raw_key(0) + "="},
        {thumbprint(KEYS[0]): b64(bytes(31))},
        {thumbprint(KEYS[0]): b64(bytes(33))},
        {thumbprint(KEYS[0]): ""},
        {thumbprint(KEYS[0]): None},
        {thumbprint(KEYS[0]): [raw_key(0)]},
        {thumbprint(KEYS[0]): {"kty": "OKP", "crv": "Ed25519", "x": raw_key(0)}},
        {thumbprint(key): raw_key(i) for i, key in enumerate(KEYS)},
    ],
    ids=lambda keys: ascii(keys)[:60],
)
def test_a_key_set_with_a_key_that_is_none_is_refused(keys: dict[str, Json]) -> None:
    refused(KEY_SET, {"keys": keys})


def test_a_key_set_of_version_0_is_refused() -> None:
    refused(KEY_SET, {"version": 0})
