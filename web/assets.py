"""The files that the two pages consist of: a fixed table, read whole at a start, and the headers they go out with.

A request's path is looked up in the table and never becomes a file's path. What is not in `web/` when the table is made is
not served, and what is there is served as it was then.

Errors:

    MissingAssets   what npm brings is not there
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

HOME: Final = Path(__file__).parent
VENDOR: Final = HOME / "vendor"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class MissingAssets(Exception):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"{folder}: not there; `make web` brings it, and a wheel holds it")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `packed`: its content by gzip; `etag`: a weak one, since it goes with both forms (RFC 9110 8.8.3.3)."""

    content: bytes = field(repr=False)
    packed: bytes = field(repr=False)
    media_type: str
    etag: str

    @classmethod
    def of(cls, path: Path) -> Asset:
        """Raises OSError."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:32]
        return cls(content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix], f'W/"{digest}"')


@dataclass(frozen=True, slots=True)
class Site:
    """One page with its files. `page`: its HTML; `files`: by URL path, below whatever the site is mounted at."""

    page: Asset
    files: Mapping[str, Asset]


def site(name: str) -> Site:
    """The site whose pages are in the folder `name`: operator or watch. Raises MissingAssets, OSError."""
    if not (VENDOR / "novnc" / "core" / "rfb.js").exists():
        raise MissingAssets(VENDOR)
    paths = dict(_below(HOME, (name, "shared", "vendor")))
    return Site(Asset.of(HOME / name / "index.html"), MappingProxyType({url: Asset.of(path) for url, path in paths.items()}))


def _below(home: Path, folders: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for folder in folders:
        for path in sorted((home / folder).rglob("*")):
            if path.suffix in _TYPES and path.suffix != ".html":
                yield f"/{path.relative_to(home).as_posix()}", path


def headers(asset: Asset, connect: Iterable[str] = ()) -> dict[str, str]:
    """What goes with it, whoever asks. `connect`: origins other than its own that the page may open a websocket to."""
    reached = " ".join(["'self'", *connect])
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
        f"connect-src {reached}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "Content-Type": asset.media_type,
        "ETag": asset.etag,
        "Cache-Control": "no-cache",  # asked for each time, by its ETag: an upgraded node's page is never half an old one
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=31536000",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Vary": "Accept-Encoding",
    }


def is_known(if_none_match: Sequence[str], etag: str) -> bool:
    """Whether whoever asks has the file already (RFC 9110 13.1.2: by weak comparison)."""
    tags = [tag.strip().removeprefix("W/") for text in if_none_match for tag in text.split(",")]
    return tags == ["*"] or etag.removeprefix("W/") in tags


def takes_gzip(accept_encoding: Sequence[str]) -> bool:
    """Whether the packed form may be sent (RFC 9110 12.5.3): gzip with any weight but 0; what cannot be read is none."""
    for coding in ",".join(accept_encoding).split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() == "gzip":
            return weight.strip().lower().removeprefix("q=").strip("0.") != "" or not weight.strip()
    return False
