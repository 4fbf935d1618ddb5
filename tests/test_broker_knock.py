"""broker/knock.py: by which names and from which pages a port may be called."""

from __future__ import annotations

import pytest

from broker.knock import fault

NAMES, PAGES = frozenset({"ercs01.example", "::1"}), frozenset({"https://console.example"})


@pytest.mark.parametrize(
    ("hosts", "origins", "why"),
    [
        (["ercs01.example"], [], None),
        (["ERCS01.example:8443"], [], None),
        (["[::1]:8443"], [], None),
        (["ercs01.example"], ["https://console.example"], None),
        ([], [], "host"),
        ([""], [], "host"),
        (["ercs01.example", "ercs01.example"], [], "host"),
        (["evil.example"], [], "host"),
        (["ercs01.example.evil"], [], "host"),
        (["ercs01.example@evil.example"], [], "host"),
        (["ercs01.example:1:2"], [], "host"),
        (["ercs01.example:x"], [], "host"),
        (["ercs01.example"], ["null"], "origin"),
        (["ercs01.example"], ["https://evil.example"], "origin"),
        (["ercs01.example"], ["HTTPS://CONSOLE.EXAMPLE"], "origin"),
        (["ercs01.example"], ["https://console.example/"], "origin"),
        (["ercs01.example"], ["https://console.example", "https://console.example"], "origin"),
        (["ercs01.example"], [""], "origin"),
    ],
    ids=ascii,
)
def test_host_and_origin(hosts: list[str], origins: list[str], why: str | None) -> None:
    assert fault(hosts, origins, NAMES, PAGES) == why
