"""A screen in a page: no key stays down in the guest when the keyboard goes elsewhere. noVNC's own keyboard hears real events."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from tests.web_module_parts import NODE, browser_page, page, run

__all__ = ["browser_page", "page"]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them: they leave nothing behind


# A screen that takes keys, with Shift and A down; `keys`: what goes to the guest from then on.
DOWN = (
    NODE
    + """
    const stage = document.body.appendChild(document.createElement("div"));
    const view = new m.GraphicsView(stage, {viewOnly: false});
    view.attach("wss://node/v1/console", "t");
    const canvas = document.querySelector("canvas");
    const rfb = view._rfb, keyboard = rfb._keyboard;
    keyboard.grab();
    const keys = [];
    const sends = () => !rfb.viewOnly && !rfb._rfbConnectionState.startsWith("disconnect"); // as RFB.sendKey has it
    keyboard.onkeyevent = (_, code, down) => sends() && keys.push((down ? "+" : "-") + code);
    canvas.focus();
    const press = (code, key) => canvas.dispatchEvent(new KeyboardEvent("keydown", {code, key, bubbles: true, cancelable: true}));
    press("ShiftLeft", "Shift"); press("KeyA", "A");
    const before = keys.splice(0).length;
"""
)
UP = ["-KeyA", "-ShiftLeft"]


@pytest.mark.parametrize(
    "how",
    [
        "canvas.blur()",
        "window.dispatchEvent(new FocusEvent('blur'))",
        "document.dispatchEvent(new Event('visibilitychange'))",
        "view.viewOnly = true",
        "view.releaseKeys()",
        "view.detach()",
        "view.dispose()",
        "view.attach('wss://node/v1/console', 't')",
    ],
)
async def test_what_is_down_comes_up(page: Page, how: str) -> None:
    found = await run(page, "shared/graphics_view.js", f"{DOWN} {how}; return [before, keys.sort()]")
    assert found == [2, UP]


async def test_a_screen_that_is_gone_listens_to_nothing(page: Page) -> None:
    script = """
        let heard = 0;
        view.dispose();
        view.releaseKeys = () => heard++;
        document.dispatchEvent(new Event("visibilitychange"));
        return heard;
    """
    assert await run(page, "shared/graphics_view.js", DOWN + script) == 0


async def test_a_screen_that_was_detached_tells_nothing_of_its_end(page: Page) -> None:
    script = """
        const told = [];
        view.onclosed = ({code}) => told.push(code);
        const [first] = sockets;
        view.detach();
        first.drop(4002);
        view.attach("wss://node/v1/console", "t");
        first.drop(4002);
        sockets[1].drop(4001);
        return told;
    """
    assert await run(page, "shared/graphics_view.js", DOWN + script) == [4001]
