"""A person's browser at a node's sign-in pages and at the issuer's, without the pages' scripts."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx

from broker.sign_in import PASS_COOKIE
from broker.sign_in_pages import BEGIN, WAYS
from lab.transcript import PATIENCE_S
from tests.oidc_parts import OidcServer


class Browser:
    """One person's browser: its cookies, here and at the issuer."""

    def __init__(self, node: str, authority: Path, server: OidcServer) -> None:
        """`node`: its URL; `authority`: of its certificate."""
        context = ssl.create_default_context(cafile=server.ca)
        context.load_verify_locations(authority)
        self._client = httpx.Client(verify=context, base_url=node, timeout=PATIENCE_S)
        self._host = httpx.URL(node).host
        self._server = server

    async def get(self, target: str, **other: Any) -> httpx.Response:
        return await asyncio.to_thread(self._client.get, target, **other)

    async def ways(self) -> dict[str, Any]:
        answer = await self.get(WAYS)
        assert answer.status_code == 200
        return dict(answer.json())

    async def to_the_callback(self, person: str = "olivia") -> str:
        """Begins, and signs in at the issuer; gives where that sends the browser, which does not go there."""
        answer = await self.get(BEGIN)
        assert answer.status_code == 303, answer.text
        return str(await asyncio.to_thread(self._server.signed_in, self._client, answer, person))

    async def signs_in(self, person: str = "olivia") -> httpx.Response:
        return await self.get(await self.to_the_callback(person))

    def cookie(self, name: str) -> str | None:
        """Of the node's."""
        found = [cookie for cookie in self._client.cookies.jar if cookie.name == name]
        return found[0].value if found else None

    def carry(self, name: str, text: str) -> None:
        self._client.cookies.set(name, text, domain=self._host)

    @property
    def header(self) -> dict[str, str]:
        """What the page's websocket carries."""
        text = self.cookie(PASS_COOKIE)
        return {"Cookie": f"theme=dark; {PASS_COOKIE}={text}"} if text else {}
