"""The operators' page: what a plain GET on the operators' port is answered with."""

from __future__ import annotations

import http

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from web.assets import Asset, headers, site


class Pages:
    """The table of the operators' site. Raises MissingAssets, OSError."""

    def __init__(self) -> None:
        found = site("operator")
        self._files = {"/": found.page, **found.files}

    def find(self, path: str) -> Asset | None:
        """What is served there. The path is looked up as it came: no query, no dots, no other spelling."""
        return self._files.get(path)

    @staticmethod
    def answer(request: Request, asset: Asset) -> Response:
        fields = Headers(headers(asset))
        fields["Connection"] = "close"
        if asset.etag in request.headers.get_all("If-None-Match"):
            return _response(http.HTTPStatus.NOT_MODIFIED, fields, b"")
        packed = any("gzip" in value for value in request.headers.get_all("Accept-Encoding"))
        if packed:
            fields["Content-Encoding"] = "gzip"
        return _response(http.HTTPStatus.OK, fields, asset.packed if packed else asset.content)


def _response(status: http.HTTPStatus, fields: Headers, body: bytes) -> Response:
    fields["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, fields, body)
