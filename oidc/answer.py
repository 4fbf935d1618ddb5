"""What a browser brings back from the issuer in the callback's query (RFC 6749 4.1.2). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from oidc.failure import NotBelieved

MAX_QUERY: Final = 8192  # characters: codes that are tokens themselves are up to a few KB
MOST_PARAMETERS: Final = 16

_PRINTABLE = re.compile(r"[\x20-\x7e]+", re.ASCII)  # RFC 6749 A.5, A.11
_ERROR = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,64}", re.ASCII)  # RFC 6749 A.7


@dataclass(frozen=True, slots=True)
class Answer:
    """Exactly one of `code` and `error` is there. `iss`: RFC 9207."""

    state: str = field(repr=False)
    code: str | None = field(repr=False)
    error: str | None
    iss: str | None

    @classmethod
    def parse(cls, query: str) -> Answer:
        """`query`: what follows the question mark. Parameters not known are left out (RFC 6749 4.1.2). Raises NotBelieved."""
        if len(query) > MAX_QUERY:
            raise NotBelieved("the callback is too long")
        try:
            pairs = parse_qsl(query, strict_parsing=True, errors="strict", max_num_fields=MOST_PARAMETERS)
        except ValueError:
            raise NotBelieved("the callback's query cannot be read") from None
        found = dict(pairs)
        if len(found) != len(pairs):
            raise NotBelieved("the callback has a parameter twice")
        state, code, error = found.get("state"), found.get("code"), found.get("error")
        if state is None or (code is None) == (error is None):
            raise NotBelieved("the callback is no answer")
        if _PRINTABLE.fullmatch(state) is None or (code is not None and _PRINTABLE.fullmatch(code) is None):
            raise NotBelieved("the callback has characters that none has")
        if error is not None and _ERROR.fullmatch(error) is None:
            error = "unreadable"
        return cls(state, code, error, found.get("iss"))
