"""The tenant's two buttons, and "only while I watch": what the guest gets, what the operators are told, and how soon."""

from __future__ import annotations

import asyncio
import re

from playwright.async_api import Page, expect

from eva.control import Event, Mark, Method, Refusal
from eva.ending import Ending
from lab.libvirt_host import Guest
from tests.screen_parts import KeyTrace, changed, shows_screen
from tests.system_operator import PATIENCE, Console, Operator, shown, signed_in, type_on_screen, until_refused
from tests.system_parts import SLACK, count_in, until
from tests.watch_parts import CUT_MS, WatchedCloud, live, milliseconds, press, screen, serial, shows, stop, watching

UNAME = ["u", "n", "a", "m", "e", "spc", "minus", "a", "ret"]  # QEMU's names of the keys


async def pause(page: Page) -> None:
    """Returns once the node has said that it is so."""
    await press(page, "Pause input")
    await page.get_by_role("button", name="Resume input").wait_for()


async def resume(page: Page) -> None:
    await press(page, "Resume input")
    await page.get_by_role("button", name="Pause input").wait_for()


async def is_held(console: Console) -> None:
    """Returns once the node has told the operator that the tenant holds what was typed."""
    await console.wait(
        lambda: any(mark is Mark.HELD and members.text("why") == "tenant" for mark, members in console.marks),
        "held by the tenant",
    )


async def test_pause_holds_what_is_typed_on_serial_and_resume_lets_it_through(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice:
        page = await watching(browser, consented.link)
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        await pause(page)
        await expect(page.get_by_text("Nothing that an operator types reaches the virtual machine")).to_be_visible()
        await shows(page.locator(".operators li"), "input held")
        before = vm.serial.size()
        await console.type(b"echo z'z'z\n")
        await is_held(console)
        assert count_in(vm, b"z", before) == 0
        await resume(page)
        await console.shows(b"zzz\r\n")
        await shows(serial(page), "zzz")


async def test_pause_holds_keys_on_the_screen(watched: WatchedCloud, vm: Guest):
    """As QEMU has it from the screen's line: what a guest that gets no processor makes of its keys is its own affair."""
    consented = await watched.consent(vm)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice:
        page = await watching(browser, consented.link)
        viewer = await shown(await alice.console(vm.resource_id, "graphics"))
        before = await shows_screen(screen(page), vm)
        await pause(page)
        keys = KeyTrace(vm)
        await type_on_screen(viewer, "uname -a\n")
        await until_held(alice)
        assert keys.pressed() == []
        await resume(page)
        came: list[str] = []
        await until(lambda: came.extend(keys.pressed()) or len(came) >= len(UNAME), "what was typed")
        assert came == UNAME
        await changed(screen(page), before, lambda: type_on_screen(viewer, "\n"))


async def until_held(operator: Operator) -> None:
    """Returns once an operator at the screen is told that the tenant holds the keys."""
    async with asyncio.timeout(PATIENCE):
        while not any(n.event is Event.HELD and n.params["why"] == "tenant" for n in operator.notices):
            await asyncio.sleep(0.02)


async def test_stop_cuts_every_operator_at_once_and_says_so(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice, signed_in(watched.cloud, "bob") as bob:
        page = await watching(browser, consented.link)
        console = await alice.console(vm.resource_id)
        viewer = await shown(await bob.console(vm.resource_id, "graphics"))
        await shows(page.locator(".operators"), "alice")
        await shows(page.locator(".operators"), "bob")
        cut, pressed = milliseconds(await stop(page))
        assert await console.ended() == Ending.CONSENT_REVOKED.code
        assert await viewer.ended() == Ending.CONSENT_REVOKED.code
        assert 0 < cut < CUT_MS
        assert cut <= pressed < CUT_MS + SLACK * 1000
        await shows(page.locator(".end"), "Cut off: alice on the serial console, bob on the screen.")
        await shows(page.locator(".end"), f"vmAccess/receipt?api-version=2020-06-01&consentId={consented.cid}")
        await until_refused(alice, vm.resource_id)
        await expect(page.locator(".pane")).to_have_count(0)


async def test_stop_when_nobody_is_connected(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await stop(page)
        await shows(page.locator(".end"), "No operator was connected.")


async def test_stop_is_asked_once_and_can_be_left(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await press(page, "Stop access")
        await press(page, "Keep watching")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await pause(page)  # the consent stands


async def test_a_second_window_is_told_of_pause_and_stop(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        second = await page.context.new_page()
        await second.goto(consented.link)
        await live(second)
        await pause(page)
        await second.get_by_role("button", name="Resume input").wait_for()
        await stop(page)
        await second.get_by_role("heading", name="Access is over").wait_for()
        await shows(second.locator(".end"), "The consent was withdrawn.")


async def test_an_operators_delete_ends_the_page_with_its_reason(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice:
        page = await watching(browser, consented.link)
        await alice.ask(Method.SESSION_DELETE, resource_id=str(vm.resource_id))
        await page.get_by_role("heading", name="Access is over").wait_for()
        await shows(page.locator(".end"), "The consent was withdrawn. No operator can reach your virtual machine any more.")
        await expect(page.get_by_role("heading", name="Access is over")).to_be_focused()


async def test_the_time_that_was_given_runs_out_before_the_tenants_eyes(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, durationInSeconds=25)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await expect(page.get_by_role("timer")).to_have_text(re.compile(r"^\d s$"))
        await page.get_by_role("heading", name="Access is over").wait_for()
        await shows(page.locator(".end"), "The time that you gave ran out.")


async def test_only_while_i_watch_no_operator_opens_before_the_giver_is_there(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm, onlyWhileWatched=True)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice:
        await until_refused(alice, vm.resource_id, Refusal.NOT_WATCHED)
        page = await watching(browser, consented.link)
        await expect(page.get_by_text("If you leave, their input is held at once")).to_be_visible()
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        await page.close()  # without the question that the next test is about


async def test_only_while_i_watch_input_is_held_when_the_page_is_left_and_goes_on_when_the_giver_is_back(
    watched: WatchedCloud, vm: Guest
):
    consented = await watched.consent(vm, onlyWhileWatched=True)
    async with watched.browser() as browser, signed_in(watched.cloud) as alice:
        page = await watching(browser, consented.link)
        console = await alice.console(vm.resource_id)
        await console.ask("true")
        await press(page, "Serial console")  # a browser asks only who has done something on the page
        async with page.expect_event("dialog") as dialog:
            await page.close(run_before_unload=True)
        assert (await dialog.value).type == "beforeunload"
        browser.taken("dialog")
        await page.context.new_page()
        await page.close()
        await until_unwatched(alice)
        before = vm.serial.size()
        await console.type(b"echo z'z'z\n")
        await is_held(console)
        assert count_in(vm, b"z", before) == 0
        back = await watching(browser, consented.link)
        await console.shows(b"zzz\r\n")
        await shows(serial(back), "zzz")
        await back.close()


async def until_unwatched(operator: Operator) -> None:
    """Returns once the operator is told that no tenant looks on."""

    def watched() -> bool:
        told = [notice.params["viewers"] for notice in operator.notices if notice.event is Event.VIEWERS]
        return "tenant:" in str(told[-1:])

    async with asyncio.timeout(PATIENCE):
        while watched():
            await asyncio.sleep(0.02)


async def test_a_consent_that_need_not_be_watched_can_be_left_without_a_question(watched: WatchedCloud, vm: Guest):
    consented = await watched.consent(vm)
    async with watched.browser() as browser:
        page = await watching(browser, consented.link)
        await press(page, "Serial console")
        await page.close(run_before_unload=True)
        assert page.is_closed() or await closes(page)
        assert browser.taken("dialog") == []


async def closes(page: Page) -> bool:
    await page.wait_for_event("close")
    return True
