"""Key files, and the key set by which nodes know the provider's signing keys. Errors:

BadKeyFile      a key file that is missing, open to others or no Ed25519 key: `path` and `why`
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from eva.token import BadToken, SigningKey, Typ, thumbprint, verify
from eva.wire import NODES, KeySet
from provider.books import Books
from provider.settings import KeyFiles
from provider.store import BadStore, Store

MAX_FILE = 4096


class BadKeyFile(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a new file shall belong to."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs now, and the set (an eva-keys+jwt) that makes nodes believe it."""

    key: SigningKey
    key_set: str
    version: int


def read_private(path: Path) -> SigningKey:
    """A PEM PKCS8 Ed25519 key that only its owner, we or root, can read. Raises BadKeyFile."""
    try:
        # one descriptor for check and read: the file cannot be changed for another in between
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadKeyFile(path, error.strerror or "cannot be opened") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadKeyFile(path, "is no regular file")
        if found.st_mode & 0o177:
            raise BadKeyFile(
                path, f"has mode {stat.S_IMODE(found.st_mode):04o}: make it 0600, and replace the key if others read it"
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise BadKeyFile(path, f"belongs to uid {found.st_uid}: give it to the provider's user")
        raw = os.read(descriptor, MAX_FILE)
    finally:
        os.close(descriptor)
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKeyFile(path, "is no unencrypted PEM PKCS8 private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKeyFile(path, "is no Ed25519 key")
    return SigningKey(key)


def read_public(path: Path) -> Ed25519PublicKey:
    """The public half in PEM (SubjectPublicKeyInfo). Raises BadKeyFile."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BadKeyFile(path, error.strerror or "cannot be read") from None
    return parse_public(raw, path)


def parse_public(raw: bytes, path: Path) -> Ed25519PublicKey:
    """Raises BadKeyFile, which names `path`."""
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKeyFile(path, "is no PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKeyFile(path, "is no Ed25519 key")
    return key


def write_private(path: Path, key: Ed25519PrivateKey, owner: Owner | None = None) -> None:
    """A new file of mode 0600, on disk when this returns. Raises BadKeyFile if there is one already, OSError."""
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600, owner)


def write_public(path: Path, key: Ed25519PublicKey) -> None:
    """A new file of mode 0644. Raises BadKeyFile if there is one already, OSError."""
    _write(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644, None)


def _write(path: Path, raw: bytes, mode: int, owner: Owner | None) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise BadKeyFile(path, "is there already: a key is never overwritten") from None
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        file.write(raw)
        file.flush()
        os.fsync(descriptor)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def signing_path(directory: Path, kid: str) -> Path:
    return directory / f"signing-{kid}.pem"


def sign_key_set(root: SigningKey, version: int, keys: Iterable[Ed25519PublicKey]) -> str:
    """The eva-keys+jwt of these signing keys."""
    return root.sign(Typ.KEYS, KeySet(version, {thumbprint(key): key for key in keys}).to_claims())


def load_signer(files: KeyFiles, store: Store) -> Signer:
    """The key that signs now, by the newest key set in the store. Raises BadStore, BadKeyFile."""
    with store.read() as connection:
        newest = Books(connection).key_set()
    if newest is None:
        raise BadStore(store.path, "holds no key set: make one with `eva-provider keys init`")
    return open_signer(files.signing, files.root_public, *newest)


def open_signer(directory: Path, root_public: Path, key_set: str, signing_kid: str) -> Signer:
    """The signer by the stored key set, held against the root's public half. Raises BadKeyFile."""
    root = read_public(root_public)
    try:
        known = KeySet.from_claims(verify(key_set, Typ.KEYS, {thumbprint(root): root}, NODES))
    except BadToken as error:
        raise BadKeyFile(root_public, f"did not sign the stored key set ({error.detail}): bring the root key that did") from None
    path = signing_path(directory, signing_kid)
    key = read_private(path)
    if key.kid != signing_kid or key.kid not in known.keys:
        raise BadKeyFile(path, f"is not in key set {known.version}: nodes would refuse what it signs")
    return Signer(key, key_set, known.version)
