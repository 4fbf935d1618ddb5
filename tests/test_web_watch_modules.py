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
    assert await run(page, "visible.js", "return m.visible(given)", text) == shown


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
