"""provider/store/secret.py: who may read the file, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provider.store.secret import BadSecret, read_secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


def test_a_line_is_read_without_its_end(path: Path):
    assert read_secret(path) == "correct horse"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_open_to_others_is_refused(path: Path, mode: int):
    path.chmod(mode)
    with pytest.raises(BadSecret, match=f"{mode:04o}"):
        read_secret(path)


def test_somebody_elses_file_is_refused(path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, 65534)
    with pytest.raises(BadSecret, match="65534"):
        read_secret(path)


def test_a_link_is_refused(path: Path):
    link = path.parent / "link"
    link.symlink_to(path)
    with pytest.raises(BadSecret):
        read_secret(link)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff", b"a\x00b"])
def test_what_is_no_line_is_refused_and_not_shown(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(BadSecret) as caught:
        read_secret(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(BadSecret, match="none: No such file"):
        read_secret(tmp_path / "none")
