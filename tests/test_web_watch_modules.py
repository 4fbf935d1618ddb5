"""The modules of web/watch/ that need no node: what they let in, what they make of strangers' words, what they say at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Error, Page

import web
from lab.browser import Browser
from lab.certificates import Authority
from tests.other_site import OtherSite

PAGE = "<!doctype html><html lang='en'><title>modules</title><body></body>"
HOME = Path(web.__file__).parent
STATE = {
    "consent": "c",
    "resource_id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1",
    "node": "AzS-ERCS01",
    "giver": "olivia",
    "reason": "",
    "kinds": ["serial"],
    "access": "keyboard",
    "watched": False,
    "expires_at": 1,
    "remaining_s": 1,
    "paused": False,
    "running": True,
    "operators": [],
}
WHOSE = {"resourceId": STATE["resource_id"], "cid": "c", "node": "AzS-ERCS01"}

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(certificates: Authority) -> AsyncIterator[Page]:
    async with OtherSite({"/": PAGE}, folder=HOME).serving(certificates) as site, Browser(certificates.ca) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/")
        yield page


async def run(page: Page, module: str, script: str, argument: object = None) -> Any:
    """What the script gives; `m` is the module."""
    return await page.evaluate(f"async (given) => {{ const m = await import('/watch/{module}'); {script} }}", argument)


# --- told


async def test_a_state_is_read(page: Page):
    found = await run(page, "told.js", "return m.standing(given)", STATE)
    assert (found["resourceId"], found["kinds"], found["remainingS"]) == (STATE["resource_id"], ["serial"], 1)


@pytest.mark.parametrize("member", sorted(STATE))
async def test_a_state_without_one_of_its_members_is_none(page: Page, member: str):
    with pytest.raises(Error, match="not intelligible"):
        await run(page, "told.js", "return m.standing(given)", {key: value for key, value in STATE.items() if key != member})


@pytest.mark.parametrize(
    ("member", "value"),
    [("paused", "yes"), ("remaining_s", "8"), ("kinds", ["telnet"]), ("access", "root"), ("operators", {}), ("giver", None)],
)
async def test_a_state_with_a_member_of_another_kind_is_none(page: Page, member: str, value: object):
    with pytest.raises(Error, match="not intelligible"):
        await run(page, "told.js", "return m.standing(given)", STATE | {member: value})


async def test_what_is_typed_is_text_key_or_count(page: Page):
    told = {"session": "s", "account": "alice", "parts": [{"text": "Enter"}, {"text": "Enter", "key": True}, {"hidden": 3}]}
    found = await run(page, "told.js", "return m.typed(given)", told)
    assert found["parts"] == [{"text": "Enter"}, {"key": "Enter"}, {"hidden": 3}]


async def test_states_that_differ_in_the_time_left_alone_are_alike(page: Page):
    script = "return given.map((other) => m.alike(m.standing(given[0]), m.standing(other)))"
    assert await run(page, "told.js", script, [STATE, STATE | {"remaining_s": 0}, STATE | {"paused": True}]) == [
        True,
        True,
        False,
    ]


# --- silence


@pytest.mark.parametrize(
    ("rising", "wall", "too_long"),
    [(11, 11, False), (12, 12, True), (1, 3600, True), (12, -50, True), (1, -50, False)],
)
async def test_silence_is_too_long_by_either_clock(page: Page, rising: int, wall: int, too_long: bool):
    """A suspended machine's rising clock may stand still, and its wall clock may be set back."""
    script = """
        let now = [0, 0];
        const silence = new m.Silence(12, [() => now[0], () => now[1]]);
        now = given;
        return [silence.tooLong, silence.hear(), silence.tooLong];
    """
    assert await run(page, "silence.js", script, [rising, wall]) == [too_long, not too_long, too_long]


# --- line

# A line that is up, on a websocket of the test's; `told` is all that it told; `later` puts the wall clock on.
LINE = """
    globalThis.WebSocket = class extends EventTarget {
        static OPEN = 1;
        readyState = 1;
        constructor() { super(); globalThis.socket = this; }
        tell(method, params) { this.dispatchEvent(new MessageEvent("message", {data: JSON.stringify({method, params})})); }
        close() { this.readyState = 3; }
    };
    const now = Date.now, later = (ms) => (Date.now = () => now() + ms);
    let left = 1;
    const admission = () => left-- ? {watchUrl: "wss://node/v1/watch", watchToken: "t"} : new Promise(() => {});
    const line = new m.Line({admission}, ["wss://node"]);
    const told = [];
    line.onstate = (state) => told.push(state.node);
    const lost = new Promise((resolve) => (line.onphase = (phase) => { told.push(phase); if (phase === "lost") resolve() }));
    line.run();
    await new Promise((resolve) => setTimeout(resolve));
    socket.tell("watch.state", given);
"""


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(page: Page) -> AsyncIterator[Page]:
    """Give a page whose globals a test may change."""
    yield page
    await page.reload()


async def test_a_line_that_is_silent_for_12_s_is_lost(fresh: Page):
    script = "later(12_000); await lost; const open = line.open; line.close(); return [told, open, socket.readyState]"
    assert await run(fresh, "line.js", LINE + script, STATE) == [["connecting", "open", STATE["node"], "lost"], False, 3]


async def test_a_state_each_5_s_keeps_it(fresh: Page):
    script = """
        for (const ms of [5, 10, 15, 20]) { later(ms * 1_000); line.look(); socket.tell("watch.state", given); }
        const open = line.open;
        line.close();
        return open;
    """
    assert await run(fresh, "line.js", LINE + script, STATE) is True


async def test_a_page_that_is_looked_at_again_sees_at_once_that_its_line_is_dead(fresh: Page):
    script = "later(60_000); line.look(); const open = line.open; line.close(); return open"
    assert await run(fresh, "line.js", LINE + script, STATE) is False


async def test_what_lay_waiting_over_a_suspension_is_not_taken_for_news(fresh: Page):
    script = """
        later(60_000);
        socket.tell("watch.state", {...given, node: "old news"});
        const open = line.open;
        line.close();
        return [told.includes("old news"), open];
    """
    assert await run(fresh, "line.js", LINE + script, STATE) == [False, False]


# --- watch_view

# A view on a line of the test's, over which Pause was pressed and got no answer, for the reason that is given.
UNANSWERED = """
    const {RpcError} = await import("/shared/json_rpc.js");
    const {standing} = await import("/watch/told.js");
    const line = {open: true, call: async () => { throw new RpcError(given.reason, "") }, close() {}};
    const view = new m.WatchView(line, {}, given.whose);
    document.body.replaceChildren(...view.elements);
    const tell = (other) => line.onstate(standing({...given.state, ...other}));
    const banner = () => { const found = document.querySelector(".banner"); return found.hidden ? "" : found.textContent };
    line.onphase("open", "");
    tell({running: false});
    document.querySelector(".pause").click();
    await new Promise((resolve) => setTimeout(resolve));
"""
UNKNOWN = "It is not known whether input is paused. To be sure, stop the access."


async def unanswered(page: Page, script: str, reason: str = "no-answer") -> Any:
    given = {"reason": reason, "state": STATE, "whose": WHOSE}
    return await run(page, "watch_view.js", f"{UNANSWERED} {script}", given)


@pytest.mark.parametrize("reason", ["no-answer", "connection-lost"])
async def test_a_pause_without_an_answer_is_not_known(fresh: Page, reason: str):
    script = "const found = [banner(), document.querySelector('.pause').ariaDisabled]; view.dispose(); return found"
    said, disabled = await unanswered(fresh, script, reason)
    assert UNKNOWN in said
    assert disabled is None  # it can be pressed again


async def test_it_stays_unknown_until_the_node_says_that_it_is_paused(fresh: Page):
    script = """
        const found = [];
        for (const paused of [false, true]) { tell({running: false, paused}); found.push(banner()) }
        view.dispose();
        return found;
    """
    before, after = await unanswered(fresh, script)
    assert UNKNOWN in before
    assert after.startswith("Paused. Nothing that an operator types")


async def test_a_lost_line_says_that_nothing_is_seen_and_what_is_not_known(fresh: Page):
    said = await unanswered(fresh, "line.onphase('lost', ''); const found = banner(); view.dispose(); return found")
    assert said.startswith("You do not see the virtual machine at the moment, and operators may be going on.")
    assert UNKNOWN in said


async def test_a_state_that_says_nothing_new_leaves_what_a_person_reads(fresh: Page):
    script = """
        const fact = document.querySelector("dd");
        tell({running: false, remaining_s: 0});
        const same = fact.isConnected;
        tell({running: false, reason: "other"});
        view.dispose();
        return [same, fact.isConnected];
    """
    assert await unanswered(fresh, script) == [True, False]


# --- visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm1: Größe", "vm1: Größe"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\x1b[31m", "a⟨U+001B⟩[31m"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("two\nlines", "two⟨U+000A⟩lines"),
    ],
)
async def test_what_has_no_shape_is_named(page: Page, text: str, shown: str):
    assert await run(page, "../shared/visible.js", "return m.visible(given)", text) == shown


# --- typed_log


async def lines(page: Page, *told: list[dict[str, object]], session: str = "s") -> list[str]:
    script = """
        const log = new m.TypedLog();
        document.body.replaceChildren(log.element);
        for (const parts of given.told) log.add({session: given.session, account: "alice", parts});
        return [...log.element.querySelectorAll(".line")].map((line) => line.textContent);
    """
    found: list[str] = await run(page, "typed_log.js", script, {"told": told, "session": session})
    return found


async def test_a_line_goes_on_until_enter(page: Page):
    enter: dict[str, object] = {"key": "Enter"}
    assert await lines(page, [{"text": "un"}], [{"text": "ame"}, enter], [{"text": "id"}]) == ["unameEnter", "id"]


async def test_counts_of_one_entry_are_one_count(page: Page):
    assert await lines(page, [{"hidden": 1}], [{"hidden": 11}]) == ["•••• 12 characters not shown"]
    assert await lines(page, [{"hidden": 1}]) == ["•••• 1 character not shown"]


async def test_markup_that_is_typed_is_text(page: Page):
    assert await lines(page, [{"text": "<img src=x onerror=alert(1)>"}]) == ["<img src=x onerror=alert(1)>"]
    assert await page.locator("img").count() == 0


async def test_no_more_than_500_lines_are_kept(page: Page):
    found = await lines(page, *[[{"text": str(number)}, {"key": "Enter"}] for number in range(510)])
    assert (len(found), found[0]) == (500, "10Enter")
    assert await page.get_by_text("10 earlier lines are no longer kept.").is_visible()


# --- over_card


async def card(page: Page, script: str, argument: object) -> str:
    """Its text, with spaces as they are."""
    said: str = await run(page, "over_card.js", f"return ({script}).textContent", argument)
    return said


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("consent-expired", "The time that you gave ran out."),
        ("consent-revoked", "The consent was withdrawn."),
        ("feature-disabled", "Emergency VM Access was switched off for your subscription."),
        ("vm-gone", "The virtual machine was removed or made anew."),
        ("one-of-tomorrow", "Access is over"),
    ],
)
async def test_each_ending_has_its_sentence(page: Page, reason: str, sentence: str):
    told = {"reason": reason, "atMs": 0, "cutUs": 1}
    assert sentence in await card(page, "m.endedCard(given[0], given[1])", [told, WHOSE])


async def test_the_providers_word_for_an_ending_is_known_by_its_last_word(page: Page):
    said = await card(page, "m.goneCard(given[0], given[1])", ["This consent is over: consent-expired.", WHOSE])
    assert "The time that you gave ran out." in said


async def test_a_node_that_has_confirmed_is_told_with_its_time(page: Page):
    cut = {"node": "AzS-ERCS01", "confirmedAt": "2026-01-01T00:00:00Z", "atLatest": None, "sessions": 2, "cutMs": 1.44}
    said = await card(page, "m.stoppedCard({cuts: [given[0]]}, given[1])", [cut, WHOSE])
    assert "AzS-ERCS01 has confirmed, by its signature" in said
    assert "AzS-ERCS01 cut 2 sessions 1.4 ms after it heard of it." in said


async def test_the_receipt_is_fetched_by_a_line_that_can_be_pasted(page: Page):
    said = await card(page, "m.endedCard(given[0], given[1])", [{"reason": "vm-gone", "atMs": 0, "cutUs": None}, WHOSE])
    assert f"az rest --method get --url '{STATE['resource_id']}/vmAccess/receipt?api-version=2020-06-01&consentId=c'" in said
    assert "eva-provider verify-receipt receipt.json --node-key AzS-ERCS01.pub" in said
