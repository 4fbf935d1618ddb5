"""web/assets.py: the table of each site, its headers, and when the packed form or nothing is sent."""

from __future__ import annotations

import gzip

import pytest

from web.assets import HOME, headers, is_known, site, takes_gzip


@pytest.mark.parametrize("name", ["operator", "watch"])
def test_a_sites_table_is_what_is_there(name: str) -> None:
    found = site(name)
    assert found.page.content == (HOME / name / "index.html").read_bytes()
    for url, asset in found.files.items():
        assert asset.content == gzip.decompress(asset.packed) == (HOME / url.removeprefix("/")).read_bytes()


@pytest.mark.parametrize(("name", "other"), [("operator", "watch"), ("watch", "operator")])
def test_a_site_has_nothing_of_the_other(name: str, other: str) -> None:
    assert not [url for url in site(name).files if url.startswith(f"/{other}/")]


def test_only_named_origins_may_be_reached() -> None:
    policy = headers(site("watch").page, ["wss://ercs01.example:8446"])["Content-Security-Policy"]
    (reached,) = [part for part in policy.split("; ") if part.startswith("connect-src")]
    assert reached == "connect-src 'self' wss://ercs01.example:8446"


@pytest.mark.parametrize("word", ["'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"])
def test_nothing_is_let_in_by_the_policy(word: str) -> None:
    assert word not in headers(site("operator").page)["Content-Security-Policy"].replace(";", " ").split()


@pytest.mark.parametrize("text", ["gzip", "GZIP", "br, gzip", "gzip;q=0.5", "deflate , gzip ; q=1", "gzip;q=0.001"])
def test_gzip_is_taken(text: str) -> None:
    assert takes_gzip([text])


@pytest.mark.parametrize("text", ["", "identity", "gzip;q=0", "gzip;q=0.0", "gzip; Q=0.000", "xgzip", "br", "gzipped"])
def test_gzip_is_not_taken(text: str) -> None:
    assert not takes_gzip([text])


def test_several_fields_are_one() -> None:
    assert takes_gzip(["br", "gzip"])


@pytest.mark.parametrize("text", ['"a"', 'W/"a"', '"b", "a"', '"b",W/"a"', "*", ' "a" '])
def test_a_tag_that_is_known(text: str) -> None:
    assert is_known([text], '"a"')


@pytest.mark.parametrize("text", ["", "a", '"b"', '"a', '"aa"', '"*"'])
def test_a_tag_that_is_not(text: str) -> None:
    assert not is_known([text], '"a"')
