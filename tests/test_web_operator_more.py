"""The operators' page at guests that restart, stand still or have another screen, and under a tenant who pauses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from uuid import uuid4

import libvirt
import pytest
from playwright.async_api import expect

from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.conftest import resource_id_of
from tests.operator_window import SLOW_MS, open_console, sign_in
from tests.system_operator import NODE
from tests.system_parts import granted, well
from tests.watch_parts import WatchedCloud, press, watching
from tests.web_parts import at_prompt, at_the_list, consenting, is_told, open_vm, shows, type_line

__all__ = ["consenting", "open_vm"]

F2 = "1b5b5b42"  # what the guest's console has for it
SPACE = 57  # Linux's number of the key


@pytest.fixture
def menu(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """A guest that waits for a key at each start, longer than a browser stands still, and has begun its first."""
    libvirt_host.revive()
    name = f"vm-{uuid4().hex[:8]}"
    guest = libvirt_host.start_guest(name, resource_id=resource_id_of(name), wait=False, arguments="bootmenu=10")
    yield guest
    guest.discard()


async def test_the_boot_menu_of_a_guest_that_restarts_is_caught(cloud: Cloud, menu: Guest) -> None:
    await well(cloud)
    await granted(cloud, menu)
    async with at_the_list(cloud) as [page]:
        pane = await open_console(page, menu.name, "graphics")
        while "boot menu: " not in menu.serial.text():  # at its first start a key by libvirt, and not the whole wait
            menu.domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 50, [SPACE], 1, 0)
            await asyncio.sleep(0.1)
        mark = await asyncio.to_thread(menu.wait_ready)
        await pane.get_by_role("button", name="Keys", exact=True).click()
        await pane.locator("#boot-key").select_option("F2")
        await pane.get_by_role("button", name="Ctrl+Alt+Del, then press").click()
        await expect(pane.get_by_text(re.compile(r"Pressing F2 … \d+"))).to_be_visible()
        end = await menu.serial.seen("boot menu: ", after=mark, timeout=90)  # firmware and kernel anew, under TCG
        await pane.get_by_role("button", name="Stop", exact=True).click()
        await expect(pane.get_by_text("Stopped.")).to_be_visible()
        await asyncio.to_thread(menu.wait_ready, after=end)
        assert menu.serial.text(end).startswith(F2)


async def test_a_screen_is_shown_whole_or_one_to_one_or_over_all_of_the_display(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await open_console(page, open_vm.name, "graphics")
        canvas = pane.locator("canvas")
        share = "canvas => canvas.getBoundingClientRect().width / canvas.width"
        assert await canvas.evaluate(share) != 1
        await pane.get_by_role("button", name="1:1").click()
        assert await canvas.evaluate(share) == 1
        await pane.get_by_role("button", name="Full screen").click()
        await expect(page.locator("section.pane:fullscreen")).to_be_visible()
        await expect(canvas).to_be_focused()
        await pane.get_by_role("button", name="Full screen").click()
        await expect(page.locator("section.pane:fullscreen")).to_have_count(0)


async def test_a_guest_is_told_the_size_of_its_terminal_by_a_button(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        advice = pane.locator(".advice")
        await expect(advice).to_be_hidden()
        await pane.get_by_role("button", name="Fit window").click()
        await expect(advice).to_contain_text("The guest does not know this size.")
        found = re.fullmatch(r"stty rows (\d+) cols (\d+)", await advice.locator("code").inner_text())
        assert found is not None
        assert found.groups() != ("24", "80")
        await pane.get_by_role("button", name="Type it").click()
        await type_line(pane, "echo size=$(stty size).")
        await shows(pane, f"size={found[1]} {found[2]}.")
        await pane.get_by_role("button", name="Fit window").click()
        await expect(advice).to_be_hidden()
        await type_line(pane, "stty rows 24 cols 80; echo ba''ck")
        await shows(pane, "back")  # the next test has the same guest


async def test_what_a_guest_that_stands_still_does_not_answer_waits_until_it_is_sent_anyway(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await asyncio.to_thread(open_vm.pause)
        try:
            await pane.locator(".xterm-helper-textarea").focus()
            await page.keyboard.type("x" * 300)
            banner = pane.locator(".held")
            await expect(banner).to_contain_text("of your input wait: the guest has not answered")
            await banner.get_by_role("button", name="Send anyway").click()
            await expect(banner).to_be_hidden()
        finally:
            await asyncio.to_thread(open_vm.resume)
        await shows(pane, "x" * 300)
        await page.keyboard.press("Control+u")


async def test_an_operator_sees_at_once_that_the_tenant_has_paused_input_and_that_it_goes_on(
    watched: WatchedCloud, vm: Guest
) -> None:
    consented = await watched.consent(vm)
    cloud = watched.cloud
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    async with watched.browser() as browser:
        tenant = await watching(browser, consented.link)
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        serial = await open_console(page, vm.name, "serial")
        told = "Paused by the tenant: input waits"
        await expect(serial.get_by_text("The tenant watches")).to_be_visible()
        await expect(serial.get_by_text(told)).to_be_hidden()
        await press(tenant, "Pause input")
        await expect(serial.get_by_text(told)).to_be_visible()
        await page.get_by_role("button", name="Virtual machines").click()
        screen = await open_console(page, vm.name, "graphics")  # who comes meanwhile is told too
        await expect(screen.get_by_text(told)).to_be_visible()
        await press(tenant, "Resume input")
        await expect(screen.get_by_text(told)).to_be_hidden(timeout=SLOW_MS)
        await page.get_by_role("button", name=f"{vm.name} · Serial", exact=True).click()
        await expect(serial.get_by_text(told)).to_be_hidden()
        await type_line(serial, "")
        await is_told(page, "Keyboard: yours")
        await page.goto("about:blank")
