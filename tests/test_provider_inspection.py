"""provider/inspection.py: `check-config` opens what the daemon will read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.certificates import Authority
from tests.bearer_parts import jwk, jwks
from tests.provider_parts import Ran
from tests.rest_parts import RestCloud


@pytest.fixture
def still(tmp_path: Path) -> Iterator[RestCloud]:
    """A provider that does not run, with TLS files of its own."""
    cloud = RestCloud(tmp_path, Authority(tmp_path / "tls"))
    yield cloud
    cloud.close()


def test_all_is_good(still: RestCloud):
    ran = still.run("check-config")
    assert (ran.code, ran.err) == (0, "")


def test_it_needs_no_rest(still: RestCloud):
    text = still.place.config.read_text()
    still.run = super(RestCloud, still).run  # type: ignore[method-assign] - it would put the REST's settings back
    still.place.config.write_text(text[: text.index("region:")])
    assert still.run("check-config").code == 0


@pytest.mark.parametrize("name", ["rest.pem", "rest.key", "server.pem", "server.key"])
@pytest.mark.parametrize("content", [None, "", "no PEM"])
def test_a_tls_file_that_cannot_be_used_is_named(still: RestCloud, tmp_path: Path, name: str, content: str | None):
    path = tmp_path / "tls" / name
    path.unlink() if content is None else path.write_text(content)
    ran = still.run("check-config")
    assert (ran.code, str(path) in ran.err) == (78, True)


def test_a_key_of_another_certificate(still: RestCloud, tmp_path: Path):
    (tmp_path / "tls" / "rest.key").write_bytes((tmp_path / "tls" / "server.key").read_bytes())
    ran = still.run("check-config")
    assert (ran.code, "rest.key" in ran.err, "server.key" in ran.err) == (78, True, False)


BAD_SETS = [None, b"", b"{}", b'{"keys": []}', jwks(jwk("RS256")), b"[" * 100_000, b" " * 300_000, b"\xff"]


@pytest.mark.parametrize("content", BAD_SETS)
def test_a_key_set_that_vouches_for_nobody_is_named(still: RestCloud, content: bytes | None):
    path = still.place.directory / "jwks.json"
    path.unlink() if content is None else path.write_bytes(content)
    ran = still.run("check-config")
    assert (ran.code, str(path) in ran.err) == (78, True)


def test_authorities_of_a_key_sets_server(still: RestCloud, tmp_path: Path):
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    with still.place.config.open("a") as file:
        file.write(
            f"    - {{issuer: 'https://other.example', jwks_url: 'https://other.example/jwks', jwks_ca: {bad},"
            " algorithms: [RS256], home: false}\n"
        )
    ran = still.run("check-config")
    assert (ran.code, str(bad) in ran.err) == (78, True)


WATCH = "watch: {issuer: 'https://login.example/eva', client_id: page, %s}, "


def page(still: RestCloud, more: str) -> Ran:
    """check-config, where the tenants' page is on."""
    still.place.config.write_text(still.place.config.read_text().replace("tenant_api:\n  {", f"tenant_api:\n  {{{WATCH % more}"))
    assert "watch:" in still.place.config.read_text()
    return still.run("check-config")


def test_the_pages_client(still: RestCloud, tmp_path: Path):
    secret = tmp_path / "client.secret"
    secret.write_text("of-the-client\n")
    secret.chmod(0o600)
    ran = page(still, f"client_secret_file: {secret}")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(("mode", "content"), [(0o644, "of-the-client"), (0o600, ""), (0o600, None)])
def test_a_clients_secret_that_cannot_be_used(still: RestCloud, tmp_path: Path, mode: int, content: str | None):
    secret = tmp_path / "client.secret"
    if content is not None:
        secret.write_text(content)
        secret.chmod(mode)
    ran = page(still, f"client_secret_file: {secret}")
    assert (ran.code, str(secret) in ran.err, "of-the-client" in ran.err) == (78, True, False)


def test_authorities_of_the_pages_issuer(still: RestCloud, tmp_path: Path):
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    ran = page(still, f"ca: {bad}")
    assert (ran.code, str(bad) in ran.err) == (78, True)


def test_every_fault_is_told_at_once(still: RestCloud, tmp_path: Path):
    (tmp_path / "tls" / "rest.pem").unlink()
    (tmp_path / "tls" / "server.pem").unlink()
    (still.place.directory / "jwks.json").unlink()
    ran = still.run("check-config")
    assert [name in ran.err for name in ("rest.pem", "server.pem", "jwks.json")] == [True] * 3
