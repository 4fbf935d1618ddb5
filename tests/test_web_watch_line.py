"""The page's line to the node when it breaks: it says so, comes back by itself, and Stop works without it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from lab.cloud import Ercs
from lab.libvirt_host import Guest, LibvirtHost
from tests.screen_parts import shows_screen
from tests.system_operator import NODE, signed_in
from tests.system_parts import well
from tests.watch_parts import WatchedCloud, live, screen, serial, shows, watched_cloud, watching


@pytest.fixture(scope="module")
def _own(libvirt_host: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedCloud]:
    """Give a cloud whose node may be killed."""
    with watched_cloud(tmp_path_factory.mktemp("line"), libvirt_host) as cloud:
        yield cloud


@pytest.fixture
async def own(_own: WatchedCloud) -> WatchedCloud:
    """Give it well, and without any consent."""
    node = node_of(_own)
    if not node.program.running:
        node.start()  # from this thread: a program goes with the thread that started it
    await well(_own.cloud)
    _own.tidy()
    return _own


def node_of(own: WatchedCloud) -> Ercs:
    return own.cloud.nodes[NODE]


async def test_a_node_that_was_killed_is_watched_again_and_still_paused(own: WatchedCloud, vm: Guest):
    consented = await own.consent(vm)
    async with own.browser() as browser:
        page = await watching(browser, consented.link)
        await shows_screen(screen(page), vm)
        await page.get_by_role("button", name="Pause input").click()
        await page.get_by_role("button", name="Resume input").wait_for()
        node_of(own).program.kill()
        await page.locator('.live[data-phase="lost"]').wait_for()
        await shows(page.locator(".banner"), "You do not see the virtual machine at the moment. Input was paused")
        await shows(page.locator(".pane.serial .curtain"), "No connection to the node.")
        await expect(page.get_by_role("button", name="Resume input")).to_have_attribute("aria-disabled", "true")
        node_of(own).start()
        await live(page)
        await expect(page.get_by_role("button", name="Resume input")).not_to_have_attribute("aria-disabled", "true")
        await shows_screen(screen(page), vm)
        async with signed_in(own.cloud) as alice:
            console = await alice.console(vm.resource_id)
            await page.get_by_role("button", name="Resume input").click()
            await console.ask("true")
            await shows(serial(page), "end-")


async def test_who_was_signed_out_meanwhile_is_asked_to_sign_in_again(own: WatchedCloud, vm: Guest):
    consented = await own.consent(vm)
    async with own.browser() as browser:
        page = await watching(browser, consented.link)
        await page.context.clear_cookies()
        node_of(own).program.kill()
        await page.get_by_role("link", name="Sign in to watch").wait_for()


async def test_a_consent_that_ended_meanwhile_is_told_by_the_provider(own: WatchedCloud, vm: Guest):
    consented = await own.consent(vm)
    async with own.browser() as browser:
        page = await watching(browser, consented.link)
        node_of(own).program.kill()
        await page.locator('.live[data-phase="lost"]').wait_for()
        await asyncio.to_thread(own.withdraw, vm)
        await page.get_by_role("heading", name="Access is over").wait_for()
        await shows(page.locator(".end"), "The consent was withdrawn.")


async def test_stop_goes_by_the_provider_where_the_node_is_silent(own: WatchedCloud, vm: Guest):
    """A node that hangs: the page says what is known and what is not, and by when all is closed."""
    consented = await own.consent(vm)
    async with own.browser() as browser:
        page = await watching(browser, consented.link)
        node_of(own).program.signal(signal.SIGSTOP)
        try:
            await page.get_by_role("button", name="Stop access").click()
            await page.get_by_role("button", name="Stop now").click()
            await page.get_by_role("heading", name="You stopped the access").wait_for(timeout=60_000)
        finally:
            node_of(own).program.signal(signal.SIGCONT)
        await shows(page.locator(".end .lead"), "The consent is withdrawn at the provider.")
        await shows(page.locator(".end"), f"{NODE} has not confirmed yet; it closes every console by itself by")
