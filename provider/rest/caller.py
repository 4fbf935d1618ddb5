"""Who calls: what a verified token says of its bearer, and how role assignments name him. Pure.

An assignment's principal is one of

    <object id>                 a person or program of the home issuer
    group:<id>                  a group of the home issuer
    <issuer>#<subject>          a person or program of any issuer
    group:<issuer>#<id>         a group of any issuer

so that no issuer can speak of another's people: only the home issuer's ids stand alone, and an id that could be read as
another form is refused. GUIDs compare without regard to case, everything else byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eva.resource_id import is_guid

MAX_GROUPS = 256
MAX_GIVER = 128  # of a consent's `sub`: eva.consent

_NAMED = re.compile(r".* \(([^ ()]+)\)")

_ID = re.compile(r"(?!group:)[A-Za-z0-9._@+|=:/~-]{1,128}", re.ASCII)


def is_id(text: str) -> bool:
    """Whether `text` can be the id of a person, program or group: no `#`, no space, no `group:` before it."""
    return _ID.fullmatch(text) is not None


def _folded(identifier: str) -> str:
    return identifier.lower() if is_guid(identifier) else identifier


def principal(text: str) -> str:
    """An assignment's principal as the store has it. Raises ValueError."""
    body = text.removeprefix("group:")
    issuer, qualified, identifier = body.rpartition("#")
    if qualified and (not issuer.startswith("https://") or "#" in issuer or not issuer.isascii() or " " in issuer):
        raise ValueError("before # stands the issuer, an https URL as its tokens have it")
    if not is_id(identifier):
        raise ValueError("a principal is an object id, group:ID, or either with ISSUER# before the id")
    return f"{text[: len(text) - len(identifier)]}{_folded(identifier)}"


@dataclass(frozen=True, slots=True)
class Caller:
    """`id`: the claim that the settings name; `name`: for people to read, may be empty; `home`: of the home issuer."""

    issuer: str
    id: str
    name: str
    groups: frozenset[str]
    home: bool

    def principals(self) -> frozenset[str]:
        """Every spelling under which an assignment can mean this caller."""
        ids = {f"{self.issuer}#{_folded(self.id)}"} | {f"group:{self.issuer}#{_folded(group)}" for group in self.groups}
        if self.home:
            ids |= {_folded(self.id)} | {f"group:{_folded(group)}" for group in self.groups}
        return frozenset(ids)

    @property
    def principal(self) -> str:
        """The one that is this caller's alone; also the key by which his requests are counted."""
        return _folded(self.id) if self.home else f"{self.issuer}#{_folded(self.id)}"

    @property
    def giver(self) -> str:
        """How a consent names who gave it: the name, for people, and the id, which nobody else has, as far as there is room."""
        fuller = [f"{self.name} ({self.principal})", self.principal] if self.name else [self.principal]
        return next((text for text in fuller if len(text) <= MAX_GIVER), f"#{self.id}"[:MAX_GIVER])

    def gave(self, giver: str) -> bool:
        """Whether this is who gave a consent with this `sub`: the id decides, for a name is what its bearer made it.

        Where there was no room for the issuer it is nobody: two issuers can have one id.
        """
        named = _NAMED.fullmatch(giver)
        return (named[1] if named is not None else giver) == self.principal
