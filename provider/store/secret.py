"""Files that hold a secret, and are nobody else's to read. Errors:

BadSecret       a file that is missing, open to others or no secret: `path` and `why`
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_FILE = 4096


class BadSecret(Exception):
    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path}: {why}")


def read_private_file(path: Path) -> bytes:
    """At most MAX_FILE bytes of a regular file that only its owner, we or root, can read. Raises BadSecret."""
    try:
        # one descriptor for check and read: the file cannot be changed for another in between
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadSecret(path, error.strerror or "cannot be opened") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadSecret(path, "is no regular file")
        if found.st_mode & 0o177:
            raise BadSecret(
                path, f"has mode {stat.S_IMODE(found.st_mode):04o}: make it 0600, and replace the secret if others read it"
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise BadSecret(path, f"belongs to uid {found.st_uid}: give it to the provider's user")
        return os.read(descriptor, MAX_FILE)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> str:
    """The one line that the file holds. Raises BadSecret."""
    try:
        found = read_private_file(path).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadSecret(path, "is not UTF-8") from None
    if not found or not found.isprintable():
        raise BadSecret(path, "does not hold one line of text")
    return found
