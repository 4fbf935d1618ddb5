"""What the tests of the operators' page share: a cloud of their own, a network that fails, and what the page shows."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from lab.browser import Browser
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.operator_window import SLOW_MS, open_console, shown_text, sign_in
from tests.system_operator import NODE
from tests.system_parts import consented, measured, well

SESSIONS = "eva_sessions{"
LEFT = 30.0  # seconds; a session that nobody left would wait for 60
AXE = Path(__file__).parent.parent / ".lab/web/node_modules/axe-core/axe.min.js"


@contextlib.asynccontextmanager
async def at_the_list(cloud: Cloud, *accounts: str, node: str = NODE) -> AsyncIterator[list[Page]]:
    """A window for each account, signed in, on a granted workstation; what their pages may not do fails the test."""
    await well(cloud, node)
    before = await measured(cloud, SESSIONS, node)
    async with Browser(cloud.authority.ca) as browser:
        pages = []
        for account in accounts or ("alice",):
            await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM", node=node, account=account)
            page = await browser.window()
            await sign_in(page, cloud.nodes[node], account)
            pages.append(page)
        yield pages
        for page in pages:
            await page.goto("about:blank")  # a browser that is closed takes no leave, and the next test's would wait for it
        await gone(cloud, before, node)


async def gone(cloud: Cloud, most: float, node: str = NODE) -> None:
    """Returns once the node has no more sessions than this: it hears that a page was left a moment later than we. Raises
    AssertionError, well before it would forget by itself one that is only away."""
    deadline = asyncio.get_running_loop().time() + LEFT
    while (count := await measured(cloud, SESSIONS, node)) > most:
        assert asyncio.get_running_loop().time() < deadline, f"{count:g} sessions at the node, and not {most:g}"
        await asyncio.sleep(0.02)  # a number cannot be awaited


@pytest.fixture
def consenting(cloud: Cloud, vm: Guest) -> Iterator[Guest]:
    """A guest whose consent the test gives; none is left."""
    yield vm
    with contextlib.suppress(Exception):  # there may be none any more
        cloud.revoke(resource_id=vm.resource_id)


@pytest.fixture
async def open_vm(cloud: Cloud, consenting: Guest) -> Guest:
    """A guest that may be opened."""
    await well(cloud)
    await consented(cloud, consenting)
    return consenting


class Network:
    """The way between a browser and a node, which may fail. `url`: the node's, by this way."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._down = False
        self._swallowing = False

    async def open(self, port: int) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.fail()
        for flow in list(self._flows):
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def stall(self) -> None:
        """Nothing passes, and nobody is told."""
        self._passing.clear()

    def swallow(self) -> None:
        """What is connected goes on; who connects anew never hears anything."""
        self._swallowing = True

    def fail(self) -> None:
        """Every connection is gone without a farewell, and no other comes through."""
        self._down = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._down = False
        self._swallowing = False
        self._passing.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        self._writers.add(writer)
        try:
            if self._swallowing:
                await asyncio.Event().wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(back)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._flow(reader, back))
                    both.create_task(self._flow(there, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except* ConnectionError:
            pass  # one of the two ends went
        finally:
            self._flows.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # the other way ends too


async def shows(pane: Locator, text: str | re.Pattern[str], patience_ms: int = SLOW_MS) -> None:
    """Returns once the terminal shows it; rows are joined as they were wrapped."""
    wanted = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
    deadline = asyncio.get_running_loop().time() + patience_ms / 1000
    while wanted.search(found := (await shown_text(pane)).replace("\n", "")) is None:
        assert asyncio.get_running_loop().time() < deadline, f"{wanted.pattern!r} is not on the screen: {found[-400:]!r}"
        await asyncio.sleep(0.05)  # what a terminal draws cannot be awaited


async def type_line(pane: Locator, line: str) -> None:
    """Types it as a person does, with Enter."""
    await pane.locator(".xterm-helper-textarea").focus()
    await pane.page.keyboard.type(line + "\n")


async def at_prompt(page: Page, vm: str) -> Locator:
    """Opens the serial console; gives its pane once the guest's shell has answered a key."""
    pane = await open_console(page, vm, "serial")
    before = (await shown_text(pane)).count("/root#")
    now = asyncio.get_running_loop().time
    deadline, typed = now() + SLOW_MS / 1000, -math.inf
    while (await shown_text(pane)).count("/root#") == before:
        assert now() < deadline, "no prompt"
        if now() > typed + 1:  # QEMU looks once a second whether its pty is opened, and drops what was typed before
            await type_line(pane, "")
            typed = now()
        await asyncio.sleep(0.05)
    return pane


async def saved(pane: Locator) -> str:
    """Everything that the terminal has, as its person saves it."""
    async with pane.page.expect_download() as download:
        await pane.get_by_role("button", name="Save output").first.click()
    return (await (await download.value).path()).read_text()


async def is_told(page: Page, text: str) -> None:
    await expect(page.get_by_text(text).first).to_be_visible(timeout=SLOW_MS)


async def faults(page: Page) -> list[str]:
    """What axe finds serious or critical in the page as it stands."""
    # by the debugger's way in, which the page's policy does not bind
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": AXE.read_text()})
    found: list[dict[str, Any]] = await page.evaluate("axe.run(document).then((found) => found.violations)")
    await session.detach()
    return [
        f"{fault['id']}: {node['target']} {node.get('failureSummary', '')}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
