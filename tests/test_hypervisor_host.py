"""hypervisor.host: only URIs of local sockets pass."""

import pytest

from hypervisor.host import BadHost, Host

SOCKET = "qemu+unix:///session?socket=/run/user/1000/libvirt/libvirt-sock"


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///session",
        "qemu+unix:///system?socket=/var/run/libvirt/libvirt-sock",
        SOCKET,
        "test:///default",
    ],
)
def test_a_local_socket_passes(uri: str) -> None:
    assert Host.parse("kvm-01.rack2", uri) == Host("kvm-01.rack2", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qemu+ssh://root@kvm01/system",
        "qemu+tls://kvm01/system",
        "qemu+tcp://kvm01/system",
        "qemu://kvm01/system",
        "qemu:///embed?root=/tmp/x",
        "qemu+ext:///system?command=/bin/sh",
        "qemu+unix:///session?command=/bin/sh",
        f"{SOCKET}&command=/bin/sh",
        f"{SOCKET}%26mode=direct",
        f"{SOCKET}\n",
        "qemu+unix:///session?socket=libvirt-sock",
        "qemu+unix:///session?socket=",
        "qemu+unix:///session?socket=/" + 107 * "x",
        "lxc:///system",
        "test:///../etc/passwd",
    ],
)
def test_everything_else_is_refused(uri: str) -> None:
    with pytest.raises(BadHost):
        Host.parse("kvm01", uri)


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "a/b", 65 * "x", "kvm\n"])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(BadHost):
        Host.parse(name, "qemu:///system")


def test_the_error_holds_the_facts() -> None:
    with pytest.raises(BadHost) as caught:
        Host.parse("kvm01", "qemu+tcp://kvm01/system")
    assert (caught.value.name, caught.value.uri) == ("kvm01", "qemu+tcp://kvm01/system")
