"""Operators' accounts as config/users.yaml lists them, and the proof that someone is one. Pure.

Frozen: a changed file is parsed into a new Accounts, which replaces the old one whole. Passwords are kept as argon2id
(RFC 9106) in the PHC string form. Errors:

    BadSettings     the file is not to be taken (from eva.strict_yaml): file, line and key, and no password or hash quoted
    BadPassword     a new password is not to be taken
    CannotVerify    this host could not compute a hash: nobody was proved or disproved
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Final

import argon2
from argon2.exceptions import VerificationError, VerifyMismatchError

from eva.consent import Principal
from eva.control import MAX_SECRET
from eva.strict_yaml import BadSettings, Section, load

MIN_PASSWORD: Final = 12  # characters of a new one; guessing is held to a few a minute (broker/attempts.py)
MAX_ACCOUNTS: Final = 1000
MAX_GROUPS: Final = 16
MAX_CERTIFICATES: Final = 8
MAX_COMMON_NAME: Final = 64  # RFC 5280 A.1, ub-common-name

# At least what OWASP's password storage sheet asks; at most what one sign-in may cost this host.
MEMORY_KIB: Final = range(19 * 1024, 1024 * 1024 + 1)
PASSES: Final = range(2, 33)
LANES: Final = range(1, 17)

_PHC = re.compile(
    r"\$argon2id\$v=19\$m=(?P<m>[1-9]\d{0,9}),t=(?P<t>[1-9]\d{0,9}),p=(?P<p>[1-9]\d{0,9})"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<tag>[A-Za-z0-9+/]+)",
    re.ASCII,
)
_SALT_BYTES: Final = range(16, 49)
_TAG_BYTES: Final = range(16, 65)
_HASH_AGAIN: Final = "hash it again with `eva-broker passwd`"
_NEW: Final = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)


class BadPassword(ValueError):
    """`why` does not quote the password."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class CannotVerify(Exception):
    """`why`: the library's word, such as a lack of memory."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that proves an account: `cn:NAME`, the subject's common name in any certificate of the operators'
    CA, or `sha256:HEX`, the fingerprint of this one certificate (as `openssl x509 -fingerprint -sha256` prints it)."""

    is_fingerprint: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> Certificate:
        """Raises ValueError."""
        sort, _, rest = text.partition(":")
        if sort == "cn" and 0 < len(rest) <= MAX_COMMON_NAME and rest.isprintable() and rest.strip() == rest:
            return cls(False, rest)
        digits = rest.replace(":", "").lower()
        if sort == "sha256" and re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
            return cls(True, digits)
        raise ValueError("write cn:NAME or sha256:FINGERPRINT")


@dataclass(frozen=True, slots=True)
class Account:
    """One operator. `password`: an argon2id hash in PHC form, or None where only certificates prove the account."""

    name: str
    groups: frozenset[str]
    password: str | None = field(repr=False)
    certificates: frozenset[Certificate]


def hash_password(password: str) -> str:
    """The line for `password:` in users.yaml; the salt is the library's, from the system's generator. Raises BadPassword."""
    if not MIN_PASSWORD <= len(password) <= MAX_SECRET:
        raise BadPassword(f"a password has {MIN_PASSWORD} to {MAX_SECRET} characters")
    return _NEW.hash(_prepared(password))


class Accounts:
    """Every account of one users file."""

    def __init__(self, accounts: tuple[Account, ...]) -> None:
        """`accounts`: of different names and different certificates, as `parse` has checked."""
        self._by_name = {account.name: account for account in accounts}
        self._folded = {account.name.casefold() for account in accounts}
        self._by_certificate = {certificate: account for account in accounts for certificate in account.certificates}
        # What an unknown account is measured against: a decoy of the same cost as one of the passwords', picked by the name
        # and by what only this file's readers know, so that no name's time tells a decoy from an account, however often asked.
        hashes = [account.password for account in accounts if account.password is not None]
        new = f"$argon2id$v=19$m={_NEW.memory_cost},t={_NEW.time_cost},p={_NEW.parallelism}"
        self._costs = [phc.rsplit("$", 2)[0] for phc in hashes] or [new]
        self._secret = hashlib.sha256("\n".join(hashes).encode()).digest()

    @classmethod
    def parse(cls, text: str, file: str) -> Accounts:
        """The accounts in the text of a users file. `file` is only named in errors. Raises BadSettings."""
        whole = load(text, file)
        if not whole.has("accounts"):
            # a file cut short must not read as "nobody", which would be a valid setting
            raise whole.fault("accounts", "is missing: write `accounts: []` for none")
        accounts: dict[str, Account] = {}
        certificates: set[Certificate] = set()
        for section in whole.sections("accounts", most=MAX_ACCOUNTS):
            account = _account(section)
            if account.name in accounts:
                raise section.fault("name", "is there twice: keep one")
            if not certificates.isdisjoint(account.certificates):
                raise section.fault("certificates", "has one that proves another account already")
            accounts[account.name] = account
            certificates |= account.certificates
        whole.nothing_else()
        return cls(tuple(accounts.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Account | None:
        """The account of that name, with nobody proved."""
        return self._by_name.get(name)

    def resembles(self, name: str) -> bool:
        """Whether somebody could take `name` for one of these accounts: upper and lower case are not told apart."""
        return name.casefold() in self._folded

    def has_changed(self, name: str, before: Accounts) -> bool:
        """Whether who signed in as `name`, here or at an issuer, is not that any more: `before` was in force until now."""
        now = self.get(name)
        return now != before.get(name) or (now is None and self.resembles(name))

    def verify(self, account: str, password: str) -> Account | None:
        """The account, if the password is its own. Raises CannotVerify.

        Takes as long for an account that is unknown or has no password as for one that has. Meant to run in a thread: the
        hash (some 200 ms of processor and 64 MiB as `hash_password` makes it) releases the GIL. The caller bounds how many
        run at once.
        """
        if len(password) > MAX_SECRET:
            return None  # says nothing of any account; and NFC of a long run of combining marks is quadratic
        found = self._by_name.get(account)
        known = found.password if found is not None else None
        fits = _fits(known or self._decoy(account), password)
        return found if known and fits else None

    def by_certificate(self, common_name: str | None, fingerprint: str) -> Account | None:
        """The account that a client certificate proves, which TLS has verified. `fingerprint`: SHA-256, 64 lower hex digits.

        A certificate that names one account by its fingerprint and another by its common name proves neither.
        """
        found = {
            id(account): account
            for account in (
                self._by_certificate.get(Certificate(True, fingerprint)),
                self._by_certificate.get(Certificate(False, common_name)) if common_name is not None else None,
            )
            if account is not None
        }
        return next(iter(found.values())) if len(found) == 1 else None

    def _decoy(self, account: str) -> str:
        """A hash that no password fits but by a chance of 2^-256, and then it proves nobody."""
        digest = hashlib.blake2b(account.encode("utf-8", "surrogatepass"), key=self._secret).digest()
        cost = self._costs[int.from_bytes(digest[:8]) % len(self._costs)]
        salt, tag = (b64encode(part).rstrip(b"=").decode() for part in (digest[8:24], digest[24:56]))
        return f"{cost}${salt}${tag}"


def _account(section: Section) -> Account:
    name = section.convert("name", lambda text: Principal.parse(f"account:{text}").name)
    groups = section.each("groups", lambda text: Principal.parse(f"group:{text}").name, most=MAX_GROUPS)
    certificates = section.each("certificates", Certificate.parse, most=MAX_CERTIFICATES)
    password = _password(section) if section.has("password") else None
    section.nothing_else()
    if password is None and not certificates:
        raise section.fault("name", "has no proof: give it a password, a certificate or both")
    return Account(name, frozenset(groups), password, frozenset(certificates))


def _password(section: Section) -> str:
    try:
        phc = section.text("password", longest=256)
    except BadSettings:
        # the reader's own words quote the value, and this one may be a password written here in plain
        raise section.fault("password", f"is no argon2id hash in quotes: {_HASH_AGAIN}") from None
    found = _PHC.fullmatch(phc)
    if found is None or len(_bytes(found["salt"])) not in _SALT_BYTES or len(_bytes(found["tag"])) not in _TAG_BYTES:
        raise section.fault("password", f"is no argon2id hash: {_HASH_AGAIN}")
    for sort, bounds in (("m", MEMORY_KIB), ("t", PASSES), ("p", LANES)):
        if int(found[sort]) < bounds.start:
            raise section.fault("password", f"is too weak ({sort}={found[sort]}, least {bounds.start}): {_HASH_AGAIN}")
        if int(found[sort]) not in bounds:
            raise section.fault("password", f"costs too much ({sort}={found[sort]}, most {bounds.stop - 1}): {_HASH_AGAIN}")
    return phc


def _bytes(text: str) -> bytes:
    """The bytes of canonical base64 without padding, as a PHC string has them; empty where it is not that."""
    if len(text) % 4 == 1:
        return b""
    raw = b64decode(text + "=" * (-len(text) % 4))
    return raw if b64encode(raw).rstrip(b"=").decode() == text else b""


def _prepared(password: str) -> bytes:
    """One spelling of what may be typed in several: RFC 8265 4.2.2, NFC. Raises nothing, whatever a peer sent."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _fits(phc: str, password: str) -> bool:
    try:
        return argon2.low_level.verify_secret(phc.encode(), _prepared(password), argon2.Type.ID)
    except VerifyMismatchError:
        return False
    except VerificationError as error:
        raise CannotVerify(str(error)) from None
