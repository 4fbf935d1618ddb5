"""Hostile pages in an operator's own browser: another origin, a frame around ours, a crafted link. None has any effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from lab.browser import Browser
from lab.cloud import Cloud
from lab.libvirt_host import Guest
from tests.operator_window import open_console, sign_in
from tests.other_site import OtherSite
from tests.system_parts import consented, revoked

NODE = "AzS-ERCS01"
HOSTS = ("localhost", "127.0.0.1")  # the same site as the node's, and another


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(cloud: Cloud, shared_guest: Guest) -> AsyncIterator[Page]:
    """A browser whose operator has a console open at the node: what lies in wait is opened beside it, and changes nothing."""
    grant = await consented(cloud, shared_guest)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        pane = await open_console(page, shared_guest.name, "serial")
        title = await page.title()
        yield page
        await expect(pane.get_by_text("Connected", exact=True)).to_be_visible()
        await expect(page.locator("section.pane")).to_have_count(1)
        assert await page.title() == title
        browser.taken("policy")  # a page that would not be framed says so
        await revoked(cloud, grant)  # no session of it is left


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(cloud: Cloud) -> AsyncIterator[OtherSite]:
    async with OtherSite({"/": "<!doctype html><title>lure</title><body>"}).serving(cloud.authority) as site:
        yield site


@pytest_asyncio.fixture(params=HOSTS, loop_scope="module")
async def lure(request: pytest.FixtureRequest, site: OtherSite, operator: Page) -> AsyncIterator[Page]:
    """The hostile page, in the operator's browser."""
    page = await operator.context.new_page()
    await page.goto(site.url.replace("localhost", request.param))
    yield page
    await page.close()


def url_of(cloud: Cloud) -> str:
    return f"https://localhost:{cloud.nodes[NODE].port}"


CONNECT = """
([url, subprotocols]) => new Promise((resolve) => {
  const socket = new WebSocket(url, subprotocols);
  socket.onopen = () => resolve("open");
  socket.onclose = (event) => resolve(event.code);
})
"""
# The same from a sandboxed frame, whose origin is "null".
CONNECT_FROM_NOWHERE = """
([url, subprotocols]) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = `<script>
    const socket = new WebSocket(${JSON.stringify(url)}, ${JSON.stringify(subprotocols)});
    socket.onopen = () => parent.postMessage("open", "*");
    socket.onclose = (event) => parent.postMessage(event.code, "*");
  </` + `script>`;
  addEventListener("message", (event) => resolve(event.data), { once: true });
  document.body.append(frame);
})
"""
SOCKETS = {
    "/v1/control": ["eva.control.v1"],
    "/v1/console": ["eva.serial.v1", "eva.ticket." + "A" * 43],
}


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("how", [CONNECT, CONNECT_FROM_NOWHERE], ids=["page", "sandboxed frame"])
async def test_another_origin_gets_no_websocket(cloud: Cloud, lure: Page, path: str, how: str) -> None:
    url = url_of(cloud).replace("https:", "wss:") + path
    assert await lure.evaluate(how, [url, SOCKETS[path]]) == 1006


READ = """
async (url) => {
  const found = {};
  const ways = { cors: {}, cookies: { credentials: "include" }, post: { method: "POST", body: "x" } };
  for (const [name, how] of Object.entries(ways)) {
    found[name] = await fetch(url, how).then((answer) => answer.text(), (error) => error.name);
  }
  const opaque = await fetch(url, { mode: "no-cors" }).then((answer) => answer.type, (error) => error.name);
  return { ...found, opaque };
}
"""


@pytest.mark.parametrize("path", ["/", "/sign-in/ways", "/operator/page.js"])
async def test_another_origin_reads_nothing_of_the_node(cloud: Cloud, lure: Page, path: str) -> None:
    found = await lure.evaluate(READ, url_of(cloud) + path)
    assert {found["cors"], found["cookies"], found["post"]} == {"TypeError"}
    assert found["opaque"] in {"TypeError", "opaque"}


LOAD = """
([name, attribute, url]) => new Promise((resolve) => {
  const element = document.createElement(name);
  element.onload = () => resolve("loaded");
  element.onerror = () => resolve("refused");
  element[attribute] = url;
  if (name === "link") element.rel = "stylesheet";
  document.body.append(element);
})
"""


@pytest.mark.parametrize(
    ("name", "attribute", "path"),
    [
        ("script", "src", "/operator/texts.js"),
        ("link", "href", "/operator/page.css"),
        ("img", "src", "/operator/icon.svg"),
    ],
)
async def test_another_origin_loads_none_of_its_files(cloud: Cloud, lure: Page, name: str, attribute: str, path: str) -> None:
    assert await lure.evaluate(LOAD, [name, attribute, url_of(cloud) + path]) == "refused"


FRAME = """
([name, url]) => new Promise((resolve) => {
  const frame = document.createElement(name);
  frame.onload = frame.onerror = resolve;
  frame[name === "object" ? "data" : "src"] = url;
  document.body.append(frame);
})
"""


@pytest.mark.parametrize("name", ["iframe", "object", "embed"])
async def test_no_page_frames_ours(cloud: Cloud, lure: Page, name: str) -> None:
    await lure.evaluate(FRAME, [name, url_of(cloud) + "/"])
    for frame in lure.frames[1:]:
        assert not frame.url.startswith(url_of(cloud))  # an error page of the browser's own, or nothing


async def test_a_window_that_another_page_opened_is_out_of_its_reach(cloud: Cloud, lure: Page) -> None:
    async with lure.context.expect_page() as opening:
        await lure.evaluate("url => { window.theirs = open(url) }", url_of(cloud) + "/")
    ours = await opening.value
    await expect(ours.locator("#account")).to_be_visible()
    assert await ours.evaluate("window.opener") is None
    await lure.wait_for_function("window.theirs.closed", polling=50)  # COOP: the handle leads nowhere
    await lure.evaluate("window.theirs.location = 'about:blank'")
    await lure.evaluate("window.theirs.close()")
    await expect(ours.locator("#account")).to_be_visible()


async def test_a_form_of_another_page_does_nothing(cloud: Cloud, lure: Page) -> None:
    async with lure.expect_navigation():
        await lure.evaluate(
            "url => { const form = document.createElement('form'); form.method = 'post'; form.action = url;"
            " document.body.append(form); form.submit() }",
            url_of(cloud) + "/",
        )
    assert await lure.locator("#account").count() == 0


def crafted(resource_id: str) -> list[str]:
    """Links as they could stand in a letter."""
    return [
        f"#{resource_id}",
        f"#ConnectTo-TenantVm -ResourceID {resource_id}",
        f"#open={quote(resource_id)}&kind=serial",
        "#account=alice&password=guess",
        "#javascript:document.title=1",
        "#<img src=x onerror=document.title=1>",
        "#__proto__[why]=connection-lost",
        "#:~:text=Sign in",
    ]


async def test_what_stands_behind_the_hash_is_not_looked_at(cloud: Cloud, operator: Page, shared_guest: Guest) -> None:
    for fragment in crafted(str(shared_guest.resource_id)):
        page = await operator.context.new_page()
        await page.goto(f"{url_of(cloud)}/{fragment}")
        await expect(page.locator("#account")).to_be_visible()
        assert [await page.locator(name).input_value() for name in ("#account", "#password")] == ["", ""]
        assert await page.get_by_role("alert").is_hidden()
        assert await page.title() == "Emergency VM Access"
        assert await page.locator("img").count() == 0
        await page.close()


async def test_nor_when_somebody_is_signed_in(operator: Page, shared_guest: Guest) -> None:
    pane = operator.locator("section.pane")
    title, before = await operator.title(), await pane.get_by_role("toolbar").inner_html()
    for fragment in crafted(str(shared_guest.resource_id)):
        await operator.evaluate("fragment => { location.hash = fragment }", fragment)
    await expect(pane).to_have_count(1)
    assert (await operator.title(), await pane.get_by_role("toolbar").inner_html()) == (title, before)


async def test_a_query_is_no_page(cloud: Cloud, operator: Page, shared_guest: Guest) -> None:
    page = await operator.context.new_page()
    for query in ("?", "?account=alice", f"?resource={quote(str(shared_guest.resource_id))}", "?next=https://hostile.example/"):
        answer = await page.goto(f"{url_of(cloud)}/{query}")
        assert answer is not None
        assert answer.status in {400, 403, 404}
        assert await page.locator("#account").count() == 0


async def test_a_path_is_what_the_table_has_and_nothing_else(cloud: Cloud, operator: Page) -> None:
    page = await operator.context.new_page()
    for path in (
        "//hostile.example/",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/operator/",
        "/operator/index.html",
        "/vendor/novnc/package.json",
        "/v1",
    ):
        answer = await page.goto(url_of(cloud) + path)
        assert answer is not None
        assert answer.status in {400, 403, 404}
        assert page.url.startswith(url_of(cloud))
