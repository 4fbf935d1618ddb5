"""The operators' page over a node that a script plays: what comes late, twice, or in another order."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page

from tests.web_module_parts import GROUP, NODE, browser_page, page, run

__all__ = ["browser_page", "page"]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


# Signed in, with two virtual machines in the list. `opened(name)` is what the node says of a new session.
SIGNED_IN = (
    NODE
    + """
    let number = 0;
    const group = given.group;
    globalThis.consent = (name, more = {}) => ({
        consent: `cid-${name}`, resource_id: `${group}/${name}`, giver: "olivia", kinds: ["graphics", "serial"],
            access: "keyboard",
        watched: false, expires_at: 1, remaining_s: 600, reason: "", running: true, sessions: 0, connected: [], ...more,
    });
    globalThis.opened = ({resource_id, kind}, more = {}) => ({
        session: `s${++number}`, ticket: "t", kind, access: "keyboard", keyboard: true,
            consent: `cid-${resource_id.split("/").at(-1)}`,
        resource_id, node: "AzS-ERCS01", giver: "olivia", reason: "", expires_at: 1, remaining_s: 600, ...more,
    });
    globalThis.listed = [consent("vm1"), consent("vm2")];
    Object.assign(node, {
        sign_in: {account: "alice", groups: [], node: "AzS-ERCS01", address: "::1", granted: true, again: "x"},
        "consents.list": () => ({consents: listed, more: 0}),
        "session.open": (wish) => opened(wish),
    });
    globalThis.press = (label) => document.querySelector(`[aria-label="${label}"]`).click();
    globalThis.seen = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
    globalThis.named = (text) => seen("button").find((one) => one.textContent === text);
    globalThis.until = async (holds, most = performance.now() + 60_000) => {
        while (!holds()) { if (performance.now() > most) throw new Error(`never: ${holds}`); await soon() }
    };
    globalThis.count = (method) => calls.filter(([name]) => name === method).length;
    globalThis.shown = () => seen("section.pane").map((one) => one.ariaLabel);
    const signIn = async () => {
        document.querySelector("#account").value = "alice";
        document.querySelector("#password").value = "secret";
        document.querySelector(".sign-in button").click();
        await until(() => document.querySelector(".opens button"));
    };
"""
)


async def signed_in(page: Page, script: str, begin: str = "await signIn();") -> Any:
    return await run(page, "operator/page.js", f"{SIGNED_IN} {begin} {script}", {"group": GROUP})


async def test_a_button_that_is_pressed_twice_opens_one_console(page: Page) -> None:
    script = """
        let answer;
        node["session.open"] = (wish, later) => void (answer = () => later(opened(wish)));
        press("Open Serial of vm1"); press("Open Serial of vm1");
        await soon(); answer(); await soon();
        return [count("session.open"), shown()];
    """
    assert await signed_in(page, script) == [1, ["vm1 · Serial"]]


async def test_a_console_that_opens_late_takes_no_keys_from_another(page: Page) -> None:
    script = """
        press("Open Serial of vm1"); await until(() => shown().length);
        named("Virtual machines").click();
        let answer;
        node["session.open"] = (wish, later) => void (answer = () => later(opened(wish)));
        press("Open Serial of vm2"); await soon();
        named("vm1 · Serial").click();
        const before = document.activeElement;
        answer(); await soon();
        const found = [shown(), document.activeElement === before];
        named("vm2 · Serial").click();
        return [...found, shown()];
    """
    assert await signed_in(page, script) == [["vm1 · Serial"], True, ["vm2 · Serial"]]


async def test_while_a_console_is_opened_again_no_neighbour_has_the_keys(page: Page) -> None:
    script = """
        for (const name of ["vm1", "vm2"]) {
            named("Virtual machines").click();
            press(`Open Serial of ${name}`); await until(() => shown()[0]?.startsWith(name));
        }
        sockets[0].tell({method: "session.ended", params: {session: "s2", reason: "vm-stopped", text: "", at_ms: 0,
            stale_bytes: 0}});
        await soon();
        let answer;
        node["session.open"] = (wish, later) => void (answer = () => later(opened(wish)));
        named("Open again").click(); await soon();
        const meanwhile = [shown(), document.activeElement.closest("section.pane") === null];
        answer(); await soon();
        return [...meanwhile, shown()];
    """
    assert await signed_in(page, script) == [[], True, ["vm2 · Serial"]]


async def test_ways_that_come_late_sign_nobody_in_again(page: Page) -> None:
    begin = """
        let ways;
        globalThis.fetch = () => new Promise((resolve) => (ways = () => resolve(Response.json({password: true,
            signed_in: true}))));
        const fresh = await import("/operator/page.js?again");
        await signIn();
        ways(); await soon(); await soon();
        return count("sign_in");
    """
    assert await signed_in(page, "", begin) == 1


async def test_a_row_keeps_its_buttons_while_others_come_and_go(page: Page) -> None:
    script = """
        const one = document.querySelector('[aria-label="Open Serial of vm1"]');
        one.focus();
        listed = [consent("vm1", {sessions: 1, connected: [{account: "bob", kind: "serial"}]}), consent("vm2")];
        await until(() => document.body.textContent.includes("bob (Serial)"));
        return [one.isConnected, document.activeElement === one];
    """
    assert await signed_in(page, script) == [True, True]


async def test_a_tab_stays_while_nothing_of_it_changes(page: Page) -> None:
    script = """
        press("Open Serial of vm1"); await until(() => shown().length);
        const tab = named("vm1 · Serial");
        sockets[0].tell({method: "session.viewers", params: {session: "s1", viewers: [], keyboard: "s1"}});
        return tab.isConnected;
    """
    assert await signed_in(page, script) is True


async def test_the_list_sets_a_consoles_clock_right(page: Page) -> None:
    """A machine that slept has a clock that stood still."""
    script = """
        press("Open Serial of vm1"); await until(() => shown().length);
        const before = document.querySelector(".count-down .time").textContent;
        listed = [consent("vm1", {remaining_s: 42})];
        await until(() => document.querySelector(".count-down .time").textContent.match(/^4[0-2] s$/));
        return before;
    """
    assert re.fullmatch(r"10 min 00 s|9 min \d\d s", await signed_in(page, script))


async def test_a_keyboard_that_is_refused_is_told(page: Page) -> None:
    script = """
        node["session.open"] = (wish) => opened(wish, {keyboard: false});
        press("Open Serial of vm1"); await until(() => shown().length);
        sockets[1].say(JSON.stringify({notice: "attached", offset: 0, taken: 0}));
        node["keyboard.take"] = () => void setTimeout(() => sockets[0].tell({id: given.id, error: {message: "",
            data: {reason: "no-keyboard"}}}));
        const send = sockets[0].send;
        sockets[0].send = function (data) { given.id = JSON.parse(data).id; send.call(this, data) };
        named("Take keyboard").click();
        await soon(); await soon();
        return document.querySelector(".pane").innerText.includes("The keyboard is not yours");
    """
    assert await signed_in(page, script) is True


async def test_a_full_screen_that_the_browser_refuses_is_told(page: Page) -> None:
    script = """
        let lost = 0;
        addEventListener("unhandledrejection", (event) => { lost++; event.preventDefault() });
        press("Open Serial of vm1"); await until(() => shown().length);
        Element.prototype.requestFullscreen = () => Promise.reject(new TypeError("not allowed"));
        named("Full screen").click();
        await soon(); await soon();
        return [lost, document.querySelector(".pane").innerText.includes("The browser does not allow full screen.")];
    """
    assert await signed_in(page, script) == [0, True]


async def test_who_asks_for_the_list_while_it_comes_does_not_ask_twice_as_often(page: Page) -> None:
    script = """
        const held = [];
        node["consents.list"] = (_, later) => void held.push(later);
        const set = setTimeout;
        let beats = 0;
        globalThis.setTimeout = (then, ms) => { if (ms === 5_000) beats++; return set(then, ms === 5_000 ? 1e6 : ms) };
        for (const name of ["vm1", "vm2"]) { press(`Open Serial of ${name}`); await until(() => shown().length);
            named("Leave").click(); }
        await soon();
        for (const later of held) later({consents: listed, more: 0});
        await soon();
        return [held.length, beats];
    """
    assert await signed_in(page, script) == [2, 1]


async def test_in_full_screen_every_key_is_the_guests_escape_too(page: Page) -> None:
    begin = """
        globalThis.locked = [];
        const lock = Keyboard.prototype.lock;
        Keyboard.prototype.lock = async function (...keys) {
            const full = document.fullscreenElement?.ariaLabel;
            await lock.apply(this, keys);
            locked.push([full, keys]);
        };
        await signIn();
        press("Open Serial of vm1"); await until(() => shown().length);
        sockets[1].say(JSON.stringify({notice: "attached", offset: 0, taken: 0}));
    """
    await signed_in(page, "", begin)
    await page.get_by_role("button", name="Full screen").click()
    await page.wait_for_function("locked.length === 1")
    assert await page.evaluate("locked") == [["vm1 · Serial", []]]
    await page.keyboard.press("Escape")
    assert await page.evaluate("[sockets[1].sent, document.fullscreenElement !== null]") == [[0x1B], True]
    await page.get_by_role("button", name="Full screen").click()
    await page.wait_for_function("document.fullscreenElement === null")
