"""provider/keys.py: key files and their modes, the key set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from eva.token import SigningKey
from provider.keys import (
    BadKeyFile,
    NoSigner,
    Signer,
    Signers,
    load_signer,
    read_private,
    read_public,
    sign_key_set,
    signing_path,
    write_private,
    write_public,
)
from provider.settings import KeyFiles
from provider.store.key_sets import Filed, KeySets, verified
from provider.store.store import Store
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
    found = verified(token, root.private.public_key())
    assert (found.version, set(found.keys)) == (3, {one.kid, two.kid})


@dataclass
class Host:
    """A provider's host: its store and key files, and the root key beside it."""

    directory: Path
    store: Store
    root: SigningKey = field(default_factory=signing_key)
    held: dict[str, SigningKey] = field(default_factory=dict)

    @property
    def files(self) -> KeyFiles:
        return KeyFiles(self.directory / "root.pem", self.directory / "root.pub", self.directory)

    def new_key(self, *, here: bool = True) -> SigningKey:
        key = signing_key()
        self.held[key.kid] = key
        if here:
            self.bring(key)
        return key

    def bring(self, key: SigningKey) -> None:
        write_private(signing_path(self.directory, key.kid), key.private)

    def file(self, version: int, signing_kid: str, *keys: SigningKey) -> None:
        token = sign_key_set(self.root, version, [key.private.public_key() for key in keys])
        with self.store.write() as connection:
            KeySets(connection).file(Filed(version, signing_kid, token, 0))

    def signer(self) -> Signer:
        return load_signer(self.files, self.store)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """With one key, filed as set 1."""
    store = Store(tmp_path / "provider.db", create=True)
    host = Host(tmp_path, store)
    write_public(tmp_path / "root.pub", host.root.private.public_key())
    key = host.new_key()
    host.file(1, key.kid, key)
    yield host
    store.close()


def test_the_signer_needs_no_root_key(host: Host):
    signer = host.signer()
    assert (signer.key.kid in host.held, signer.version, signer.awaits) == (True, 1, None)
    assert not host.files.root.exists()


def test_without_a_key_set_nothing_is_signed(tmp_path: Path):
    store = Store(tmp_path / "provider.db", create=True)
    write_public(tmp_path / "root.pub", signing_key().private.public_key())
    with pytest.raises(BadKeyFile, match="keys init"):
        load_signer(KeyFiles(tmp_path / "root.pem", tmp_path / "root.pub", tmp_path), store)
    store.close()


def test_a_key_set_of_another_root_is_refused(host: Host):
    host.files.root_public.unlink()
    write_public(host.files.root_public, signing_key().private.public_key())
    with pytest.raises(BadKeyFile, match="did not sign"):
        host.signer()


def test_a_signing_key_outside_the_set_is_refused(host: Host):
    other, kid = host.new_key(), next(iter(host.held))
    host.file(2, other.kid, host.held[kid])
    with pytest.raises(BadKeyFile, match="not in key set"):
        host.signer()


def test_a_file_with_another_key_than_its_name_says_is_refused(host: Host):
    (kid,) = host.held
    signing_path(host.directory, kid).unlink()
    write_private(signing_path(host.directory, kid), signing_key().private)
    with pytest.raises(BadKeyFile, match="holds another key"):
        host.signer()


def test_an_open_key_is_refused_and_no_older_one_taken_for_it(host: Host):
    (old,) = host.held.values()
    new = host.new_key()
    host.file(2, new.kid, old, new)
    signing_path(host.directory, new.kid).chmod(0o640)
    with pytest.raises(BadKeyFile, match="0640"):
        host.signer()


def test_a_host_without_the_new_key_signs_with_the_old_until_it_is_brought(host: Host):
    (old,) = host.held.values()
    new = host.new_key(here=False)
    host.file(2, new.kid, old, new)
    signers = Signers(host.files, host.signer())
    assert (signers.current.key.kid, signers.current.version) == (old.kid, 2)
    host.bring(new)
    with host.store.write() as connection:
        assert signers.in_force(connection).key.kid == new.kid


def test_a_host_without_any_key_of_the_set_decides_nothing(host: Host):
    signers = Signers(host.files, host.signer())
    new = host.new_key(here=False)
    host.file(2, new.kid, new)
    with pytest.raises(NoSigner, match=new.kid), host.store.write() as connection:
        signers.in_force(connection)
    host.bring(new)
    with host.store.write() as connection:
        assert signers.in_force(connection).key.kid == new.kid


def test_a_newer_set_is_in_force_in_the_very_next_transaction(host: Host):
    (old,) = host.held.values()
    signers = Signers(host.files, host.signer())
    new = host.new_key()
    with host.store.write() as connection:
        before = signers.in_force(connection)
    host.file(2, new.kid, old, new)
    with host.store.write() as connection:
        after = signers.in_force(connection)
    assert [(one.key.kid, one.version) for one in (before, after)] == [(old.kid, 1), (new.kid, 2)]
