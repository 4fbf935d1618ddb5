"""broker/certificates.py on real files: what cannot be taken is named."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from broker.certificates import client_context, load_authority, load_pair
from lab.certificates import Authority


@pytest.fixture
def context() -> ssl.SSLContext:
    """Give one with nothing in it."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_a_pair_is_taken(context: ssl.SSLContext, certificates: Authority):
    pair = certificates.server("ercs")
    load_pair(context, pair.certificate, pair.key)


def test_a_pair_in_one_file_is_taken(context: ssl.SSLContext, certificates: Authority, tmp_path: Path):
    pair = certificates.server("ercs")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    load_pair(context, both, None)


def test_a_missing_file_is_named(context: ssl.SSLContext, certificates: Authority, tmp_path: Path):
    pair = certificates.server("ercs")
    for certificate, key in ((pair.certificate, tmp_path / "no.key"), (tmp_path / "no.pem", pair.key)):
        with pytest.raises(FileNotFoundError) as caught:
            load_pair(context, certificate, key)
        assert Path(caught.value.filename).parent == tmp_path


def test_a_key_of_another_certificate_is_named(context: ssl.SSLContext, certificates: Authority):
    one, other = certificates.server("ercs"), certificates.server("mqtt")
    with pytest.raises(ssl.SSLError) as caught:
        load_pair(context, one.certificate, other.key)
    assert str(caught.value) == f"{one.certificate} with {other.key}: not to be taken: key values mismatch"


def test_an_authority_is_believed(context: ssl.SSLContext, certificates: Authority):
    load_authority(context, certificates.ca)
    assert len(context.get_ca_certs()) == 1


def test_an_authority_that_is_none_is_named(context: ssl.SSLContext, tmp_path: Path):
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(ssl.SSLError, match=f"^{tmp_path}/ca.pem: not to be taken: "):
        load_authority(context, tmp_path / "ca.pem")


def test_a_clients_context_believes_the_file_and_no_other(certificates: Authority):
    own = client_context(certificates.ca)
    assert [one["subject"] for one in own.get_ca_certs()] == [((("commonName", "EVA lab CA"),),)]
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert own.check_hostname


def test_without_a_file_it_believes_the_systems():
    own, systems = client_context(None), ssl.create_default_context()
    assert own.cert_store_stats() == systems.cert_store_stats()
    assert own.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("text", [None, "x"], ids=["missing", "no certificate"])
def test_a_clients_authority_that_cannot_be_read_is_named(tmp_path: Path, text: str | None):
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OSError, match=str(path)):
        client_context(path)
