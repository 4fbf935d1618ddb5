"""Whether a request comes from our own page: by what no script can write (Fetch, 4.7 and Fetch Metadata). Pure.

The session's cookie is SameSite=Strict, but a site is more than an origin: a neighbour on another port, or under the same
domain, is of the same site.
"""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_PORT = ":443"


def origin_of(url: str) -> str:
    """The origin of an https URL, as browsers write it: in small letters, without the port that goes without saying."""
    host = url.removeprefix("https://").partition("/")[0].lower()
    return f"https://{host.removesuffix(DEFAULT_PORT)}"


def is_ours(origin: str, origins: Sequence[str], sites: Sequence[str]) -> bool:
    """`origins`, `sites`: a request's headers Origin and Sec-Fetch-Site. What is there must speak for us, and one must be."""
    said = [*(one == origin for one in origins), *(one == "same-origin" for one in sites)]
    return bool(said) and all(said) and len(origins) < 2 and len(sites) < 2
