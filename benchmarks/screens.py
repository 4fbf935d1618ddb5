"""One guest's screen in one browser by two ways: our page at a node, and noVNC's own class on a page of its own with websockify.

Same guest, same Chromium, same release of noVNC, TLS for both. A page's own clock says when the first picture stood on its
canvas and how many came, by a script that both pages are given alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection
from typing import Final

from playwright.async_api import Page

from benchmarks.measures import EVA_PAGE, NOVNC_PAGE
from lab.browser import Browser
from lab.cloud import OPERATOR, PASSWORD, SUBSCRIPTION, Cloud
from lab.domain import domain_xml
from lab.guest_image import ROOT
from lab.libvirt_host import Guest, LibvirtHost
from lab.ports import free_port
from lab.process import Program

Note = Callable[[str, str, float], None]  # takes measure, contender, figure
Samples = dict[str, dict[str, list[tuple[float, float | None]]]]  # by measure and contender: figure, no 99th percentile

VM: Final = "bench"
NODE: Final = "AzS-ERCS01"
RESOURCE: Final = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{VM}"
SLOW_MS: Final = 60_000

# noVNC's page: as its documentation has it, and a button in place of its address bar.
STOCK = """<!doctype html><title>noVNC</title><button id="connect" disabled>Connect</button>
<div id="screen" style="height: 600px"></div>
<script type="module">
import RFB from "./core/rfb.js";
let rfb = null;
const button = document.querySelector("#connect");
button.onclick = () => {
  rfb = new RFB(document.querySelector("#screen"), `wss://${location.host}/websockify`);
  rfb.scaleViewport = true;
};
globalThis.leave = () => rfb.disconnect();
button.disabled = false;
</script>"""

# When the page could be used; when a button was pressed; when a picture that is not blank stood on a canvas in the page; and
# how many pictures came since `count` was set to 0. noVNC draws each whole update from its back buffer in one call.
WATCH = """
globalThis.bench = { ready: 0, clicked: 0, painted: 0, count: 0 };
addEventListener("click", (event) => { bench.clicked = event.timeStamp; bench.painted = 0; }, { capture: true });
const look = () => {
  const usable = document.querySelector("#account, #connect:enabled");
  if (usable) bench.ready = performance.now(); else requestAnimationFrame(look);
};
requestAnimationFrame(look);
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...words) {
  draw.apply(this, words);
  if (!this.canvas.isConnected) return;
  bench.count++;
  if (bench.painted || !bench.clicked) return;
  const pixels = new Uint32Array(this.getImageData(0, 0, this.canvas.width, this.canvas.height).data.buffer);
  if (pixels.some((pixel) => pixel !== pixels[0])) bench.painted = performance.now();
};
"""

# Playwright's own way to wait evaluates a string, and our page's policy forbids that.
UNTIL = """
(name) => new Promise((resolve) => {
  const look = () => bench[name] ? resolve() : setTimeout(look, 20);
  look();
})
"""


@dataclass(frozen=True)
class Place:
    """One way to the screen. `leave`: brings the page back to where `press` can be pressed."""

    name: str
    url: str
    enter: Callable[[Page], Awaitable[None]]
    press: str
    leave: Callable[[Page], Awaitable[None]]


@dataclass(frozen=True)
class Screens:
    guest: Guest
    browser: Browser
    places: tuple[Place, ...]

    async def window(self, place: Place, *, entered: bool = True) -> Page:
        page = await self.browser.window()
        await page.add_init_script(WATCH)
        await page.goto(place.url)
        await page.evaluate(UNTIL, "ready")
        if entered:
            await place.enter(page)
        return page

    def in_turn(self, number: int) -> tuple[Place, ...]:
        """Each round begins with another one."""
        first = number % len(self.places)
        return self.places[first:] + self.places[:first]


async def show(page: Page, place: Place) -> float:
    """Opens the screen; gives the milliseconds from the press to the first picture."""
    await page.locator(place.press).first.click(timeout=SLOW_MS)
    await page.evaluate(UNTIL, "painted")
    return float(await page.evaluate("bench.painted - bench.clicked"))


@contextlib.asynccontextmanager
async def screens(folder: Path) -> AsyncIterator[Screens]:
    """Guest, node, websockify and browser."""
    with LibvirtHost() as host, Cloud({"host1": host.uri}) as cloud:
        socket = host.directory / "run/vnc.sock"
        log = host.new_serial_log()
        xml = domain_xml(VM, "3c1b7a52-6f0e-4f43-9a55-0d5b6f1c8e21", host.image, resource_id=RESOURCE, serial_log=log)
        # where both can reach it: libvirt hands a descriptor over all the same
        xml = xml.replace("<listen type='none'/>", f"<listen type='socket' socket='{socket}'/>")
        guest = host.define(xml, resource_id=RESOURCE, serial_log=log)
        guest.start()
        guest.wait_ready()
        cloud.grant(RESOURCE)
        cloud.cmdlet("Grant-RdpAccessToErcsVM")
        with _websockify(folder, cloud, socket) as url:
            async with Browser(cloud.authority.ca) as browser:
                places = (
                    Place(
                        EVA_PAGE,
                        f"https://localhost:{cloud.nodes[NODE].port}/",
                        _sign_in,
                        f'[aria-label="Open Screen of {VM}"]',
                        _leave,
                    ),
                    Place(NOVNC_PAGE, url, _nothing, "#connect", _disconnect),
                )
                yield Screens(guest, browser, places)
                # a stock page has no policy of ours; and QEMU may end a connection while noVNC is at its handshake
                browser.taken()


@contextlib.contextmanager
def _websockify(folder: Path, cloud: Cloud, socket: Path) -> Iterator[str]:
    """noVNC's page and its relay; gives the page's address."""
    web = folder / "novnc"
    shutil.rmtree(web, ignore_errors=True)
    for name in ("core", "vendor"):
        shutil.copytree(ROOT / "web/vendor/novnc" / name, web / name)
    (web / "screen.html").write_text(STOCK)
    pair, port = cloud.authority.server("websockify"), free_port()
    tls = (f"--cert={pair.certificate}", f"--key={pair.key}", "--ssl-only")
    command = (sys.executable, "-m", "websockify", f"--unix-target={socket}", f"--web={web}", *tls, f"127.0.0.1:{port}")
    with Program(command, folder / "websockify.log") as program:
        deadline = time.monotonic() + 20
        while True:
            try:
                create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert program.running, program.transcript.tail()
                assert time.monotonic() < deadline, "websockify does not listen"
                time.sleep(0.05)  # a port that is not there yet cannot be awaited
        yield f"https://localhost:{port}/screen.html"


async def _sign_in(page: Page) -> None:
    await page.locator("#account").fill(OPERATOR)
    await page.locator("#password").fill(PASSWORD)
    await page.locator("#password").press("Enter")
    await page.locator("#find").wait_for(timeout=SLOW_MS)


async def _leave(page: Page) -> None:
    await page.get_by_role("button", name="Leave", exact=True).click()
    await page.locator("#find").wait_for(timeout=SLOW_MS)


async def _nothing(_: Page) -> None:
    pass


async def _disconnect(page: Page) -> None:
    await page.evaluate("leave()")
    await page.locator("canvas").wait_for(state="detached", timeout=SLOW_MS)


def run(measure: Callable[[Screens, int, Note], Awaitable[None]]) -> None:
    """A program's whole work: `ROUNDS FOLDER` as its arguments, a line of JSON as its answer."""
    rounds, folder = int(sys.argv[1]), Path(sys.argv[2])
    samples: Samples = defaultdict(lambda: defaultdict(list))

    async def work() -> None:
        async with screens(folder) as here:
            await measure(here, rounds, lambda name, who, figure: samples[name][who].append((figure, None)))

    asyncio.run(work())
    print(json.dumps(samples))
