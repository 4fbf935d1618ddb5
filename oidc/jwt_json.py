"""The JSON in a token of an issuer (RFC 7519), as far as it can be trusted to say one thing: no key twice, no NaN. Pure."""

from __future__ import annotations

import json
from typing import NoReturn


def read_object(raw: bytes) -> dict[str, object]:
    """The object. Raises ValueError. Unlike our own tokens these may hold floats and more, in claims that nobody reads."""
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(text)
