"""Other people's clients at a node, with nothing of ours but what `ConnectTo-TenantVm -Ticket` prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.browser import Browser
from lab.cloud import BIN, Cloud
from lab.guest_image import CACHE, ROOT
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from tests.other_site import OtherSite
from tests.screen_parts import shows_screen
from tests.system_parts import consented, until

WSCAT = CACHE / "stock/node_modules/.bin/wscat"
PAGE = (ROOT / "tests/stock/screen.html").read_text()
NOVNC = ROOT / "web/vendor/novnc"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cloud(libvirt_host: LibvirtHost, page_port: int) -> Iterator[Cloud]:
    with Cloud({"host1": libvirt_host.uri}, origins=(f"https://localhost:{page_port}",)) as cloud:
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        yield cloud


@dataclass
class Said:
    """What a program said on its standard output and error, for as long as it runs."""

    process: asyncio.subprocess.Process
    out: str = ""

    async def line(self) -> str:
        """The next line on its standard output."""
        assert self.process.stdout is not None
        found = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        assert found, await self._rest()
        return found.decode()

    async def shows(self, pattern: str) -> str:
        """What wscat has shown of the guest, once something fits: it puts each message on a line, and our notices between."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not re.search(pattern, found := re.sub(r"\n|\{\"notice\"[^}]*\}", "", self.out)):
                chunk = await self.process.stdout.read(4096)
                assert chunk, f"{self.out!r} {await self._rest()}"
                self.out += chunk.decode()
        return found

    async def ended(self) -> tuple[int, str]:
        """Its status and what it said on standard error."""
        _, err = await asyncio.wait_for(self.process.communicate(), PATIENCE)
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()

    async def _rest(self) -> str:
        return str(await self.ended())


@contextlib.asynccontextmanager
async def running(*words: str | Path, environment: dict[str, str]) -> AsyncIterator[Said]:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    try:
        yield Said(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def ticket(cloud: Cloud, guest: Guest, *options: str) -> AsyncIterator[tuple[Said, str]]:
    """The command, and the line that it prints."""
    words = (BIN / "ConnectTo-TenantVm", "-ResourceID", str(guest.resource_id), "-Ticket", *options)
    async with running(*words, environment=cloud.environment()) as command:
        yield command, await command.line()


def by_address(url: str) -> str:
    """Node.js up to 18 tries the first address of a name and no other, and that is ::1."""
    return url.replace("localhost", "127.0.0.1")


async def test_wscat_types_a_command_and_gets_the_guest_s_answer(cloud: Cloud, shared_guest: Guest) -> None:
    await consented(cloud, shared_guest)
    async with ticket(cloud, shared_guest) as (command, line):
        place = json.loads(line)
        offered = [word for name in place["subprotocols"] for word in ("-s", name)]
        words = (WSCAT, "--ca", cloud.authority.ca, "-c", by_address(place["url"]), *offered, "-w", "-1", "-x", "uname -a\r")
        async with running(*words, environment={}) as wscat:
            await wscat.shows(rf"Linux {shared_guest.name} \d+\.\d+\S* .* x86_64 GNU/Linux")
            assert command.process.returncode is None  # it stays as long as the session does
            wscat.process.kill()
            # as serial sessions do, it waits to be resumed; whoever opened it can end it
            command.process.terminate()
        assert (await command.ended())[0] == 128 + 15


async def test_what_the_tenant_withdraws_is_over_for_them_too(cloud: Cloud, mortal: Guest) -> None:
    mortal.wait_ready()
    await consented(cloud, mortal)
    async with ticket(cloud, mortal) as (command, line):
        place = json.loads(line)
        offered = [word for name in place["subprotocols"] for word in ("-s", name)]
        words = (WSCAT, "--ca", cloud.authority.ca, "-c", by_address(place["url"]), *offered, "-w", "-1", "-x", "echo be''gun\r")
        async with running(*words, environment={}) as wscat:
            await wscat.shows("begun")
            await asyncio.to_thread(cloud.revoke, None, mortal.resource_id)
            await asyncio.wait_for(wscat.process.wait(), PATIENCE)
        status, told = await command.ended()
        assert (status, "consent-revoked" in told) == (4, True)


async def test_a_ten_line_page_of_another_origin_shows_the_screen_by_novnc_s_stock_class(
    cloud: Cloud, shared_guest: Guest, page_port: int
) -> None:
    await consented(cloud, shared_guest)
    async with (
        OtherSite({"/": PAGE}, NOVNC).serving(cloud.authority, page_port) as site,
        Browser(cloud.authority.ca) as browser,
        ticket(cloud, shared_guest, "-Graphics") as (command, line),
    ):
        page = await browser.window()
        # This node asks for client certificates. A browser settles that on a page only, and until then opens no websocket.
        await page.goto(cloud.nodes["AzS-ERCS01"].url.replace("wss:", "https:"))
        await page.goto(site.url)
        await page.locator("#place").fill(line)
        await page.locator("#place").press("Enter")
        await page.wait_for_function("document.title === 'connect'")
        await shows_screen(page.locator("canvas"), shared_guest)
        await page.close()
        assert (await command.ended())[0] == 0  # the viewer left


async def test_a_page_of_an_origin_that_the_node_was_not_told_of_shows_nothing(cloud: Cloud, shared_guest: Guest) -> None:
    await consented(cloud, shared_guest)
    async with (
        OtherSite({"/": PAGE}, NOVNC).serving(cloud.authority) as site,
        Browser(cloud.authority.ca) as browser,
        ticket(cloud, shared_guest, "-Graphics") as (_, line),
    ):
        page = await browser.window()
        await page.goto(cloud.nodes["AzS-ERCS01"].url.replace("wss:", "https:"))
        await page.goto(site.url)
        await page.locator("#place").fill(line)
        await page.locator("#place").press("Enter")
        await page.wait_for_function("document.title === 'disconnect'")
        assert await page.locator("canvas").count() == 0
        await until(lambda: any("403" in line for line in browser.said), "403 on the page's console")
