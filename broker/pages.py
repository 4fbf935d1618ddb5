"""The operators' page, and how a browser's plain request is answered from its fixed table, which is read at a start.

A path is looked up as it came: no query, no dots, no other spelling. Errors: MissingAssets, OSError, where the table is made.
"""

from __future__ import annotations

import http
from dataclasses import dataclass, field
from typing import Final

from web.assets import Asset, headers, is_known, site, takes_gzip

Field = tuple[str, str]

PLAIN: Final[tuple[Field, ...]] = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request without a body. `target` as it came; `fields`: names in lower case."""

    method: str
    target: str
    fields: tuple[Field, ...] = field(repr=False)

    def all(self, name: str) -> list[str]:
        return [text for found, text in self.fields if found == name]


@dataclass(frozen=True, slots=True)
class Reply:
    """`last`: the connection closes after it."""

    status: http.HTTPStatus
    fields: tuple[Field, ...]
    body: bytes = field(default=b"\n", repr=False)
    last: bool = False

    @classmethod
    def plain(cls, status: http.HTTPStatus, *, last: bool = False) -> Reply:
        """One that tells nothing but its status."""
        return cls(status, PLAIN, b"\n", last)


class Pages:
    """The table of the operators' site."""

    def __init__(self) -> None:
        found = site("operator")
        self._assets = {"/": found.page, **found.files}

    def answer(self, request: PlainRequest) -> Reply | None:
        """The file that is asked for; None if there is none."""
        asset = self._assets.get(request.target)
        if asset is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return Reply(http.HTTPStatus.METHOD_NOT_ALLOWED, (*PLAIN, ("Allow", "GET, HEAD")), last=True)
        return _reply(request, asset)


def _reply(request: PlainRequest, asset: Asset) -> Reply:
    fields = tuple(headers(asset).items())
    if is_known(request.all("if-none-match"), asset.etag):
        return Reply(http.HTTPStatus.NOT_MODIFIED, fields, b"")
    if takes_gzip(request.all("accept-encoding")):
        return Reply(http.HTTPStatus.OK, (*fields, ("Content-Encoding", "gzip")), asset.packed)
    return Reply(http.HTTPStatus.OK, fields, asset.content)
