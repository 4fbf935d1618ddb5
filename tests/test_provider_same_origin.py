"""provider/watch/same_origin.py: what comes from the page, and what from anywhere else."""

from __future__ import annotations

import pytest

from provider.watch.same_origin import is_ours, origin_of

OURS = "https://m.example:8444"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://m.example:8444", "https://m.example:8444"),
        ("https://M.Example", "https://m.example"),
        ("https://m.example:443", "https://m.example"),
        ("https://m.example:8443", "https://m.example:8443"),
        ("https://m.example/arm", "https://m.example"),
    ],
)
def test_an_origin_is_spelled_as_browsers_do(url: str, origin: str):
    assert origin_of(url) == origin


@pytest.mark.parametrize(("origins", "sites"), [([OURS], ["same-origin"]), ([OURS], []), ([], ["same-origin"])])
def test_ours(origins: list[str], sites: list[str]):
    assert is_ours(OURS, origins, sites)


NOT_OURS: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["null"], []),
    (["https://m.example"], []),
    (["https://m.example:84444"], []),
    (["https://m.example:8444.evil.example"], []),
    (["http://m.example:8444"], []),
    ([OURS.upper()], []),
    ([OURS], ["same-site"]),
    ([OURS], ["cross-site"]),
    ([OURS], ["none"]),
    (["https://evil.example"], ["same-origin"]),
    ([], ["none"]),
    ([OURS, OURS], []),
    ([OURS, "https://evil.example"], []),
    ([], ["same-origin", "same-origin"]),
]


@pytest.mark.parametrize(("origins", "sites"), NOT_OURS)
def test_not_ours(origins: list[str], sites: list[str]):
    assert not is_ours(OURS, origins, sites)
