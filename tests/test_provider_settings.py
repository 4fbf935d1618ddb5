"""provider/settings.py, and the shipped example against it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eva.strict_yaml import BadSettings
from provider.settings import parse, read
from provider.store.place import PostgresqlServer

EXAMPLE = Path(__file__).parent.parent / "config" / "provider.yaml"
LEAST = "lease: {certificate: /c, key: /k}\n"


def fault(text: str) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        parse(text, "provider.yaml")
    return caught.value


def test_the_least_is_a_certificate():
    settings = parse(LEAST, "x")
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.tls) == ("localhost", 1883, None)


def test_the_example_is_taken():
    assert read(EXAMPLE).mqtt.tls is not None


def test_the_example_shows_the_defaults():
    example = EXAMPLE.read_text()
    # what has no default stays; every other key is taken out, and nothing may change by it
    must = {"host", "ca", "certificate", "key", "url", "audiences", "subscription", "login_endpoint", "tenant"}
    must |= {"issuers", "issuer", "jwks_url", "jwks_ca", "algorithms"}
    kept = []
    for line in example.splitlines():
        found = re.match(r" *(\w+): +[^ #]", line)
        if found is None or found[1] in must:
            kept.append(line)
    text = re.sub(r"(?m)^(keys|metrics|admin|limits):\n(?=(\s*#.*\n|\s*\n)*(\S|\Z))", "", "\n".join(kept) + "\n")
    assert parse(text, "x") == read(EXAMPLE)


def test_the_example_names_every_knob():
    example = EXAMPLE.read_text()
    knobs = (
        "store root root_public signing host port client_id username password_file ca certificate key address socket cut_seconds"
    )
    assert [
        knob
        for knob in [*knobs.split(), "receipt_seconds", "store_password_file"]
        if not re.search(rf"(?m)^[ #]*{knob}:", example)
    ] == []


def test_an_unknown_key_says_its_line():
    error = fault(LEAST + "limits:\n  cut_second: 9\n")
    assert (error.line, error.key) == (3, "limits.cut_second")


def test_a_key_twice_says_its_line():
    assert fault(LEAST + LEAST).line == 2


@pytest.mark.parametrize("seconds", [4, 61])
def test_the_cut_limit_is_never_infinite(seconds: int):
    assert "from 5 to 60" in fault(LEAST + f"limits: {{cut_seconds: {seconds}}}\n").why


def test_mqtt_on_another_host_needs_tls():
    assert "needs TLS" in fault(LEAST + "mqtt: {host: mqtt.example}\n").why


def test_a_certificate_needs_its_key():
    assert fault(LEAST + "mqtt: {tls: {ca: /a, certificate: /c}}\n").key == "mqtt.tls.certificate"


def test_a_relative_path_is_refused():
    assert "begin it with /" in fault(LEAST + "store: provider.db\n").why


def test_a_store_may_be_on_a_server():
    text = LEAST + "store: postgresql+psycopg://eva@localhost/eva\nstore_password_file: /p\n"
    place = parse(text, "x").store
    assert isinstance(place, PostgresqlServer)
    assert (place.url.database, str(place.password_file)) == ("eva", "/p")


def test_a_file_needs_no_password():
    assert fault(LEAST + "store_password_file: /p\n").key == "store_password_file"


def test_a_password_in_the_url_is_refused_and_not_repeated():
    error = fault(LEAST + "store: postgresql+psycopg://eva:hunter2@localhost/eva\n")
    assert (error.key, "store_password_file" in str(error), "hunter2" in str(error)) == ("store", True, False)


def test_a_socket_path_too_long_for_the_kernel_is_refused():
    assert fault(LEAST + f"admin: {{socket: /{'x' * 107}}}\n").key == "admin.socket"


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path):
    path = tmp_path / "provider.yaml"
    path.write_bytes(b"store: /\xff\n")
    with pytest.raises(BadSettings, match="not UTF-8"):
        read(path)
