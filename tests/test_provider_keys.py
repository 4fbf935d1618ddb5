"""provider/keys.py: key files and their modes, the key set."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from eva.token import Typ, verify
from eva.wire import NODES, KeySet
from provider.keys import (
    BadKeyFile,
    open_signer,
    read_private,
    read_public,
    sign_key_set,
    signing_path,
    write_private,
    write_public,
)
from tests.provider_parts import signing_key


def test_a_private_key_comes_back_from_a_file_of_mode_0600(tmp_path: Path):
    key = signing_key()
    write_private(tmp_path / "k.pem", key.private)
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    assert read_private(tmp_path / "k.pem").kid == key.kid


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700, 0o644])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "k.pem"
    write_private(path, signing_key().private)
    path.chmod(mode)
    with pytest.raises(BadKeyFile, match=f"{mode:04o}"):
        read_private(path)


def test_a_link_is_no_key_file(tmp_path: Path):
    write_private(tmp_path / "k.pem", signing_key().private)
    (tmp_path / "link.pem").symlink_to(tmp_path / "k.pem")
    with pytest.raises(BadKeyFile):
        read_private(tmp_path / "link.pem")


def test_a_directory_is_no_key_file(tmp_path: Path):
    with pytest.raises(BadKeyFile, match="regular"):
        read_private(tmp_path)


def test_a_key_is_never_overwritten(tmp_path: Path):
    first = signing_key()
    write_private(tmp_path / "k.pem", first.private)
    with pytest.raises(BadKeyFile, match="already"):
        write_private(tmp_path / "k.pem", signing_key().private)
    assert read_private(tmp_path / "k.pem").kid == first.kid


def test_another_kind_of_key_is_refused(tmp_path: Path):
    path = tmp_path / "k.pem"
    path.write_bytes(generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(BadKeyFile, match="Ed25519"):
        read_private(path)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path):
    path = tmp_path / "k.pem"
    path.write_text("hello")
    path.chmod(0o600)
    with pytest.raises(BadKeyFile, match="PKCS8"):
        read_private(path)
    with pytest.raises(BadKeyFile, match="public key"):
        read_public(path)


def test_a_key_set_carries_several_keys_that_the_root_signed():
    root, one, two = signing_key(), signing_key(), signing_key()
    token = sign_key_set(root, 3, [one.private.public_key(), two.private.public_key()])
    found = KeySet.from_claims(verify(token, Typ.KEYS, {root.kid: root.private.public_key()}, NODES))
    assert (found.version, set(found.keys)) == (3, {one.kid, two.kid})


def _placed(tmp_path: Path) -> tuple[str, str]:
    """A root and a signing key on disk; gives the key set and the signing kid."""
    root, key = signing_key(), signing_key()
    write_public(tmp_path / "root.pub", root.private.public_key())
    write_private(signing_path(tmp_path, key.kid), key.private)
    return sign_key_set(root, 1, [key.private.public_key()]), key.kid


def test_the_signer_needs_no_root_key(tmp_path: Path):
    key_set, kid = _placed(tmp_path)
    signer = open_signer(tmp_path, tmp_path / "root.pub", key_set, kid)
    assert (signer.key.kid, signer.version) == (kid, 1)


def test_a_key_set_of_another_root_is_refused(tmp_path: Path):
    key_set, kid = _placed(tmp_path)
    (tmp_path / "root.pub").unlink()
    write_public(tmp_path / "root.pub", signing_key().private.public_key())
    with pytest.raises(BadKeyFile, match="did not sign"):
        open_signer(tmp_path, tmp_path / "root.pub", key_set, kid)


def test_a_signing_key_outside_the_set_is_refused(tmp_path: Path):
    key_set, _ = _placed(tmp_path)
    other = signing_key()
    write_private(signing_path(tmp_path, other.kid), other.private)
    with pytest.raises(BadKeyFile, match="not in key set"):
        open_signer(tmp_path, tmp_path / "root.pub", key_set, other.kid)
