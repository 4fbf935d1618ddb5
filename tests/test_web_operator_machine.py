"""What may be opened of one virtual machine, by all consents that stand for it: a row for each."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page

from tests.web_module_parts import GROUP, run
from tests.web_module_parts import browser_page as page

__all__ = ["page"]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind

LONG: dict[str, Any] = {
    "consent": "long",
    "resource_id": f"{GROUP}/vm1",
    "giver": "olivia",
    "kinds": ["serial"],
    "access": "view",
    "watched": False,
    "expires_at": 2_000_000_000,
    "remaining_s": 7_230,
    "reason": "it does not start",
    "running": True,
    "sessions": 1,
    "connected": [{"account": "alice", "kind": "serial"}],
}
SHORT = LONG | {
    "consent": "short",
    "resource_id": f"{GROUP}/VM1",
    "giver": "oscar",
    "kinds": ["graphics", "serial"],
    "access": "keyboard",
    "watched": True,
    "expires_at": 1_999_999_000,
    "remaining_s": 600,
    "reason": "lost key",
    "sessions": 2,
    "connected": [{"account": "bob", "kind": "graphics"}],
}


async def machines(page: Page, *consents: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await run(page, "operator/machine.js", "return m.machines(given)", consents)
    return found


async def test_two_consents_for_one_machine_are_one_machine(page: Page) -> None:
    (found,) = await machines(page, SHORT, LONG)
    assert [one["consent"] for one in found["consents"]] == ["long", "short"]


async def test_each_kind_opens_with_the_most_that_a_consent_for_it_allows(page: Page) -> None:
    (found,) = await machines(page, LONG, SHORT)
    assert found["opens"] == [{"kind": "serial", "access": "keyboard"}, {"kind": "graphics", "access": "keyboard"}]


async def test_what_one_consent_allows_on_one_kind_is_not_allowed_on_another(page: Page) -> None:
    (found,) = await machines(page, LONG, SHORT | {"kinds": ["graphics"]})
    assert found["opens"] == [{"kind": "serial", "access": "view"}, {"kind": "graphics", "access": "keyboard"}]


async def test_only_while_watched_is_one_whose_every_consent_is(page: Page) -> None:
    (both,), (one,) = await machines(page, LONG, SHORT), await machines(page, SHORT)
    assert (both["watched"], one["watched"]) == (False, True)


async def test_who_is_on_is_counted_over_all(page: Page) -> None:
    (found,) = await machines(page, LONG, SHORT)
    assert (found["sessions"], [one["account"] for one in found["connected"]]) == (3, ["alice", "bob"])


async def test_machines_stay_in_their_order(page: Page) -> None:
    other = LONG | {"consent": "other", "resource_id": f"{GROUP}/vm2"}
    assert [one["resource_id"] for one in await machines(page, SHORT, other, LONG)] == [f"{GROUP}/vm1", f"{GROUP}/vm2"]


# --- the list

LIST = """
    const asked = [];
    const list = new m.ConsentList({open: (...wish) => asked.push(wish), end: () => {}});
    document.body.replaceChildren(list.element);
    list.update({consents: given, more: 0});
    const rows = [...document.querySelectorAll("tbody tr")];
"""


async def test_a_machine_is_one_row_with_each_consents_reason_and_the_later_end(page: Page) -> None:
    script = "return [rows.length, rows[0].querySelector('.reason').innerText, rows[0].querySelector('.left').textContent]"
    rows, reasons, left = await run(page, "operator/consent_list.js", LIST + script, [SHORT, LONG])
    assert (rows, left) == (1, "2 h 00 min")
    assert all(text in reasons for text in ("it does not start", "Tenant: olivia · Serial, View only, until", "Tenant: oscar"))


async def test_a_console_is_asked_for_with_the_keyboard_where_one_of_them_has_it(page: Page) -> None:
    """The node would take the consent that lasts longest, which is for viewing."""
    script = "for (const one of rows[0].querySelectorAll('.opens .main')) one.click(); return asked"
    asked = await run(page, "operator/consent_list.js", LIST + script, [LONG, SHORT])
    assert [wish[1:] for wish in asked] == [["serial", "keyboard"], ["graphics", "keyboard"]]


async def test_a_console_for_viewing_says_so_beside_one_for_typing(page: Page) -> None:
    script = "return [...rows[0].querySelectorAll('.opens .main')].map((one) => one.textContent)"
    found = await run(page, "operator/consent_list.js", LIST + script, [LONG, SHORT | {"kinds": ["graphics"]}])
    assert found == ["Serial (view only)", "Screen"]


@pytest.mark.parametrize("wanted", ["LOST KEY", "olivia", "rg1", f"x -ResourceID {GROUP}/Vm1"])
async def test_it_is_found_by_what_any_of_its_consents_says(page: Page, wanted: str) -> None:
    script = """
        const line = document.querySelector("#find");
        const shown = (text) => { line.value = text; line.dispatchEvent(new Event("input")); return rows[0].checkVisibility() };
        return [shown(given[2]), shown("nothing of it")];
    """
    begin = LIST.replace("consents: given", "consents: given.slice(0, 2)")
    assert await run(page, "operator/consent_list.js", begin + script, [LONG, SHORT, wanted]) == [True, False]
