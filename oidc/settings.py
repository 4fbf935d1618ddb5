"""Who we are at an OpenID Connect issuer, as both daemons' settings spell it. Errors: BadSettings (eva.strict_yaml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from eva.endpoint import path
from eva.strict_yaml import BadSettings, Section

MAX_SECRET: Final = 1024  # characters
MOST_SCOPES: Final = 16
MOST_EXTRA: Final = 8

_ISSUER = re.compile(r"https://[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}", re.ASCII)  # RFC 6749 3.3
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_VISIBLE = re.compile(r"[\x20-\x7e]+", re.ASCII)  # RFC 6749 A.1, A.2

# What the flow itself says to the two endpoints, or may not say at all
_TAKEN: Final = frozenset({
    "client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "registration", "request",
    "request_uri", "response_mode", "response_type", "scope", "state", "grant_type", "code", "code_verifier",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """A client registered at `issuer` (its exact `iss`). Without `client_secret` it is a public one, held by PKCE alone.

    `ca`: whose authorities the issuer's certificate is checked by, None for the system's. `extra`: further parameters of the
    authorization request and of the exchange, such as `resource` (RFC 8707).
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid",)
    ca: Path | None = None
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Registration:
    """A Client before its secret is read."""

    client: Client
    secret_file: Path | None

    def load(self) -> Client:
        """With the secret. Raises OSError; BadSettings for a file that holds none or that everybody may read."""
        if self.secret_file is None:
            return self.client
        if self.secret_file.stat().st_mode & 0o007:
            why = "everybody may read this secret: chmod o= it, and think about who has it now"
            raise BadSettings(str(self.secret_file), 1, "", why)
        secret = self.secret_file.read_bytes().decode("latin-1").strip()
        if len(secret) > MAX_SECRET or _VISIBLE.fullmatch(secret) is None:
            raise BadSettings(str(self.secret_file), 1, "", f"no secret of 1 to {MAX_SECRET} printable ASCII characters")
        return replace(self.client, client_secret=secret)


def registration(section: Section) -> Registration:
    """Reads `issuer client_id client_secret_file scopes ca parameters`; the caller reads the rest and says `nothing_else`."""
    extra = section.section("parameters")
    scopes = section.each("scopes", _scope, most=MOST_SCOPES)
    client = Client(
        issuer=section.convert("issuer", issuer_name),
        client_id=section.convert("client_id", _client_id),
        scopes=("openid", *(one for one in scopes if one != "openid")),
        ca=path(section, "ca") if section.has("ca") else None,
        extra=MappingProxyType({name: _parameter(extra, name) for name in extra.keys()}),  # noqa: SIM118 - no mapping
    )
    if len(client.extra) > MOST_EXTRA:
        raise section.fault("parameters", f"has more than {MOST_EXTRA}")
    return Registration(client, path(section, "client_secret_file") if section.has("client_secret_file") else None)


def issuer_name(text: str) -> str:
    """An `iss` as it is compared: exactly (OpenID Connect Core 2). Raises ValueError."""
    if len(text) > 255 or _ISSUER.fullmatch(text) is None:
        raise ValueError("write the issuer as its own configuration does: https://HOST[:PORT][/PATH], in ASCII, without a query")
    return text


def _client_id(text: str) -> str:
    if len(text) > 255 or _VISIBLE.fullmatch(text) is None:
        raise ValueError("it needs printable ASCII")
    return text


def _scope(text: str) -> str:
    if _SCOPE.fullmatch(text) is None:
        raise ValueError("write one scope of visible ASCII, as in RFC 6749 3.3")
    return text


def _parameter(section: Section, name: str) -> str:
    if name in _TAKEN or _NAME.fullmatch(name) is None:
        raise section.fault(name, "is no parameter that may be set here")
    return section.text(name, longest=512)
