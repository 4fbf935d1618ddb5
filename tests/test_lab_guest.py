"""What the lab's guest can do for the tests of keyboards: a menu at its start, a prompt without an echo."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import libvirt
import pytest

from lab.libvirt_host import Guest, LibvirtHost
from lab.transcript import NotSeen
from tests.conftest import resource_id_of

F2 = 60  # Linux key code


@pytest.fixture
def asking(libvirt_host: LibvirtHost, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """One that waits so many seconds for a key at its start, and has only begun it."""
    libvirt_host.revive()
    name = f"vm-{uuid4().hex[:8]}"
    guest = libvirt_host.start_guest(name, resource_id=resource_id_of(name), wait=False, arguments=f"bootmenu={request.param}")
    yield guest
    guest.discard()


@pytest.mark.parametrize("asking", [25], indirect=True)
def test_a_key_that_is_pressed_while_it_starts_is_caught(asking: Guest) -> None:
    end = 0
    for _ in range(300):
        asking.domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 20, [F2], 1, 0)
        try:
            end = asking.serial.wait_for("boot menu: ", timeout=0.2)
            break
        except NotSeen:
            continue
    assert end
    asking.wait_ready()
    assert asking.serial.text(end).startswith("1b5b5b42")  # what the console has for F2


@pytest.mark.parametrize("asking", [2], indirect=True)
def test_without_a_key_it_goes_on(asking: Guest) -> None:
    asking.serial.wait_for("boot menu: no key")
    asking.wait_ready()


def test_a_password_is_asked_for_without_an_echo(shared_guest: Guest) -> None:
    said = shared_guest.run("echo 'a b\\c' | password; cat /run/password; echo")
    assert said == "Password: \ntaken: 5 characters\na b\\c\n"
