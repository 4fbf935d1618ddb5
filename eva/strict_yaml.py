"""Settings text, read strictly: YAML's mappings, lists and three kinds of scalar, and nothing that reads otherwise than it looks.

Refused: a key twice, anchors, aliases, tags, directives, several documents, null, floats, dates, and YAML 1.1's other spellings
(`yes`, `0755`, `1:30`), each with its line and what to write instead. A reader names what it wants of each key; a key that
nobody read is refused by `nothing_else`. Errors:

    BadSettings     file, line, key and why
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

MAX_CHARACTERS = 1 << 20
MAX_INTEGER = 1 << 53

T = TypeVar("T")

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})", re.ASCII)
_TAG = "tag:yaml.org,2002:"
_ADVICE = {
    "bool": "write true or false, or put it in quotes if it is text",
    "int": "write a plain decimal number, or put it in quotes if it is text",
    "null": "it has no value: give one, or leave the key out",
    "float": "write a whole number, or put it in quotes if it is text",
    "timestamp": "put it in quotes",
    "merge": "merge keys are not taken: write it out",
}
_FORBIDDEN = {
    AnchorToken: "an anchor is not taken: write it out",
    AliasToken: "an alias is not taken: write it out",
    TagToken: "a tag is not taken",
    DirectiveToken: "a directive is not taken",
}


class BadSettings(Exception):
    """`line` counts from 1; `key` is the dotted way to the value, empty for the file as a whole."""

    def __init__(self, file: str, line: int, key: str, why: str) -> None:
        self.file = file
        self.line = line
        self.key = key
        self.why = why
        super().__init__(f"{file}:{line}: {key}: {why}" if key else f"{file}:{line}: {why}")


def load(text: str, file: str) -> Section:
    """The mapping that the settings text is. `file` is only named in errors. Raises BadSettings."""
    if len(text) > MAX_CHARACTERS:
        raise BadSettings(file, 1, "", f"longer than {MAX_CHARACTERS} characters")
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if (why := _FORBIDDEN.get(type(token))) is not None:
                raise BadSettings(file, token.start_mark.line + 1, "", why)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadSettings(file, mark.line + 1 if mark else 1, "", f"not YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadSettings(file, line, "", f"character {error.character!r} is not taken") from None
    except RecursionError:
        raise BadSettings(file, 1, "", "nested too deeply") from None
    if root is None:
        return Section(file, "", 1, {})
    return _section(root, file, "")


def _section(node: Node, file: str, path: str) -> Section:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        raise BadSettings(file, line, path, "needs keys and values, as in `key: value`")
    members: dict[str, Node] = {}
    for key_node, value in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode) or not key_node.tag.endswith(":str"):
            raise BadSettings(file, key_line, path, "has a key that is no text: put it in quotes")
        if key_node.value in members:
            first = members[key_node.value].start_mark.line + 1
            raise BadSettings(file, key_line, _join(path, key_node.value), f"is there twice (first in line {first}): keep one")
        members[key_node.value] = value
    return Section(file, path, line, members)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


class Section:
    """A mapping, read out key by key into what each must be. Every reader raises BadSettings.

    A reader without `default` needs the key to be there.
    """

    def __init__(self, file: str, path: str, line: int, members: Mapping[str, Node]) -> None:
        self.file = file
        self.path = path
        self.line = line
        self._members = members
        self._read: set[str] = set()

    def has(self, key: str) -> bool:
        return key in self._members

    def keys(self) -> tuple[str, ...]:
        """The keys in the file's order, for a section whose keys are names of the user's own."""
        return tuple(self._members)

    def fault(self, key: str, why: str) -> BadSettings:
        """The error that says `why` about this key's value, to be raised by who knows more than the type."""
        node = self._members.get(key)
        return BadSettings(self.file, node.start_mark.line + 1 if node else self.line, _join(self.path, key), why)

    def _take(self, key: str) -> Node:
        self._read.add(key)
        if key not in self._members:
            raise self.fault(key, "is missing")
        return self._members[key]

    def _absent(self, key: str, default: object) -> bool:
        self._read.add(key)
        return default is not None and key not in self._members

    def _scalar(self, node: Node, key: str) -> str | int | bool:
        if not isinstance(node, ScalarNode):
            raise self.fault(key, "needs one value, not a list or a section")
        kind, raw = node.tag.removeprefix(_TAG), str(node.value)
        if kind == "str":
            return raw
        if kind == "bool" and raw in ("true", "false"):
            return raw == "true"
        if kind == "int" and _INTEGER.fullmatch(raw):
            return int(raw)
        raise BadSettings(
            self.file, node.start_mark.line + 1, _join(self.path, key), f"{raw!r}: {_ADVICE.get(kind, 'is not taken')}"
        )

    def text(self, key: str, default: str | None = None, *, longest: int = 4096, empty: bool = False) -> str:
        """A text of at most `longest` printable characters."""
        if self._absent(key, default):
            return default or ""
        found = self._scalar(self._take(key), key)
        if not isinstance(found, str):
            raise self.fault(key, "needs a text: put it in quotes")
        if not (empty or found) or len(found) > longest or not found.isprintable():
            raise self.fault(key, f"needs a text of {0 if empty else 1} to {longest} printable characters")
        return found

    def integer(self, key: str, least: int = 0, most: int = MAX_INTEGER, default: int | None = None) -> int:
        """A whole number from `least` to `most`; its unit belongs in the key's name."""
        if default is not None and self._absent(key, default):
            return default
        found = self._scalar(self._take(key), key)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self.fault(key, f"needs a whole number from {least} to {most}")
        return found

    def flag(self, key: str, default: bool | None = None) -> bool:
        if default is not None and self._absent(key, default):
            return default
        found = self._scalar(self._take(key), key)
        if not isinstance(found, bool):
            raise self.fault(key, "needs true or false")
        return found

    def convert(self, key: str, to: Callable[[str], T], default: str | None = None) -> T:
        """The text made into what `to` makes of it; `to` raises ValueError or KeyError for what it refuses."""
        text = self.text(key, default)
        try:
            return to(text)
        except (ValueError, KeyError) as error:
            raise self.fault(key, f"{text!r} is not taken: {error}") from None

    def section(self, key: str) -> Section:
        """The mapping under this key. An absent one reads as empty, so that each of its keys may have its default."""
        self._read.add(key)
        if key not in self._members:
            return Section(self.file, _join(self.path, key), self.line, {})
        return _section(self._members[key], self.file, _join(self.path, key))

    def _items(self, key: str, most: int, least: int) -> list[Node]:
        if key not in self._members and least == 0:
            self._read.add(key)
            return []
        node = self._take(key)
        if not isinstance(node, SequenceNode) or not least <= len(node.value) <= most:
            raise self.fault(key, f"needs a list of {least} to {most}")
        return list(node.value)

    def sections(self, key: str, most: int = 1000, least: int = 0) -> list[Section]:
        """A list of mappings; absent reads as empty if `least` is 0."""
        return [
            _section(node, self.file, f"{_join(self.path, key)}[{i}]") for i, node in enumerate(self._items(key, most, least))
        ]

    def each(self, key: str, to: Callable[[str], T], most: int = 1000, least: int = 0) -> list[T]:
        """A list of different texts, each made into what `to` makes of it; absent reads as empty if `least` is 0."""
        made: list[T] = []
        for node in self._items(key, most, least):
            found = self._scalar(node, key)
            try:
                if not isinstance(found, str):
                    raise ValueError("it needs a text")
                if (one := to(found)) in made:
                    raise ValueError("it is there twice")
            except (ValueError, KeyError) as error:
                line = node.start_mark.line + 1
                raise BadSettings(self.file, line, _join(self.path, key), f"{found!r} is not taken: {error}") from None
            made.append(one)
        return made

    def nothing_else(self) -> None:
        """Refuses a key that nobody read: it would mean something to its writer that we do not do."""
        for key in self._members:
            if key not in self._read:
                known = ", ".join(sorted(self._read))
                raise self.fault(key, f"is not a key of this section (known: {known}): mend its spelling or take it out")
