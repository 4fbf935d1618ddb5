"""A console's session, surfaces and panels over a node that a script plays: drops, hidden windows, hostile texts."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.web_module_parts import GROUP, NODE, browser_page, page, run

__all__ = ["browser_page", "page"]

OPENED = {
    "session": "s1",
    "ticket": "t",
    "kind": "serial",
    "access": "keyboard",
    "keyboard": True,
    "consent": "cid",
    "resource_id": f"{GROUP}/vm1",
    "node": "AzS-ERCS01",
    "giver": "olivia",
    "reason": "",
    "expires_at": 1,
    "remaining_s": 600,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


# --- the session

# A session whose link and surface are the test's; `waits`: each pause that it made, none of which takes time.
SESSION = """
    const waits = [], calls = [], set = setTimeout;
    let now = 0;
    performance.now = () => now;
    globalThis.setTimeout = (then, ms) => { waits.push(ms); now += ms; return set(then, 0) };
    const link = {origin: "wss://node", state: "in", tell() {}, call: async (method) => {
        calls.push(method);
        return {...given, session: method === "session.open" ? `s${calls.length}` : given.session};
    }};
    const surface = {received: 0, attach() {}, detach() {}, mine() {}};
    const wish = {resource_id: given.resource_id, kind: given.kind};
    const turns = async (count) => { while (count--) await new Promise((resolve) => set(resolve)) };
"""


@pytest.mark.parametrize("kind", ["serial", "graphics"])
async def test_a_console_that_is_closed_as_soon_as_it_is_opened_is_tried_for_60_s_and_not_without_a_pause(
    page: Page, kind: str
) -> None:
    script = """
        surface.attach = () => void queueMicrotask(() => surface.onclosed({code: 1006, reason: ""}));
        const session = new m.ConsoleSession(link, wish, given, surface);
        await turns(200);
        return [session.standing.ended?.reason, now >= 60_000 && now < 70_000, calls.length < 50];
    """
    found = await run(page, "operator/console_session.js", SESSION + script, OPENED | {"kind": kind})
    assert found == ["not-back", True, True]


async def test_a_console_that_was_live_for_long_is_tried_again_at_once(page: Page) -> None:
    script = """
        const session = new m.ConsoleSession(link, wish, given, surface);
        const found = [];
        for (let drop = 0; drop < 3; drop++) {
            surface.onlive();
            now += 20_000;
            waits.length = 0;
            surface.onclosed({code: 1006, reason: ""});
            await turns(4);
            found.push(waits[0]);
        }
        return found;
    """
    assert await run(page, "operator/console_session.js", SESSION + script, OPENED) == [0, 0, 0]


async def test_the_end_of_a_session_that_was_opened_anew_meanwhile_does_not_end_the_new_one(page: Page) -> None:
    script = """
        const session = new m.ConsoleSession(link, wish, given, surface);
        surface.onlive();
        surface.onclosed({code: 4010, reason: ""});
        session.linkLost();
        link.state = "in";
        session.linkBack();
        surface.attach = () => surface.onlive();
        await turns(9);
        return [session.state, session.standing.session !== given.session];
    """
    begin = SESSION.replace("return set(then, 0)", "return set(then, ms === 500 ? 50 : 0)")
    script = script.replace("await turns(9)", "await new Promise((resolve) => set(resolve, 100))")
    assert await run(page, "operator/console_session.js", begin + script, OPENED | {"kind": "graphics"}) == ["live", True]


@pytest.mark.parametrize("kind", ["serial", "graphics"])
async def test_what_waited_before_a_drop_is_not_told_after_it(page: Page, kind: str) -> None:
    """Whether anything still waits the node says anew, and that nothing does it may have said while nobody heard."""
    script = """
        const session = new m.ConsoleSession(link, wish, given, surface);
        surface.onlive();
        surface.onheld(40, "no-echo");
        surface.onclosed({code: 1006, reason: ""});
        await turns(4);
        return session.standing.held.bytes;
    """
    assert await run(page, "operator/console_session.js", SESSION + script, OPENED | {"kind": kind}) == 0


# --- surfaces

SERIAL = (
    NODE
    + """
    const surface = new m.SerialSurface(document.body, "serial");
    surface.attach("wss://node/v1/console", "t");
    sockets[0].say(JSON.stringify({notice: "attached", offset: 0, taken: 0}));
    surface.mine(true);
    const stop = new AbortController();
    const typing = {layout: "us", paceMs: 0, masked: false, signal: stop.signal, onprogress() {}};
"""
)


async def test_a_text_that_is_typed_at_once_can_be_stopped(page: Page) -> None:
    script = """
        const typed = surface.type({...typing, text: "x".repeat(5_000)});
        await soon();
        stop.abort();
        return [await typed, sockets[0].sent.length];
    """
    typed, sent = await run(page, "operator/surfaces.js", SERIAL + script)
    assert typed == sent
    assert 256 <= typed <= 512  # what the node has not taken, and not much more


async def test_the_longest_text_is_typed_whole_whatever_its_letters(page: Page) -> None:
    script = """
        surface.view.onnotice = () => {};
        sockets[0].send = function (data) {
            this.sent.push(...data);
            queueMicrotask(() => this.say(JSON.stringify({notice: "taken", taken: this.sent.length})));
        };
        const text = "ü".repeat(65_536);
        const typed = await surface.type({...typing, text});
        return [typed, new TextDecoder().decode(new Uint8Array(sockets[0].sent)) === text];
    """
    assert await run(page, "operator/surfaces.js", SERIAL + script) == [65_536, True]


async def test_a_masked_text_is_told_in_bytes_each_part_before_it_goes(page: Page) -> None:
    script = """
        const asked = [];
        surface.ask = async (method, params) => asked.push([method, params, sockets[0].sent.length]);
        const typed = await surface.type({...typing, masked: true, text: "ü".repeat(65)});
        return [typed, asked, sockets[0].sent.length];
    """
    parts = [["input.mask", {"from": 0, "count": 128}, 0], ["input.mask", {"from": 128, "count": 2}, 128]]
    assert await run(page, "operator/surfaces.js", SERIAL + script) == [65, parts, 130]


async def test_a_mask_that_is_refused_keeps_the_text_back(page: Page) -> None:
    script = """
        surface.ask = () => Promise.reject(new RangeError("refused"));
        const error = await surface.type({...typing, masked: true, text: "secret"}).catch((error) => error.message);
        return [error, sockets[0].sent.length];
    """
    assert await run(page, "operator/surfaces.js", SERIAL + script) == ["refused", 0]


async def test_what_was_typed_and_not_sent_is_dropped_with_the_keyboard(page: Page) -> None:
    script = """
        sockets[0].drop();
        surface.view.type(new TextEncoder().encode("for nobody"));
        surface.mine(false);
        surface.mine(true);
        surface.attach("wss://node/v1/console", "t");
        sockets[1].say(JSON.stringify({notice: "attached", offset: 0, taken: 0}));
        return [sockets[1].sent.length, surface.view.sent];
    """
    assert await run(page, "operator/surfaces.js", SERIAL + script) == [0, 0]


# A screen's surface that notes which keys go down and up, in a page that is looked at or not.
SCREEN = """
    const surface = new m.GraphicsSurface(document.body, "screen");
    const keys = [];
    let hidden = given;
    Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
    const look = (is) => { hidden = !is; document.dispatchEvent(new Event("visibilitychange")) };
    Object.defineProperty(surface.view, "connected", {get: () => true});
    surface.mine(true);
    surface.view.sendKey = (_, code, down) => keys.push((down ? "+" : "-") + code);
    const stop = new AbortController();
    const typing = {text: "ab", layout: "us", paceMs: 0, masked: false, signal: stop.signal, onprogress() {}};
    const soon = () => new Promise((resolve) => setTimeout(resolve, 60));
"""


async def test_no_key_goes_down_in_a_window_that_nobody_looks_at(page: Page) -> None:
    """Its clocks tick once a second or once a minute: a key would stay down for as long, and repeat in the guest."""
    script = """
        const typed = surface.type(typing);
        await soon();
        const before = [...keys];
        look(true);
        return [before, await typed, keys];
    """
    assert await run(page, "operator/surfaces.js", SCREEN + script, True) == [[], 2, ["+KeyA", "-KeyA", "+KeyB", "-KeyB"]]


async def test_a_key_that_is_down_comes_up_when_the_window_is_hidden(page: Page) -> None:
    script = """
        const set = setTimeout;
        globalThis.setTimeout = (then, ms) => set(then, ms === 12 ? 60_000 : ms);
        void surface.type(typing);
        await soon();
        const before = [...keys];
        look(false);
        await soon();
        return [before, keys];
    """
    assert await run(page, "operator/surfaces.js", SCREEN + script, False) == [["+KeyA"], ["+KeyA", "-KeyA"]]


async def test_a_text_that_waits_for_the_window_can_be_stopped(page: Page) -> None:
    script = "const typed = surface.type(typing); await soon(); stop.abort(); return [await typed, keys]"
    assert await run(page, "operator/surfaces.js", SCREEN + script, True) == [0, []]


# --- panels


@pytest.mark.parametrize(
    ("pasted", "preview"),
    [
        ("ls\x15rm -rf /", "ls⟨U+0015⟩rm -rf /"),
        ("a\x1b[31mb", "a⟨U+001B⟩[31mb"),
        ("evil\u202etxt.exe", "evil⟨U+202E⟩txt.exe"),
        ("one\r\n\ttwo", "one↵\n⇥two"),
    ],
)
async def test_what_was_pasted_is_shown_with_what_cannot_be_seen(page: Page, pasted: str, preview: str) -> None:
    script = """
        const panel = new m.TypePanel("serial", {}, String);
        document.body.replaceChildren(panel.element);
        panel.offer(given);
        return document.querySelector(".preview").firstChild.textContent;
    """
    assert await run(page, "operator/type_panel.js", script, pasted) == preview


async def test_a_warning_that_stays_is_spoken_once_and_progress_is_not_spoken(page: Page) -> None:
    script = """
        let go;
        const surface = {type: ({onprogress}) => { onprogress(1); return new Promise((resolve) => (go = resolve)) }};
        const panel = new m.TypePanel("graphics", surface, String);
        document.body.replaceChildren(panel.element);
        panel.enable(true);
        panel.offer("a€");
        let spoken = 0;
        new MutationObserver(() => spoken++).observe(document.querySelector("[role=alert]"), {childList: true,
            characterData: true, subtree: true});
        panel.enable(true); panel.enable(true);
        await null;
        const warned = spoken;
        panel.offer("abc");
        document.querySelector("button.main").click();
        await null;
        const live = [...document.querySelectorAll("[role=status]")].map((one) => one.textContent).join("");
        go(3);
        return [warned, live, document.body.innerText.includes("1 of 3 typed")];
    """
    assert await run(page, "operator/type_panel.js", script) == [0, "", True]


async def test_the_seconds_of_a_lost_connection_are_not_spoken_one_by_one(page: Page) -> None:
    script = """
        const {Standing} = await import("/operator/standing.js");
        const bar = new m.StatusBar({});
        document.body.replaceChildren(bar.element);
        const session = {standing: new Standing(given), state: "away", graceLeft: 60_000};
        bar.update(session);
        let spoken = 0;
        const live = "[role=status], [aria-live]";
        for (const one of document.querySelectorAll(live)) {
            new MutationObserver(() => spoken++).observe(one, {childList: true, characterData: true, subtree: true});
        }
        for (const seconds of [59, 58, 57]) bar.tick({...session, graceLeft: seconds * 1000});
        await null;
        return [spoken, document.body.innerText.includes("57 s left")];
    """
    assert await run(page, "operator/status_bar.js", script, OPENED) == [0, True]


# --- a pane

PANE = (
    NODE
    + """
    const link = {origin: "wss://node", state: "in", who: {account: "alice"}, tell() {}, call: async () => ({})};
    const pane = new m.ConsolePane(link, {resource_id: given.resource_id, kind: "serial"}, given, document.body,
        {close() {}, again() {}, changed() {}});
"""
)


async def test_the_connection_is_made_while_the_pane_is_built(page: Page) -> None:
    script = """
        let built;
        node.connected = () => (built = document.querySelector(".tool-bar") !== null);
    """
    begin = PANE.replace("const link", script + "const link")
    assert await run(page, "operator/console_pane.js", begin + "return built", OPENED) is False


async def test_whatever_speaks_stands_there_before_it_has_a_word(page: Page) -> None:
    """One that appears with its words is not heard in every browser."""
    script = """
        const places = [...document.querySelectorAll(".pane > [role=status], .status-bar [role=status]")];
        return [places.length, places.filter((one) => !one.checkVisibility()).map((one) => one.className)];
    """
    count, absent = await run(page, "operator/console_pane.js", PANE + script, OPENED)
    assert count >= 5
    assert absent == []


async def test_a_console_under_another_consent_says_so(page: Page) -> None:
    script = """
        const foot = () => document.querySelector(".foot").innerText;
        const before = foot();
        pane.session.standing.carryOn({...given, consent: "other", giver: "oscar"});
        pane.update();
        return [before.includes("olivia"), foot().includes("oscar"),
            document.querySelector(".foot .reason").title.includes("other")];
    """
    assert await run(page, "operator/console_pane.js", PANE + script, OPENED) == [True, True, True]
