"""A provider with the tenants' page on, an OpenID Connect server where tenants sign in, and a browser as far as HTTP goes."""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from lab.certificates import Authority
from lab.transcript import PATIENCE_S
from tests.oidc_parts import PERSON, WEBSITE, OidcServer, private_jwk
from tests.provider_parts import SUBSCRIPTION, Node
from tests.rest_parts import RestCloud

GIVER = PERSON
NEIGHBOUR = "nora"  # owns a virtual machine beside
READER = "rene"
CLIENT_SECRET = "secret-of-the-page-30d1"
ORIGIN = "https://ercs01-watch.example:8446"
SOCKET = "wss://ercs01-watch.example:8446"
KEY = private_jwk("key-1")
JSON = {"content-type": "application/json"}


class WatchCloud(RestCloud):
    """The people are the OpenID Connect server's: `name` at it is `principal(name)` here."""

    def _rest_settings(self) -> str:
        directory = self.place.directory
        secret = directory / "client.secret"
        secret.write_text(CLIENT_SECRET)
        secret.chmod(0o600)
        self.openid = OidcServer(directory / "openid", self.tenant_url, f"{self.tenant_url}/watch/callback", CLIENT_SECRET)
        self._more["tenant_api"] = (
            f", watch: {{issuer: '{self.openid.url}', client_id: {WEBSITE}, client_secret_file: {secret}, scopes: [consoles],"
            f" ca: {self.openid.ca}, parameters: {{resource: '{self.tenant_url}'}}}}"
        )
        ours = super()._rest_settings().replace("/issuer.pem}", "/issuer.pem, home: true}")
        return (
            f"{ours}    - {{issuer: '{self.openid.url}', jwks_url: '{self.openid.url}/jwks', jwks_ca: {self.openid.ca},"
            " algorithms: [RS256], principal_claim: sub}\n"
        )

    def principal(self, person: str) -> str:
        return f"{self.openid.url}#{person}"

    @cached_property
    def both(self) -> ssl.SSLContext:
        """Trusts the provider and the OpenID Connect server."""
        found = self.trust()
        found.load_verify_locations(self.openid.ca)
        return found

    @asynccontextmanager
    async def watched(self, **ways: Any) -> AsyncIterator[Node]:
        """A node of its own, alive, at which tenants can watch."""
        self.fresh()
        name = self.pen.name
        async with self.serving(**{"watch": ORIGIN} | ways) as node:
            yield node
        self.forget(name)

    def forget(self, node: str) -> None:
        """It counts as alive no more, so that no call waits for it."""
        with closing(sqlite3.connect(self.place.store, timeout=PATIENCE_S)) as connection, connection:
            connection.execute("UPDATE nodes SET asked_ms = 0 WHERE name = ?", (node,))

    async def consent(self, person: str = GIVER, *more: str) -> str:
        """A consent of this person's for `vm`, at the newest node, by its id."""
        return str((await self.granted("--giver", self.principal(person), *more))["consent_id"])

    @property
    def log(self) -> str:
        return (self.place.directory / "provider.log").read_text()


class Browser:
    """Keeps cookies, and sends what a browser says of itself when a page asks its own origin."""

    def __init__(self, cloud: WatchCloud) -> None:
        self.cloud = cloud
        self.client = httpx.Client(verify=cloud.both, base_url=cloud.tenant_url, timeout=PATIENCE_S)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def begin(self, cid: str) -> httpx.Response:
        return self.get(f"/watch/{cid}/sign-in")

    def at_issuer(self, begun: httpx.Response, person: str = GIVER) -> httpx.URL:
        """Where the issuer sends it back to."""
        return self.cloud.openid.signed_in(self.client, begun, person)

    def sign_in(self, cid: str, person: str = GIVER) -> httpx.Response:
        """What the callback answers."""
        return self.client.get(self.at_issuer(self.begin(cid), person))

    def post(self, cid: str, action: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        ours = {"origin": self.cloud.tenant_url, "sec-fetch-site": "same-origin"} | JSON
        return self.client.post(f"/watch/{cid}/{action}", headers=ours if headers is None else headers, content=b"{}", **more)


@contextmanager
def browser_of(cloud: WatchCloud) -> Iterator[Browser]:
    found = Browser(cloud)
    with found.client:
        yield found


@contextmanager
def watch_cloud(directory: Path, authority: Authority) -> Iterator[WatchCloud]:
    """Everything runs; GIVER owns the group, READER reads it, NEIGHBOUR owns another machine."""
    cloud = WatchCloud(directory, authority)
    try:
        group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1"
        cloud.assign(cloud.principal(GIVER), "Contributor", group)
        cloud.assign(cloud.principal(READER), "Reader", group)
        cloud.assign(cloud.principal(NEIGHBOUR), "Owner", f"{group}/providers/Microsoft.Compute/virtualMachines/beside")
        cloud.openid.start(KEY)
        cloud.start()
        yield cloud
    finally:
        cloud.close()
        cloud.openid.stop()
