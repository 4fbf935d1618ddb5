"""The RFB filter between real clients' bytes and a real QEMU, whose guest is a boot sector of a few bytes."""

import asyncio
import contextlib
import json
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from struct import Struct, pack

import pytest
from PIL import Image, ImageChops

from broker.rfb import Dropped, RfbError, RfbFilter
from broker.rfb_keys import PressedKeys
from lab.framebuffer import Framebuffer, screenshot
from lab.process import Program
from tests.broker_parts import PATIENCE
from tests.rfb_bytes import (
    COLOUR_MAP_8,
    TRUE_COLOUR_8,
    TRUE_COLOUR_16,
    TRUE_COLOUR_32,
    VERSION,
    key,
    request,
    set_encodings,
    set_format,
)

pytestmark = [
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64"),
    pytest.mark.timeout(300),
]

# mov ax,13h; int 10h; push 0A000h; pop es; xor di,di; mov cx,64000; mov bx,1;
# 1: imul ax,bx,6255h; add ax,3039h; mov bx,ax; mov al,ah; stosb; loop 1b; 2: hlt; jmp 2b
NOISE = bytes.fromhex("b81300cd106800a00731ffb900fabb010069c35562053930 89c388e0aae2f2f4ebfd")
# mov ax,3; int 10h; mov al,'>'; jmp 2f; 1: xor ah,ah; int 16h; 2: mov ah,0Eh; mov bx,7; int 10h; jmp 1b
ECHO = bytes.fromhex("b80300cd10b03eeb0430e4cd16b40ebb0700cd10ebf3")
NOISE_SCREEN = (640, 400)
TEXT_SCREEN = (720, 400)
SHIFT = 0xFFE1
ACKNOWLEDGED = Struct(">BxHHHHHi")


class Machine:
    """One QEMU without a network card that boots a sector; stopped until `go`."""

    def __init__(self, sector: bytes) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eva-rfb-"))
        self.vnc = self.directory / "vnc"
        disk = self.directory / "floppy"
        disk.write_bytes(sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1_474_560 - 512))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.directory / "qmp"))
        self._listener.listen()
        self._events: list[str | None] = []
        self._program = Program(
            [
                *("qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "32", "-S", "-nodefaults", "-no-user-config"),
                *("-vga", "std", "-display", "none", "-drive", f"if=floppy,format=raw,readonly=on,file={disk}"),
                *("-vnc", f"unix:{self.vnc},lossy=on", "-qmp", f"unix:{self.directory / 'qmp'}"),
            ],
            self.directory / "log",
        )

    def __enter__(self) -> "Machine":
        self._program.start()
        self._listener.settimeout(PATIENCE)
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        self._qmp = connection.makefile("rwb")
        self._qmp.readline()
        self.do("qmp_capabilities")
        self.do("query-status")  # answered by the main loop, so the display listens
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()
        self._listener.close()
        shutil.rmtree(self.directory)

    def do(self, command: str) -> None:
        """Have QEMU do this and wait until it has."""
        self._qmp.write(json.dumps({"execute": command}).encode() + b"\n")
        self._qmp.flush()
        while "return" not in (answer := json.loads(self._qmp.readline())):
            self._events.append(answer.get("event"))

    def left(self) -> None:
        """Wait until a viewer that hung up is gone: QEMU then lets go all keys, whoever pressed them, up to 3 s later."""
        while "VNC_DISCONNECTED" not in self._events:
            self._events.append(json.loads(self._qmp.readline()).get("event"))
        self.do("query-status")

    def go(self) -> None:
        self.do("cont")


class Relay:
    """Listens like QEMU and puts a filter between its one client and QEMU."""

    def __init__(self, machine: Machine) -> None:
        self.path = machine.directory / f"relay-{id(self)}"
        self.keyboard = False
        self.dropped: dict[Dropped, int] = {}
        self.ended: asyncio.Future[RfbError] = asyncio.get_running_loop().create_future()
        self.rfb = RfbFilter("a title")
        self.pressed = PressedKeys()
        self.closed = asyncio.Event()
        self._vnc = machine.vnc
        self.to_qemu: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_qemu, self.to_qemu = await asyncio.open_unix_connection(self._vnc)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader))
                group.create_task(self._down(from_qemu, writer))
        except* RfbError as errors:
            self.ended.set_result(errors.exceptions[0])  # type: ignore[arg-type]
        except* ConnectionError:
            pass  # the client or QEMU went first
        self.to_qemu.close()
        writer.close()
        self.closed.set()

    async def _up(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            step = self.rfb.from_operator(data, self.keyboard)
            for kind, count in step.dropped.items():
                self.dropped[kind] = self.dropped.get(kind, 0) + count
            for message in step.messages:
                self.to_qemu.write(message.data)
                if message.is_input:
                    self.pressed.wrote(message.data)
            await self.to_qemu.drain()
        raise ConnectionResetError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.writelines(self.rfb.from_guest(data).pieces)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def relayed(machine: Machine) -> AsyncIterator[Relay]:
    relay = Relay(machine)
    async with await asyncio.start_unix_server(relay.serve, relay.path):
        yield relay
        await asyncio.wait_for(relay.closed.wait(), PATIENCE)


@asynccontextmanager
async def viewer(path: Path, *, shared: bool = True) -> AsyncIterator[Framebuffer]:
    screen = await Framebuffer.open(*await asyncio.open_unix_connection(path), shared=shared)
    yield screen
    await screen.close()


class Wire:
    """A connection to QEMU at the level of bytes, with a filter or without, that notes what came and what went on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.rfb = RfbFilter("a title")
        self.said: list[tuple[bool, bytes]] = []  # whether the guest said it, and what
        self.passed = bytearray()

    def say(self, data: bytes) -> None:
        self.said.append((False, data))
        for message in self.rfb.from_operator(data, keyboard=False).messages:
            self._writer.write(message.data)

    async def hear(self) -> None:
        data = await self._reader.read(65_536)
        assert data, "QEMU hung up"
        self.said.append((True, data))
        for piece in self.rfb.from_guest(data).pieces:
            self.passed += piece

    async def open(self) -> "Wire":
        await self.hear()
        self.say(VERSION)
        await self.hear()
        self.say(b"\x01")
        await self.hear()
        self.say(b"\x00")
        while not self.rfb.at_rest:
            await self.hear()
        return self

    async def update(self) -> None:
        """Ask for the whole screen and hear until its pixels have come to an end."""
        width, height = self.rfb.screen
        self.say(request(width=width, height=height))
        before = len(self.passed)
        while not self.rfb.at_rest or len(self.passed) - before < 300:
            await self.hear()

    async def acknowledged(self, encoding: int) -> None:
        """Have QEMU acknowledge, as the last thing it has to say, and hear it."""
        self.say(set_encodings(encoding, -258))
        ending = ACKNOWLEDGED.pack(0, 1, 0, 0, *self.rfb.screen, -258)
        while not self.passed.endswith(ending):
            await self.hear()


async def wire(machine: Machine) -> Wire:
    return await Wire(*await asyncio.open_unix_connection(machine.vnc)).open()


def pixel_encoding(heard: bytes) -> int:
    """The encoding of the first rectangle that has pixels, past updates of one pseudo-rectangle each."""
    lengths = {-308: 36, -261: 17, -257: 16, -258: 16}
    at = 0
    while (encoding := int.from_bytes(heard[at + 12 : at + 16], signed=True)) in lengths:
        at += lengths[encoding]
    return encoding


@pytest.fixture(scope="module")
def noise() -> Iterator[Machine]:
    """A machine whose screen is 256 colours of noise and stands still."""
    with Machine(NOISE) as machine:
        machine.go()
        asyncio.run(_until_noise(machine))
        machine.do("stop")
        yield machine


async def _until_noise(machine: Machine) -> None:
    async with asyncio.timeout(2 * PATIENCE), viewer(machine.vnc) as screen:
        await screen.update()
        while screen.image.size != NOISE_SCREEN or _black_lines(screen.image):
            await screen.update(incremental=True)


def _black_lines(image: Image.Image) -> bool:
    last = image.crop((0, image.height - 2, image.width, image.height))
    return last.getcolors(2) is not None


@pytest.fixture
def echo() -> Iterator[Machine]:
    """A machine that writes what is typed after a prompt, on an empty text screen."""
    with Machine(ECHO) as machine:
        machine.go()
        asyncio.run(_until_prompt(machine))
        machine.left()
        yield machine


async def _until_prompt(machine: Machine) -> None:
    async with asyncio.timeout(2 * PATIENCE), viewer(machine.vnc) as screen:
        await screen.update()
        while screen.image.size != TEXT_SCREEN or blank(screen.image, 0) or not blank(screen.image, 1, 80):
            await screen.update(incremental=True)


def cell(image: Image.Image, column: int, end: int = 0) -> Image.Image:
    """A character of the first line, or all up to `end`, without the lowest lines of pixels, where the cursor blinks."""
    return image.crop((9 * column, 0, 9 * (end or column + 1), 13))


def blank(image: Image.Image, column: int, end: int = 0) -> bool:
    return cell(image, column, end).getbbox() is None


def alike(image: Image.Image, one: int, other: int) -> bool:
    return ImageChops.difference(cell(image, one), cell(image, other)).getbbox() is None


async def pictured(socket_path: Path, path: Path) -> tuple[int, int]:
    """A screenshot by a connection of its own, which is closed."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    with contextlib.closing(writer):
        return await screenshot(reader, writer, path)


async def test_a_picture_through_the_filter_is_the_guest_s_own(noise: Machine, tmp_path: Path) -> None:
    async with relayed(noise) as relay:
        size = await pictured(relay.path, tmp_path / "through.png")
    await pictured(noise.vnc, tmp_path / "direct.png")
    through, direct = Image.open(tmp_path / "through.png"), Image.open(tmp_path / "direct.png")
    assert size == NOISE_SCREEN
    assert len(through.getcolors(1 << 20) or []) > 200
    assert ImageChops.difference(through, direct).getbbox() is None


async def test_the_client_sees_our_title_and_not_the_guest_s(noise: Machine) -> None:
    async with relayed(noise) as relay, viewer(relay.path) as through, viewer(noise.vnc) as direct:
        assert (through.title, direct.title) == ("a title", "QEMU")


@pytest.mark.parametrize("form", [TRUE_COLOUR_32, TRUE_COLOUR_16, TRUE_COLOUR_8, COLOUR_MAP_8])
@pytest.mark.parametrize(
    ("encoding", "level"), [(0, ()), (6, ()), (7, ()), (7, (-29, -254)), (16, ()), (-260, ()), (-260, (-24,))]
)
async def test_every_encoding_is_walked_to_its_end(noise: Machine, encoding: int, level: tuple[int, ...], form: bytes) -> None:
    through = await wire(noise)
    through.say(set_format(form) + set_encodings(encoding, *level, -223, -308, -239, -314, -257, -261))
    await through.acknowledged(encoding)
    start = len(through.passed)
    await through.update()
    # QEMU makes no PNG of 8 bits a pixel, so it is not asked for one
    used = 0 if encoding == -260 and form[0] == 8 else encoding
    assert pixel_encoding(through.passed[start:]) == used
    for _ in range(3):
        await through.update()
        await through.acknowledged(encoding)
        assert through.rfb.at_rest
    # the guest has no clipboard and no sound: all but its name goes on
    came = b"".join(data for guest, data in through.said if guest)
    assert bytes(through.passed[-100_000:]) == came[-100_000:]
    assert len(through.passed) - len("a title") == len(came) - len("QEMU")


@pytest.mark.parametrize("encoding", [0, 6, 7, 16, -260])
async def test_what_qemu_said_passes_alike_however_it_is_cut(noise: Machine, encoding: int) -> None:
    original = await wire(noise)
    original.say(set_format(TRUE_COLOUR_16) + set_encodings(encoding))
    await original.update()
    source, again, passed = random.Random(encoding), RfbFilter("a title"), bytearray()
    for guest, data in original.said:
        at = 0
        while at < len(data):
            size = source.choice((1, 2, 3, 5, 100, 3_000))
            if guest:
                for piece in again.from_guest(data[at : at + size]).pieces:
                    passed += piece
            else:
                again.from_operator(data[at : at + size], keyboard=False)
            at += size
    assert passed == original.passed
    assert again.at_rest


@pytest.mark.parametrize("sizes", [(), (-223,), (-308,)])
async def test_a_change_of_the_screen_s_size_is_followed(sizes: tuple[int, ...]) -> None:
    with Machine(NOISE) as machine:
        through = await wire(machine)
        before = through.rfb.screen
        through.say(set_encodings(0, *sizes))
        await through.update()
        machine.go()
        await _until_noise(machine)
        await through.update()
        assert through.rfb.screen == (NOISE_SCREEN if sizes else before)
        assert before != NOISE_SCREEN


async def test_colours_may_move_while_updates_come(noise: Machine) -> None:
    swapped = bytearray(TRUE_COLOUR_32)
    swapped[10], swapped[12] = 0, 16
    async with relayed(noise) as relay, viewer(relay.path) as through:
        await through.update()
        plain = through.image.copy()
        through._writer.write(set_format(bytes(swapped)))
        await through.update()
        blue, green, red = through.image.split()
        assert ImageChops.difference(plain, Image.merge("RGB", (red, green, blue))).getbbox() is None


async def test_the_size_of_a_pixel_may_not(noise: Machine) -> None:
    async with relayed(noise) as relay, viewer(relay.path) as through:
        await through.update()
        through._writer.write(set_format(TRUE_COLOUR_8))
        error = await asyncio.wait_for(relay.ended, PATIENCE)
        assert error.field == "late-pixel-size"


async def test_a_cheating_viewer_changes_nothing(echo: Machine) -> None:
    async with relayed(echo) as relay, viewer(relay.path) as cheat:
        await cheat.type("x" * 20)
        cheat.pointer(10, 10, 7)
        cheat.cut_text(b"rm -rf /\n" * 1_000)
        # from here on keys count; had one of those before come through, it would stand in the first cell
        while relay.dropped.get(Dropped.CUT_TEXT) is None:
            await cheat.update()
        relay.keyboard = True
        await cheat.type("bbx")
        while blank(cheat.image, 3):
            await cheat.update(incremental=True)
        assert [alike(cheat.image, 1, 2), alike(cheat.image, 1, 3), blank(cheat.image, 4, 80)] == [True, False, True]
        assert relay.dropped == {Dropped.KEY: 40, Dropped.POINTER: 1, Dropped.CUT_TEXT: 1}


async def test_a_viewer_that_asks_for_the_screen_alone_throws_nobody_off(noise: Machine) -> None:
    async with viewer(noise.vnc) as other:
        async with relayed(noise) as relay, viewer(relay.path, shared=False) as greedy:
            await greedy.update()
        await other.update()


async def test_without_the_filter_it_does(noise: Machine) -> None:
    async with viewer(noise.vnc) as other:
        async with viewer(noise.vnc, shared=False) as greedy:
            await greedy.update()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await other.update()


@pytest.mark.parametrize("released", [True, False])
async def test_a_key_that_is_down_is_released(echo: Machine, released: bool) -> None:
    async with relayed(echo) as relay, viewer(relay.path) as holder, viewer(echo.vnc) as other:
        relay.keyboard = True
        await holder.type("5")
        holder.key(SHIFT, down=True)
        await holder.update()
        if released:
            messages = relay.pressed.releases(relative=relay.rfb.relative)
            assert messages == (key(SHIFT, down=False),)
            relay.to_qemu.writelines(messages)
            await holder.update()
        await other.update()
        await other.type("5")
        while blank(other.image, 2):
            await other.update(incremental=True)
        assert alike(other.image, 1, 2) == released


async def test_a_pipelined_key_and_request_keep_their_order(echo: Machine) -> None:
    through = await wire(echo)
    step = through.rfb.from_operator(key(0x61, down=True) + request() + pack(">BBHH", 5, 0, 1, 1), keyboard=True)
    assert [message.is_input for message in step.messages] == [True, False, True]
