"""JSON objects from a peer, read out one member at a time into what each must be.

Errors:

    BadMember       a member is missing, of another type or shape, or one that nobody asked for
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TypeAlias, TypeVar

from eva.resource_id import BadResourceId, ResourceId

MAX_INTEGER = 1 << 53  # what every JSON reader holds exactly

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"
T = TypeVar("T")


class BadMember(Exception):
    """`why` names the member and what it is not; it quotes no value."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


def _refuse_number(_: str) -> NoReturn:
    raise ValueError("a number that is no integer")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def strict_json(raw: bytes) -> dict[str, Json]:
    """The JSON object that `raw` is: no duplicate key, no float, no NaN. Raises ValueError."""
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


class Members:
    """The members of one JSON object. Every reader raises what `refuse` raises: BadMember, unless a subclass says otherwise."""

    def __init__(self, body: Mapping[str, Json]) -> None:
        self._body = body
        self._read: set[str] = set()

    def refuse(self, why: str) -> NoReturn:
        raise BadMember(why)

    def _take(self, name: str) -> Json:
        self._read.add(name)
        if name not in self._body:
            self.refuse(f"no {name}")
        return self._body[name]

    def has(self, name: str) -> bool:
        return name in self._body

    def null(self, name: str) -> bool:
        """Whether the member is null."""
        return self._take(name) is None

    def truth(self, name: str) -> bool:
        found = self._take(name)
        if not isinstance(found, bool):
            self.refuse(f"{name} is neither true nor false")
        return found

    def text(self, name: str, longest: int = 512, *, empty: bool = True) -> str:
        """A string of at most `longest` printable characters."""
        found = self._take(name)
        # isprintable() also refuses lone surrogates, which JSON's \u escapes let in, and bidirectional controls
        if not isinstance(found, str) or len(found) > longest or not (empty or found) or not found.isprintable():
            self.refuse(f"{name} is no text of at most {longest} printable characters")
        return found

    def exactly(self, name: str, wanted: str) -> None:
        if self._take(name) != wanted:
            self.refuse(f"{name} is not {wanted}")

    def integer(self, name: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        found = self._take(name)
        # bool is an int to Python, not to us
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
            self.refuse(f"{name} is no integer from {least} to {most if most < MAX_INTEGER else '2^53'}")
        return found

    def integers(self, name: str, least: int, greatest: int, most: int) -> list[int]:
        """A list of 1 to `most` integers from `least` to `greatest`."""
        found = self._take(name)
        if not isinstance(found, list) or not 0 < len(found) <= most:
            self.refuse(f"{name} is no list of 1 to {most}")
        for item in found:
            if not isinstance(item, int) or isinstance(item, bool) or not least <= item <= greatest:
                self.refuse(f"{name} has an item that is no integer from {least} to {greatest}")
        return found

    def convert(self, name: str, to: Callable[[str], T]) -> T:
        """The text made into what `to` makes of it; `to` raises ValueError or KeyError for what it refuses."""
        try:
            return to(self.text(name))
        except (ValueError, KeyError):
            self.refuse(f"{name} has a value that means nothing")

    def each(self, name: str, to: Callable[[str], T], most: int) -> list[T]:
        """A list of 1 to `most` different texts, each made into what `to` makes of it."""
        found = self._take(name)
        if not isinstance(found, list) or not 0 < len(found) <= most:
            self.refuse(f"{name} is no list of 1 to {most}")
        made: list[T] = []
        for item in found:
            try:
                if not isinstance(item, str) or (one := to(item)) in made:
                    raise ValueError
            except (ValueError, KeyError):
                self.refuse(f"{name} has an item that means nothing, or one twice")
            made.append(one)
        return made

    def table(self, name: str, most: int) -> Mapping[str, Json]:
        """A JSON object of at most `most` members."""
        found = self._take(name)
        if not isinstance(found, dict) or len(found) > most:
            self.refuse(f"{name} is no object of at most {most} members")
        return found

    def tables(self, name: str, most: int) -> list[Members]:
        """A list of at most `most` JSON objects."""
        found = self._take(name)
        if not isinstance(found, list) or len(found) > most:
            self.refuse(f"{name} is no list of at most {most}")
        made: list[Members] = []
        for item in found:
            if not isinstance(item, dict):
                self.refuse(f"{name} has an item that is no object")
            made.append(Members(item))
        return made

    def resource_id(self, name: str = "resource_id") -> ResourceId:
        try:
            return ResourceId.parse(self.text(name))
        except BadResourceId as error:
            self.refuse(f"{name}: {error.why}")

    def nothing_else(self) -> None:
        """Refuses an object with a member that nobody read: it would mean something to its sender that we do not keep."""
        if more := self._body.keys() - self._read:
            self.refuse(f"{len(more)} unknown members")
