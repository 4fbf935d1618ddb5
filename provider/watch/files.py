"""The tenants' site as it goes out: a fixed table, within bounds on how long and by how many it is read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from provider.rest.arm import ArmError
from web.assets import Asset, headers, is_known, takes_gzip

AT_ONCE = 64  # files under way
FOR_ONE = 12  # of them to one address: a browser has 6 connections
SECONDS = 30.0  # for one file, whose greatest is 200 KB when packed
CHUNK = 65_536


class Seats:
    """Who is being sent a file. In its own count, so that slow readers keep nobody from consenting."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Raises ArmError where there is no room."""
        if self._taken.total() >= AT_ONCE or self._taken[address] >= FOR_ONE:
            raise ArmError(503, "ServerBusy", "The server is busy: try again.", headers={"retry-after": "1"})
        self._taken[address] += 1
        try:
            yield
        finally:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class File(Response):
    """One asset, in pieces that wait for their reader, who has SECONDS for all of them."""

    def __init__(self, content: bytes, fields: Mapping[str, str], seats: Seats, address: str) -> None:
        super().__init__(status_code=200, headers=fields)
        self._content = content
        self._seats = seats
        self._address = address
        self.headers["content-length"] = str(len(content))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        with self._seats.one(self._address):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async with asyncio.timeout(SECONDS):
                    for start in range(0, len(self._content), CHUNK):
                        await send(
                            {"type": "http.response.body", "body": self._content[start : start + CHUNK], "more_body": True}
                        )
                    await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                return  # uvicorn hangs up on an answer that is not whole


def file(request: Request, asset: Asset, seats: Seats) -> Response:
    """What the table's file is answered with."""
    fields = headers(asset)
    if is_known(request.headers.getlist("if-none-match"), asset.etag):
        return Response(status_code=304, headers=fields)
    return _packed(request, asset, fields, seats)


def page(request: Request, asset: Asset, connect: Sequence[str], seats: Seats) -> Response:
    """The page, kept by nobody: its policy says which node it may reach, and that changes."""
    fields = headers(asset, connect) | {"Cache-Control": "no-store"}
    del fields["ETag"]
    return _packed(request, asset, fields, seats)


def address(request: Request) -> str:
    """Whom its TCP connection is from."""
    return request.client.host if request.client is not None else ""


def _packed(request: Request, asset: Asset, fields: dict[str, str], seats: Seats) -> Response:
    if takes_gzip(request.headers.getlist("accept-encoding")):
        return File(asset.packed, fields | {"Content-Encoding": "gzip"}, seats, address(request))
    return File(asset.content, fields, seats, address(request))
