"""Key files, and the key set by which nodes know the provider's signing keys. Errors:

BadKeyFile      a key file that is missing, open to others or no Ed25519 key: `path` and `why`
NoSigner        no key of ours is in the newest key set: a StoreDown, since nothing can be decided meanwhile
"""

from __future__ import annotations

import logging
import os
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
from sqlalchemy import Connection

from eva.token import BadToken, SigningKey, Typ, thumbprint
from eva.wire import KeySet
from provider.settings import KeyFiles
from provider.store.key_sets import KeySets, verified
from provider.store.secret import MAX_FILE, BadSecret, read_private_file
from provider.store.store import Store, StoreDown

log = logging.getLogger("provider.keys")


class BadKeyFile(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


class NoSigner(StoreDown):
    pass


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a new file shall belong to."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs now, and the set (an eva-keys+jwt) that makes nodes believe it.

    `awaits`: where the key that should sign belongs, while an older one of the set stands in for it.
    """

    key: SigningKey
    key_set: str
    version: int
    awaits: Path | None = None


def read_private(path: Path) -> SigningKey:
    """A PEM PKCS8 Ed25519 key that only its owner, we or root, can read. Raises BadKeyFile."""
    try:
        raw = read_private_file(path)
    except BadSecret as error:
        raise BadKeyFile(path, error.why) from None
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


def signer_at(files: KeyFiles, sets: KeySets) -> Signer:
    """The newest key of the newest key set that this host has, the set held against the root's public half.

    A host that a new key was not brought to yet signs on with an older one of the set. Raises BadKeyFile.
    """
    filed = sets.all()
    if not filed:
        raise BadKeyFile(files.signing, "has no key set to go with: make one with `eva-provider keys init`")
    newest = filed[0]
    root = read_public(files.root_public)
    try:
        known = verified(newest.token, root)
    except BadToken as error:
        why = f"did not sign the stored key set ({error.detail}): bring the root key that did"
        raise BadKeyFile(files.root_public, why) from None
    if newest.signing_kid not in known.keys:
        raise BadKeyFile(files.signing, f"is to sign with {newest.signing_kid}, which is not in key set {known.version}")
    best = signing_path(files.signing, newest.signing_kid)
    for kid in dict.fromkeys(one.signing_kid for one in filed if one.signing_kid in known.keys):
        path = signing_path(files.signing, kid)
        if path.exists():
            key = read_private(path)
            if key.kid != kid:
                raise BadKeyFile(path, f"holds another key ({key.kid})")
            return Signer(key, newest.token, known.version, None if path == best else best)
    raise BadKeyFile(best, "is not there, nor an older key of the set: bring it from the host where it was made")


def load_signer(files: KeyFiles, store: Store) -> Signer:
    """The signer by the newest key set in the store. Raises BadKeyFile, StoreDown."""
    with store.read() as connection:
        return signer_at(files, KeySets(connection))


class Signers:
    """The signer in force: looked for in each transaction that signs, so that nothing is signed by a key withdrawn before it."""

    def __init__(self, files: KeyFiles, current: Signer) -> None:
        self._files = files
        self.current = current

    def in_force(self, connection: Connection) -> Signer:
        """Raises NoSigner."""
        sets = KeySets(connection)
        awaits = self.current.awaits
        if sets.version() != self.current.version or (awaits is not None and awaits.exists()):
            try:
                self.current = signer_at(self._files, sets)
            except BadKeyFile as error:
                raise NoSigner(str(error)) from None
            log.info("key set %d: signing with %s", self.current.version, self.current.key.kid)
            if self.current.awaits is not None:
                log.warning("%s is not there: an older key signs until it is brought", self.current.awaits)
        return self.current
