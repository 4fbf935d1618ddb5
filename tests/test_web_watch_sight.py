"""What the tenant sees while operators work: the consoles, who is on, and what is typed, but for what is hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect

from eva.control import Method
from lab.guest_image import ROOT
from lab.libvirt_host import Guest
from tests.screen_parts import SAME, changed, likeness, shows_screen
from tests.system_operator import Console, signed_in, type_on_screen
from tests.system_operator import shown as with_screen
from tests.watch_parts import WatchedCloud, rows, screen, serial, shows, shows_typed, typed, watching

AXE = ROOT / ".lab" / "web" / "node_modules" / "axe-core" / "axe.min.js"
SECRET = "Tr0ub4dor&3"


async def test_an_operator_comes_types_and_goes_before_the_tenants_eyes(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        async with signed_in(watched.cloud) as alice:
            console = await alice.console(vm.resource_id)
            who = page.locator(".operators li")
            await shows(who, "alice")
            await shows(who, "on the serial console since")
            await shows(who, "can type now")
            await shows_typed(page, "uname -a", lambda: console.type(b"uname -a\n"))
            await shows(serial(page), "GNU/Linux")
            await alice.ask(Method.SESSION_LEAVE, session=console.opened.session)
            await expect(page.get_by_text("No operator is connected.")).to_be_visible()


async def reads_silently(console: Console) -> None:
    """Returns once the guest reads a line as a password's prompt does, and echoes nothing from then on."""
    await console.type(b"stty -echo; echo be''gin; read -s word; stty echo\n")
    await console.shows(b"begin\r\n")


async def test_what_the_guest_does_not_echo_is_a_count(watched: WatchedCloud, vm: Guest):
    """A password at `read -s`, keystroke by keystroke."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        async with signed_in(watched.cloud) as alice:
            console = await alice.console(vm.resource_id)
            await reads_silently(console)
            for character in SECRET:
                await console.type(character.encode())
            await console.type(b"\n")
            await shows(typed(page), f"{len(SECRET)} characters not shown")
            await console.type(b"echo $((6 * 7)):${#word}\n")
            await shows(serial(page), f"42:{len(SECRET)}")
            await expect(rows(page).last).to_contain_text("Enter")
            assert SECRET not in await page.inner_text("body")
            assert SECRET not in await page.content()


async def test_a_masked_entry_is_a_count_though_the_guest_echoes_it(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        async with signed_in(watched.cloud) as alice:
            console = await alice.console(vm.resource_id)
            line = b"echo be''gin; cat\n"
            await console.type(line)
            await console.shows(b"begin\r\n")
            await alice.ask(Method.INPUT_MASK, **{"session": console.opened.session, "from": len(line), "count": 6})
            await console.type(b"hushed\n")
            await console.shows(b"hushed\r\n")
            await shows(typed(page), "6 characters not shown")
            assert "hushed" not in await typed(page).inner_text()
            await console.type(b"\x03")
            await expect(rows(page).last).to_have_text("Ctrl+C")


async def test_the_screen_is_the_guests_and_changes_as_it_is_typed_on(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        before = await shows_screen(screen(page), vm)
        async with signed_in(watched.cloud) as alice:
            viewer = await with_screen(await alice.console(vm.resource_id, "graphics"))
            await shows(page.locator(".operators li"), "on the screen")
            await type_on_screen(viewer, "uname -a\n")
            await changed(screen(page), before, lambda: type_on_screen(viewer, "\n"))
            await shows_screen(screen(page), vm)


async def test_the_watchers_keys_go_nowhere(watched: WatchedCloud, vm: Guest):
    """On both consoles: the guest's next words are the operator's."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        async with signed_in(watched.cloud) as alice:
            console = await alice.console(vm.resource_id)
            await console.ask("true")
            await shows(serial(page), "end-")
            before = await shows_screen(screen(page), vm)
            for pane in ("serial", "graphics"):
                await page.locator(f".pane.{pane} .stage").click()
                await page.keyboard.type("echo mine\n")
            assert b"mine" not in await console.ask("true")
            assert b"mine" not in bytes(console.data)
            after = await shows_screen(screen(page), vm)
        assert likeness(before, after) >= SAME


async def test_hostile_words_stay_words(watched: WatchedCloud, vm: Guest):
    """A reason with markup."""
    consented = await watched.consent(vm, reason="<img src=x onerror=alert(1)>")
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await expect(page.get_by_text("<img src=x onerror=alert(1)>")).to_be_visible()
        assert await page.locator("img").count() == 0


async def test_a_console_that_was_not_consented_to_is_not_there(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, kinds=["serial"], access="view")
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await expect(page.locator(".pane.serial")).to_be_visible()
        await expect(page.locator(".pane.graphics")).to_have_count(0)
        await expect(page.get_by_text("only look", exact=True)).to_be_visible()


async def faults_of(page: Page) -> list[Any]:
    """What axe finds that is serious or worse. Its text comes by the debugger, so the page's policy is as it is."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = json.loads(await page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(JSON.stringify)"))
    return [
        (one["id"], [node["target"] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_axe_finds_no_serious_fault(watched: WatchedCloud, vm: Guest, *, dark: bool):
    """Signed out, watching, paused, asked whether to stop, and at the end."""
    consented = await watched.consent(vm, reason="locked out")
    async with watched.browser() as browser:
        page = await browser.window(dark=dark)
        await page.goto(consented.link)
        await page.get_by_role("link", name="Sign in to watch").wait_for()
        assert await faults_of(page) == []
        page = await watching(browser, consented.link, dark=dark)
        async with signed_in(watched.cloud) as alice:
            console = await alice.console(vm.resource_id)
            await reads_silently(console)
            await console.type(b"hush\n")
            await shows(typed(page), "4 characters not shown")
            await shows(page.locator(".operators li"), "alice")
            assert await faults_of(page) == []
            await page.get_by_role("button", name="Pause input").click()
            await page.get_by_role("button", name="Resume input").wait_for()
            assert await faults_of(page) == []
            await page.get_by_role("button", name="Stop access").click()
            assert await faults_of(page) == []
            await page.get_by_role("button", name="Stop now").click()
            await page.get_by_role("heading", name="You stopped the access").wait_for()
            assert await faults_of(page) == []


@pytest.mark.parametrize("width", [390, 1024, 1920])
async def test_nothing_hangs_over_the_windows_edge(watched: WatchedCloud, vm: Guest, width: int):
    """On a phone, on a small laptop, on a wide screen; and Pause, Stop and the time left are in sight."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link, width=width)
        await shows_screen(screen(page), vm)
        wide, seen = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= seen
        await page.mouse.wheel(0, 5_000)
        for one in (page.get_by_role("button", name="Pause input"), page.get_by_role("timer")):
            await expect(one).to_be_in_viewport(ratio=1)


async def test_all_can_be_done_by_keyboard(watched: WatchedCloud, vm: Guest):
    """Tab reaches Pause, Stop and, behind the consoles, what follows them: nothing keeps the focus."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await shows_screen(screen(page), vm)
        await expect(page.locator(".pane.serial .curtain")).to_be_hidden()
        met: list[str] = []
        for _ in range(14):
            await page.keyboard.press("Tab")
            met.append(await page.evaluate("document.activeElement.textContent.trim() || document.activeElement.ariaLabel || ''"))
        assert met.index("Pause input") < met.index("Stop access") < met.index("Both")
        assert any("Serial console of the virtual machine" in one for one in met)
        assert met[-1] != met[-2], met
        await page.get_by_role("button", name="Pause input").focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Resume input").wait_for()
        await page.get_by_role("button", name="Stop access").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Stop now")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Stop access")).to_be_focused()
