"""Two operators and the tenant on one VM, each at the page that is theirs."""

from __future__ import annotations

from playwright.async_api import expect

from lab.libvirt_host import Guest
from tests.operator_window import open_console, type_text
from tests.system_parts import SLACK
from tests.watch_parts import CUT_MS, WatchedCloud, milliseconds, serial, shows, shows_typed, stop, typed, watching
from tests.web_parts import at_prompt, at_the_list, type_line
from tests.web_parts import shows as terminal_shows

SECRET = "Tr0ub4dor&3"


async def test_they_work_the_tenant_sees_it_pauses_them_and_stops_both(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, reason="locked out")
    async with at_the_list(watched.cloud, "alice", "bob") as [alice, bob], watched.browser() as browser:
        page = await watching(browser, consented.link)
        pane = await at_prompt(alice, vm.name)
        picture = await open_console(bob, vm.name, "graphics")

        # each sees who else is there
        who = page.locator(".operators")
        await expect(who.get_by_role("listitem").filter(has_text="alice")).to_contain_text("can type now")
        await expect(who.get_by_role("listitem").filter(has_text="bob")).to_contain_text("another has the keyboard")
        await expect(pane.get_by_text("The tenant watches")).to_be_visible()
        await expect(picture.get_by_text("The tenant watches")).to_be_visible()

        # what is typed is seen, but for a password
        await shows_typed(page, "uname -a", lambda: type_line(pane, "uname -a"))
        await terminal_shows(pane, "GNU/Linux")
        await shows(serial(page), "GNU/Linux")
        await shows_typed(page, "cat >/dev/null", lambda: type_line(pane, "cat >/dev/null"))
        await type_text(pane, SECRET, masked=True)
        await shows(typed(page), f"{len(SECRET)} characters not shown")
        assert SECRET not in await typed(page).inner_text()
        await alice.keyboard.press("Escape")

        # the keyboard changes hands before the tenant's eyes
        await picture.get_by_role("button", name="Take keyboard").click()
        await expect(who.get_by_role("listitem").filter(has_text="bob")).to_contain_text("can type now")

        # pause: who types is told
        await page.get_by_role("button", name="Pause input").click()
        await expect(who.get_by_role("listitem").filter(has_text="bob")).to_contain_text("input held")
        await picture.locator("canvas").focus()
        await bob.keyboard.type("held")
        await expect(bob.get_by_text("he tenant has paused input").first).to_be_visible()
        await page.get_by_role("button", name="Resume input").click()
        await expect(bob.get_by_text("he tenant has paused input")).to_have_count(0)

        # stop: both are cut, and told why
        cut, pressed = milliseconds(await stop(page))
        assert cut < CUT_MS
        assert cut <= pressed < CUT_MS + SLACK * 1000
        for window in (alice, bob):
            await expect(window.locator('.why[data-reason="consent-revoked"]')).to_be_visible()
        await shows(page.locator(".end"), "bob on the screen")
