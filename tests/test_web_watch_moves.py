"""A consent that goes on at another node: the page follows it there by itself."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import expect

from lab.libvirt_host import Guest, LibvirtHost
from tests.screen_parts import shows_screen
from tests.system_parts import SLACK, well
from tests.watch_parts import live, screen, shows, watched_cloud, watching

NODES = ("AzS-ERCS01", "AzS-ERCS02")
LIMITS = {"lease_open_seconds": 5, "lease_cut_seconds": 7}
PROMISE_MS = 60_000 + SLACK * 1000  # from a node's loss to the next open console


async def test_the_page_follows_a_consent_to_another_node(
    tmp_path: Path, libvirt_host: LibvirtHost, vm: Guest, other_guest: Guest
):
    """In place: its policy names the nodes that have served one."""
    with watched_cloud(tmp_path, libvirt_host, nodes=NODES, limits=LIMITS) as own:
        for node in NODES:
            await well(own.cloud, node)
        await own.consent(other_guest)  # the other node takes the next one
        consented = await own.consent(vm)
        async with own.browser() as browser:
            page = await watching(browser, consented.link)
            told = await page.locator(".live").inner_text()
            first, second = NODES if NODES[0] in told else NODES[::-1]
            await page.evaluate("globalThis.stays = true")
            own.cloud.nodes[first].program.kill()
            await shows(page.locator(".banner"), "You do not see the virtual machine at the moment")
            await expect(page.locator(".live")).to_have_text(f"Live from {second}", timeout=PROMISE_MS)
            await live(page)
            await shows_screen(screen(page), vm)
            assert await page.evaluate("globalThis.stays === true")
