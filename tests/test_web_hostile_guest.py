"""A hostile guest in a browser: what it writes, draws and names itself has no effect outside the area that is its own."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from struct import pack
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from lab.browser import Browser
from lab.certificates import Authority
from lab.cloud import Cloud
from lab.guest_image import ROOT, SOURCES
from lab.libvirt_host import Guest, LibvirtHost
from tests.conftest import resource_id_of
from tests.operator_window import open_console, sign_in
from tests.other_site import OtherSite
from tests.rfb_bytes import VERSION, guest_cut_text, key, rectangle, server_init, update
from tests.screen_parts import shows_screen
from tests.scripted_node import server_tls
from tests.system_operator import PATIENCE
from tests.system_parts import calm, consented, revoked
from tests.web_parts import at_prompt

NODE = "AzS-ERCS01"
MARKER = "what the operator had copied"
MARKUP = "vm <img src=x onerror=document.title=1>"
OWN_ELEMENTS = "a, img, svg, iframe, object, embed, script, link, form, audio, video, style"

# All but the guest's own area and what goes on by itself: the clocks, and in the list who is on.
OUTSIDE = """
() => {
  const copy = document.documentElement.cloneNode(true);
  for (const one of copy.querySelectorAll('.stage, .count-down, .consents .left, .consents .who')) one.remove();
  return copy.outerHTML;
}
"""


@pytest_asyncio.fixture
async def browser(cloud: Cloud) -> AsyncIterator[Browser]:
    async with Browser(cloud.authority.ca) as browser:
        yield browser
        assert {url.split("/")[2].split(":")[0] for url in browser.asked if "://" in url} == {"localhost"}


@pytest_asyncio.fixture
async def page(cloud: Cloud, browser: Browser, shared_guest: Guest) -> AsyncIterator[Page]:
    """An operator's, who trusts the page with the clipboard; no session of it is left."""
    grant = await consented(cloud, shared_guest)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    page = await browser.window(permissions=("clipboard-read", "clipboard-write"))
    await sign_in(page, cloud.nodes[NODE])
    await page.evaluate("text => navigator.clipboard.writeText(text)", MARKER)
    yield page
    await revoked(cloud, grant)


async def clipboard(page: Page) -> str:
    found: str = await page.evaluate("navigator.clipboard.readText()")
    return found


async def only_pixels(area: Locator) -> None:
    """In the guest's area stands nothing that loads, links, asks or runs."""
    await expect(area.locator(OWN_ELEMENTS)).to_have_count(0)


async def test_nothing_that_a_guest_writes_leaves_its_terminal(page: Page, shared_guest: Guest) -> None:
    calm(shared_guest)
    pane = await at_prompt(page, shared_guest.name)
    stage, title, url = pane.locator(".stage"), await page.title(), page.url
    before, mark = await page.evaluate(OUTSIDE), shared_guest.serial.size()
    await page.keyboard.type("hostile 6\n")
    # the most that it reaches is a picture in its own area, below what the page says
    await expect(stage.get_by_text("Session ended: your password to sign in again:")).to_be_visible()
    await expect(pane.get_by_text("Connected", exact=True)).to_be_visible()
    await expect(pane.get_by_role("timer")).to_be_visible()
    assert await page.evaluate(OUTSIDE) == before
    await only_pixels(stage)
    # a mouse or a focus that it asked to be told of
    await stage.click(position={"x": 60, "y": 60})
    await page.mouse.move(300, 400)
    await page.keyboard.press("Control+Alt+Shift")
    await stage.click(position={"x": 90, "y": 90})
    await shared_guest.serial.seen("answered: nothing.", after=mark, timeout=PATIENCE)
    await expect(stage.get_by_text("answered: nothing.")).to_be_visible()
    assert await clipboard(page) == MARKER
    assert (await page.title(), page.url) == (title, url)
    assert len(page.context.pages) == 1


async def test_a_link_in_a_terminal_is_a_text(page: Page, shared_guest: Guest) -> None:
    calm(shared_guest)
    pane = await at_prompt(page, shared_guest.name)
    await page.keyboard.type(
        r"clear; printf '\033]8;;https://hostile.example/\007cli''ck me\033]8;;\007 https://hostile.example/\n'" + "\n"
    )
    link = pane.locator(".xterm-rows").get_by_text("click me")
    await expect(link).to_be_visible()
    for modifiers in ([], ["Control"], ["Shift"], ["Alt"]):
        await link.click(modifiers=modifiers, position={"x": 20, "y": 5}, force=True)
        await link.click(modifiers=modifiers, position={"x": 120, "y": 5}, force=True)
    assert len(page.context.pages) == 1
    await only_pixels(pane.locator(".stage"))


def hostile_bytes() -> bytes:
    """What lab/guest/hostile writes, by a shell of this machine, whose terminal it never sees."""
    done = subprocess.run(["sh", SOURCES / "hostile", "0.1"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.stdout.startswith(b"\x1b]52;")
    return done.stdout


# A terminal of the page's own class, with nothing in front of it.
TERMINAL = """
async (bytes) => {
  const { TerminalScreen } = await import("/shared/terminal_screen.js");
  const element = document.createElement("div");
  element.id = "bare";
  element.style.width = "800px";
  element.style.height = "400px";
  document.body.append(element);
  const screen = new TerminalScreen(element, { readonly: false });
  const said = [];
  screen._terminal.onData((data) => said.push(data));
  screen._terminal.onBinary((data) => said.push(data));
  const titles = [];
  screen._terminal.onTitleChange((title) => titles.push(title));
  await new Promise((resolve) => screen._terminal.write(new Uint8Array(bytes), resolve));
  return { said, titles, text: screen.text, mouse: screen._terminal.modes.mouseTrackingMode };
}
"""


async def test_the_terminal_holds_without_the_node_s_filter(page: Page) -> None:
    title = await page.title()
    found = await page.evaluate(TERMINAL, list(hostile_bytes()))
    assert found["said"] == []
    assert found["titles"] == []
    assert found["mouse"] == "none"
    assert "Session ended" in found["text"] or "answered:" in found["text"]
    await only_pixels(page.locator("#bare"))
    assert await clipboard(page) == MARKER
    assert await page.title() == title


@pytest.fixture
def marked_up(libvirt_host: LibvirtHost) -> Iterator[Guest]:
    """A guest whose name is markup: QEMU makes it its desktop's name."""
    libvirt_host.revive()
    name = f"{MARKUP} {uuid4().hex[:8]}"
    guest = libvirt_host.start_guest(name, resource_id=resource_id_of(f"vm-{uuid4().hex[:8]}"))
    yield guest
    guest.discard()


async def test_a_desktop_s_name_is_nowhere_in_the_page(cloud: Cloud, page: Page, marked_up: Guest) -> None:
    await consented(cloud, marked_up)
    title = await page.title()
    vm = str(marked_up.resource_id).rpartition("/")[2]
    pane = await open_console(page, vm, "graphics")
    await shows_screen(pane.locator("canvas"), marked_up)
    assert "onerror" not in await page.content()
    assert await page.title() == title
    await only_pixels(pane.locator(".stage"))


class HostileScreen:
    """A VNC server in the node's place, with no filter: a name of markup, clipboards pushed at it. RFC 6143 7.1 to 7.6."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def serve(self, socket: ServerConnection) -> None:
        await socket.send(VERSION)
        await socket.recv()
        await socket.send(b"\x01\x01")
        await socket.recv()
        await socket.send(bytes(4))
        await socket.recv()
        white = rectangle(0, b"\xff" * (64 * 48 * 4), width=64, height=48)
        await socket.send(server_init(64, 48, name=b"</title><img src=x onerror=document.title=1>"))
        await socket.send(update(white) + guest_cut_text(b"hostile") + b"\x02" + EXTENDED)
        async for message in socket:
            assert isinstance(message, bytes)
            self.heard += message


FIXED = {0: 20, 3: 10, 4: 8, 5: 6, 255: 12}  # bytes of a client's messages (RFC 6143 7.5; 255 is QEMU's)


def cut_texts(sent: bytes) -> list[bytes]:
    """What a client has told of its clipboard: the body of each message 6 (RFC 6143 7.5.6; a length below 0 is extended)."""
    found, at = [], 0
    while at < len(sent):
        if sent[at] == 2:
            at += 4 + 4 * int.from_bytes(sent[at + 2 : at + 4])
        elif sent[at] == 6:
            length = abs(int.from_bytes(sent[at + 4 : at + 8], signed=True))
            found.append(sent[at + 8 : at + 8 + length])
            at += 8 + length
        else:
            at += FIXED[sent[at]]
    return found


def told_what_it_can(body: bytes) -> bool:
    """Of the extended clipboard: which formats it would take, or asks for; not that it has something, nor what."""
    return bool(body[0] & 0x01) or body[0] == 0x02


# The extended clipboard of rfbproto: all that it can, and that there is a text to fetch.
EXTENDED = b"".join(
    guest_cut_text(b"")[:4] + pack(">i", -len(body)) + body for body in (pack(">II", 0x1F000001, 100), pack(">I", 0x08000001))
)

VIEW = """<!doctype html><title>view</title><div id="vm" style="width: 640px; height: 480px"></div><script type="module">
import { GraphicsView } from "/shared/graphics_view.js";
const view = new GraphicsView(document.querySelector("#vm"), { viewOnly: false });
view.attach("PLACE", "ticket");
</script>"""


async def test_a_hostile_screen_reaches_neither_clipboard_nor_page(certificates: Authority) -> None:
    screen = HostileScreen()
    tls = server_tls(certificates)
    tls.verify_mode = ssl.CERT_NONE  # a browser asks its person on a page only, and there is none before this websocket
    async with (
        serve(screen.serve, "127.0.0.1", 0, ssl=tls, subprotocols=[Subprotocol("eva.vnc.v1")]) as server,
        Browser(certificates.ca) as browser,
    ):
        place = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
        async with OtherSite({"/": VIEW.replace("PLACE", place)}, ROOT / "web").serving(certificates) as site:
            page = await browser.window(permissions=("clipboard-read", "clipboard-write"))
            await page.goto(site.url)
            await page.evaluate("text => navigator.clipboard.writeText(text)", MARKER)
            canvas = page.locator("canvas")
            await expect(canvas).to_have_attribute("width", "64")
            await canvas.click()
            await page.evaluate("window.dispatchEvent(new Event('focus'))")
            await page.keyboard.type("ls")
            async with asyncio.timeout(PATIENCE):
                while not screen.heard.count(key(ord("s"), down=False)):
                    await asyncio.sleep(0.02)
            assert not [body for body in cut_texts(bytes(screen.heard)) if not told_what_it_can(body)]
            assert await clipboard(page) == MARKER
            assert await page.title() == "view"
            assert "onerror" not in await page.content()
            await only_pixels(page.locator("#vm"))


async def test_what_a_guest_draws_stays_below_the_clock(page: Page, shared_guest: Guest) -> None:
    """The guest's area overlaps nothing of the page's own, in either kind of console."""
    for kind in ("serial", "graphics"):
        pane = await open_console(page, shared_guest.name, kind)
        area = await pane.locator(".screen").bounding_box()
        clock = await pane.get_by_role("timer").bounding_box()
        assert area is not None
        assert clock is not None
        assert clock["y"] + clock["height"] <= area["y"]
        await pane.get_by_role("button", name="Leave").click()
        await expect(page.locator("#find")).to_be_visible()
