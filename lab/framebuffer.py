"""A small VNC client for the demo and the tests: takes pictures of a guest's screen and presses keys. RFC 6143, 3.8, no password.

Speaks Raw only and 32 bits a pixel; trusts the server, so use it behind the broker or on a guest of your own.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from pathlib import Path
from struct import Struct, pack

from PIL import Image

RAW = 0
DESKTOP_SIZE = -223

VERSION = b"RFB 003.008\n"
# 32 bits, depth 24, little-endian, true colour, each maximum 255, red << 16, green << 8, blue: Pillow's BGRX
PIXEL_FORMAT = bytes((32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0))

_INIT = Struct(">HH16sI")
_RECT = Struct(">HHHHi")


class FramebufferError(Exception):
    """The server said something that this client does not know."""

    def __init__(self, field: str, value: int) -> None:
        super().__init__(field, value)
        self.field = field
        self.value = value


class Framebuffer:
    """One connection after its handshake: a picture that each `update` brings up to date."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, width: int, height: int, title: str) -> None:
        self._reader = reader
        self._writer = writer
        self.title = title
        self.image = Image.new("RGB", (width, height))

    @classmethod
    async def open(cls, reader: StreamReader, writer: StreamWriter, *, shared: bool = True) -> "Framebuffer":
        """Do the handshake and ask for Raw. Raise FramebufferError, asyncio.IncompleteReadError."""
        version = await reader.readexactly(12)
        if version != VERSION:
            raise FramebufferError("version", int.from_bytes(version))
        writer.write(VERSION)
        types = await reader.readexactly((await reader.readexactly(1))[0])
        if 1 not in types:
            raise FramebufferError("security", len(types))
        writer.write(b"\x01")
        if result := int.from_bytes(await reader.readexactly(4)):
            raise FramebufferError("security-result", result)
        writer.write(bytes((shared,)))
        width, height, _, length = _INIT.unpack(await reader.readexactly(_INIT.size))
        title = (await reader.readexactly(length)).decode("utf-8", "replace")
        writer.write(pack(">B3x16s", 0, PIXEL_FORMAT))
        writer.write(pack(">BxHii", 2, 2, RAW, DESKTOP_SIZE))
        return cls(reader, writer, width, height, title)

    async def update(self, *, incremental: bool = False) -> None:
        """Ask for the screen and wait until pixels have come; incremental: until something has changed."""
        self._writer.write(pack(">BBHHHH", 3, incremental, 0, 0, *self.image.size))
        await self._writer.drain()
        while not await self._message():
            pass

    def key(self, keysym: int, *, down: bool) -> None:
        """Press a key or let it go (X11 keysym)."""
        self._writer.write(pack(">BB2xI", 4, down, keysym))

    def pointer(self, x: int, y: int, buttons: int = 0) -> None:
        """Move the pointer there, with these buttons down."""
        self._writer.write(pack(">BBHH", 5, buttons, x, y))

    def cut_text(self, text: bytes) -> None:
        """Offer a clipboard."""
        self._writer.write(pack(">B3xI", 6, len(text)) + text)

    async def type(self, text: str) -> None:
        """Press and let go the key of each printable ASCII character."""
        for character in text:
            self.key(ord(character), down=True)
            self.key(ord(character), down=False)
            await self._writer.drain()

    def blank(self) -> bool:
        """Whether the picture has one colour only."""
        return all(low == high for low, high in _extrema(self.image))

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return

    async def _message(self) -> bool:
        """Take one message; give whether it brought pixels."""
        kind = (await self._reader.readexactly(1))[0]
        if kind == 0:
            count = int.from_bytes((await self._reader.readexactly(3))[1:])
            return any([await self._rectangle() for _ in range(count)])
        if kind == 3:
            await self._reader.readexactly(int.from_bytes((await self._reader.readexactly(7))[3:]))
        elif kind != 2:
            raise FramebufferError("message", kind)
        return False

    async def _rectangle(self) -> bool:
        x, y, width, height, encoding = _RECT.unpack(await self._reader.readexactly(_RECT.size))
        if encoding == DESKTOP_SIZE:
            self.image = Image.new("RGB", (width, height))
            return False
        if encoding != RAW:
            raise FramebufferError("encoding", encoding)
        pixels = await self._reader.readexactly(width * height * 4)
        self.image.paste(Image.frombytes("RGB", (width, height), pixels, "raw", "BGRX"), (x, y))
        return True


def _extrema(image: Image.Image) -> Sequence[tuple[int, int]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]  # Pillow types bands of floats, too


async def screenshot(reader: StreamReader, writer: StreamWriter, path: Path, *, patience: float = 60.0) -> tuple[int, int]:
    """Save the first picture that is not blank as a PNG; give its size in pixels.

    Raise TimeoutError when none has come in `patience` seconds, FramebufferError, asyncio.IncompleteReadError.
    """
    async with asyncio.timeout(patience):
        screen = await Framebuffer.open(reader, writer)
        await screen.update()
        while screen.blank():
            await screen.update(incremental=True)
    screen.image.save(path, "PNG")
    return screen.image.size
