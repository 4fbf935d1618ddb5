"""An issuer's configuration, from issuers that mean well and from others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oidc.failure import Misconfigured
from oidc.metadata import Metadata, discovery_url

ISSUER = "https://id.example/realms/ops"
GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth?x=1",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/certs",
}


def parsed(**changed: Any) -> Metadata:
    return Metadata.parse(json.dumps({**GOOD, **changed}).encode(), ISSUER)


def test_where_it_is() -> None:
    assert discovery_url(ISSUER) == "https://id.example/realms/ops/.well-known/openid-configuration"


def test_a_slash_at_the_issuers_end_is_not_doubled() -> None:
    assert discovery_url("https://id.example/") == "https://id.example/.well-known/openid-configuration"


def test_the_least_that_is_enough() -> None:
    assert parsed() == Metadata(f"{ISSUER}/auth?x=1", f"{ISSUER}/token", f"{ISSUER}/certs", says_issuer=False, basic=True)


def test_that_it_says_its_name_in_answers() -> None:
    assert parsed(authorization_response_iss_parameter_supported=True).says_issuer


def test_that_it_takes_the_secret_in_the_body_only() -> None:
    assert not parsed(token_endpoint_auth_methods_supported=["client_secret_post"]).basic


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://id.example/realms/other"},
        {"issuer": f"{ISSUER}/"},
        {"issuer": None},
        {"code_challenge_methods_supported": ["plain"]},
        {"code_challenge_methods_supported": "S256"},
        {"token_endpoint": "http://id.example/token"},
        {"token_endpoint": None},
        {"token_endpoint": 7},
        {"token_endpoint": "https://"},
        {"token_endpoint": "https:///token"},
        {"token_endpoint": "https://us:pw@id.example/token"},
        {"token_endpoint": "https://id.example/token#x"},
        {"token_endpoint": "https://id.example:99999/token"},
        {"token_endpoint": "https://id.example/to ken"},
        {"token_endpoint": "https://id.example/to\r\nken"},
        {"token_endpoint": "https://idé.example/token"},
        {"token_endpoint": "https://id.example/" + "x" * 2048},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "//id.example/auth"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
    ids=str,
)
def test_what_is_not_taken(changed: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        parsed(**changed)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"[" * 100_000, b"null"], ids=lambda raw: repr(raw[:4]))
def test_what_is_no_document(raw: bytes) -> None:
    with pytest.raises(Misconfigured):
        Metadata.parse(raw, ISSUER)
