"""The operators' page for everybody: axe finds no serious fault in any of its states, light and dark, from 1024 px up."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from lab.browser import Browser
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.operator_window import open_console, sign_in
from tests.system_operator import NODE
from tests.system_parts import consented, well
from tests.web_parts import consenting, faults

__all__ = ["consenting"]


async def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


async def look(page: Page, state: str, found: dict[str, list[str]]) -> None:
    wide = [] if await fits(page) else ["is wider than the window"]
    if seen := await faults(page) + wide:
        found[state] = seen


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_no_state_of_the_page_has_a_serious_fault(cloud: Cloud, consenting: Guest, dark: bool) -> None:
    await well(cloud)
    await consented(cloud, consenting)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    found: dict[str, list[str]] = {}
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window(dark=dark, width=1024, height=720)
        await page.goto(f"https://localhost:{cloud.nodes[NODE].port}/")
        await expect(page.locator("#account")).to_be_visible()
        await look(page, "sign-in", found)
        await sign_in(page, cloud.nodes[NODE])
        await expect(page.get_by_role("button", name=f"Open Serial of {consenting.name}")).to_be_visible()
        await look(page, "list", found)
        for kind in ("serial", "graphics"):
            pane = await open_console(page, consenting.name, kind)
            for tool in ("Keys", "Type text", "Only you see"):
                await pane.get_by_role("button", name=tool).or_(pane.get_by_role("button", name="connected")).first.click()
                await look(page, f"{kind}, {tool}", found)
            await page.get_by_role("button", name="Virtual machines").click()
        await page.get_by_role("button", name=f"End consent for {consenting.name}").click()
        await look(page, "question", found)
        await page.get_by_role("dialog").get_by_role("button", name="End consent").click()
        await page.get_by_role("button", name=f"{consenting.name} · Serial", exact=True).click()
        await expect(page.get_by_role("heading", name="The console is closed")).to_be_focused()
        await look(page, "ended", found)
    assert found == {}
