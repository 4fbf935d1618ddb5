"""provider/rest/settings.py: what the settings of the REST may say, and what would open it to others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eva.strict_yaml import BadSettings, load
from oidc.key_set import Algorithm
from provider.rest.settings import Rest, rest

EXAMPLE = Path(__file__).parent.parent / "config" / "provider.yaml"
GUID = "7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90"
LEAST = f"""
tenant_api: {{url: 'https://m.example', certificate: /c, key: /k, audiences: ['https://m.example']}}
admin_api: {{url: 'https://a.example', certificate: /c, key: /k, audiences: ['https://a.example'], subscription: {GUID}}}
identity:
  login_endpoint: https://login.example
  tenant: {GUID}
  issuers:
    - {{issuer: 'https://login.example/x', jwks_file: /jwks, algorithms: [RS256]}}
"""


def parse(text: str) -> Rest | None:
    return rest(load(text, "provider.yaml"))


def fault(text: str) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        parse(text)
    return caught.value


def test_without_it_nobody_is_served():
    assert parse("region: local\n") is None


def test_the_least():
    found = parse(LEAST)
    assert found is not None
    issuer = found.identity.issuers[0]
    assert (found.region, found.tenant.port, found.admin.listener.port) == ("local", 8444, 8445)
    assert (issuer.algorithms, issuer.principal_claim, issuer.home) == ({Algorithm.RS256}, "oid", True)


@pytest.mark.parametrize("section", ["tenant_api", "admin_api", "identity"])
def test_the_three_go_together(section: str):
    without = re.sub(rf"(?m)^{section}:.*\n(  .*\n)*", "", LEAST)
    assert fault(without).key.startswith(section)


def changed(before: str, after: str) -> str:
    assert before in LEAST
    return LEAST.replace(before, after)


UNSAFE = [
    ("audiences: ['https://a.example']", "audiences: ['https://a.example', 'https://m.example']", "admin_api.audiences"),
    ("url: 'https://a.example'", "url: 'https://m.example'", "admin_api.url"),
    ("url: 'https://m.example'", "url: 'http://m.example'", "tenant_api.url"),
    ("url: 'https://m.example'", "url: 'https://m.example?x'", "tenant_api.url"),
    ("url: 'https://m.example'", "url: 'https:///x'", "tenant_api.url"),
    ("audiences: ['https://m.example']", "audiences: []", "tenant_api.audiences"),
    ("audiences: ['https://m.example']", "audiences: ['a b']", "tenant_api.audiences"),
    (f"subscription: {GUID}", "subscription: platform", "admin_api.subscription"),
    ("algorithms: [RS256]", "algorithms: [HS256]", "identity.issuers[0].algorithms"),
    ("algorithms: [RS256]", "algorithms: [none]", "identity.issuers[0].algorithms"),
    ("algorithms: [RS256]", "algorithms: []", "identity.issuers[0].algorithms"),
    ("jwks_file: /jwks", "jwks_url: 'http://login.example/jwks'", "identity.issuers[0].jwks_url"),
    ("jwks_file: /jwks", "jwks_file: /jwks, jwks_url: 'https://login.example/jwks'", "identity.issuers[0].jwks_file"),
    ("jwks_file: /jwks, ", "", "identity.issuers[0].jwks_file"),
    ("jwks_file: /jwks", "jwks_file: /jwks, jwks_ca: /ca", "identity.issuers[0].jwks_ca"),
    ("jwks_file: /jwks", "jwks_file: /jwks, signing_key: /k", "identity.issuers[0].signing_key"),
    ("jwks_file: /jwks", "jwks_file: /jwks, clock_skew_seconds: 301", "identity.issuers[0].clock_skew_seconds"),
    ("jwks_file: /jwks", "jwks_file: /jwks, principal_claim: 'a b'", "identity.issuers[0].principal_claim"),
    ("issuer: 'https://login.example/x'", "issuer: login.example", "identity.issuers[0].issuer"),
    ("issuer: 'https://login.example/x'", "issuer: 'https://login.example/x#y'", "identity.issuers[0].issuer"),
    (f"tenant: {GUID}", "tenant: common", "identity.tenant"),
    ("identity:", "region: West/Europe\nidentity:", "region"),
    ("jwks_file: /jwks", "jwks_file: /jwks, jku: true", "identity.issuers[0].jku"),
]


@pytest.mark.parametrize(("before", "after", "key"), UNSAFE)
def test_what_would_be_unsafe_is_refused(before: str, after: str, key: str):
    assert fault(changed(before, after)).key == key


WATCH = "watch: {issuer: 'https://login.example/x', client_id: eva-watch, scopes: [profile]}, "


def test_where_tenants_sign_in_to_watch():
    found = parse(changed("tenant_api: {", f"tenant_api: {{{WATCH}"))
    assert found is not None
    assert found.watch is not None
    assert (found.watch.client.issuer, found.watch.client.client_id) == ("https://login.example/x", "eva-watch")
    assert found.watch.client.scopes == ("openid", "profile")


def test_without_a_section_there_is_no_page():
    found = parse(LEAST)
    assert found is not None
    assert found.watch is None


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("login.example/x", "other.example", "tenant_api.watch.issuer"),
        ("login.example/x", "login.example/x/", "tenant_api.watch.issuer"),
        ("scopes: [profile]", "scope: profile", "tenant_api.watch.scope"),
        ("client_id: eva-watch, ", "", "tenant_api.watch.client_id"),
    ],
)
def test_what_the_page_could_not_work_with_is_refused(before: str, after: str, key: str):
    assert before in WATCH
    assert fault(changed("tenant_api: {", f"tenant_api: {{{WATCH.replace(before, after)}")).key == key


SECOND = "    - {{issuer: 'https://{name}.example', jwks_file: /j, algorithms: [ES256]{more}}}\n"


def test_of_two_issuers_none_is_home_unless_told():
    found = parse(LEAST + SECOND.format(name="other", more=""))
    assert found is not None
    assert [one.home for one in found.identity.issuers] == [False, False]


def test_two_homes_are_refused():
    text = LEAST.replace("algorithms: [RS256]", "algorithms: [RS256], home: true") + SECOND.format(
        name="other", more=", home: true"
    )
    assert "two people" in fault(text).why


def test_an_issuer_twice_is_refused():
    text = LEAST.replace("https://login.example/x", "https://other.example") + SECOND.format(name="other", more="")
    assert "twice" in fault(text).why


def test_an_issuer_keeps_its_slash():
    found = parse(changed("https://login.example/x", "https://login.example/"))
    assert found is not None
    assert found.identity.issuers[0].name == "https://login.example/"


def test_the_example_names_every_knob():
    example = EXAMPLE.read_text()
    knobs = """
    region tenant_api admin_api identity address port url certificate key audiences reads_per_hour
    writes_per_hour subscription login_endpoint tenant issuers issuer jwks_url jwks_file jwks_ca signing_key
    algorithms principal_claim groups_claim name_claim clock_skew_seconds home
    """
    assert [knob for knob in knobs.split() if not re.search(rf"(?m)^[ #-]*{knob}:", example)] == []
