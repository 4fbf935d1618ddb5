"""A guest's screen twice: as its hypervisor has it, and as a browser has painted it."""

from __future__ import annotations

import asyncio
import base64
import io
import time

from PIL import Image, ImageChops
from playwright.async_api import Locator

from lab.libvirt_host import Guest

PATIENCE = 60.0
SAME = 0.995  # of the pixels: the cursor blinks


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
    """The pixels of a canvas, in its own size."""
    url = await canvas.evaluate("canvas => canvas.toDataURL('image/png')")
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
