"""Requests to an issuer, within bounds that its answers cannot pass: https only, no redirect, no proxy of the environment, no
packed body, so many bytes and so many seconds.

Errors: Unreachable.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import httpx

from oidc.failure import Unreachable

MAX_BYTES: Final = 262_144
SECONDS: Final = 5.0  # for one request, from the connection on

Reply = tuple[int, bytes]  # status and body


async def request(
    tls: ssl.SSLContext, method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None
) -> Reply:
    """Raises Unreachable. `url` is the settings' or of a Metadata: https."""
    asked = {"accept": "application/json", "accept-encoding": "identity"} | dict(headers or {})
    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(verify=tls, trust_env=False, follow_redirects=False, timeout=SECONDS) as client,
            client.stream(method, url, headers=asked, content=body) as answer,
        ):
            # what is packed may be a thousand times as much when unpacked
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise Unreachable("it answers with a packed body, unasked")
            taken = bytearray()
            async for chunk in answer.aiter_raw(65_536):
                taken += chunk
                if len(taken) > MAX_BYTES:
                    raise Unreachable(f"its answer has more than {MAX_BYTES} bytes")
            return answer.status_code, bytes(taken)
    except TimeoutError:
        raise Unreachable(f"no answer within {SECONDS:g} s") from None
    # ValueError: a URL or a header that httpx cannot make sense of
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
