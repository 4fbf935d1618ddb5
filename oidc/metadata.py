"""What an issuer says of itself: OpenID Connect Discovery 1.0, 3 and 4 (RFC 8414). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from oidc.failure import Misconfigured

MAX_URL: Final = 2048


def discovery_url(issuer: str) -> str:
    """Where the issuer's configuration is (Discovery 4)."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Metadata:
    """`says_issuer`: its answers carry `iss` (RFC 9207). `basic`: the exchange takes the secret in the Authorization header."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    says_issuer: bool
    basic: bool

    @classmethod
    def parse(cls, raw: bytes, issuer: str) -> Metadata:
        """Raises Misconfigured: also where the document is that of another issuer (Discovery 4.3)."""
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            raise Misconfigured("its configuration is no JSON") from None
        if not isinstance(document, dict):
            raise Misconfigured("its configuration is no JSON object")
        if document.get("issuer") != issuer:
            raise Misconfigured("its configuration is that of another issuer: spell the issuer as it does there")
        methods = document.get("code_challenge_methods_supported", ["S256"])
        if not isinstance(methods, list) or "S256" not in methods:
            raise Misconfigured("it does not take PKCE by S256")
        ways = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return cls(
            authorization_endpoint=_endpoint(document, "authorization_endpoint"),
            token_endpoint=_endpoint(document, "token_endpoint"),
            jwks_uri=_endpoint(document, "jwks_uri"),
            says_issuer=document.get("authorization_response_iss_parameter_supported") is True,
            basic=not isinstance(ways, list) or "client_secret_basic" in ways,
        )


def _endpoint(document: Mapping[str, object], name: str) -> str:
    found = document.get(name)
    if isinstance(found, str) and len(found) <= MAX_URL and found.isascii() and found.isprintable() and " " not in found:
        try:
            parts = urlsplit(found)
            port_fits = parts.port is None or parts.port > 0
        except ValueError:
            port_fits = False
        # no name and password, which a client would send on; no fragment (RFC 6749 3.1, 3.2)
        if port_fits and parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and not parts.fragment:
            return found
    raise Misconfigured(f"its {name} is no https URL")
