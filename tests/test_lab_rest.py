"""The REST of the lab: settings that the provider takes, and files by which curl calls."""

import stat
import subprocess
from pathlib import Path

import pytest

from eva.strict_yaml import load
from lab.certificates import KeyPair
from lab.rest import Endpoints, Identity, Issuer, write_caller
from provider.rest.settings import Rest
from provider.rest.settings import rest as parse

ENDPOINTS = Endpoints(8444, 8445)


@pytest.fixture
def settings(tmp_path: Path) -> Rest:
    other = Issuer("https://other.example", "https://other.example/keys", tmp_path / "ca.pem", principal_claim="sub")
    text = Identity(tmp_path, [other]).lines(ENDPOINTS, KeyPair(tmp_path / "c.pem", tmp_path / "c.key"))
    found = parse(load(text, "settings"))
    assert found is not None
    return found


def test_urls_are_those_of_the_settings(settings: Rest) -> None:
    assert (settings.tenant.url, settings.admin.listener.url) == (ENDPOINTS.tenant, ENDPOINTS.admin)


def test_only_our_own_issuer_is_home(settings: Rest) -> None:
    assert [(one.signing_key is not None, one.home) for one in settings.identity.issuers] == [(True, True), (False, False)]


def test_each_endpoint_has_an_audience_of_its_own(settings: Rest) -> None:
    assert set(settings.tenant.audiences) & set(settings.admin.listener.audiences) == set()


def test_callers_file_is_nobody_elses(tmp_path: Path) -> None:
    write_caller(tmp_path / "one.curl", "secret", tmp_path / "ca.pem")
    assert stat.S_IMODE((tmp_path / "one.curl").stat().st_mode) == 0o600


def test_curl_reads_a_callers_file(tmp_path: Path) -> None:
    """A file: URL, which has no status and needs no server."""
    (tmp_path / "answer").write_text("{}")
    write_caller(tmp_path / "one.curl", "secret", tmp_path / "ca.pem")
    words = ["curl", "--config", str(tmp_path / "one.curl"), f"file://{tmp_path}/answer"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("{}", "HTTP 000\n", 0)
