"""The operators' page when the network or the node fails: what goes on, and what is told when it does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page, expect

from lab.browser import Browser
from lab.cloud import OPERATOR, PASSWORD, Cloud
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from tests.operator_window import SLOW_MS, open_console
from tests.system_operator import NODE, PATIENCE
from tests.system_parts import consented, well
from tests.web_parts import Network, at_prompt, is_told, saved, shows, type_line

LINES = 240  # that the guest prints while the network is away, one each 50 ms


@pytest.fixture(scope="module")
def by_way() -> int:
    """The port at which browsers reach the node by a network that may fail."""
    return free_port()


@pytest.fixture(scope="module")
def fragile(libvirt_host: LibvirtHost, by_way: int) -> Iterator[Cloud]:
    """A cloud whose node may be stopped."""
    with Cloud({"host1": libvirt_host.uri}, origins=[f"https://localhost:{by_way}"]) as cloud:
        yield cloud


@pytest.fixture
async def network(fragile: Cloud, by_way: int) -> AsyncIterator[Network]:
    network = Network(fragile.nodes[NODE].port)
    await network.open(by_way)
    yield network
    await network.close()


@pytest.fixture
async def page(fragile: Cloud, network: Network, by_way: int, vm: Guest) -> AsyncIterator[Page]:
    """The list, by that network, with a guest that may be opened."""
    await well(fragile)
    await consented(fragile, vm)
    await asyncio.to_thread(fragile.cmdlet, "Grant-RdpAccessToErcsVM")
    async with Browser(fragile.authority.ca) as browser:
        page = await browser.window()
        await page.goto(f"https://localhost:{by_way}/")
        await signed_in(page)
        yield page
        await page.goto("about:blank")
    await well(fragile)
    await asyncio.to_thread(fragile.revoke, resource_id=vm.resource_id)


async def signed_in(page: Page) -> None:
    await page.locator("#account").fill(OPERATOR)
    await page.locator("#password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.locator("#find")).to_be_visible()


async def test_a_drop_of_ten_seconds_loses_and_doubles_no_byte(page: Page, network: Network, vm: Guest) -> None:
    pane = await at_prompt(page, vm.name)
    await type_line(pane, f"clear; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line-$i.; usleep 50000; done")
    await shows(pane, re.compile(r"line-([2-9]\d|\d{3})\."))  # some of many: each is soon out of sight
    network.stall()
    await asyncio.sleep(2)  # nobody knows yet
    network.fail()
    await expect(pane.get_by_text("Connection lost, trying again")).to_be_visible()
    await type_line(pane, "echo while-a''way")
    await asyncio.sleep(8)  # the drop itself: ten seconds in all
    network.mend()
    await expect(pane.get_by_text("Connected", exact=True)).to_be_visible(timeout=SLOW_MS)
    await shows(pane, "while-away")
    text = await saved(pane)
    # wherever they stand: the terminal echoes what is typed into the midst of them
    assert re.findall(r"line-\d+\.", text) == [f"line-{number}." for number in range(1, LINES + 1)]
    assert text.count("while-away") == 1
    await type_line(pane, "echo and-a''fter")
    await shows(pane, "and-after")


async def test_a_screen_comes_back_after_a_drop(page: Page, network: Network, vm: Guest) -> None:
    pane = await open_console(page, vm.name, "graphics")
    network.fail()
    await expect(pane.get_by_text("Connection lost, trying again")).to_be_visible()
    network.mend()
    await expect(pane.get_by_text("Connected", exact=True)).to_be_visible(timeout=SLOW_MS)
    await expect(pane.get_by_text("Keyboard: yours")).to_be_visible()
    await expect(pane.locator("canvas")).to_have_count(1)


async def test_a_node_that_stops_signs_out_and_says_why(page: Page, fragile: Cloud, network: Network, vm: Guest) -> None:
    await at_prompt(page, vm.name)
    node = fragile.nodes[NODE]
    network.swallow()  # a node that is gone: what the page asks now is not even refused
    await node.program.stopped(PATIENCE)
    await is_told(page, "You are signed out: the node is stopping or starting again.")
    node.start()  # in this thread: with another it would end when that does
    network.mend()
    await well(fragile)
    await signed_in(page)
    await expect(page.get_by_role("button", name=f"Open Serial of {vm.name}")).to_be_visible(timeout=SLOW_MS)


async def test_a_node_that_dies_has_forgotten_all_and_the_page_says_so(page: Page, fragile: Cloud, vm: Guest) -> None:
    pane = await at_prompt(page, vm.name)
    node = fragile.nodes[NODE]
    node.program.kill()
    await expect(pane.get_by_text("Connection lost, trying again")).to_be_visible()
    node.start()  # in this thread: with another it would end when that does
    await is_told(page, "You are signed out: the node was started anew, or did not hear from you for more than 60 seconds.")
