"""The guest's kernel and its initramfs: Debian's cloud kernel, busybox and the small files of lab/guest."""

import hashlib
import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".lab"
SOURCES = Path(__file__).resolve().parent / "guest"
BUSYBOX = Path("/bin/busybox")

KEYMAPS = CACHE / "keymaps"  # for busybox's loadkmap, made by `make setup`; the kernel itself has us

# Where each file of lab/guest lies in the guest.
COMMANDS = ("bootmenu", "hear", "password", "hostile", "flicker")
PLACES = {name: f"etc/{name}" for name in ("inittab", "rc", "profile", "passwd", "group", "ctrl-alt-del")} | {
    name: f"bin/{name}" for name in COMMANDS
}
PROGRAMS = frozenset({"rc", "ctrl-alt-del", *COMMANDS})
LAYOUTS = ("de",)
DIRECTORIES = ("bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root")


class NoGuestImage(Exception):
    """A part of the image is missing; `make setup` brings it."""

    def __init__(self, missing: str) -> None:
        super().__init__(missing)
        self.missing = missing


@dataclass(frozen=True)
class GuestImage:
    """Two files that QEMU boots directly."""

    kernel: Path
    initramfs: Path


def guest_image() -> GuestImage:
    """Give the image, built on the first call and after a change of its parts. Raises NoGuestImage."""
    parts = {PLACES[name]: (SOURCES / name).read_bytes() for name in PLACES}
    parts |= {f"etc/{layout}.bmap": _keymap(layout) for layout in LAYOUTS}
    busybox = _static_busybox()
    digest = hashlib.sha256(repr(sorted(parts.items())).encode() + busybox + Path(__file__).read_bytes()).hexdigest()
    initramfs = CACHE / f"initramfs-{digest[:16]}"
    if not initramfs.exists():
        CACHE.mkdir(exist_ok=True)
        # Beside and renamed: two builds at once, or one cut short, never leave half a file under the name.
        draft = initramfs.with_suffix(f".{os.getpid()}")
        draft.write_bytes(_archive(parts, busybox))
        draft.rename(initramfs)
    return GuestImage(_kernel(), initramfs)


def _kernel() -> Path:
    """Give the newest cloud kernel: one unpacked by `make setup`, else an installed one."""
    found = [*(CACHE / "kernel" / "boot").glob("vmlinuz-*-cloud-amd64"), *Path("/boot").glob("vmlinuz-*-cloud-amd64")]
    if not found:
        raise NoGuestImage("vmlinuz-*-cloud-amd64")
    return max(found, key=lambda path: path.stat().st_mtime)


def _keymap(layout: str) -> bytes:
    path = KEYMAPS / f"{layout}.bmap"
    if not path.exists():
        raise NoGuestImage(str(path))
    return path.read_bytes()


def _static_busybox() -> bytes:
    if not BUSYBOX.exists():
        raise NoGuestImage(str(BUSYBOX))
    return BUSYBOX.read_bytes()


def _archive(parts: dict[str, bytes], busybox: bytes) -> bytes:
    """Pack the root file system as a newc cpio (Linux Documentation/driver-api/early-userspace/buffer-format)."""
    applets = subprocess.run([BUSYBOX, "--list-full"], check=True, capture_output=True, text=True).stdout.split()
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in DIRECTORIES]
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, busybox))
    entries += [(name, stat.S_IFLNK | 0o777, b"/bin/busybox") for name in applets if name != "bin/busybox"]
    entries.append(("init", stat.S_IFLNK | 0o777, b"/bin/busybox"))
    for place, content in parts.items():
        entries.append((place, stat.S_IFREG | (0o755 if Path(place).name in PROGRAMS else 0o644), content))
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, start=1))


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
