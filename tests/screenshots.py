"""`make screenshots`: the pages as they are, with a real guest, into docs/pictures/.

An operator signs in, opens both consoles of a VM and types, while its tenant watches: each picture is of a page in use.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.async_api import Locator, Page

from lab.browser import Browser
from lab.cloud import SUBSCRIPTION
from lab.guest_image import ROOT
from lab.libvirt_host import Guest, LibvirtHost
from tests.operator_window import open_console, shown_text, sign_in, type_text
from tests.screen_parts import PATIENCE, shows_screen
from tests.system_operator import NODE
from tests.watch_parts import Consented, WatchedCloud, watched_cloud, watching
from tests.web_parts import at_prompt, shows, type_line

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 150_000
COLOURS = 255  # more than a page has, but for the edges of its letters
VM, OTHER = "payroll-db", "web-01"
REASONS = {
    VM: "No boot since the kernel update of last night, and SSH is dead.",
    OTHER: "Locked out: the firewall took its own rules seriously.",
}
LINES = ("uname -a", "free -m", "ps | tail -6")


async def main() -> None:
    """Make all of them, or none is kept that is too large."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="eva-screenshots-") as directory, LibvirtHost() as host:
        guests = [guest_of(host, name) for name in (VM, OTHER)]
        with watched_cloud(Path(directory), host) as watched:
            consents = [await watched.consent(guest, reason=REASONS[guest.name]) for guest in guests]
            await asyncio.to_thread(watched.cloud.cmdlet, "Grant-RdpAccessToErcsVM")
            for dark in (False, True):
                async with watched.browser() as browser:
                    await pictures(watched, browser, guests[0], consents[0], "dark" if dark else "light")


def guest_of(host: LibvirtHost, name: str) -> Guest:
    resource_id = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{name}"
    guest = host.start_guest(name, resource_id=resource_id)
    guest.run("dmesg >/dev/tty1; free >/dev/tty1; uname -a >/dev/tty1")
    return guest


async def pictures(watched: WatchedCloud, browser: Browser, guest: Guest, consent: Consented, look: str) -> None:
    """All pages in one look, from sign-in to the tenant's."""
    operator = await browser.window(dark=look == "dark")
    await operator.goto(f"https://localhost:{watched.cloud.nodes[NODE].port}/")
    await operator.locator("#account").fill("alice")
    await take(operator, f"sign-in-{look}")
    await sign_in(operator, watched.cloud.nodes[NODE])
    await operator.get_by_role("button", name=f"Open Serial of {VM}").wait_for()
    await operator.get_by_role("button", name=f"Open Serial of {OTHER}").wait_for()
    await take(operator, f"list-{look}")

    tenant = await watching(browser, consent.link, dark=look == "dark", height=1160)
    pane = await at_prompt(operator, VM)
    for line in LINES:
        await type_line(pane, line)
        await shows(pane, f"# {line}")
        await at_rest(pane)
    await type_line(pane, "password")
    await shows(pane, "Password:")
    await type_text(pane, "not shown to anybody", masked=True)
    await shows(pane, "taken: ")
    await at_rest(pane)
    await pane.get_by_role("button", name="Type text").click()
    await take(operator, f"serial-{look}")

    screen = await open_console_beside(operator, VM)
    await shows_screen(screen.locator("canvas"), guest)
    await screen.get_by_role("button", name="Keys", exact=True).click()
    await take(operator, f"screen-{look}")

    await tenant.bring_to_front()
    await shows_screen(tenant.locator(".pane.graphics canvas"), guest)
    await take(tenant, f"watch-{look}")


async def open_console_beside(page: Page, vm: str) -> Locator:
    """The screen, from the list; the serial console stays open."""
    await page.get_by_role("button", name="Virtual machines").click()
    return await open_console(page, vm, "graphics")


async def at_rest(pane: Locator) -> None:
    """Returns once the last thing on the terminal is the shell's prompt."""
    deadline = time.monotonic() + PATIENCE
    while not (found := await shown_text(pane)).rstrip().endswith(":/root#"):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)  # what a terminal draws cannot be awaited


async def take(page: Page, name: str) -> None:
    """One picture of what the window shows. Raises SystemExit where it is too large for the repository."""
    await page.mouse.move(0, 0)
    png = await page.screenshot(animations="disabled", caret="hide")
    packed = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(packed, "PNG", optimize=True)
    if packed.tell() > MOST_BYTES:
        raise SystemExit(f"{name}: {packed.tell()} bytes, more than {MOST_BYTES}")
    (PICTURES / f"{name}.png").write_bytes(packed.getvalue())
    sys.stdout.write(f"docs/pictures/{name}.png, {packed.tell() // 1024} KiB\n")


if __name__ == "__main__":
    asyncio.run(main())
