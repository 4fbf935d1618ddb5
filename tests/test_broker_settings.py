"""broker/settings.py, and the shipped example against it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.lease import Limits
from broker.settings import parse, read
from eva.strict_yaml import BadSettings

EXAMPLE = Path(__file__).parent.parent / "config" / "broker.yaml"
LEAST = """
node: AzS-ERCS01
operators: {certificate: /c, key: /k, names: [ercs01]}
mqtt: {host: localhost}
provider: {url: "https://p.example:8443"}
hosts: [{name: host1, uri: "qemu:///system"}]
"""
KNOBS = (
    "node state_directory root_key users address port certificate key client_ca names origins host username password_file ca url "
    "name uri lease_open_seconds lease_cut_seconds lease_every_seconds sessions"
)


def fault(text: str) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        parse(text, "broker.yaml")
    return caught.value


def test_the_least_is_enough():
    settings = parse(LEAST, "x")
    assert (settings.operators.port, settings.metrics.address, settings.lease, settings.most_sessions) == (
        8443,
        "127.0.0.1",
        Limits(6, 15),
        1000,
    )


def test_the_example_is_taken():
    assert read(EXAMPLE).node == "AzS-ERCS01"


def test_the_example_shows_the_defaults():
    # what has no default stays; every other key is taken out, and nothing may change by it
    must = {"node", "host", "ca", "certificate", "key", "client_ca", "names", "url", "uri"}
    kept, section = [], ""
    for line in EXAMPLE.read_text().splitlines():
        found = re.match(r"( *)(?:- )?(\w+):(?: +([^ #].*))?$", line)
        if found is None or line.lstrip().startswith("#"):
            continue
        if found[3] is None:
            section = line
        elif found[2] in must or line.lstrip().startswith("- "):
            if section and found[1]:
                kept.append(section)
                section = ""
            kept.append(line)
    assert parse("\n".join(kept) + "\n", "x") == read(EXAMPLE)


def test_the_example_names_every_knob():
    example = EXAMPLE.read_text()
    assert [knob for knob in KNOBS.split() if not re.search(rf"(?m)^[ #-]*{knob}:", example)] == []


@pytest.mark.parametrize("key", ["node", "operators", "mqtt", "provider", "hosts"])
def test_what_has_no_default_is_asked_for(key: str):
    text = re.sub(rf"(?m)^{key}:.*\n", "", LEAST)
    assert key in fault(text).key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("limits: {sesions: 9}\n", "limits.sesions"),
        ("limits: {lease_open_seconds: 4}\n", "limits.lease_open_seconds"),
        ("limits: {lease_cut_seconds: 61}\n", "limits.lease_cut_seconds"),
        ("limits: {lease_open_seconds: 20, lease_cut_seconds: 20}\n", "limits.lease_cut_seconds"),
        ("limits: {lease_every_seconds: 6}\n", "limits.lease_every_seconds"),
        ("users: users.yaml\n", "users"),
        ("metrics: {address: here}\n", "metrics.address"),
        ("more: 1\n", "more"),
    ],
)
def test_what_is_wrong_says_its_key(text: str, key: str):
    assert fault(LEAST + text).key == key


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("localhost", "mqtt.example", "mqtt.tls"),
        ("https://p", "http://p", "provider.url"),
        ("8443", "8443/x", "provider.url"),
        ("[ercs01]", '["ERCS01"]', "operators.names"),
        ("[ercs01]", "[]", "operators.names"),
        ("[ercs01]", "[a], origins: [https://a.example/]", "operators.origins"),
        ("[ercs01]", "[a], origins: ['null']", "operators.origins"),
        ("AzS-ERCS01", "AzS/ERCS01", "node"),
        ("qemu:///system", "qemu+ssh://host/system", "hosts"),
        ("qemu:///system", "qemu+tcp://host/system", "hosts"),
    ],
)
def test_what_would_be_unsafe_is_refused(before: str, after: str, key: str):
    assert fault(LEAST.replace(before, after)).key.startswith(key)


def test_a_host_twice():
    assert "twice" in fault(LEAST.replace("hosts: [", 'hosts: [{name: host1, uri: "qemu:///session"}, ')).why


def test_a_certificate_needs_its_key():
    text = LEAST.replace("{host: localhost}", "{host: localhost, tls: {ca: /a, certificate: /c}}")
    assert fault(text).key == "mqtt.tls.certificate"


def test_a_key_twice_says_its_line():
    assert fault(LEAST + "node: other\n").line == 7


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path):
    path = tmp_path / "broker.yaml"
    path.write_bytes(b"node: \xff\n")
    with pytest.raises(BadSettings, match="not UTF-8"):
        read(path)


# -- an issuer where operators sign in ---------------------------------------------------------------------------------------

OIDC = {
    "name": "Corp",
    "url": "https://ercs01:8443",
    "issuer": "https://id.example",
    "client_id": "consoles",
    "groups": "{corp-ops: cloudadmin, '/night shift': night}",
}


def with_oidc(**changed: str | None) -> str:
    keys = {name: text for name, text in {**OIDC, **changed}.items() if text is not None}
    inner = ", ".join(f"{name}: {text if text.startswith('{') else repr(text)}" for name, text in keys.items())
    return LEAST.replace("names: [ercs01]}", f"names: [ercs01], oidc: {{{inner}}}}}")


def test_without_an_issuer():
    assert parse(LEAST, "x").operators.oidc is None


def test_the_least_of_an_issuer():
    oidc = parse(with_oidc(), "x").operators.oidc
    assert oidc is not None
    assert (oidc.name, oidc.host, oidc.account_claim, oidc.groups_claim) == (
        "Corp",
        "ercs01:8443",
        "preferred_username",
        "groups",
    )
    assert dict(oidc.groups) == {"corp-ops": "cloudadmin", "/night shift": "night"}
    assert (oidc.registration.client.issuer, oidc.registration.secret_file) == ("https://id.example", None)


def for_hours(hours: str) -> str:
    return with_oidc().replace("oidc: {", f"oidc: {{hours: {hours}, ")


@pytest.mark.parametrize(("text", "hours"), [(with_oidc(), 8), (for_hours("1"), 1), (for_hours("24"), 24)])
def test_how_long_a_sign_in_over_an_issuer_lasts(text: str, hours: int):
    oidc = parse(text, "x").operators.oidc
    assert oidc is not None
    assert oidc.hours == hours


@pytest.mark.parametrize("hours", ["0", "25", "1.5"])
def test_it_lasts_from_an_hour_to_a_day(hours: str):
    assert fault(for_hours(hours)).key == "operators.oidc.hours"


def test_the_examples_issuer_is_taken():
    example = EXAMPLE.read_text()
    shown = re.search(r"(?m)^  # oidc:\n(?:  #.*\n)+", example)
    assert shown is not None
    live = example.replace(shown[0], re.sub(r"(?m)^  # ?", "  ", shown[0]))
    oidc = parse(live, "x").operators.oidc
    assert oidc is not None
    assert dict(oidc.groups) == {"console-operators": "cloudadmin"}


@pytest.mark.parametrize("key", [*OIDC])
def test_what_an_issuer_needs(key: str):
    assert fault(with_oidc(**{key: None})).key == f"operators.oidc.{key}"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("url", "https://elsewhere:8443"),  # a name that the node does not answer to
        ("url", "https://ercs01:8443/"),
        ("url", "http://ercs01:8443"),
        ("issuer", "http://id.example"),
        ("account_claim", "a claim"),
        ("groups_claim", ""),
        ("groups", "{}"),
        ("groups", "{corp-ops: 'cloud admin'}"),
        ("groups", "{corp-ops: ''}"),
        ("client_secret", "in plain"),
        ("ca", "ca.pem"),
    ],
)
def test_what_an_issuer_may_not_be(key: str, text: str):
    assert fault(with_oidc(**{key: text})).key.startswith(f"operators.oidc.{key}")


# -- watching ------------------------------------------------------------------------------------------------------------

WATCH = "watch: {certificate: /c, key: /k, names: [watch.example], origins: ['https://p.example'], url: 'https://watch.example:8446'}\n"


def test_nobody_watches_where_nothing_is_said_of_it():
    assert parse(LEAST, "x").watch is None


def test_a_watch_listener():
    found = parse(LEAST + WATCH, "x").watch
    assert found is not None
    assert (found.port, found.names, found.url) == (8446, frozenset({"watch.example"}), "https://watch.example:8446")


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("certificate: /c, ", "", "watch.certificate"),
        ("names: [watch.example]", "names: []", "watch.names"),
        ("origins: ['https://p.example']", "origins: []", "watch.origins"),
        ("origins: ['https://p.example']", "origins: ['null']", "watch.origins"),
        (", url: 'https://watch.example:8446'", "", "watch.url"),
        ("'https://watch.example:8446'", "'https://watch.example:8446/'", "watch.url"),
        ("'https://watch.example:8446'", "'https://other.example'", "watch.url"),
        ("'https://watch.example:8446'", "'http://watch.example'", "watch.url"),
        ("}", ", client_ca: /a}", "watch.client_ca"),
    ],
)
def test_a_watch_listener_that_would_not_do(before: str, after: str, key: str):
    assert fault(LEAST + WATCH.replace(before, after)).key == key


def test_the_shipped_watch_listener_is_taken_once_it_is_no_comment():
    text = re.sub(r"(?ms)^# watch:.*?(?=^$)", lambda found: re.sub(r"(?m)^# ?", "", found[0]), EXAMPLE.read_text())
    found = parse(text, "x").watch
    assert found is not None
    assert found.url == "https://ercs01-watch.eva.example:8446"
