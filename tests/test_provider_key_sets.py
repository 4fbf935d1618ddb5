"""provider/store/key_sets.py: how a set follows another, files for the root key, and what stands under a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from eva.consent import Access, Consent, Kind, Principal
from eva.resource_id import ResourceId
from eva.token import SigningKey, Typ
from eva.wire import KeySet
from provider.store.books import Books
from provider.store.key_sets import (
    MAX_KEYS,
    BadSuccession,
    Filed,
    KeySets,
    Signed,
    Succession,
    follows,
    rotated,
    verified,
    withdrawn,
)
from provider.store.place import Place
from provider.store.store import Store
from tests.provider_parts import Pen, jti, resource_id, signing_key

ROOT, OLD, NEW = signing_key(), signing_key(), signing_key()


def key_set(version: int, *keys: SigningKey) -> KeySet:
    return KeySet(version, {key.kid: key.private.public_key() for key in keys})


def token(found: KeySet, root: SigningKey = ROOT) -> str:
    return root.sign(Typ.KEYS, found.to_claims())


FIRST = key_set(1, OLD)
BOTH = key_set(2, OLD, NEW)


def test_a_rotation_keeps_the_old_key_and_signs_with_the_new():
    asked = rotated(FIRST, token(FIRST), NEW.private.public_key())
    assert (asked.next, asked.signing_kid) == (BOTH, NEW.kid)


def test_a_set_does_not_grow_for_ever():
    full = key_set(7, *(signing_key() for _ in range(MAX_KEYS)))
    with pytest.raises(BadSuccession, match="withdraw"):
        rotated(full, token(full), NEW.private.public_key())


def test_a_full_set_fits_into_a_token():
    assert token(key_set(2**53, *(signing_key() for _ in range(MAX_KEYS))))


def test_a_withdrawal_leaves_the_others():
    asked = withdrawn(BOTH, token(BOTH), NEW.kid, OLD.kid)
    assert (asked.next, asked.signing_kid) == (key_set(3, NEW), NEW.kid)


def test_the_key_that_signs_is_not_withdrawn():
    with pytest.raises(BadSuccession, match="rotate first"):
        withdrawn(BOTH, token(BOTH), NEW.kid, NEW.kid)


def test_a_key_that_is_not_in_the_set_is_not_withdrawn():
    with pytest.raises(BadSuccession, match=OLD.kid):
        withdrawn(FIRST, token(FIRST), OLD.kid, NEW.kid)


@pytest.mark.parametrize("version", [1, 3])
def test_only_the_next_version_follows(version: int):
    with pytest.raises(BadSuccession, match=f"key set {version}"):
        follows(key_set(version, NEW), FIRST, NEW.kid)


def test_a_set_without_the_key_that_is_to_sign_does_not_follow():
    with pytest.raises(BadSuccession, match=NEW.kid):
        follows(key_set(2, OLD), FIRST, NEW.kid)


def test_a_request_comes_back_from_its_file():
    asked = rotated(FIRST, token(FIRST), NEW.private.public_key())
    assert Succession.decode(asked.encode()) == asked


def test_what_was_signed_comes_back_from_its_file_and_is_what_was_asked():
    asked = rotated(FIRST, token(FIRST), NEW.private.public_key())
    signed = Signed.decode(asked.signed(ROOT).encode())
    assert verified(signed.token, ROOT.private.public_key()) == asked.next
    assert signed.signing_kid == NEW.kid


def test_a_root_key_signs_only_after_its_own_sets():
    asked = rotated(FIRST, token(FIRST, signing_key()), NEW.private.public_key())
    with pytest.raises(BadSuccession, match="not of this root key"):
        asked.signed(ROOT)


def test_a_request_that_leaps_versions_is_not_signed():
    asked = rotated(FIRST, token(FIRST), NEW.private.public_key())
    with pytest.raises(BadSuccession, match="key set 3"):
        replace(asked, next=replace(asked.next, version=3)).signed(ROOT)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"present": "x", "next": {}, "signing": "k"}',
        json.dumps({"present": "x", "signing": "k", "more": 1, "next": FIRST.to_claims()}).encode(),
        json.dumps({"present": "x", "signing": "k", "next": FIRST.to_claims() | {"keys": {OLD.kid: "AAAA"}}}).encode(),
        json.dumps({"present": "x", "signing": "k", "next": FIRST.to_claims() | {"keys": {NEW.kid: "x"}}}).encode(),
    ],
)
def test_a_file_that_is_no_request_is_refused(raw: bytes):
    with pytest.raises(BadSuccession, match="no request"):
        Succession.decode(raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"keys": 1, "signing": "k"}', b'{"keys": "x", "signing": "k", "more": 1}'])
def test_a_file_that_is_no_signed_set_is_refused(raw: bytes):
    with pytest.raises(BadSuccession, match="no signed"):
        Signed.decode(raw)


# in the store

NOW = 1_000_000


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """With one node."""
    store = Store(place, create=True)
    with store.write() as connection:
        Books(connection).enrol("AzS-ERCS01", Pen("AzS-ERCS01").public, 0)
    yield store
    store.close()


def consent(key: SigningKey, store: Store, expires_at: int = NOW + 600) -> str:
    """The jti of a new one, signed by this key and filed."""
    one = jti()
    made = Consent(
        jti=one,
        cid=one,
        node="AzS-ERCS01",
        resource_id=ResourceId.parse(resource_id()),
        giver="ann",
        operators=frozenset({Principal.parse("group:cloudadmin")}),
        kinds=frozenset({Kind.SERIAL}),
        access=Access.VIEW,
        issued_at=NOW - 10,
        expires_at=expires_at,
        watched=False,
    )
    with store.write() as connection:
        Books(connection).file_consent(made, key.sign(Typ.CONSENT, made.to_claims()), 0)
    return one


def test_the_newest_set_is_the_one_with_the_highest_version(store: Store):
    with store.write() as connection:
        sets = KeySets(connection)
        assert (sets.newest(), sets.version()) == (None, 0)
        for version in (1, 3, 2):
            sets.file(Filed(version, f"k{version}", "t", 5))
        assert sets.newest() == Filed(3, "k3", "t", 5)
        assert sets.version() == 3
        assert [one.version for one in sets.all()] == [3, 2, 1]


def test_consents_are_counted_by_the_key_that_signed_them(store: Store):
    consent(OLD, store)
    consent(NEW, store)
    consent(OLD, store, expires_at=NOW)
    revoked = consent(OLD, store)
    with store.write() as connection:
        Books(connection).update_consent(revoked, revoked_ms=1)
        assert [KeySets(connection).standing_under(key.kid, NOW) for key in (OLD, NEW, ROOT)] == [1, 1, 0]


def test_a_withdrawal_ends_what_stands_under_the_key_and_nothing_else(store: Store):
    old, new = consent(OLD, store), consent(NEW, store)
    with store.write() as connection:
        assert KeySets(connection).end_under(OLD.kid, NOW * 1000) == 1
    with store.read() as connection:
        books = Books(connection)
        gone, stands = books.consent(old), books.consent(new)
        assert gone is not None
        assert stands is not None
        assert (gone.ended_ms, gone.ended_reason, stands.ended_ms) == (NOW * 1000, "consent-revoked", None)
        assert books.loads(NOW) == {"AzS-ERCS01": 1}


def test_what_ended_before_keeps_its_own_end(store: Store):
    one = consent(OLD, store)
    with store.write() as connection:
        Books(connection).update_consent(one, ended_ms=7, ended_reason="vm-gone")
        assert KeySets(connection).end_under(OLD.kid, NOW * 1000) == 0
        filed = Books(connection).consent(one)
        assert filed is not None
        assert (filed.ended_ms, filed.ended_reason) == (7, "vm-gone")
