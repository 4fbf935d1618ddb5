"""eva/endpoint.py: what both daemons' settings say of addresses and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva.endpoint import ClientTls, MetricsListener, address, client_tls, is_loopback, metrics, path
from eva.strict_yaml import BadSettings, Section, load


def section(text: str) -> Section:
    return load(text, "x.yaml")


def test_a_path_from_the_root():
    assert path(section("key: /etc/eva/k\n"), "key") == Path("/etc/eva/k")


@pytest.mark.parametrize("text", ["etc/k", "~/k", "./k", "''"])
def test_another_path_is_refused(text: str):
    with pytest.raises(BadSettings) as caught:
        path(section(f"key: {text}\n"), "key")
    assert caught.value.line == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0", ""])  # noqa: S104 - a name
def test_no_loopback(host: str):
    assert not is_loopback(host)


def test_a_host_name_is_no_address_to_listen_at():
    with pytest.raises(BadSettings):
        address(section("address: localhost\n"), "127.0.0.1")


def test_an_authority_is_enough():
    assert client_tls(section("ca: /a\n")) == ClientTls(Path("/a"), None, None)


@pytest.mark.parametrize("text", ["ca: /a\nkey: /k\n", "ca: /a\ncertificate: /c\n"])
def test_certificate_and_key_go_together(text: str):
    with pytest.raises(BadSettings, match="beside it"):
        client_tls(section(text))


def test_metrics_stay_on_loopback_unless_told():
    assert metrics(section(""), 9464) == MetricsListener("127.0.0.1", 9464)
