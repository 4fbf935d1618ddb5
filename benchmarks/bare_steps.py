"""The least that a consent can cost: its durable steps and its two letters, and nothing else.

The provider's commit, a letter by MQTT (QoS 1), the node's commit, a letter back, the provider's commit: through the same
mosquitto, with the same library, each commit one row and one sync. No HTTP, no token, no signature, no check. The node is a
process of its own:  python -m benchmarks.bare_steps PORT CA CERTIFICATE KEY FOLDER
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiomqtt
import uvloop

from benchmarks.tenants import Spell
from lab.certificates import Authority, KeyPair
from lab.postgresql import Postgresql

PROVIDER, NODE = "bare-provider", "bare-node"
ASK, ANSWER = "bare/ask", "bare/answer"
RULES = f"\nuser {PROVIDER}\ntopic readwrite bare/#\n\nuser {NODE}\ntopic readwrite bare/#\n"  # for mosquitto.acl
TOKEN = "t" * 700  # about what a consent's takes


class Disk(Protocol):
    def commit(self) -> None:
        """One row, durable when this returns."""


class SqliteDisk:
    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for words in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE IF NOT EXISTS step (token TEXT NOT NULL)",
        ):
            self._connection.execute(words)

    def commit(self) -> None:
        self._connection.execute("INSERT INTO step VALUES (?)", (TOKEN,))


class PostgresqlDisk:
    def __init__(self, server: Postgresql, name: str) -> None:
        server.database(name)
        self._connection = server.connect(name)
        self._connection.execute("CREATE TABLE IF NOT EXISTS step (token TEXT NOT NULL)")

    def commit(self) -> None:
        self._connection.execute("INSERT INTO step VALUES (%s)", (TOKEN,))


def _client(port: int, ca: Path, pair: KeyPair, name: str) -> aiomqtt.Client:
    tls = ssl.create_default_context(cafile=str(ca))
    tls.load_cert_chain(pair.certificate, pair.key)
    nodelay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    return aiomqtt.Client(
        "localhost", port, identifier=name, protocol=aiomqtt.ProtocolVersion.V5, tls_context=tls, socket_options=nodelay
    )


class BareProvider:
    def __init__(self, client: aiomqtt.Client, disk: Disk) -> None:
        self._client = client
        self.disk = disk
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Event] = {}

    async def listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            self._waiting.pop(message.payload.partition(b" ")[0]).set()

    async def step(self) -> float:
        """The seconds that one took."""
        number, answered = b"%d" % next(self._numbers), asyncio.Event()
        began = time.perf_counter()
        self.disk.commit()
        self._waiting[number] = answered
        await self._client.publish(ASK, number + b" " + TOKEN.encode(), qos=1)
        await answered.wait()
        self.disk.commit()
        return time.perf_counter() - began

    async def steps(self, count: int, at_once: int) -> Spell:
        times: list[float] = []

        async def go_on(left: Iterator[int]) -> None:
            times.extend([await self.step() for _ in left])

        left = iter(range(count))
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(go_on(left))
        return Spell(times, time.perf_counter() - began)


@asynccontextmanager
async def bare_provider(port: int, authority: Authority, disk: Disk, folder: Path) -> AsyncIterator[BareProvider]:
    """One with its node, in a process of its own, that answers."""
    pair = authority.client(NODE)
    words = [str(port), str(authority.ca), str(pair.certificate), str(pair.key), str(folder)]
    node = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_steps", *words], stdout=subprocess.PIPE)
    assert node.stdout is not None
    try:
        await asyncio.to_thread(node.stdout.readline)
        async with _client(port, authority.ca, authority.client(PROVIDER), PROVIDER) as client:
            await client.subscribe(ANSWER, qos=1)
            provider = BareProvider(client, disk)
            listening = asyncio.create_task(provider.listen())
            try:
                yield provider
            finally:
                listening.cancel()
    finally:
        node.terminate()
        node.wait()
        node.stdout.close()


async def be_node(port: int, ca: Path, pair: KeyPair, commit: Callable[[], None]) -> None:
    async with _client(port, ca, pair, NODE) as client, asyncio.TaskGroup() as group:
        await client.subscribe(ASK, qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            commit()
            # the next one need not wait until this one is acknowledged
            group.create_task(client.publish(ANSWER, message.payload, qos=1))


def main() -> None:
    port, ca, certificate, key, folder = sys.argv[1:]
    disk = SqliteDisk(Path(folder) / "node.db")
    uvloop.run(be_node(int(port), Path(ca), KeyPair(Path(certificate), Path(key)), disk.commit))


if __name__ == "__main__":
    main()
