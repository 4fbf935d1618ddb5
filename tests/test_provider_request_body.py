"""provider/rest/request_body.py: JSON whose names have no case, read strictly otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eva.consent import Kind, Principal
from provider.consent.features import GlobalState
from provider.rest.arm import ArmError
from provider.rest.request_body import Body

GUID = "7D2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"


def refused(raw: bytes, read: Callable[[Body], object] | None = None) -> ArmError:
    def whole() -> None:
        body = Body.parse(raw)
        if read is not None:
            read(body)

    with pytest.raises(ArmError) as caught:
        whole()
    return caught.value


@pytest.mark.parametrize("raw", [b"", b"  \r\n", b"{}"])
def test_nothing_is_an_empty_object(raw: bytes):
    Body.parse(raw).nothing_else()


@pytest.mark.parametrize("name", ["tenantSubscriptionId", "TenantSubscriptionId", "TENANTSUBSCRIPTIONID"])
def test_names_have_no_case_and_values_keep_theirs(name: str):
    body = Body.parse(f'{{"{name}": "{GUID}"}}'.encode())
    assert body.guid("tenantSubscriptionId") == GUID
    body.nothing_else()


def test_a_byte_order_mark_is_passed_over():
    assert Body.parse(b'\xef\xbb\xbf{"renew": true}').truth("renew")


BAD = [b"[]", b"null", b'"x"', b"1", b"{", b'{"a":1,"a":1}', b'{"a":1.5}', b'{"a":NaN}', b"\xff\xfe{}", b"[" * 70_000, b"{}{}"]


@pytest.mark.parametrize("raw", BAD)
def test_what_is_no_object(raw: bytes):
    assert refused(raw).code == "InvalidRequestContent"


@pytest.mark.parametrize("text", ["3600", "3600.0", "3.6e3"])
def test_a_whole_number_in_any_spelling(text: str):
    assert Body.parse(f'{{"durationInSeconds": {text}}}'.encode()).integer("durationInSeconds", 1, 28_800) == 3600


@pytest.mark.parametrize("text", ["1.5", "1e400", "Infinity", "NaN", "1e300", "9e15x"])
def test_what_is_no_whole_number(text: str):
    assert refused(f'{{"durationInSeconds": {text}}}'.encode()).code == "InvalidRequestContent"


def test_a_name_twice_in_two_cases():
    assert refused(b'{"renew": true, "Renew": false}').code == "InvalidRequestContent"


def test_an_unknown_property_is_refused_by_its_name():
    error = refused(b'{"Extra": 1}', lambda body: body.nothing_else())
    assert (error.status, error.target) == (400, "Extra")


def test_null_is_left_open():
    body = Body.parse(b'{"kinds": null}')
    assert not body.has("kinds")
    body.nothing_else()


WRONG: list[tuple[bytes, Callable[[Body], object]]] = [
    *[(b'{"p": ' + value + b"}", lambda body: body.guid("p")) for value in (b"1", b'"x"', b"null", b"[]", b'{"guid": 1}', b'""')],
    (f'{{"p": "{{{GUID}}}"}}'.encode(), lambda body: body.guid("p")),
    (b"{}", lambda body: body.guid("p")),
    *[(b'{"p": ' + value + b"}", lambda body: body.truth("p")) for value in (b"1", b'"true"', b"0")],
    *[(b'{"p": ' + value + b"}", lambda body: body.integer("p", 1, 9)) for value in (b"0", b"10", b'"1"', b"true", b"[1]")],
    *[(b'{"p": ' + value + b"}", lambda body: body.text("p", 3)) for value in (b'"four"', b'"a\\n"', b"1", b'"\\ud800"')],
    *[(b'{"p": ' + value + b"}", lambda body: body.choice("p", GlobalState)) for value in (b'"enabled"', b'"On"', b"1", b"[]")],
    *[
        (b'{"p": ' + value + b"}", lambda body: body.each("p", Kind, 2))
        for value in (b"[]", b'"serial"', b'["usb"]', b'["serial", "serial"]', b"[1]", b'["serial", "graphics", "x"]', b"[null]")
    ],
    *[(b'{"p": ' + value + b"}", lambda body: body.each("p", Principal.parse, 2)) for value in (b'["bob"]', b'["user:bob"]')],
]


@pytest.mark.parametrize(("raw", "read"), WRONG)
def test_a_value_that_is_not_taken_names_its_property(raw: bytes, read: Callable[[Body], object]):
    error = refused(raw, read)
    assert (error.status, error.code, error.target) == (400, "InvalidParameter", "p")


def test_a_refusal_repeats_no_value():
    assert "hunter2" not in refused(b'{"p": "hunter2"}', lambda body: body.guid("p")).message
