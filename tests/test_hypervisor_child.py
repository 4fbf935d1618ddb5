"""hypervisor.child: a process with one descriptor, an empty-handed environment, and an end that is seen."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from hypervisor.child import Child
from tests.hypervisor_lines import descriptors

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="its /proc entries are closed to its own user (PR_SET_DUMPABLE)")


async def test_a_kill_is_an_end_and_a_second_one_harmless() -> None:
    before = descriptors(os.getpid()).keys()
    child = Child("hypervisor.watcher", "test:///default")
    assert child.alive
    child.kill()
    await child.gone()
    child.kill()
    assert not child.alive
    assert descriptors(os.getpid()).keys() == before


async def test_a_program_that_is_not_there_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors(os.getpid()).keys()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError):
        Child("hypervisor.watcher", "test:///default")
    assert descriptors(os.getpid()).keys() == before


@needs_root
async def test_it_gets_neither_our_secrets_nor_our_descriptors_nor_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVA_SECRET", "x")
    inheritable = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    child = Child("hypervisor.watcher", "test:///default")
    try:
        # empty for as long as the kernel is still about the exec
        while not (raw := Path(f"/proc/{child.pid}/environ").read_bytes()):
            await asyncio.sleep(0)
        environment = raw.split(b"\0")
        assert b"LIBVIRT_AUTOSTART=0" in environment
        assert not any(entry.startswith(b"EVA_SECRET") for entry in environment)
        assert "/dev/zero" not in descriptors(child.pid).values()
        assert os.getsid(child.pid) == child.pid
    finally:
        os.close(inheritable)
        child.kill()
        await child.gone()
