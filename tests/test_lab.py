"""The lab itself: what the other tests lean on."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import aiomqtt
import libvirt
import pytest

from lab.certificates import Authority, KeyPair
from lab.guest_image import guest_image
from lab.libvirt_host import Guest, LibvirtHost
from lab.mosquitto import PERSISTENT, PLAIN, Mosquitto
from lab.ports import free_port
from lab.process import NotReady, Program, ProgramEnded
from lab.transcript import PATIENCE_S, NotSeen, Transcript

LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp, proc(5)


def tcp_listeners(pid: int) -> list[str]:
    """Give the local addresses at which a process listens on TCP."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            own.add(str(link.readlink()))
    rows = [row.split() for family in ("tcp", "tcp6") for row in Path(f"/proc/net/{family}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in own]


def gone(pid: int) -> bool:
    """Say whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def await_end(pidfd: int) -> None:
    """Block until the process behind a pidfd has ended."""
    with os.fdopen(pidfd):
        assert select.select([pidfd], [], [], PATIENCE_S)[0]


# --- the guest


def test_guest_has_a_shell_on_its_serial_line(shared_guest: Guest) -> None:
    assert shared_guest.run("uname -s; id -u") == "Linux\n0\n"


def test_guest_has_lo_and_no_other_link(shared_guest: Guest) -> None:
    lines = shared_guest.run("ip -o link").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["lo"]


def test_guest_has_no_network_device_on_its_bus(shared_guest: Guest) -> None:
    """The kernel has no driver for one, so that a card would not show as a link. PCI class 02 is network."""
    classes = shared_guest.run("cat /sys/bus/pci/devices/*/class").split()
    assert "0x030000" in classes, "the VGA card shows that the bus was read"
    assert [code for code in classes if code.startswith("0x02")] == []


def test_guest_has_its_own_name(shared_guest: Guest) -> None:
    assert shared_guest.run("hostname") == f"{shared_guest.name}\n"


def test_vnc_listens_on_no_tcp_port(shared_guest: Guest) -> None:
    assert shared_guest.xml.find("devices/graphics[@type='vnc']") is not None
    assert tcp_listeners(shared_guest.qemu_pid) == []


def test_tcp_listeners_would_be_found() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert len(tcp_listeners(os.getpid())) >= 1


def test_vnc_answers_on_a_descriptor(shared_guest: Guest) -> None:
    descriptor = shared_guest.domain.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    with socket.socket(fileno=descriptor) as vnc:
        vnc.settimeout(PATIENCE_S)
        assert vnc.recv(12) == b"RFB 003.008\n"


def test_resource_id_is_in_the_metadata(shared_guest: Guest) -> None:
    element = shared_guest.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:eva:resource-id:1")
    assert element == f"<resource>{shared_guest.resource_id}</resource>"


def test_second_console_is_refused(shared_guest: Guest) -> None:
    stream = shared_guest.host.connection.newStream(0)
    shared_guest.domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
    with pytest.raises(libvirt.libvirtError, match="Active console session"):
        shared_guest.run("true")
    stream.abort()


def test_set_resource_id_writes_and_takes_away(libvirt_host: LibvirtHost) -> None:
    guest = libvirt_host.define_guest()
    guest.set_resource_id("/subscriptions/<1>&2")
    path = "metadata/{urn:eva:resource-id:1}resource"
    assert guest.xml.findtext(path) == "/subscriptions/<1>&2"
    guest.set_resource_id(None)
    assert guest.xml.find(path) is None
    guest.discard()


def test_ctrl_alt_del_is_told_and_boots_anew(guest: Guest) -> None:
    chord, pid, before = [29, 56, 111], guest.qemu_pid, guest.serial.size()
    guest.domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 100, chord, len(chord), 0)
    told = guest.serial.wait_for("ctrl-alt-del", after=before)
    guest.wait_ready(after=told)
    assert guest.qemu_pid == pid


def test_initramfs_is_built_once() -> None:
    first = guest_image().initramfs
    made = first.stat().st_mtime_ns
    assert guest_image().initramfs == first
    assert first.stat().st_mtime_ns == made


# --- the host


def test_libvirtd_is_not_root(libvirt_host: LibvirtHost) -> None:
    assert Path(f"/proc/{libvirt_host.pid}").stat().st_uid != 0


def test_stop_leaves_no_process_and_no_file() -> None:
    host = LibvirtHost()
    host.start()
    guest = host.start_guest(wait=False)
    pids = [host.pid, guest.qemu_pid]
    host.freeze()
    host.stop()
    assert [gone(pid) for pid in pids] == [True, True]
    assert not host.directory.exists()


def test_guests_outlive_a_kill_of_libvirtd() -> None:
    with LibvirtHost() as host:
        guest = host.start_guest(wait=False)
        qemu, libvirtd = guest.qemu_pid, host.pid
        host.kill()
        host.restart()
        assert gone(libvirtd)
        assert guest.domain.isActive()
        assert guest.qemu_pid == qemu


def test_revive_brings_back_a_killed_libvirtd() -> None:
    with LibvirtHost() as host:
        guest = host.define_guest()
        os.kill(host.pid, signal.SIGKILL)
        host.revive()
        assert guest.domain.name() == guest.name


STARTED = (
    "from lab.libvirt_host import LibvirtHost as H; import sys; h = H(); h.start();"
    "g = h.start_guest(wait=False); print(h.pid, g.qemu_pid, h.directory, flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "with its process group"])
def test_all_ends_with_a_killed_parent(whole_group: bool) -> None:
    """The parent is killed, so that it can tidy up nothing; libvirtd and QEMU end all the same."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        libvirtd, qemu, directory = parent.stdout.readline().split()
        ends = [os.pidfd_open(int(pid)) for pid in (libvirtd, qemu)]
        if whole_group:
            os.killpg(parent.pid, signal.SIGKILL)
        else:
            parent.kill()
        for end in ends:
            await_end(end)
    subprocess.run(["rm", "-r", directory], check=True)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("generation", [1, 2], ids=["warden", "guard"])
def test_all_ends_with_a_killed_warden(generation: int) -> None:
    """libvirtd and QEMU are ended, also when the one who was to end them is killed."""
    with LibvirtHost() as host:
        pids = [host.pid, host.start_guest(wait=False).qemu_pid]
        ends = [os.pidfd_open(pid) for pid in pids]
        killed = host.pid
        for _ in range(generation):
            killed = parent_of(killed)
        os.kill(killed, signal.SIGKILL)
        for end in ends:
            await_end(end)
        host.stop()
        assert not host.directory.exists()


# --- mosquitto


async def test_mosquitto_carries_mqtt_5(mosquitto: Mosquitto) -> None:
    client = aiomqtt.Client(mosquitto.host, mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client, asyncio.timeout(PATIENCE_S):
        await client.subscribe("eva/v1/status/AzS-ERCS01", qos=1)
        await client.publish("eva/v1/status/AzS-ERCS01", b"up", qos=1)
        message = await anext(client.messages)
    assert message.payload == b"up"


async def test_mosquitto_comes_back_on_its_port_with_its_store() -> None:
    with Mosquitto(PLAIN + PERSISTENT) as broker:
        port, topic = broker.port, "eva/v1/status/AzS-ERCS01"
        async with aiomqtt.Client(broker.host, port) as client:
            await client.publish(topic, b"kept", qos=1, retain=True)
        broker.stop()
        broker.start()
        assert broker.port == port
        async with aiomqtt.Client(broker.host, port) as client, asyncio.timeout(PATIENCE_S):
            await client.subscribe(topic)
            assert (await anext(client.messages)).payload == b"kept"


def test_mosquitto_says_what_is_wrong_with_its_config() -> None:
    with pytest.raises(ProgramEnded, match="no_such_setting"), Mosquitto(PLAIN + "no_such_setting 1\n"):
        pass


def tls_context(authority: Authority, client: KeyPair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


async def test_mosquitto_over_tls_knows_the_client_by_its_certificate(certificates: Authority) -> None:
    server = certificates.server("mqtt")
    config = f"""
listener @PORT@ 127.0.0.1
cafile {certificates.ca}
certfile {server.certificate}
keyfile {server.key}
require_certificate true
use_identity_as_username true
"""
    with Mosquitto(config) as broker:
        context = tls_context(certificates, certificates.client("AzS-ERCS01"))
        async with aiomqtt.Client(broker.host, broker.port, tls_context=context):
            await Transcript(broker.directory / "mosquitto.log").seen("u'AzS-ERCS01'")
        plain = socket.create_connection((broker.host, broker.port), timeout=PATIENCE_S)
        nameless = tls_context(certificates, None).wrap_socket(plain, server_hostname="127.0.0.1")
        # RFC 8446 6.2: under TLS 1.3 the client learns it after its own handshake.
        with nameless, pytest.raises(ssl.SSLError, match="certificate required"):
            nameless.recv(1)


# --- programs and their output

SAYS_READY = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
print("hello", flush=True); s.send(b"STATUS=loading"); s.send(b"READY=1\\nSTATUS=up"); time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "program.log"


async def test_program_is_ready_when_it_says_so(log: Path) -> None:
    program = Program([sys.executable, "-c", SAYS_READY], log, notify=True)
    program.start()
    await program.notified("READY=1")
    assert program.transcript.text() == "hello\n"
    assert await program.stopped() == -signal.SIGTERM
    program.close()


def test_program_that_ends_before_ready_is_told_with_its_output(log: Path) -> None:
    program = Program([sys.executable, "-c", "raise SystemExit('no such file')"], log, notify=True)
    program.start()
    with pytest.raises(ProgramEnded, match="no such file"):
        program.wait_notified()
    program.close()


def test_program_that_never_says_so_is_not_ready(log: Path) -> None:
    program = Program([sys.executable, "-c", SAYS_READY], log, notify=True)
    program.start()
    with pytest.raises(NotReady):
        program.wait_notified("WATCHDOG=1", timeout=0.5)
    program.close()


def test_program_that_ignores_term_is_killed(log: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    program = Program([sys.executable, "-c", code], log)
    program.start()
    program.transcript.wait_for("up")
    pid = program.pid
    assert program.stop(grace=0.1) == -signal.SIGKILL
    assert gone(pid)


def test_program_dies_with_the_one_who_started_it(log: Path) -> None:
    started: list[Program] = []

    def start_and_leave() -> None:
        program = Program(["sh", "-c", "echo up; exec sleep 60"], log)
        program.start()
        program.transcript.wait_for("up")
        started.append(program)

    thread = threading.Thread(target=start_and_leave)
    thread.start()
    thread.join()
    assert started[0]._popen is not None
    assert started[0]._popen.wait(PATIENCE_S) == -signal.SIGKILL


def test_transcript_waits_behind_an_offset(log: Path) -> None:
    log.write_bytes(b"ready\nready\n")
    first = Transcript(log).wait_for("ready")
    assert (first, Transcript(log).wait_for("ready", after=first)) == (5, 11)


async def test_transcript_that_stays_silent_is_told(log: Path) -> None:
    with pytest.raises(NotSeen):
        await Transcript(log).seen("ready", timeout=0.05)


def test_a_port_that_was_given_is_nobody_elses() -> None:
    """Also while nobody listens on it, and for another process."""
    ask = f"import lab.ports; print(lab.ports.claim({free_port()}))"
    assert subprocess.check_output([sys.executable, "-c", ask]) == b"False\n"


def test_free_ports_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass
