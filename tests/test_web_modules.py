"""The pages' modules that have no page: in a browser, since that is where they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

import web
from eva.ending import Ending
from lab.browser import Browser
from lab.certificates import Authority
from tests.other_site import OtherSite

PAGE = "<!doctype html><html lang='en'><title>modules</title><body></body>"
HOME = Path(web.__file__).parent
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(certificates: Authority) -> AsyncIterator[Page]:
    async with OtherSite({"/": PAGE}, folder=HOME).serving(certificates) as site, Browser(certificates.ca) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/")
        yield page


async def run(page: Page, module: str, script: str, argument: object = None) -> Any:
    """What the script gives; `m` is the module."""
    return await page.evaluate(f"async (given) => {{ const m = await import('/{module}'); {script} }}", argument)


# --- layouts


@pytest.mark.parametrize("layout", ["us", "de", "de-nodeadkeys"])
async def test_every_printable_sign_has_its_key(page: Page, layout: str) -> None:
    assert await run(page, "shared/layouts.js", "return m.lacking(m.LAYOUTS[given[0]], given[1])", [layout, PRINTABLE]) == []


async def test_no_two_signs_have_the_same_strokes(page: Page) -> None:
    script = """
        const plain = ({code, shift, altgr}) => [code, shift, altgr];
        return [...given].map((sign) => JSON.stringify(m.strokesOf(m.LAYOUTS.de, sign).map(plain)));
    """
    strokes = await run(page, "shared/layouts.js", script, PRINTABLE + "äöüßÄÖÜ§°²³€")
    assert len(set(strokes)) == len(strokes)


@pytest.mark.parametrize(
    ("layout", "sign", "strokes"),
    [
        ("us", "A", [["KeyA", True, False]]),
        ("us", "@", [["Digit2", True, False]]),
        ("us", "\n", [["Enter", False, False]]),
        ("de", "@", [["KeyQ", False, True]]),
        ("de", "z", [["KeyY", False, False]]),
        ("de", "\\", [["Minus", False, True]]),
        ("de", "^", [["Backquote", False, False], ["Space", False, False]]),
        ("de", "`", [["Equal", True, False], ["Space", False, False]]),
        ("de", "~", [["BracketRight", False, True]]),
        *(
            ("de", sign, [[code, False, False]])
            for sign, code in zip("äöüß", ["Quote", "Semicolon", "BracketLeft", "Minus"], strict=True)
        ),
        *(
            ("de", sign, [[code, True, False]])
            for sign, code in zip("ÄÖÜ§°", ["Quote", "Semicolon", "BracketLeft", "Digit3", "Backquote"], strict=True)
        ),
        *(("de", sign, [[code, False, True]]) for sign, code in zip("²³€µ", ["Digit2", "Digit3", "KeyE", "KeyM"], strict=True)),
        ("de", "\N{ACUTE ACCENT}", [["Equal", False, False], ["Space", False, False]]),
        ("us", "\t", [["Tab", False, False]]),
        ("de-nodeadkeys", "^", [["Backquote", False, False]]),
    ],
)
async def test_a_sign_is_typed_where_its_layout_has_it(page: Page, layout: str, sign: str, strokes: list[object]) -> None:
    script = "return m.strokesOf(m.LAYOUTS[given[0]], given[1]).map(({code, shift, altgr}) => [code, shift, altgr])"
    assert await run(page, "shared/layouts.js", script, [layout, sign]) == strokes


async def test_a_sign_that_a_layout_lacks_is_named_once(page: Page) -> None:
    assert await run(page, "shared/layouts.js", "return m.lacking(m.LAYOUTS.us, 'Größe, Größe €')") == ["ö", "ß", "€"]


# --- resource lines

ID = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/vm-1"


@pytest.mark.parametrize(
    "line", [ID, f"ConnectTo-TenantVm -ResourceID {ID}", f"  '{ID}' ", ID.upper(), f"PS> x -ResourceID {ID}\r\n"]
)
async def test_a_resource_id_is_found_in_a_line(page: Page, line: str) -> None:
    found = await run(page, "operator/resource_line.js", "return m.findResourceId(given)", line)
    assert found["id"].lower() == ID.lower()
    assert found["vm"].lower() == "vm-1"


@pytest.mark.parametrize("line", ["", "vm-1", ID + "/extensions/x", ID.replace("7d2f", "7d2"), ID.replace("rg1", "rg1.")])
async def test_what_is_no_resource_id_is_not_taken_for_one(page: Page, line: str) -> None:
    assert await run(page, "operator/resource_line.js", "return m.findResourceId(given)", line) is None


# --- streams


async def test_what_came_before_a_drop_is_not_shown_again(page: Page) -> None:
    script = """
        const inbound = new m.Inbound();
        const text = (bytes) => new TextDecoder().decode(bytes), bytes = (text) => new TextEncoder().encode(text);
        inbound.attach(100);
        const first = text(inbound.feed(bytes("abcdef")));
        const gap = inbound.attach(103);
        return [first, gap, text(inbound.feed(bytes("de"))), text(inbound.feed(bytes("fgh"))), inbound.received];
    """
    assert await run(page, "shared/serial_stream.js", script) == ["abcdef", 0, "", "gh", 108]


async def test_output_that_is_no_longer_kept_is_counted(page: Page) -> None:
    script = "const inbound = new m.Inbound(); inbound.attach(5); return [inbound.attach(9), inbound.received]"
    assert await run(page, "shared/serial_stream.js", script) == [4, 9]


async def test_input_that_was_not_taken_is_sent_again_and_no_other(page: Page) -> None:
    script = """
        const outbound = new m.Outbound();
        const text = (bytes) => new TextDecoder().decode(bytes), bytes = (text) => new TextEncoder().encode(text);
        outbound.attach(0);
        outbound.add(bytes("abcdef"));
        const first = text(outbound.next(4));
        outbound.taken(1);
        outbound.attach(3);
        return [first, text(outbound.next(99)), outbound.end, outbound.untaken];
    """
    assert await run(page, "shared/serial_stream.js", script) == ["abcd", "def", 6, 3]


@pytest.mark.parametrize("count", [0, 5])
async def test_a_count_that_cannot_be_is_a_fault(page: Page, count: int) -> None:
    script = """
        const outbound = new m.Outbound();
        outbound.add(new Uint8Array(4)); outbound.next(4); outbound.taken(2);
        try { outbound.taken(given); return null } catch (error) { return error instanceof m.OutOfStep }
    """
    assert await run(page, "shared/serial_stream.js", script, count) is True


async def test_what_was_not_sent_cannot_be_taken(page: Page) -> None:
    script = """
        const outbound = new m.Outbound();
        outbound.add(new Uint8Array(4)); outbound.next(2);
        try { outbound.taken(3); return null } catch (error) { return error instanceof m.OutOfStep }
    """
    assert await run(page, "shared/serial_stream.js", script) is True


async def test_input_past_the_room_is_refused_whole(page: Page) -> None:
    script = "const outbound = new m.Outbound(); return [outbound.add(new Uint8Array(m.LIMIT + 1)), outbound.untaken]"
    assert await run(page, "shared/serial_stream.js", script) == [False, 0]


# --- calls

# A websocket that is open at once, and a node behind it that says what `node` says.
SOCKET = """
    globalThis.WebSocket = class extends EventTarget {
        static OPEN = 1;
        readyState = 1; protocol = ""; binaryType = "blob"; onopen = null; onclose = null; onerror = null; onmessage = null;
        constructor() { super(); globalThis.socket = this; queueMicrotask(() => this.dispatchEvent(new Event("open"))); }
        send(text) { const {id, method} = JSON.parse(text); const result = node[method]; if (result) this.say({id, result}); }
        say(message) { this.dispatchEvent(new MessageEvent("message", {data: JSON.stringify({jsonrpc: "2.0", ...message})})); }
        close(code) { this.closed ??= code; this.readyState = 3; }
    };
    let node = {};
"""


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(page: Page) -> AsyncIterator[Page]:
    """Give a page whose globals a test may change."""
    yield page
    await page.reload()


async def test_a_call_without_an_answer_ends_after_10_s_and_the_connection_goes_on(fresh: Page) -> None:
    script = """
        const [asked, set] = [[], setTimeout];
        globalThis.setTimeout = (then, ms) => { asked.push(ms); return set(then, 0) };
        const rpc = new m.JsonRpc("wss://node", []);
        await rpc.opened;
        const error = await rpc.call("input.pause").catch((error) => error);
        socket.say({id: 1, result: {}});
        node = {again: {ok: 1}};
        return [asked[0], error.reason, error.unknown, rpc.open, await rpc.call("again")];
    """
    assert await run(fresh, "shared/json_rpc.js", SOCKET + script) == [10_000, "no-answer", True, True, {"ok": 1}]


async def test_no_more_than_256_calls_wait_for_their_answers(fresh: Page) -> None:
    script = """
        const rpc = new m.JsonRpc("wss://node", []);
        await rpc.opened;
        const calls = Array.from({length: 257}, () => rpc.call("x").catch((error) => error.reason));
        const refused = await calls[256];
        socket.say({id: 1, result: "first"});
        node = {x: "last"};
        return [refused, await calls[0], await rpc.call("x")];
    """
    assert await run(fresh, "shared/json_rpc.js", SOCKET + script) == ["connection-lost", "first", "last"]


@pytest.mark.parametrize("data", ["null", "1", "{", "true"])
async def test_what_is_no_message_ends_the_connection(fresh: Page, data: str) -> None:
    script = """
        const rpc = new m.JsonRpc("wss://node", []), closed = [];
        rpc.onclosed = ({code}) => closed.push(code);
        await rpc.opened;
        const call = rpc.call("x").catch((error) => error.reason);
        socket.dispatchEvent(new MessageEvent("message", {data: given}));
        return [closed, rpc.open, await call];
    """
    assert await run(fresh, "shared/json_rpc.js", SOCKET + script, data) == [[1002], False, "connection-lost"]


async def test_after_its_end_a_connection_tells_nothing_more(fresh: Page) -> None:
    script = """
        const rpc = new m.JsonRpc("wss://node", []), told = [];
        rpc.onclosed = () => told.push("closed");
        rpc.onnotice = (method) => told.push(method);
        await rpc.opened;
        rpc.close();
        socket.say({method: "session.ended", params: {}});
        socket.dispatchEvent(new CloseEvent("close", {code: 1006}));
        return [told, await rpc.call("x").catch((error) => error.reason)];
    """
    assert await run(fresh, "shared/json_rpc.js", SOCKET + script) == [["closed"], "connection-lost"]


async def test_a_refusal_is_no_doubt(fresh: Page) -> None:
    script = """
        const rpc = new m.JsonRpc("wss://node", []);
        await rpc.opened;
        const call = rpc.call("input.pause").catch((error) => [error.reason, error.unknown]);
        socket.say({id: 1, error: {message: "no", data: {reason: "paused"}}});
        return call;
    """
    assert await run(fresh, "shared/json_rpc.js", SOCKET + script) == ["paused", False]


async def test_an_operators_call_has_the_time_it_asks_for_and_then_counts_as_a_lost_connection(fresh: Page) -> None:
    script = """
        const link = new m.NodeLink("wss://node");
        node = {sign_in: {account: "alice", granted: false, again: "x"}};
        await link.signIn(null);
        const [first, asked, set] = [socket, [], setTimeout];
        globalThis.setTimeout = (then, ms) => { asked.push(ms); return set(then, 0) };
        const reason = await link.call("session.open").catch((error) => error.reason);
        const found = [asked[0], reason, first.closed, link.state];
        link.signOut();
        return found;
    """
    assert await run(fresh, "operator/node_link.js", SOCKET + script) == [20_000, "connection-lost", 4100, "lost"]


# --- typing


SLOWLY = """
    const view = new m.SerialView(document.body, {readonly: false}), bytes = (text) => new TextEncoder().encode(text);
    const announced = [];
    view.type(bytes("abc"));
"""


async def test_a_piece_is_announced_where_it_stands(fresh: Page) -> None:
    script = """
        const announce = async (from, count) => announced.push([from, count]);
        return [await view.typeSlowly([bytes("s3"), bytes("cret")], {announce}), announced, view.sent];
    """
    assert await run(fresh, "shared/serial_view.js", SLOWLY + script) == [2, [[3, 2], [5, 4]], 9]


async def test_a_keyboard_that_was_anothers_during_the_announcement_ends_the_typing(fresh: Page) -> None:
    script = """
        const announce = async (from, count) => {
            announced.push([from, count]);
            view.forgetUnsent();
            view.writable = false;
            await null;
            view.writable = true;
        };
        return [await view.typeSlowly([bytes("s3"), bytes("cret")], {announce}), announced, view.sent];
    """
    assert await run(fresh, "shared/serial_view.js", SLOWLY + script) == [0, [[3, 2]], 0]


async def test_and_so_does_one_between_two_pieces(fresh: Page) -> None:
    script = """
        const announce = async (from, count) => announced.push([from, count]);
        const onprogress = () => view.forgetUnsent();
        return [await view.typeSlowly([bytes("s3"), bytes("cret")], {announce, onprogress}), announced, view.sent];
    """
    assert await run(fresh, "shared/serial_view.js", SLOWLY + script) == [1, [[3, 2]], 0]


# --- the screen


async def test_a_screen_that_takes_no_keys_is_a_picture_with_a_name(fresh: Page) -> None:
    script = """
        const view = new m.GraphicsView(document.body, {viewOnly: true, label: "Screen"});
        view.attach("wss://node", "ticket");
        const canvas = document.querySelector("canvas");
        const found = [canvas.getAttribute("role"), canvas.getAttribute("aria-label")];
        for (const viewOnly of [false, true]) { view.viewOnly = viewOnly; found.push(canvas.getAttribute("role")) }
        return found;
    """
    assert await run(fresh, "shared/graphics_view.js", SOCKET + script) == ["img", "Screen", "application", "img"]


# --- time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(28_740, "7 h 59 min"), (3600, "1 h 00 min"), (3599, "59 min 59 s"), (60, "1 min 00 s"), (59.9, "59 s"), (-3, "0 s")],
)
async def test_time_is_told_as_a_person_reads_it(page: Page, seconds: float, text: str) -> None:
    assert await run(page, "shared/remaining.js", "return m.formatRemaining(given)", seconds) == text


async def test_time_runs_by_the_clock_that_is_given(page: Page) -> None:
    script = """
        let now = 1000;
        const remaining = new m.Remaining(10, () => now);
        now += 4000; const left = remaining.seconds;
        now += 9000; const over = remaining.seconds;
        remaining.set(60);
        return [left, over, remaining.seconds];
    """
    assert await run(page, "shared/remaining.js", script) == [6, 0, 60]


# --- standing


OPENED = {"session": "s1", "keyboard": True, "access": "keyboard", "resource_id": ID, "remaining_s": 60, "kind": "serial"}
OTHER = {"session": "s2", "account": "bob", "kind": "serial", "access": "keyboard", "attached": True}


@pytest.mark.parametrize(
    ("keyboard", "mine", "holder"),
    [("s1", True, None), ("s2", False, "bob"), (None, False, None)],
)
async def test_the_keyboard_is_whose_the_node_says(page: Page, keyboard: str | None, mine: bool, holder: str | None) -> None:
    script = """
        const standing = new m.Standing(given[0]);
        standing.take("session.viewers", {viewers: [given[1]], keyboard: given[2]});
        return [standing.mine, standing.holder?.account ?? null];
    """
    assert await run(page, "operator/standing.js", script, [OPENED, OTHER, keyboard]) == [mine, holder]


async def test_a_session_for_viewing_never_has_the_keyboard(page: Page) -> None:
    script = "return new m.Standing(given).mine"
    assert await run(page, "operator/standing.js", script, OPENED | {"access": "view"}) is False


async def test_the_first_end_counts(page: Page) -> None:
    script = """
        const standing = new m.Standing(given);
        standing.take("session.ended", {reason: "consent-revoked", at_ms: 5, stale_bytes: 2});
        standing.end("operator-left", 9);
        return standing.ended;
    """
    assert await run(page, "operator/standing.js", script, OPENED) == {"reason": "consent-revoked", "atMs": 5, "staleBytes": 2}


# --- endings


async def test_every_ending_of_the_node_has_its_sentence(page: Page) -> None:

    script = "return given.map(([word, code]) => [m.endingOfCode(code), m.endingText(word) !== m.endingText('no such word')])"
    found = await run(page, "shared/endings.js", script, [[ending.word, ending.code] for ending in Ending])
    assert found == [[ending.word, True] for ending in Ending]
