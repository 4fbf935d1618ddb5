"""An operator at the node's own page in a browser: what a person does there, step by step, by what stands on it."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

from lab.cloud import OPERATOR, PASSWORD, Ercs

KINDS = {"serial": "Serial", "graphics": "Screen"}
SLOW_MS = 60_000  # a guest under TCG on a shared machine


async def sign_in(page: Page, ercs: Ercs, account: str = OPERATOR) -> None:
    """Returns when the list is there. The workstation is on the safelist already."""
    await page.goto(f"https://localhost:{ercs.port}/")
    await page.locator("#account").fill(account)
    await page.locator("#password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.locator("#find")).to_be_visible()


async def open_console(page: Page, vm: str, kind: str) -> Locator:
    """Opens it from the list; gives its pane, once it is connected."""
    # one VM may have more than one consent
    await page.get_by_role("button", name=f"Open {KINDS[kind]} of {vm}").first.click(timeout=SLOW_MS)
    pane = page.get_by_label(f"{vm} · {KINDS[kind]}").and_(page.locator("section.pane"))
    await expect(pane.get_by_text("Connected", exact=True)).to_be_visible(timeout=SLOW_MS)
    return pane


async def type_text(
    pane: Locator, text: str, *, layout: str | None = None, masked: bool = False, enter: bool = True, pace: str = "20"
) -> None:
    """Types it by the page's own tool; returns when all of it went. `layout`: on a screen, the guest's."""
    start = pane.get_by_role("button", name="Type text")
    if await start.get_attribute("aria-expanded") == "false":
        await start.click()
    panel = pane.locator("section.typing")
    await panel.locator("#type-masked").set_checked(masked)
    await panel.locator("#type-secret" if masked else "#type-text").fill(text)
    await panel.locator("#type-enter").set_checked(enter)
    if layout is not None:
        await panel.locator("#type-layout").select_option(layout)
    await panel.locator("#type-pace").select_option(pace)
    await panel.get_by_role("button", name="Type", exact=True).click()
    await expect(panel.get_by_text("All typed.")).to_be_visible(timeout=SLOW_MS)


async def shown_text(pane: Locator) -> str:
    """What stands in the terminal now, as a person reads it."""
    rows: list[str] = await pane.locator(".xterm-rows > div").all_inner_texts()
    return "\n".join(row.replace("\xa0", " ").rstrip() for row in rows)
