"""The bodies of requests: small JSON objects whose property names compare without regard to case. Pure. Errors:

ArmError (provider.rest.arm), with the property as its `target`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from eva.members import MAX_INTEGER, Json
from provider.rest.arm import ArmError
from provider.rest.settings import guid

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


def _refused(target: str, why: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"The value of parameter {target} is invalid: it {why}.", target)


def _object(text: str) -> dict[str, Json]:
    """Raises ValueError."""
    try:
        found = json.loads(text, object_pairs_hook=_no_name_twice, parse_float=_whole, parse_constant=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _no_name_twice(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a property twice")
    return found


def _whole(text: str) -> int:
    """3600.0 is an integer to JSON Schema and to PowerShell, which writes it so."""
    number = float(text)
    if not number.is_integer() or abs(number) > MAX_INTEGER:
        raise ValueError("a number that is no integer")
    return int(number)


def _folded(name: str) -> str:
    """ASCII only: the Kelvin sign's small letter is a k."""
    return name.lower() if name.isascii() else name


class Body:
    """Each reader raises ArmError; a property that nobody read is refused by `nothing_else`."""

    def __init__(self, properties: Mapping[str, Json]) -> None:
        self._properties = {_folded(name): (name, value) for name, value in properties.items()}
        if len(self._properties) != len(properties):
            raise ArmError(400, "InvalidRequestContent", "The request content has a property twice, in different cases.")
        self._read: set[str] = set()

    @classmethod
    def parse(cls, raw: bytes) -> Body:
        """Nothing at all is an empty object: a POST without parameters has no body."""
        if not raw.strip():
            return cls({})
        try:
            return cls(_object(raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")))
        except ValueError as error:
            why = str(error)[:80]
            raise ArmError(
                400, "InvalidRequestContent", f"The request content was invalid and could not be deserialized: {why}."
            ) from None

    def _take(self, name: str) -> Json:
        self._read.add(name.lower())
        return self._properties.get(name.lower(), (name, None))[1]

    def has(self, name: str) -> bool:
        """Whether it is there, and not null: a client that leaves a parameter open may send null."""
        return self._take(name) is not None

    def text(self, name: str, longest: int) -> str:
        found = self._take(name)
        if not isinstance(found, str) or len(found) > longest or not found.isprintable():
            raise _refused(name, f"is a text of at most {longest} printable characters")
        return found

    def guid(self, name: str) -> str:
        found = self._take(name)
        try:
            return guid(found if isinstance(found, str) else "")
        except ValueError:
            raise _refused(name, "is a GUID as a string") from None

    def choice(self, name: str, of: type[E]) -> E:
        found = self._take(name)
        try:
            return of(found if isinstance(found, str) else "")
        except ValueError:
            raise _refused(name, f"is one of {', '.join(of)}") from None

    def integer(self, name: str, least: int, most: int) -> int:
        found = self._take(name)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise _refused(name, f"is an integer from {least} to {most}")
        return found

    def truth(self, name: str) -> bool:
        found = self._take(name)
        if not isinstance(found, bool):
            raise _refused(name, "is true or false")
        return found

    def each(self, name: str, to: Callable[[str], T], most: int) -> frozenset[T]:
        """1 to `most` different texts, each made into what `to` makes of it; `to` raises ValueError for what it refuses."""
        found = self._take(name)
        if not isinstance(found, list) or not 0 < len(found) <= most:
            raise _refused(name, f"is a list of 1 to {most}")
        try:
            made = [to(one if isinstance(one, str) else "") for one in found]
        except ValueError:
            raise _refused(name, "has an entry that is not taken") from None
        if len(set(made)) != len(made):
            raise _refused(name, "has an entry twice")
        return frozenset(made)

    def nothing_else(self) -> None:
        for folded, (name, _) in self._properties.items():
            if folded not in self._read:
                known = ", ".join(sorted(self._read))
                spelled = name[:64] if name.isprintable() else "?"
                raise ArmError(400, "InvalidRequestContent", f"Property '{spelled}' is not known here (known: {known}).", spelled)
