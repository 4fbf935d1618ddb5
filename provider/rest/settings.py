"""The settings of the REST: where tenants and operators call, and whose word about them counts.

Errors: BadSettings (eva.strict_yaml).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from eva.endpoint import address, path, port
from eva.resource_id import is_guid
from eva.strict_yaml import Section
from oidc.key_set import Algorithm
from oidc.settings import Registration, registration

MOST_ISSUERS = 8

_REGION = re.compile(r"[a-z0-9]{1,32}", re.ASCII)
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiListener:
    """One of the two endpoints. `url`: as its callers spell it, without a slash at the end; `audiences`: whom a token is for."""

    address: str
    port: int
    url: str
    certificate: Path
    key: Path
    audiences: tuple[str, ...]
    reads_per_hour: int
    writes_per_hour: int


@dataclass(frozen=True, slots=True)
class AdminApi:
    """`subscription`: the platform's own, in whose name the operator's requests are sent."""

    listener: ApiListener
    subscription: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """An OIDC issuer whose tokens are believed. Exactly one of `jwks_file` and `jwks_url` is set.

    `home`: its object ids and groups need no issuer before them in role assignments. `signing_key`: it is our own
    (provider.rest.issuer); the daemon never reads it.
    """

    name: str
    jwks_file: Path | None
    jwks_url: str | None
    jwks_ca: Path | None
    signing_key: Path | None
    algorithms: frozenset[Algorithm]
    principal_claim: str
    groups_claim: str
    name_claim: str
    clock_skew_seconds: int
    home: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """`login_endpoint`, `tenant`: where callers are told to sign in, and to which directory."""

    login_endpoint: str
    tenant: str
    issuers: tuple[Issuer, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """All of the REST. `region`: this cloud's one location. `watch`: who we are where tenants sign in to watch; None: no page."""

    region: str
    tenant: ApiListener
    admin: AdminApi
    identity: Identity
    watch: Registration | None = None


def rest(top: Section) -> Rest | None:
    """What the sections tenant_api, admin_api and identity say; None where none of them is there: then nobody is served."""
    region = top.convert("region", _region, "local")
    if not any(top.has(key) for key in ("tenant_api", "admin_api", "identity")):
        return None
    tenant = _listener(section := top.section("tenant_api"), 8444)
    watch = _watch(section.section("watch")) if section.has("watch") else None
    section.nothing_else()
    section = top.section("admin_api")
    admin = AdminApi(_listener(section, 8445), section.convert("subscription", guid))
    if set(admin.listener.audiences) & set(tenant.audiences):
        raise section.fault("audiences", "has one of tenant_api's: a tenant's token would open the operator's door")
    if admin.listener.url == tenant.url:
        raise section.fault("url", "is tenant_api's")
    section.nothing_else()
    identity = _identity(top.section("identity"))
    if watch is not None and watch.client.issuer not in {one.name for one in identity.issuers}:
        raise (
            top.section("tenant_api")
            .section("watch")
            .fault("issuer", "is none of identity.issuers: its tokens count for nothing")
        )
    return Rest(region, tenant, admin, identity, watch)


def _watch(section: Section) -> Registration:
    found = registration(section)
    section.nothing_else()
    return found


def _listener(section: Section, default_port: int) -> ApiListener:
    return ApiListener(
        address=address(section, "0.0.0.0"),  # noqa: S104 - tenants and operators come from their own networks
        port=port(section, default_port),
        url=section.convert("url", https_url),
        certificate=path(section, "certificate"),
        key=path(section, "key"),
        audiences=tuple(section.each("audiences", _audience, most=8, least=1)),
        reads_per_hour=section.integer("reads_per_hour", 1, 10_000_000, 12_000),
        writes_per_hour=section.integer("writes_per_hour", 1, 10_000_000, 1_200),
    )


def _identity(section: Section) -> Identity:
    found = section.sections("issuers", most=MOST_ISSUERS, least=1)
    issuers = tuple(_issuer(one, alone=len(found) == 1) for one in found)
    if len({one.name for one in issuers}) != len(issuers):
        raise section.fault("issuers", "has one issuer twice")
    if sum(one.home for one in issuers) > 1:
        raise section.fault("issuers", "has two homes: one object id could then be two people")
    identity = Identity(section.convert("login_endpoint", https_url), section.convert("tenant", guid), issuers)
    section.nothing_else()
    return identity


def _issuer(section: Section, *, alone: bool) -> Issuer:
    if section.has("jwks_file") == section.has("jwks_url"):
        raise section.fault("jwks_file", "or jwks_url is needed, and not both")
    issuer = Issuer(
        name=section.convert("issuer", _issuer_name),
        jwks_file=path(section, "jwks_file") if section.has("jwks_file") else None,
        jwks_url=section.convert("jwks_url", https_url) if section.has("jwks_url") else None,
        jwks_ca=path(section, "jwks_ca") if section.has("jwks_ca") else None,
        signing_key=path(section, "signing_key") if section.has("signing_key") else None,
        algorithms=frozenset(section.each("algorithms", Algorithm, most=len(Algorithm), least=1)),
        principal_claim=section.convert("principal_claim", _claim, "oid"),
        groups_claim=section.convert("groups_claim", _claim, "groups"),
        name_claim=section.convert("name_claim", _claim, "preferred_username"),
        clock_skew_seconds=section.integer("clock_skew_seconds", 0, 300, 60),
        home=section.flag("home", alone),
    )
    if issuer.jwks_ca is not None and issuer.jwks_url is None:
        raise section.fault("jwks_ca", "says nothing about a file: it goes with jwks_url")
    if issuer.signing_key is not None and (issuer.jwks_file is None or issuer.algorithms != {Algorithm.EDDSA}):
        raise section.fault("signing_key", "makes it our own issuer, which has a jwks_file and algorithms: [EdDSA]")
    section.nothing_else()
    return issuer


def guid(text: str) -> str:
    """Raises ValueError."""
    if not is_guid(text):
        raise ValueError("write a GUID, like 11111111-2222-3333-4444-555555555555")
    return text


def https_url(text: str) -> str:
    """An https URL without query, fragment or slash at the end. Raises ValueError."""
    host = text.removeprefix("https://").partition("/")[0]
    if not text.startswith("https://") or not host or not text.isascii() or any(c in text for c in "?#@ \\"):
        raise ValueError("write an https URL, like https://management.local.eva.example:8444")
    return text.rstrip("/")


def _issuer_name(text: str) -> str:
    # compared byte for byte with `iss` (OpenID Connect Core 3.1.3.7), so nothing is taken off its end
    https_url(text)
    return text


def _audience(text: str) -> str:
    if not text.isascii() or " " in text or len(text) > 255:
        raise ValueError("write an audience as the issuer puts it into `aud`")
    return text


def _claim(text: str) -> str:
    if _CLAIM.fullmatch(text) is None:
        raise ValueError("write the name of a claim")
    return text


def _region(text: str) -> str:
    if _REGION.fullmatch(text) is None:
        raise ValueError("write 1 to 32 small letters and digits, like local")
    return text
