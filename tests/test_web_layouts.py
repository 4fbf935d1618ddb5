"""Type text as keystrokes, in the real page at the real node: a guest of each layout reads what was typed, sign for sign."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.async_api import expect

from lab.browser import Browser
from lab.cloud import Cloud
from lab.libvirt_host import Guest, LibvirtHost
from tests.conftest import resource_id_of
from tests.operator_window import open_console, sign_in, type_text
from tests.system_parts import consented

NODE = "AzS-ERCS01"
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))  # all 95
LONGEST = 64  # signs of one password
LAYOUTS = ("us", "de")


def passwords() -> list[str]:
    """Two of 64 signs that have all 95 between them; none begins or ends with what a shell's `read` would strip."""
    signs = list(PRINTABLE)
    random.Random(7).shuffle(signs)
    one, rest = signs[:LONGEST], signs[LONGEST:]
    other = rest + random.Random(8).choices(PRINTABLE, k=LONGEST - len(rest))
    return ["".join(one), "".join(other)]


def test_the_passwords_have_every_printable_sign() -> None:
    assert [len(one) for one in passwords()] == [LONGEST, LONGEST]
    assert set("".join(passwords())) == set(PRINTABLE) == set(string.printable) - set("\t\n\r\x0b\x0c")


@pytest.fixture(params=LAYOUTS)
def keyboard(request: pytest.FixtureRequest, libvirt_host: LibvirtHost) -> Iterator[tuple[str, Guest]]:
    """A layout, and a guest with a keyboard of it that reads lines on its screen."""
    layout: str = request.param
    libvirt_host.revive()
    name = f"vm-{layout}-{uuid4().hex[:8]}"
    arguments = "" if layout == "us" else f"keymap={layout}"
    guest = libvirt_host.start_guest(name, resource_id=resource_id_of(name), arguments=arguments)
    guest.run("openvt -c 2 -s hear")
    guest.serial.wait_for("listening")
    yield layout, guest
    guest.discard()


async def heard(guest: Guest, after: int) -> tuple[str, int]:
    """The next line that it read on its screen, as it told it on the serial line."""
    end = await guest.serial.seen(".\r\n", after=await guest.serial.seen("heard ", after=after))
    return bytes.fromhex(guest.serial.text(after)[: end - after].rpartition("heard ")[2].strip(".\r\n")).decode(), end


@pytest.mark.parametrize(("masked", "pace"), [(False, "20"), (True, "0")], ids=["shown, fast", "masked, at once"])
async def test_each_sign_arrives_as_it_was_typed(cloud: Cloud, keyboard: tuple[str, Guest], masked: bool, pace: str) -> None:
    layout, guest = keyboard
    await consented(cloud, guest)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        pane = await open_console(page, guest.name, "graphics")
        at = guest.serial.size()
        for password in passwords():
            await type_text(pane, password, layout=layout, masked=masked, pace=pace)
            found, at = await heard(guest, at)
            assert found == password


async def test_what_a_layout_lacks_is_told_and_nothing_of_it_typed(cloud: Cloud, shared_guest: Guest) -> None:
    await consented(cloud, shared_guest)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        pane = await open_console(page, shared_guest.name, "graphics")
        await pane.get_by_role("button", name="Type text").click()
        await pane.locator("#type-text").fill("Größe")
        await expect(pane.get_by_role("alert").filter(has_text="no key for: ö ß")).to_be_visible()
        await expect(pane.get_by_role("button", name="Type", exact=True)).to_be_disabled()
        await pane.locator("#type-layout").select_option("de")
        await expect(pane.get_by_role("button", name="Type", exact=True)).to_be_enabled()
