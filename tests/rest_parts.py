"""A provider with its REST on, people with tokens, and requests as Azure's clients send them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from lab.certificates import Authority
from lab.ports import free_port
from lab.transcript import PATIENCE_S
from tests.provider_parts import SUBSCRIPTION, Cloud, Node, jti

OTHER_SUBSCRIPTION = "8a3f5b4d-6c2f-4d99-8b17-3a4e2f6c8da1"
PLATFORM = "00000000-0000-4000-8000-000000000001"
DIRECTORY = "00000000-0000-4000-8000-000000000002"
REGION = "local"
OWNER = "Olivia"
READER = "Rene"
STRANGER = "Sam"
NEIGHBOUR = "Nora"  # owns the other subscription
OPERATOR = "Oscar"

VM_VERSION = {"api-version": "2020-06-01"}
ADMIN_VERSION = {"api-version": "2020-11-01"}
ARM_VERSION = {"api-version": "2022-12-01"}

FEATURES = f"/subscriptions/{PLATFORM}/providers/Microsoft.Compute.Admin/locations/{REGION}/features"
FEATURE = f"{FEATURES}/Microsoft.Compute.EmergencyVMAccess"


class RestCloud(Cloud):
    """`more`: further lines of the settings' `tenant_api`, `admin_api` and `issuers[0]`."""

    def __init__(self, directory: Path, authority: Authority, more: Mapping[str, str] | None = None) -> None:
        self.authority = authority
        self.tenant_port, self.admin_port = free_port(), free_port()
        self._more = dict(more or {})
        self._tokens: dict[tuple[str, ...], str] = {}
        super().__init__(directory, authority)

    def run(self, *arguments: str) -> Any:
        if "tenant_api:" not in self.place.config.read_text():
            with self.place.config.open("a") as file:
                file.write(self._rest_settings())
            super().run("issuer", "init")
        return super().run(*arguments)

    def _rest_settings(self) -> str:
        pair = self.authority.server("rest")
        return f"""
region: {REGION}
tenant_api:
  {{address: 127.0.0.1, port: {self.tenant_port}, url: '{self.tenant_url}', certificate: {pair.certificate}, key: {pair.key},
   audiences: ['{self.tenant_url}']{self._more.get("tenant_api", "")}}}
admin_api:
  {{address: 127.0.0.1, port: {self.admin_port}, url: '{self.admin_url}', certificate: {pair.certificate}, key: {pair.key},
   audiences: ['{self.admin_url}'], subscription: {PLATFORM}{self._more.get("admin_api", "")}}}
identity:
  login_endpoint: https://login.example
  tenant: {DIRECTORY}
  issuers:
    - {{issuer: 'https://login.example/eva', jwks_file: {self.place.directory}/jwks.json, algorithms: [EdDSA],
       signing_key: {self.place.directory}/issuer.pem}}
"""

    @property
    def tenant_url(self) -> str:
        return f"https://localhost:{self.tenant_port}"

    @property
    def admin_url(self) -> str:
        return f"https://localhost:{self.admin_port}"

    def assign(self, who: str, role: str, scope: str = "/") -> None:
        ran = self.run("roles", "add", "--principal", who, "--role", role, "--scope", scope)
        assert ran.code == 0, ran.err

    def cast(self) -> None:
        """The people above, with their roles."""
        self.assign(OWNER, "Owner", f"/subscriptions/{SUBSCRIPTION}")
        self.assign(READER, "Reader", f"/subscriptions/{SUBSCRIPTION}")
        self.assign(NEIGHBOUR, "Owner", f"/subscriptions/{OTHER_SUBSCRIPTION}")
        self.assign(OPERATOR, "EVA Cloud Administrator")

    def token(self, who: str, audience: str = "tenant", *more: str) -> str:
        key = (who, audience, *more)
        if key not in self._tokens:
            ran = self.run("token", "--principal", who, "--audience", audience, *more)
            assert ran.code == 0, ran.err
            self._tokens[key] = ran.out.strip()
        return self._tokens[key]

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return self.trust()

    def trust(self) -> ssl.SSLContext:
        """A context of the caller's own."""
        return ssl.create_default_context(cafile=str(self.authority.ca))

    async def ask(
        self, method: str, path: str, who: str | None = OWNER, *, admin: bool = False, params: Any = None, **more: Any
    ) -> httpx.Response:
        """One request. `who` None: without a token; `path` goes out as it is spelled."""
        url, audience = (self.admin_url, "admin") if admin else (self.tenant_url, "tenant")
        headers = {} if who is None else {"authorization": f"Bearer {self.token(who, audience)}"}
        headers |= more.pop("headers", {})
        if params is None:
            params = ADMIN_VERSION if admin else VM_VERSION
        async with httpx.AsyncClient(verify=self._trust, timeout=PATIENCE_S) as client:
            request = client.build_request(method, url, headers=headers, params=params, **more)
            query = request.url.raw_path.partition(b"?")[2]
            target = path.encode("ascii") + (b"?" + query if query else b"")
            # httpx would clean up what a peer means to send uncleaned
            request.extensions["target"] = target
            return await client.send(request)

    async def operate(self, action: str, body: Any, who: str | None = OPERATOR) -> httpx.Response:
        return await self.ask("POST", f"{FEATURE}/{action}", who, admin=True, json=body)

    @asynccontextmanager
    async def serving(self, **ways: Any) -> AsyncIterator[Node]:
        """The one node, alive for as long as this lasts."""
        async with self.node(**ways) as node:
            await node.ask()
            asking = asyncio.create_task(node.asks_on())
            try:
                yield node
            finally:
                asking.cancel()

    async def logged(self) -> str:
        """The daemon's log down to what was asked for last: a request's line is written after its answer, and in turn."""
        last = jti()
        await self.ask("GET", "/", None, headers={"x-ms-correlation-request-id": last})
        await self.daemon.transcript.seen(f"{last}]\n")
        return self.daemon.transcript.text()


def vm_path(vm: str, subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{vm}"


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that must be an ARM error."""
    found = answer.json()
    assert found.keys() == {"error"}, found
    assert {"code", "message"} <= found["error"].keys() <= {"code", "message", "target"}
    return answer.status_code, found["error"]["code"]


@contextmanager
def rest_cloud(directory: Path, authority: Authority, more: Mapping[str, str] | None = None) -> Iterator[RestCloud]:
    cloud = RestCloud(directory, authority, more)
    try:
        cloud.cast()
        cloud.start()
        yield cloud
    finally:
        cloud.close()
