"""A node's real port for operators on loopback, over TLS, with accounts; and clients that speak to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import argon2
import pytest
from websockets.asyncio.client import ClientConnection, connect

from broker import control_channel, threshold, visitor, websocket
from broker.accounts import Accounts
from broker.attempts import Attempts
from broker.control_channel import Desk
from broker.listener import Listener
from broker.safelist import Safelist
from broker.settings import Oidc, OperatorListener, Provider
from broker.tickets import Tickets
from broker.whereabouts import Inquiry
from eva.control import (
    CONSOLE_PATH,
    CONTROL_PATH,
    SERIAL_SUBPROTOCOL,
    SUBPROTOCOL,
    TICKET_PREFIX,
    Failure,
    Method,
    Notice,
    Refusal,
    Refused,
    decode_from_node,
)
from eva.members import Json
from lab.certificates import Authority
from lab.ports import free_port
from tests.broker_parts import NODE, PATIENCE, Core, core

PASSWORD = "correct horse battery"
HASH = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(PASSWORD)
ORIGIN = "https://console.example"
_ids = itertools.count(1)


def accounts(*names: str, groups: str = "cloudadmin") -> Accounts:
    rows = "".join(f"  - {{name: {name}, groups: [{groups}], password: '{HASH}'}}\n" for name in names)
    return Accounts.parse(f"accounts:\n{rows}", "users.yaml")


def unhurried(patch: pytest.MonkeyPatch) -> None:
    """Peers have time to open, to ask and to sign in, however busy the machine; who is let go was not let go for being slow."""
    for module in (websocket, threshold, visitor):
        patch.setattr(module, "OPEN_TIMEOUT", 10 * PATIENCE)
    patch.setattr(visitor, "IDLE_SECONDS", 10 * PATIENCE)
    patch.setattr(control_channel, "SIGN_IN_SECONDS", 10 * PATIENCE)


class Port:
    """The open port of a node."""

    def __init__(
        self, node: Core, authority: Authority, provider: Provider, number: int, oidc: Callable[[int], Oidc] | None = None
    ) -> None:
        """`number`: the port's; `oidc` is made of it."""
        pair = authority.server("ercs")
        self.node, self.number, self.tls_ca = node, number, authority.ca
        self.desk = Desk(
            node=NODE,
            clock=node.clock,
            journal=node.journal,
            sessions=node.sessions,
            consents=node.consents,
            inventory=node.domains,
            accounts=accounts("alice", "bob"),
            safelist=Safelist(node.boot_id),
            attempts=Attempts(),
            tickets=Tickets(),
            inquiry=Inquiry(NODE, provider, node.node_key, node.clock, secrets.token_bytes),
            metrics=node.metrics,
            randomness=secrets.token_bytes,
        )
        settings = OperatorListener(
            "127.0.0.1",
            self.number,
            pair.certificate,
            pair.key,
            authority.ca,
            frozenset({"127.0.0.1", "localhost"}),
            frozenset({ORIGIN}),
            oidc(self.number) if oidc is not None else None,
        )
        self.listener = Listener(settings, self.desk)
        self.tls = ssl.create_default_context(cafile=str(authority.ca))

    def socket(self, path: str, *subprotocols: str, source: str = "127.0.0.1", **other: object) -> connect:
        return connect(
            f"wss://127.0.0.1:{self.number}{path}",
            ssl=self.tls,
            subprotocols=subprotocols or None,  # type: ignore[arg-type]
            local_addr=(source, 0),
            compression=None,
            proxy=None,
            open_timeout=PATIENCE,
            **other,  # type: ignore[arg-type]
        )

    def control(self, **other: object) -> connect:
        return self.socket(CONTROL_PATH, SUBPROTOCOL, **other)

    def console(self, opened: Mapping[str, Json], subprotocol: str = SERIAL_SUBPROTOCOL, **other: object) -> connect:
        return self.socket(CONSOLE_PATH, subprotocol, f"{TICKET_PREFIX}{opened['ticket']}", **other)

    def refusals(self) -> dict[str, float]:
        return {
            sample.labels["reason"]: sample.value
            for family in self.node.metrics.refused.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }

    @asynccontextmanager
    async def signed_in(self, account: str = "alice", **other: object) -> AsyncIterator[ClientConnection]:
        """A control connection of an operator whose workstation is granted."""
        async with self.control(**other) as client:
            await ask(client, Method.SIGN_IN, account=account, password=PASSWORD)
            await ask(client, Method.WORKSTATION_GRANT)
            yield client


async def ask(client: ClientConnection, method: Method | str, **params: Json) -> Mapping[str, Json]:
    """One call's result. Raises Refused."""
    number = next(_ids)
    await client.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": str(method), "params": params}))
    async with asyncio.timeout(PATIENCE):
        while True:
            text = await client.recv()
            assert isinstance(text, str)
            found = decode_from_node(text)
            if isinstance(found, Notice):
                continue
            assert found.id == number
            if isinstance(found, Failure):
                raise Refused(found.refusal, node=found.node)
            return found.result


async def refusal(client: ClientConnection, method: Method | str, **params: Json) -> Refusal | None:
    """What the call was refused for, or None."""
    try:
        await ask(client, method, **params)
    except Refused as error:
        return error.refusal
    return None


@asynccontextmanager
async def port(
    directory: Path,
    authority: Authority,
    provider: Provider | None = None,
    number: int | None = None,
    oidc: Callable[[int], Oidc] | None = None,
) -> AsyncIterator[Port]:
    """A node with a fresh lease and its port open. Unless one is given, nobody answers in the provider's place."""
    async with core(directory) as node:
        asked = provider or Provider(f"https://127.0.0.1:{free_port()}", authority.ca)
        one = Port(node, authority, asked, number or free_port(), oidc)
        await one.listener.start()
        try:
            yield one
        finally:
            for channel in list(one.desk.channels):
                channel.sign_out("the test is over")
            await one.listener.stop()
