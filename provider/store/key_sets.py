"""The filed sets of signing keys, how one follows another, and what stands under each key. Errors:

BadSuccession   a set that cannot follow the newest: `why`
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, update

from eva.ending import Ending
from eva.members import BadMember, Json, Members, strict_json
from eva.token import MAX_BYTES, BadToken, Claims, SigningKey, Typ, thumbprint, verify
from eva.wire import NODES, KeySet
from provider.statements import VERSION
from provider.store.books import Books
from provider.store.schema import consents, key_sets

MAX_KEYS = 8  # of a set: it travels with every letter
MAX_FILE = 16_384  # bytes


class BadSuccession(Exception):
    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Succession:
    """The set to follow `present` (a token), and the key that signs from then on. Made on one host, signed on another."""

    present: str
    next: KeySet
    signing_kid: str

    def encode(self) -> bytes:
        """The file to be brought to where the root key is."""
        return _file(present=self.present, next=self.next.to_claims(), signing=self.signing_kid)

    @classmethod
    def decode(cls, raw: bytes) -> Succession:
        """What `encode` made; nothing of it is signed yet. Raises BadSuccession."""
        try:
            members = Members(strict_json(raw))
            found = KeySet.from_claims(Claims(members.table("next", most=8), ""))
            asked = cls(members.text("present", longest=MAX_BYTES), found, members.text("signing", longest=64))
            members.nothing_else()
        except (BadMember, BadToken, ValueError) as error:
            raise BadSuccession(f"it is no request for a key set ({error})") from None
        return asked

    def signed(self, root: SigningKey) -> Signed:
        """Raises BadSuccession where the present set is not this root's, or the next one does not follow it."""
        try:
            present = verified(self.present, root.private.public_key())
        except BadToken as error:
            raise BadSuccession(f"the present key set is not of this root key ({error.detail})") from None
        follows(self.next, present, self.signing_kid)
        return Signed(root.sign(Typ.KEYS, self.next.to_claims()), self.signing_kid)


@dataclass(frozen=True, slots=True)
class Signed:
    """A key set's token, and the key that is to sign: what is brought back."""

    token: str
    signing_kid: str

    def encode(self) -> bytes:
        return _file(keys=self.token, signing=self.signing_kid)

    @classmethod
    def decode(cls, raw: bytes) -> Signed:
        """Not verified yet. Raises BadSuccession."""
        try:
            members = Members(strict_json(raw))
            found = cls(members.text("keys", longest=MAX_BYTES), members.text("signing", longest=64))
            members.nothing_else()
        except (BadMember, ValueError) as error:
            raise BadSuccession(f"it is no signed key set ({error})") from None
        return found


def _file(**members: Json) -> bytes:
    return json.dumps(members, indent=2).encode() + b"\n"


def verified(token: str, root: Ed25519PublicKey) -> KeySet:
    """Raises BadToken."""
    return KeySet.from_claims(verify(token, Typ.KEYS, {thumbprint(root): root}, NODES))


def rotated(present: KeySet, token: str, new: Ed25519PublicKey) -> Succession:
    """With a new key, which signs from then on; what the others signed stands on. Raises BadSuccession."""
    if len(present.keys) >= MAX_KEYS:
        raise BadSuccession(f"key set {present.version} has {MAX_KEYS} keys already: withdraw one that nothing stands under")
    kid = thumbprint(new)
    return Succession(token, KeySet(present.version + 1, {**present.keys, kid: new}), kid)


def withdrawn(present: KeySet, token: str, signing_kid: str, kid: str) -> Succession:
    """Without this key: what it signed is over. Raises BadSuccession."""
    if kid not in present.keys:
        raise BadSuccession(f"key set {present.version} has no key {kid} (it has {', '.join(sorted(present.keys))})")
    if kid == signing_kid:
        raise BadSuccession(f"{kid} is the key that signs: rotate first, then withdraw it")
    rest = {one: key for one, key in present.keys.items() if one != kid}
    return Succession(token, KeySet(present.version + 1, rest), signing_kid)


def follows(found: KeySet, present: KeySet, signing_kid: str) -> None:
    """Raises BadSuccession where `found` is not the next after `present`, or `signing_kid` is not in it."""
    if found.version != present.version + 1:
        raise BadSuccession(f"it is key set {found.version}, to follow {found.version - 1}; the newest is {present.version}")
    if signing_kid not in found.keys:
        raise BadSuccession(f"the key that is to sign, {signing_kid}, is not in it")


@dataclass(frozen=True, slots=True)
class Filed:
    """A key set as the store has it."""

    version: int
    signing_kid: str
    token: str
    made_ms: int


class KeySets:
    """One transaction's view of the filed sets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self) -> Filed | None:
        found = self.all(most=1)
        return found[0] if found else None

    def all(self, most: int = 1000) -> list[Filed]:
        """The newest first."""
        rows = self._connection.execute(select(key_sets).order_by(key_sets.c.version.desc()).limit(most))
        return [Filed(row.version, row.signing_kid, row.token, row.made_ms) for row in rows]

    def version(self) -> int:
        """Of the newest; 0 where there is none."""
        return self._connection.scalar(VERSION) or 0

    def file(self, found: Filed) -> None:
        row = {"version": found.version, "token": found.token, "signing_kid": found.signing_kid, "made_ms": found.made_ms}
        self._connection.execute(insert(key_sets).values(row))

    def standing_under(self, kid: str, now: int) -> int:
        """How many consents that key signed which nothing has ended yet, as far as the provider knows."""
        return self._connection.scalar(select(func.count()).select_from(consents).where(_standing(kid, now))) or 0

    def end_under(self, kid: str, now_ms: int) -> int:
        """Ends them, as their nodes do when they hear of the set without the key; gives how many. Nothing moves them then."""
        standing = _standing(kid, now_ms // 1000)
        Books(self._connection).count_out(standing)
        ended = update(consents).where(standing).values(ended_ms=now_ms, ended_reason=Ending.CONSENT_REVOKED.word)
        return self._connection.execute(ended).rowcount


def _standing(kid: str, now: int) -> ColumnElement[bool]:
    ends = (consents.c.revoked_ms, consents.c.ended_ms, consents.c.replaced_ms)
    return and_(consents.c.kid == kid, consents.c.expires_at > now, *(end.is_(None) for end in ends))
