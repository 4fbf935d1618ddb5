"""A node's real port for tenants who watch, over TLS on loopback, and a tenant who comes with a token."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from broker.settings import WatchListener as Settings
from broker.watch_listener import WatchListener
from eva.consent import Consent
from eva.control import CONSOLE_PATH, SERIAL_SUBPROTOCOL, TICKET_PREFIX, Refusal
from eva.ending import Ending
from eva.members import Json
from eva.watch import TOKEN_PREFIX, WATCH_PATH, WATCH_SUBPROTOCOL, Watch, WatchMethod
from lab.certificates import Authority
from lab.ports import free_port
from tests.broker_parts import NODE, PATIENCE, Core, core, jti

PAGE = "https://management.example:8444"  # where the page is
_ids = itertools.count(1)


async def closed(websocket: ClientConnection) -> int | None:
    """The close code, once it is closed."""
    async with asyncio.timeout(PATIENCE):
        await websocket.wait_closed()
    return websocket.close_code


class NotDone(Exception):
    """The node refused a call."""

    def __init__(self, refusal: str) -> None:
        self.refusal = refusal
        super().__init__(refusal)


class Tenant:
    """A watch connection. `notices`: what came by itself and was not asked for yet."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.notices: list[tuple[str, Mapping[str, Any]]] = []
        self._answers: dict[int | None, Mapping[str, Any]] = {}  # that came and were not waited for yet

    async def _next(self) -> Mapping[str, Any]:
        async with asyncio.timeout(PATIENCE):
            found = json.loads(await self.websocket.recv())
        assert found["jsonrpc"] == "2.0"
        return found  # type: ignore[no-any-return]  # what it holds the test says

    async def ask(self, method: WatchMethod | str, **params: Json) -> Mapping[str, Any]:
        """Raises NotDone."""
        return await self.answer(await self.begin(method, **params))

    async def begin(self, method: WatchMethod | str, **params: Json) -> int:
        """Asks, and waits for no answer. Gives the call's number."""
        number = next(_ids)
        await self.websocket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": str(method), "params": params}))
        return number

    async def answer(self, number: int) -> Mapping[str, Any]:
        """Raises NotDone."""
        while number not in self._answers and None not in self._answers:  # None: of one that could not be read
            found = await self._next()
            if "id" in found:
                self._answers[found["id"]] = found
            else:
                self.notices.append((found["method"], found["params"]))
        found = self._answers.pop(number if number in self._answers else None)
        if "error" in found:
            raise NotDone(found["error"]["data"]["reason"])
        return found["result"]  # type: ignore[no-any-return]  # what it holds the test says

    async def refusal(self, method: WatchMethod | str, **params: Json) -> Refusal | None:
        """What the call was refused for, or None."""
        try:
            await self.ask(method, **params)
        except NotDone as error:
            return Refusal(error.refusal)
        return None

    async def told(self, event: str, **wanted: object) -> Mapping[str, Any]:
        """Waits for a notice of that name with these members; what came before it is passed over."""
        while True:
            while not self.notices:
                found = await self._next()
                if "id" in found:
                    self._answers[found["id"]] = found
                else:
                    self.notices.append((found["method"], found["params"]))
            name, params = self.notices.pop(0)
            if name == event and wanted.items() <= params.items():
                return params


class WatchPort:
    """The open port of a node."""

    def __init__(self, node: Core, authority: Authority) -> None:
        pair = authority.server("ercs")
        self.node, self.number = node, free_port()
        url = f"https://127.0.0.1:{self.number}"
        self.listener = WatchListener(
            Settings("127.0.0.1", self.number, pair.certificate, pair.key, frozenset({"127.0.0.1"}), frozenset({PAGE}), url),
            node.watch_desk,
        )
        self.tls = ssl.create_default_context(cafile=str(authority.ca))

    def watch(self, one: Consent, **other: object) -> Watch:
        """What the provider would sign for this consent's giver now."""
        now = self.node.clock.now().wall_seconds
        return replace(Watch(jti(), one.cid, NODE, one.resource_id, one.giver, now, now + 60), **other)  # type: ignore[arg-type]

    def token(self, one: Consent, **other: object) -> str:
        return self.node.signer.sign(self.watch(one, **other))

    def socket(self, path: str, *subprotocols: str, **other: object) -> connect:
        return connect(
            f"wss://127.0.0.1:{self.number}{path}",
            ssl=self.tls,
            subprotocols=subprotocols or None,  # type: ignore[arg-type]
            compression=None,
            proxy=None,
            **({"max_queue": None, "open_timeout": PATIENCE} | other),  # type: ignore[arg-type]
        )

    def come(self, token: str, **other: object) -> connect:
        return self.socket(WATCH_PATH, WATCH_SUBPROTOCOL, TOKEN_PREFIX + token, **other)

    def console(self, opened: Mapping[str, Json], subprotocol: str = SERIAL_SUBPROTOCOL, **other: object) -> connect:
        return self.socket(CONSOLE_PATH, subprotocol, f"{TICKET_PREFIX}{opened['ticket']}", **other)

    @asynccontextmanager
    async def watching(self, one: Consent) -> AsyncIterator[Tenant]:
        """The giver of this consent watches; the first state has come."""
        async with self.come(self.token(one)) as websocket:
            tenant = Tenant(websocket)
            tenant.notices.append(("watch.state", await tenant.told("watch.state")))
            yield tenant


@asynccontextmanager
async def watch_port(directory: Path, authority: Authority, **other: object) -> AsyncIterator[WatchPort]:
    """A node with a fresh lease and its watch port open."""
    async with core(directory, **other) as node, opened(node, authority) as port:
        yield port


@asynccontextmanager
async def opened(node: Core, authority: Authority) -> AsyncIterator[WatchPort]:
    """The watch port of a node that is there."""
    port = WatchPort(node, authority)
    await port.listener.start()
    try:
        yield port
    finally:
        node.watch_desk.sign_out(Ending.NODE_STOPPING)
        await port.listener.stop()
