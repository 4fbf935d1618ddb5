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
from lab.transcript import NotSeen
from tests.conftest import resource_id_of
from tests.operator_window import open_console, sign_in, type_text
from tests.screen_parts import PATIENCE, KeyTrace
from tests.system_parts import consented

NODE = "AzS-ERCS01"
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))  # all 95
LONGEST = 64  # signs of one password
LAYOUTS = ("us", "de")
SLOWER = ("60", "200", "200")  # ms between two signs: what an operator takes for a guest that lost keys


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
    guest.run("openvt -c 2 -s hear", timeout=PATIENCE)
    guest.serial.wait_for("listening", timeout=PATIENCE)
    yield layout, guest
    guest.discard()


class Keyboard(KeyTrace):
    """What QEMU gave the guest's keyboard, and what the guest read of that on its screen."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self._serial = guest.serial
        self._read = guest.serial.size()

    async def heard(self) -> str | None:
        """The next line that the guest read, as it told it on the serial line; None if none came."""
        try:
            begin = await self._serial.seen("heard ", after=self._read)
            self._read = await self._serial.seen(".\r\n", after=begin)
        except NotSeen:
            return None
        return bytes.fromhex(self._serial.text(begin)[: self._read - begin].strip(".\r\n")).decode("ascii", "replace")


@pytest.mark.parametrize(("masked", "pace"), [(False, "20"), (True, "0")], ids=["shown, fast", "masked, at once"])
async def test_each_sign_arrives_as_it_was_typed(cloud: Cloud, keyboard: tuple[str, Guest], masked: bool, pace: str) -> None:
    """QEMU's keyboard holds 16 bytes and drops what a starved guest does not fetch: then it is typed again, slower."""
    layout, guest = keyboard
    await consented(cloud, guest)
    await asyncio.to_thread(cloud.cmdlet, "Grant-RdpAccessToErcsVM")
    async with Browser(cloud.authority.ca) as browser:
        page = await browser.window()
        await sign_in(page, cloud.nodes[NODE])
        pane = await open_console(page, guest.name, "graphics")
        keys = Keyboard(guest)
        for password in passwords():
            first: list[str] = []
            for each in (pace, *SLOWER):
                await type_text(pane, password, layout=layout, masked=masked, pace=each)
                found = await keys.heard()
                pressed = keys.pressed()
                first = first or pressed
                assert len(pressed) > len(password)  # Enter
                assert pressed == first, "not every key came as far as the guest's keyboard"
                if found == password:
                    break
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
