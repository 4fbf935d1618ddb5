"""What the tests of the pages' modules share: a browser that has them without a node, and a node that a script plays."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

import web
from lab.browser import Browser
from lab.certificates import Authority
from tests.other_site import OtherSite

PAGE = """<!doctype html><html lang="en"><title>modules</title>
<link rel="stylesheet" href="/vendor/xterm/xterm.css"><link rel="stylesheet" href="/shared/look.css"><body></body>"""
HOME = Path(web.__file__).parent
GROUP = "/subscriptions/7d2f4a3c-5b1e-4c88-9a06-2f3d1e5b7c90/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines"

# Websockets that are open at once, and a node behind them that answers a method with what `node` has for it: the result, or a
# function of the parameters and of what answers later. `calls`: what was asked; `sockets`: in the order in which they were made.
NODE = """
    globalThis.sockets = []; globalThis.calls = []; globalThis.node = {};
    globalThis.WebSocket = class extends EventTarget {
        static OPEN = 1;
        readyState = 1; protocol = ""; binaryType = "blob"; onopen = null; onclose = null; onerror = null; onmessage = null;
        sent = [];
        constructor(url) {
            super();
            this.url = url;
            sockets.push(this);
            queueMicrotask(() => this.readyState === 1 && this.dispatchEvent(new Event("open")));
            node.connected?.(this);
        }
        send(data) {
            if (typeof data !== "string") return void this.sent.push(...data);
            const {id, method, params} = JSON.parse(data);
            calls.push([method, params]);
            const answer = (result) => this.tell({id, result});
            const result = typeof node[method] === "function" ? node[method](params, answer) : node[method];
            if (result !== undefined) queueMicrotask(() => answer(result));
        }
        tell(message) { this.say(JSON.stringify({jsonrpc: "2.0", ...message})) }
        say(data) { this.dispatchEvent(new MessageEvent("message", {data})) }
        close(code) { this.closed ??= code ?? 1005; this.readyState = 3; }
        drop(code = 1006) { this.readyState = 3; this.dispatchEvent(new CloseEvent("close", {code})) }
    };
    globalThis.soon = () => new Promise((resolve) => setTimeout(resolve));
"""


@contextlib.asynccontextmanager
async def module_page(certificates: Authority) -> AsyncIterator[Page]:
    async with OtherSite({"/": PAGE}, folder=HOME).serving(certificates) as site, Browser(certificates.ca) as browser:
        page = await browser.window()
        await page.goto(f"{site.url}/")
        yield page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser_page(certificates: Authority) -> AsyncIterator[Page]:
    """One for all tests of a file that leave nothing behind."""
    async with module_page(certificates) as page:
        yield page


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser_page: Page) -> AsyncIterator[Page]:
    """It again, with modules and globals of the test's own."""
    await browser_page.reload()
    yield browser_page


async def run(page: Page, module: str, script: str, argument: object = None) -> Any:
    """What the script gives; `m` is the module."""
    return await page.evaluate(f"async (given) => {{ const m = await import('/{module}'); {script} }}", argument)
