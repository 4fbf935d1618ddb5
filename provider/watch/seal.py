"""What a browser keeps for us: sealed, so that it can neither be read nor made outside, and no provider has to remember it.

Fernet (AES-128-CBC with HMAC-SHA256) under a key of each purpose's own, made from the provider's signing key by HKDF (RFC
5869): every provider has that key, so each opens what another sealed. A new signing key ends what the old one sealed, and
who was signed in signs in again.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from enum import StrEnum

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from eva.token import SigningKey


class Purpose(StrEnum):
    """What is sealed for one means nothing for another."""

    SESSION = "session"
    SIGN_IN = "sign-in"
    VERDICT = "verdict"


def seal(key: SigningKey, purpose: Purpose, text: str, now: int) -> str:
    """`now`: Unix seconds. Goes into a cookie as it is."""
    return _box(key, purpose).encrypt_at_time(text.encode(), now).decode()


def unseal(key: SigningKey, purpose: Purpose, sealed: str, now: int, seconds: int) -> str | None:
    """What was sealed with this key for this purpose, not longer than `seconds` ago; None for anything else."""
    try:
        return _box(key, purpose).decrypt_at_time(sealed.encode("ascii"), seconds, now).decode()
    except (InvalidToken, UnicodeError):
        return None


def _box(key: SigningKey, purpose: Purpose) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=None, info=f"eva-provider watch {purpose} 1".encode())
    return Fernet(urlsafe_b64encode(derived.derive(key.private.private_bytes_raw())))
