"""The operators' page at a real node with real guests, from sign-in to a console's end."""

from __future__ import annotations

import asyncio
import hashlib
import re

from playwright.async_api import expect

from lab.browser import Browser
from lab.cloud import PASSWORD, Cloud
from lab.libvirt_host import Guest
from tests.operator_window import open_console, shown_text, sign_in, type_text
from tests.screen_parts import changed, shows_screen
from tests.system_operator import NODE, PATIENCE
from tests.system_parts import granted, measured, revoked, well
from tests.web_parts import (
    SESSIONS,
    at_prompt,
    at_the_list,
    consenting,
    gone,
    is_told,
    open_vm,
    saved,
    shows,
    type_line,
)

__all__ = ["consenting", "open_vm"]

# --- sign-in and list


async def test_a_wrong_password_is_told_and_forgotten(cloud: Cloud) -> None:
    await well(cloud)
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await page.goto(cloud.nodes[NODE].url.replace("wss", "https"))
        await page.locator("#account").fill("alice")
        await page.locator("#password").fill("not it")
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await is_told(page, "The account or the password is wrong.")
        assert await page.locator("#password").input_value() == ""


async def test_a_workstation_that_is_not_on_the_safelist_is_put_on_it_by_a_button(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        await page.get_by_role("button", name="Account alice").click()
        await page.get_by_role("button", name="Take this workstation off the safelist").click()
        await is_told(page, "is not on the safelist of AzS-ERCS01")
        await expect(page.locator("#find")).to_be_hidden()
        await page.get_by_role("button", name="Add this workstation").click()
        await expect(page.get_by_role("button", name=f"Open Serial of {open_vm.name}")).to_be_visible()


async def test_the_list_tells_what_the_tenant_said_and_follows_what_changes(cloud: Cloud, consenting: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        await asyncio.to_thread(cloud.grant, consenting.resource_id, "--reason", "<b>boot</b> & look", kinds=("serial",))
        row = page.get_by_role("row", name=consenting.name)
        await expect(row).to_be_visible()
        await expect(row).to_contain_text("<b>boot</b> & look")
        await expect(row).to_contain_text("Tenant: tenant1")
        await expect(row).to_contain_text(re.compile(r"7 h 59 min"))
        await expect(row).to_contain_text("Running")
        await expect(row.get_by_role("button", name="Screen")).to_have_count(0)
        await asyncio.to_thread(cloud.revoke, resource_id=consenting.resource_id)
        await expect(row).to_have_count(0)


async def test_the_tenants_whole_line_jumps_to_its_machine(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        await expect(page.get_by_role("button", name=f"Open Serial of {open_vm.name}")).to_be_visible()
        await page.locator("#find").fill(f"PS> ConnectTo-TenantVm -ResourceID {str(open_vm.resource_id).upper()} ")
        await page.locator("#find").press("Enter")
        await expect(page.get_by_role("button", name=f"Open Serial of {open_vm.name}")).to_be_focused()
        other = str(open_vm.resource_id).replace(open_vm.name, "vm-elsewhere")
        await page.locator("#find").fill(f"ConnectTo-TenantVm -ResourceID {other}")
        await page.locator("#find").press("Enter")
        await is_told(page, "There is no consent in force for you on vm-elsewhere at this node.")


async def test_nothing_secret_is_in_an_address_or_kept(cloud: Cloud, open_vm: Guest) -> None:
    await well(cloud)
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        pane = await open_console(page, open_vm.name, "serial")
        await type_text(pane, "hunter2-secret", masked=True, enter=False)
        kept = await page.evaluate(
            "async () => [Object.entries(localStorage), Object.entries(sessionStorage), document.cookie,"
            " (await indexedDB.databases()).length, await caches.keys(), location.href]"
        )
        assert kept == [[], [], "", 0, [], f"https://localhost:{cloud.nodes[NODE].port}/"]
        assert all("?" not in url and "#" not in url and "eva." not in url for url in browser.asked)
        whole = await page.content() + await page.evaluate(
            "[...document.querySelectorAll('input, textarea')].map((x) => x.value).join()"
        )
        assert PASSWORD not in whole
        assert "hunter2-secret" not in await page.locator("section.typing").inner_text()


# --- serial


async def test_what_is_typed_is_answered_in_the_terminal(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await type_line(pane, "uname -a; printf '\\033[38;2;255;100;0mtrue\\033[0m\\n'")
        await shows(pane, f"Linux {open_vm.name}")
        # 24-bit colour is drawn, under a policy that allows no style attribute
        orange = pane.locator(".xterm-rows span", has_text=re.compile("^true$"))
        await expect(orange).to_have_css("color", "rgb(255, 100, 0)")
        assert "Linux" in await saved(pane)


async def test_a_guest_that_asks_for_the_cursor_is_answered_once(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await type_line(
            pane,
            "clear; stty -icanon -echo; printf '\\033[5;7H\\033[6n'; dd bs=1 count=6 2>/dev/null | xxd -p; stty sane",
        )
        await shows(pane, b"\x1b[5;7R".hex())


async def test_search_finds_and_paste_is_looked_at_before_it_is_typed(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await type_line(pane, "echo nee''dle-in-the-hay")
        await shows(pane, "needle-in-the-hay")
        await pane.get_by_role("button", name="Search").click()
        await pane.get_by_role("searchbox").fill("needle-in")
        await expect(pane.locator(".xterm-selection div").first).to_be_visible()
        await pane.get_by_role("searchbox").fill("no such thing")
        await is_told(page, "Not found")
        await pane.get_by_role("button", name="Close search").click()
        await page.evaluate(
            "() => { const data = new DataTransfer(); data.setData('text/plain', 'rm -rf /\\n');"
            " const paste = {clipboardData: data, bubbles: true, cancelable: true};"
            " document.activeElement.dispatchEvent(new ClipboardEvent('paste', paste)); }"
        )
        await expect(pane.locator("#type-text")).to_have_value("rm -rf /\n")
        await expect(pane.locator(".preview")).to_contain_text("rm -rf /↵")
        await pane.locator("#type-text").fill("echo from-the-pa''nel")
        await pane.get_by_role("button", name="Type", exact=True).click()
        await is_told(page, "All typed.")
        await type_line(pane, "")
        await shows(pane, "from-the-panel")
        assert "rm -rf" not in await shown_text(pane)


async def test_a_masked_entry_arrives_exact_and_is_announced_before(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await type_line(pane, """stty -echo; echo list''ening; read -r x; stty echo; echo "$x" | md5sum; unset x""")
        await shows(pane, "listening")
        secret = "pa$$ `w\"ord'\\ ^~"
        await type_text(pane, secret, masked=True)
        await shows(pane, hashlib.md5(f"{secret}\n".encode(), usedforsecurity=False).hexdigest())
        assert secret not in await saved(pane)


async def test_tab_is_the_guests_and_ctrl_alt_shift_leads_out(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await at_prompt(page, open_vm.name)
        await page.keyboard.type("unam")
        await page.keyboard.press("Tab")
        await shows(pane, "# uname")
        await expect(pane.locator(".xterm-helper-textarea")).to_be_focused()
        await page.keyboard.press("Control+u")
        await page.keyboard.press("Control+Alt+Shift")
        await expect(pane.get_by_role("button", name="Ctrl+Alt+Del", exact=True).first).to_be_focused()


# --- graphics


async def test_keys_change_what_the_screen_shows(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        pane = await open_console(page, open_vm.name, "graphics")
        canvas = pane.locator("canvas")
        before = await shows_screen(canvas, open_vm)
        await canvas.focus()
        await page.keyboard.type("echo A line in the guest; ls /\n")
        await changed(canvas, before, lambda: page.keyboard.press("Enter"))
        await shows_screen(canvas, open_vm)


async def test_ctrl_alt_del_restarts_a_guest_from_either_console(cloud: Cloud, mortal: Guest) -> None:
    mortal.wait_ready()
    await well(cloud)
    await granted(cloud, mortal)
    async with at_the_list(cloud) as [page]:
        for kind in ("graphics", "serial"):
            pane = await open_console(page, mortal.name, kind)
            after = mortal.serial.size()
            await pane.get_by_role("button", name="Ctrl+Alt+Del", exact=True).first.click()
            after = await mortal.serial.seen("ctrl-alt-del", after=after, timeout=PATIENCE)
            await asyncio.to_thread(mortal.wait_ready, after=after)
            await expect(pane.get_by_text("Connected", exact=True)).to_be_visible()
            await page.get_by_role("button", name="Virtual machines").click()


# --- two at one console


async def test_the_keyboard_goes_from_hand_to_hand(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud, "alice", "bob") as [alice, bob]:
        hers = await at_prompt(alice, open_vm.name)
        await expect(hers.get_by_text("Keyboard: yours")).to_be_visible()
        his = await open_console(bob, open_vm.name, "serial")
        await expect(his.get_by_text("Keyboard: alice")).to_be_visible()
        await type_line(his, "echo from-b''ob")
        await is_told(bob, "The keyboard is not yours.")
        await his.get_by_role("button", name="Take keyboard").click()
        await expect(hers.get_by_text("Keyboard: bob")).to_be_visible()
        await expect(his.get_by_text("Keyboard: yours")).to_be_visible()
        await type_line(his, "echo from-b''ob-now")
        await shows(hers, "from-bob-now")
        assert "from-bob\n" not in await shown_text(hers)
        await his.get_by_role("button", name="2 connected").click()
        await his.get_by_role("button", name="Hand over the keyboard to alice (Serial)").click()
        await expect(hers.get_by_text("Keyboard: yours")).to_be_visible()
        await type_line(hers, "echo from-al''ice")
        await shows(his, "from-alice")


async def test_ones_own_keyboard_follows_from_console_to_console(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        serial = await open_console(page, open_vm.name, "serial")
        await expect(serial.get_by_text("Keyboard: yours")).to_be_visible()
        await page.get_by_role("button", name="Virtual machines").click()
        screen = await open_console(page, open_vm.name, "graphics")
        await expect(screen.get_by_text("Keyboard: yours")).to_be_visible()
        await page.get_by_role("button", name=f"{open_vm.name} · Serial", exact=True).click()
        await expect(serial.get_by_text("Keyboard: yours")).to_be_visible()


# --- the end


async def test_the_tenants_end_is_told_where_the_console_was(cloud: Cloud, consenting: Guest) -> None:
    await well(cloud)
    grant = await granted(cloud, consenting)
    async with at_the_list(cloud) as [page]:
        pane = await open_console(page, consenting.name, "serial")
        await revoked(cloud, grant)
        await expect(pane.get_by_text("The consent was withdrawn.")).to_be_visible()
        await expect(pane.get_by_role("heading", name="The console is closed")).to_be_focused()
        await expect(pane.locator(".screen")).to_be_hidden()


async def test_the_time_runs_down_in_sight_and_the_console_ends_with_it(cloud: Cloud, consenting: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        await granted(cloud, consenting, seconds=12)
        # the list would have it only at its next look
        await page.locator("#find").fill(str(consenting.resource_id))
        await page.locator("#find").press("Enter")
        pane = page.locator("section.pane")
        await expect(pane.get_by_role("timer")).to_have_text(re.compile(r"^\d s *left$"))
        await expect(pane.get_by_text("The tenant's consent has run out.")).to_be_visible()


async def test_an_operator_ends_a_consent_after_a_question(cloud: Cloud, open_vm: Guest) -> None:
    async with at_the_list(cloud) as [page]:
        await page.get_by_role("button", name=f"End consent for {open_vm.name}").click()
        await page.get_by_role("button", name="Keep it").click()
        await page.get_by_role("button", name=f"End consent for {open_vm.name}").click()
        await page.get_by_role("dialog").get_by_role("button", name="End consent").click()
        await is_told(page, "The consent is ended. 0 consoles were cut")
        await expect(page.get_by_role("row", name=open_vm.name)).to_have_count(0)


async def test_a_page_that_goes_leaves_no_session(cloud: Cloud, open_vm: Guest) -> None:
    await gone(cloud, 0)
    async with at_the_list(cloud) as [page]:
        await open_console(page, open_vm.name, "serial")
        await page.get_by_role("button", name="Virtual machines").click()
        await open_console(page, open_vm.name, "graphics")
        assert await measured(cloud, SESSIONS) == 2
        await page.goto("about:blank")
        await gone(cloud, 0)
