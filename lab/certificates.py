"""A throw-away certification authority."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class KeyPair:
    """Two PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates that are good for a day; P-256, since it is quick and everything here takes it."""

    def __init__(self, directory: Path, name: str = "EVA lab CA") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._own_identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            _validity(x509.CertificateBuilder(), timedelta(days=1))
            .subject_name(self._name)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._own_identifier, critical=False)
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._sign(builder))

    def server(self, name: str = "server", hosts: Sequence[str] = LOOPBACK) -> KeyPair:
        """Give a server's certificate for these DNS names and addresses."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._issue(name, names, ExtendedKeyUsageOID.SERVER_AUTH, timedelta(days=1))

    def client(self, common_name: str, *, lifetime: timedelta = timedelta(days=1)) -> KeyPair:
        """Give a client's certificate; a negative lifetime gives one that has run out."""
        names = x509.SubjectAlternativeName([x509.DNSName("client.invalid")])
        return self._issue(common_name, names, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime)

    def _issue(
        self,
        common_name: str,
        names: x509.SubjectAlternativeName,
        purpose: x509.ObjectIdentifier,
        lifetime: timedelta,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _validity(x509.CertificateBuilder(), lifetime)
            .subject_name(_name(common_name))
            .public_key(key.public_key())
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        pair = KeyPair(self.directory / f"{common_name}.pem", self.directory / f"{common_name}.key")
        pair.certificate.write_bytes(self._sign(builder))
        plain = serialization.NoEncryption()
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(encoding, form, plain))
        pair.key.chmod(0o600)
        return pair

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        # Python 3.13 and later verify strictly and ask for the authority's key identifier (RFC 5280 4.2.1.1).
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._own_identifier)
        builder = builder.issuer_name(self._name).serial_number(x509.random_serial_number())
        signed = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _validity(builder: x509.CertificateBuilder, lifetime: timedelta) -> x509.CertificateBuilder:
    # Two days back, so that a clock moved by a test does not matter and an expired one still has begun before it ended.
    now = datetime.now(UTC)
    return builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now + lifetime)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
