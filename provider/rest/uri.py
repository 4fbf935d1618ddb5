"""Paths of requests, read so that no two programs can read one of them differently, and ARM's words in any case. Pure.

Errors: ArmError (provider.rest.arm) for a path that nobody sends who means well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from provider.rest.arm import ArmError

MAX_PATH = 2048

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 3986 2.3, and what of 2.2 ARM's names may hold: parentheses; a space, a quote or a tilde is in no name of ours
_SEGMENT = re.compile(r"[A-Za-z0-9._()-]+", re.ASCII)

Template = Sequence[str]


def _bad(why: str) -> ArmError:
    return ArmError(400, "InvalidRequestUri", f"The request URI is not taken: {why}.")


def segments(raw: bytes) -> tuple[str, ...]:
    """The path's segments, percent-decoded exactly once. Raises ArmError.

    Whatever decodes to a slash, a percent sign or more than ASCII is refused, and so are empty, `.` and `..` segments: none is
    in any valid name, and each is a way to make a proxy, a router and a role rule see different resources.
    """
    if len(raw) > MAX_PATH:
        raise _bad(f"it is longer than {MAX_PATH} characters")
    if _BAD_ESCAPE.search(raw):
        raise _bad("a percent sign is not followed by two hexadecimal digits")
    decoded = unquote_to_bytes(raw)
    if decoded.count(b"/") != raw.count(b"/") or not decoded.startswith(b"/"):
        raise _bad("it has an encoded slash")
    try:
        parts = decoded.decode("ascii").split("/")[1:]
    except UnicodeDecodeError:
        raise _bad("it has a character that is not ASCII") from None
    if parts == [""]:
        return ()
    for part in parts:
        if part in ("", ".", "..") or _SEGMENT.fullmatch(part) is None:
            raise _bad("a segment is empty, or has a character that no name here has")
    return tuple(parts)


def template(path: str) -> Template:
    """A route's path as segments; those in braces stand for any."""
    return tuple(path.split("/")[1:])


def folded(parts: tuple[str, ...], templates: Iterable[Template]) -> str:
    """The path with a route's own spelling of its fixed words, and the caller's spelling of everything else.

    Of several routes the one with the most fixed words counts; a path that fits none stays as it is.
    """
    fitting = [one for one in templates if _fits(parts, one)]
    if fitting:
        best = max(fitting, key=lambda one: sum(not _any(word) for word in one))
        parts = tuple(part if _any(word) else word for part, word in zip(parts, best, strict=True))
    return "/" + "/".join(parts)


def _any(word: str) -> bool:
    return word.startswith("{")


def _fits(parts: tuple[str, ...], one: Template) -> bool:
    # both are ASCII, where lower() is the whole of it
    return len(parts) == len(one) and all(
        _any(word) or part.lower() == word.lower() for part, word in zip(parts, one, strict=True)
    )
