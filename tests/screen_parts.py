"""A guest's screen twice: as its hypervisor has it, and as a browser has painted it."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import libvirt_qemu
from PIL import Image, ImageChops
from playwright.async_api import Locator

from lab.libvirt_host import Guest

PATIENCE = 60.0
AGAIN = 5.0  # seconds for a guest to show what was typed
KEY = re.compile(r"input_event_key_qcode .*key qcode (\S+), down 1\b")
SAME = 0.995  # of the pixels: the cursor blinks
CURSOR = 0.999  # of them stay the same while only the cursor blinks
EMPTY = "data:,"  # of a canvas without pixels (HTML 4.12.5.3)


def screen_of(guest: Guest) -> Image.Image:
    """The picture that QEMU makes, whoever looks on. Blocks for some milliseconds."""
    stream = guest.host.connection.newStream(0)
    guest.domain.screenshot(stream, 0)
    ppm = bytearray()
    while chunk := stream.recv(65536):
        ppm += chunk
    stream.finish()
    return Image.open(io.BytesIO(ppm)).convert("RGB")


async def painted(canvas: Locator) -> Image.Image:
    """The pixels of a canvas, in its own size, once it has one. Raises AssertionError."""
    deadline = time.monotonic() + PATIENCE
    while (url := await canvas.evaluate("canvas => canvas.toDataURL('image/png')")) == EMPTY:
        assert time.monotonic() < deadline, "the canvas has no size"
        await asyncio.sleep(0.05)
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def likeness(one: Image.Image, other: Image.Image) -> float:
    """The share of pixels that are the same; 0 for pictures of another size."""
    if one.size != other.size:
        return 0.0
    differing = ImageChops.difference(one, other).convert("L").point(lambda level: 255 if level else 0)
    return 1 - differing.histogram()[255] / (one.width * one.height)


def is_blank(picture: Image.Image) -> bool:
    """Whether it has one colour only."""
    return len(picture.getcolors(2) or ()) == 1


async def shows_screen(canvas: Locator, guest: Guest, patience: float = PATIENCE) -> Image.Image:
    """The canvas's picture, once it is the guest's screen and that is not blank. Raises AssertionError."""
    deadline = time.monotonic() + patience
    while True:
        wanted, found = screen_of(guest), await painted(canvas)
        if not is_blank(wanted) and likeness(wanted, found) >= SAME:
            return found
        assert time.monotonic() < deadline, f"{found.size} is not the guest's {wanted.size}, alike {likeness(wanted, found):.3f}"
        await asyncio.sleep(0.1)


async def changed(canvas: Locator, before: Image.Image, again: Callable[[], Awaitable[None]]) -> None:
    """Returns once more than the cursor is not as before. `again` is done each few seconds: QEMU's keyboard drops keys."""
    deadline = time.monotonic() + PATIENCE
    after = time.monotonic() + AGAIN
    while likeness(await painted(canvas), before) > CURSOR:
        assert time.monotonic() < deadline, "the screen stays as it was"
        if time.monotonic() > after:
            await again()
            after = time.monotonic() + AGAIN
        await asyncio.sleep(0.1)  # what is painted cannot be awaited


class KeyTrace:
    """Each key that goes down at a guest's own keyboard, as QEMU's trace tells it: no starved guest loses one there."""

    def __init__(self, guest: Guest) -> None:
        self._log: Path = guest.host.directory / f"cache/libvirt/qemu/log/{guest.name}.log"
        libvirt_qemu.qemuMonitorCommand(
            guest.domain, "trace-event input_event_key_qcode on", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
        )
        self._told = len(self._log.read_text())

    def pressed(self) -> list[str]:
        """The names of those since the last call."""
        text = self._log.read_text()
        fresh, self._told = text[self._told :], len(text)
        return KEY.findall(fresh)
