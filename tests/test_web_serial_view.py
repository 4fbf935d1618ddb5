"""The terminal in a page: output that is faster than it is drawn, what a terminal leaves behind, what xterm may not do."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.web_module_parts import NODE, browser_page, page, run

__all__ = ["browser_page", "page"]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


VIEW = (
    NODE
    + """
    const view = new m.SerialView(document.body, {readonly: false});
    view.attach("wss://node/v1/console", "eva.serial.v1", "t");
    const told = (mark) => sockets.at(-1).say(JSON.stringify(mark));
    told({notice: "attached", offset: 0, taken: 0});
    const output = (text) => sockets.at(-1).say(new TextEncoder().encode(text).buffer);
    const drawn = () => new Promise((resolve) => view._terminal.write("", resolve));
"""
)


async def test_output_that_is_not_drawn_in_time_is_bounded_and_what_is_left_out_is_told(page: Page) -> None:
    """A hidden window draws for some milliseconds a second, and xterm keeps up to 50 MB and then throws."""
    script = """
        let lost = 0;
        view.ongap = (count) => (lost += count);
        const set = setTimeout;
        const later = [];
        globalThis.setTimeout = (then, ms, ...more) => (ms ? set(then, ms, ...more) : void later.push(then)); // hidden
        const line = "y\\r\\n".repeat(20_000);
        for (let sent = 0; sent < 60e6; sent += line.length) output(line);
        const kept = view._terminal._core._writeBuffer._pendingData;
        globalThis.setTimeout = set;
        for (const then of later) then();
        await drawn();
        output("and after");
        await drawn();
        return [kept < 16e6, lost > 40e6, view.received > 60e6, view.text.endsWith("and after\\n")];
    """
    assert await run(page, "shared/serial_view.js", VIEW + script) == [True, True, True, True]


@pytest.mark.parametrize("data", ["null", "7", "{", '{"notice": "taken", "taken": 9}'])
async def test_a_notice_that_makes_no_sense_ends_the_attachment(page: Page, data: str) -> None:
    script = """
        const closed = [];
        view.onclosed = ({code}) => closed.push(code);
        sockets[0].say(given);
        return [closed, view.attached];
    """
    assert await run(page, "shared/serial_view.js", VIEW + script, data) == [[4011], False]


async def test_a_terminal_that_is_gone_leaves_nothing_in_the_page(page: Page) -> None:
    """A watcher's is made anew at each connection, in the same place."""
    script = """
        const listening = [];
        const add = EventTarget.prototype.addEventListener;
        const place = document.body.appendChild(document.createElement("div"));
        place.addEventListener = (type, then, how) => { if (!how?.signal) listening.push(type); add.call(place, type,
            then, how) };
        const one = () => { new m.SerialView(place, {readonly: true}).dispose() };
        one();
        const made = () => [document.adoptedStyleSheets.length, document.querySelectorAll("style, template").length];
        const before = made();
        for (let count = 0; count < 5; count++) one();
        const [sheets, elements] = made();
        return [listening, sheets - before[0], elements - before[1], place.childElementCount];
    """
    assert await run(page, "shared/serial_view.js", script) == [[], 0, 0, 0]


# --- the guard


@pytest.mark.parametrize(
    "asked",
    [
        *[
            "\x1b[c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?15n",
            "\x1b[>q",
            "\x1b[4$p",
            "\x1b[?7$p",
            "\x1b[14t",
            "\x1b[18t",
            "\x1b[21t",
            "\x1b[x",
        ],
        *[
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b]4;1;?\x07",
            "\x1b]10;?\x07",
            "\x1b]11;?\x07",
            "\x1b]12;?\x07",
            "\x1b]52;c;?\x07",
            "\x1bZ",
            "\x05",
        ],
    ],
    ids=ascii,
)
async def test_the_terminal_answers_no_question_of_the_guest(page: Page, asked: str) -> None:
    script = "output(given); await drawn(); return [...sockets[0].sent]"
    assert await run(page, "shared/serial_view.js", WRITABLE + script, asked) == []


WRITABLE = VIEW + "view.writable = true;"


@pytest.mark.parametrize("mode", [9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2031, 9001])
async def test_the_guest_switches_on_no_report_of_mouse_or_focus(page: Page, mode: int) -> None:
    script = """
        const before = JSON.stringify(view._terminal.modes);
        output(`\\x1b[?${given}h`); output(`\\x1b[?25;${given}h`);
        await drawn();
        return before === JSON.stringify(view._terminal.modes);
    """
    assert await run(page, "shared/serial_view.js", WRITABLE + script, mode) is True


@pytest.mark.parametrize("number", [0, 1, 2, 4, 7, 8, 9, 10, 52, 104, 133, 633, 777, 1337])
async def test_what_is_addressed_to_the_page_is_not_passed_on(page: Page, number: int) -> None:
    script = """
        const heard = [];
        view._terminal.onTitleChange(() => heard.push("title"));
        view._terminal.parser.registerOscHandler(given, () => true)?.dispose();
        output(`\\x1b]${given};;https://evil.example\\x07seen`);
        await drawn();
        return [heard, view.text.trim(), document.querySelectorAll("a").length];
    """
    assert await run(page, "shared/serial_view.js", WRITABLE + script, number) == [[], "seen", 0]


@pytest.mark.parametrize(("query", "answer"), [("da1", "\x1b[?1;2c"), ("dsr5", "\x1b[0n"), ("dsr6", "\x1b[1;4R"), ("dsr7", "")])
async def test_the_nodes_word_that_the_guest_asks_is_answered(page: Page, query: str, answer: str) -> None:
    script = """
        output("abc"); told({notice: "query", query: given}); await drawn(); await drawn();
        return new TextDecoder().decode(new Uint8Array(sockets[0].sent));
    """
    assert await run(page, "shared/serial_view.js", WRITABLE + script, query) == answer


async def test_what_is_typed_goes_nowhere_while_the_keyboard_is_anothers(page: Page) -> None:
    script = """
        let blocked = 0;
        view.onblocked = () => blocked++;
        view.writable = false;
        const went = view.type(new TextEncoder().encode("abc"));
        return [went, blocked, sockets[0].sent.length, view.sent];
    """
    assert await run(page, "shared/serial_view.js", VIEW + script) == [False, 1, 0, 0]


async def test_keys_pressed_while_a_text_is_typed_come_behind_it(page: Page) -> None:
    script = """
        const bytes = (text) => new TextEncoder().encode(text);
        const typed = view.typeSlowly([bytes("ab"), bytes("cd")], {paceMs: 1});
        view.type(bytes("KEY"));
        await typed;
        return new TextDecoder().decode(new Uint8Array(sockets[0].sent));
    """
    assert await run(page, "shared/serial_view.js", WRITABLE + script) == "abcdKEY"
