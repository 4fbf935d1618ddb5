"""The watcher's page over a node and a provider that a script plays: moves, ends, and what is told of them, and when."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.web_module_parts import GROUP, NODE, browser_page, page, run

__all__ = ["browser_page", "page"]

STATE = {
    "consent": "c",
    "resource_id": f"{GROUP}/vm1",
    "node": "AzS-ERCS01",
    "giver": "olivia",
    "reason": "",
    "kinds": ["serial"],
    "access": "keyboard",
    "watched": False,
    "expires_at": 1,
    "remaining_s": 1_000,
    "paused": False,
    "running": False,
    "operators": [],
}
WHOSE = {"resourceId": STATE["resource_id"], "cid": "c", "node": "AzS-ERCS01"}
BOB = {
    "session": "s1",
    "account": "bob",
    "kind": "serial",
    "access": "keyboard",
    "attached": True,
    "keyboard": True,
    "since_ms": 0,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


# A view on a line to a node; `admissions`: what the provider answers, in turn, where the last one is never answered.
VIEW = (
    NODE
    + """
    const {Line} = await import("/watch/line.js");
    const {ProviderError} = await import("/watch/provider.js");
    const set = setTimeout;
    const pauses = new Set([1_000, 300]); // of the line: not waited for
    globalThis.setTimeout = (then, ms, ...more) => set(then, ms > 200 && ms < 3_000 ? 0 : ms, ...more);
    const at = (node) => ({watchUrl: `wss://${node}/v1/watch`, watchToken: "t"});
    const admissions = [at("one")];
    const admission = async () => {
        const next = admissions.shift();
        if (next instanceof Error) throw next;
        return next ?? new Promise(() => {});
    };
    const line = new Line({admission}, ["wss://one", "wss://two"]);
    let moved = 0;
    line.onmoved = () => moved++;
    const view = new m.WatchView(line, {}, given.whose);
    document.body.replaceChildren(...view.elements);
    const tell = (method, params) => sockets.at(-1).tell({method, params});
    const state = (more = {}) => tell("watch.state", {...given.state, ...more});
    const end = (reason) => { tell("watch.ended", {reason, text: "", at_ms: 0, cut_us: 1}); sockets.at(-1).drop(4002) };
    const said = () => document.querySelector(".banner").textContent;
    const spoken = () => document.querySelector(".unseen").innerText;
    const settled = async () => { for (let turn = 0; turn < 20; turn++) await soon() };
    void line.run();
    await settled();
    state();
"""
)


async def watched(page: Page, script: str) -> Any:
    return await run(page, "watch/watch_view.js", VIEW + script, {"state": STATE, "whose": WHOSE})


async def test_that_a_consent_has_ended_is_told_before_anybody_is_asked_whether_it_goes_on(page: Page) -> None:
    script = """
        end("consent-revoked");
        await null; await null;
        const found = [said(), document.querySelector(".live").dataset.phase, document.querySelector(".pause").ariaDisabled];
        await settled();
        return [...found, moved];
    """
    sentence, phase, disabled, moved = await watched(page, script)
    assert sentence == "The consent has ended at AzS-ERCS01. Looking whether it goes on at another node …"
    assert (phase, disabled, moved) == ("ending", "true", 0)


@pytest.mark.parametrize("how", ["end('consent-revoked')", "sockets.at(-1).drop()"], ids=["ended", "lost"])
async def test_a_consent_that_goes_on_at_another_node_is_followed_in_place(page: Page, how: str) -> None:
    script = f"""
        tell("watch.typed", {{session: "s", account: "bob", parts: [{{text: "ls"}}]}});
        admissions.push(at("two"), at("two"));
        {how};
        await settled();
        state({{node: "AzS-ERCS02"}});
        return [sockets.at(-1).url, document.querySelector(".live").textContent, moved, said(),
            document.querySelector(".line").textContent];
    """
    url, live, moved, said, typed = await watched(page, script)
    assert (url, live, moved, said, typed) == ("wss://two/v1/watch", "Live from AzS-ERCS02", 0, "", "ls")


async def test_a_node_that_the_pages_policy_does_not_name_needs_a_new_page(page: Page) -> None:
    script = "admissions.push(at('three')); sockets.at(-1).drop(); await settled(); return [moved, sockets.length]"
    assert await watched(page, script) == [1, 1]


async def test_a_consent_that_goes_on_nowhere_is_over(page: Page) -> None:
    script = """
        admissions.push(new ProviderError(410, "ConsentEnded", "This consent is over: consent-revoked."));
        end("consent-revoked");
        await settled();
        return document.querySelector("h1#over-title").textContent;
    """
    assert await watched(page, script) == "Access is over"


async def test_one_that_is_still_at_the_node_that_ended_it_is_over(page: Page) -> None:
    script = """
        admissions.push(at("one"));
        end("consent-revoked"); await settled();
        return document.querySelector("#over-title") !== null;
    """
    assert await watched(page, script) is True


async def test_two_who_come_at_once_are_both_spoken_of(page: Page) -> None:
    script = "state({operators: [given.state.bob, {...given.state.bob, session: 's2', account: 'carol'}]}); return spoken()"
    found = await run(page, "watch/watch_view.js", VIEW + script, {"state": STATE | {"bob": BOB}, "whose": WHOSE})
    assert "bob has connected" in found
    assert "carol has connected" in found


async def test_a_connection_that_is_back_is_spoken_of(page: Page) -> None:
    script = """
        admissions.push(at("one"));
        sockets.at(-1).drop(); await settled();
        state();
        return spoken();
    """
    assert await watched(page, script) == "Connection lost. Connected."


async def test_the_last_minutes_are_spoken_of_once_each(page: Page) -> None:
    script = """
        const found = [];
        let now = 0;
        performance.now = () => now;
        state({remaining_s: 2_000});
        for (const left of [899, 898, 299, 59]) { now = (2_000 - left) * 1_000 + 500; view.tick(); found.push(spoken()); }
        return found.at(-1);
    """
    assert await watched(page, script) == "14 min 58 s left. 4 min 58 s left. 58 s left."


async def test_the_banner_stands_there_before_it_has_a_word(page: Page) -> None:
    assert await watched(page, "return document.querySelector('.banner').checkVisibility()") is True


async def test_an_answer_of_the_provider_that_names_no_node_is_none(page: Page) -> None:
    script = """
        globalThis.fetch = async () => Response.json({watchToken: "t", watchUrl: "nowhere"});
        return await new m.Provider("c").admission().catch((error) => [error.name, error.passing]);
    """
    assert await run(page, "watch/provider.js", script) == ["ProviderError", True]


# --- what is typed


async def lines(page: Page, script: str) -> Any:
    begin = """
        const log = new m.TypedLog();
        document.body.replaceChildren(log.element);
        const type = (session, ...parts) => log.add({session, account: session, parts});
        const lines = () => [...document.querySelectorAll(".line")].map((line) => line.textContent);
    """
    return await run(page, "watch/typed_log.js", begin + script)


async def test_a_line_that_was_dropped_unfinished_goes_on_in_a_new_one(page: Page) -> None:
    script = """
        type("alice", {text: "rm -rf "});
        for (let count = 0; count < 500; count++) type("bob", {text: "ls"}, {key: "Enter"});
        type("alice", {text: "/important"});
        return [lines().length, lines().at(-1)];
    """
    assert await lines(page, script) == [500, "/important"]


async def test_a_line_without_an_end_is_cut_into_lines(page: Page) -> None:
    script = """
        for (let count = 0; count < 100; count++) type("bob", {text: "x".repeat(100)});
        return lines().map((line) => line.length);
    """
    found = await lines(page, script)
    assert sum(found) == 10_000
    assert max(found) <= 4_096


@pytest.mark.parametrize(("heard", "begin"), [(True, "Paused. Nothing"), (False, "Paused at this node: nothing")])
async def test_a_pause_that_the_provider_does_not_know_of_says_so(page: Page, heard: bool, begin: str) -> None:
    script = """
        node["input.pause"] = () => { state({paused: true}); return {paused: true, heard: given.state.heard} };
        document.querySelector(".pause").click(); await settled();
        const paused = said();
        node["input.resume"] = () => { state({paused: false}); return {paused: false} };
        document.querySelector(".pause").click(); await settled();
        return [paused, said()];
    """
    paused, resumed = await run(page, "watch/watch_view.js", VIEW + script, {"state": STATE | {"heard": heard}, "whose": WHOSE})
    assert paused.startswith(begin)
    assert ("pause again" in paused) is not heard
    assert resumed == ""


async def test_a_pause_of_another_page_says_nothing_of_the_provider(page: Page) -> None:
    script = """
        node["input.pause"] = () => { state({paused: true}); return {paused: true, heard: false} };
        document.querySelector(".pause").click(); await settled();
        const mine = said();
        state({paused: false}); state({paused: true});
        return [mine, said()];
    """
    mine, theirs = await watched(page, script)
    assert "pause again" in mine
    assert theirs.startswith("Paused. Nothing")
