"""A hypervisor host of our own: a private session libvirtd and the guests on it.

libvirtd runs as nobody when we are root, else as ourselves, with home and XDG directories of its own. It needs no
systemd, no network and no cgroup, and many run side by side.
"""

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid as uuids
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

import libvirt

from lab.domain import RESOURCE_NAMESPACE, RESOURCE_PREFIX, domain_xml, resource_element
from lab.guest_image import ROOT, GuestImage, guest_image
from lab.transcript import PATIENCE_S, Transcript

READY = "EVA guest ready"

# libvirt's session daemon starts a virtlogd of its own unless QEMU writes its logs itself.
QEMU_CONF = 'stdio_handler = "file"\n'

# libvirt prints each error to stderr besides raising it.
libvirt.registerErrorHandler(lambda *_: None, None)


class HostDidNotStart(Exception):
    """libvirtd ended or its socket did not answer."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


class Guest:
    """One domain. It is looked up by UUID at each use, so that it outlives a restart of libvirtd."""

    def __init__(self, host: "LibvirtHost", name: str, uuid: str, resource_id: str | None, serial: Transcript) -> None:
        self.host = host
        self.name = name
        self.uuid = uuid
        self.resource_id = resource_id
        self.serial = serial

    @property
    def domain(self) -> Any:  # libvirt-python has no types
        """Give the virDomain. Raises libvirt.libvirtError when it is gone."""
        return self.host.connection.lookupByUUIDString(self.uuid)

    @property
    def qemu_pid(self) -> int:
        """Give the pid of the running QEMU. Raises FileNotFoundError when it is not running."""
        return int((self.host.directory / "run/libvirt/qemu/run" / f"{self.name}.pid").read_text())

    @property
    def xml(self) -> ElementTree.Element:
        """Give the live XML."""
        return ElementTree.fromstring(self.domain.XMLDesc())  # noqa: S314 - our own libvirtd's XML

    def start(self) -> None:
        """Start the defined domain; do not wait for its boot."""
        self.domain.create()

    def wait_ready(self, *, after: int = 0, timeout: float = PATIENCE_S) -> int:
        """Block until the serial shell is there; give the offset behind its line. Raises NotSeen."""
        return self.serial.wait_for(READY, after=after, timeout=timeout)

    def pause(self) -> None:
        """Stop the guest's processors."""
        self.domain.suspend()

    def resume(self) -> None:
        """Let a paused guest go on."""
        self.domain.resume()

    def reset(self) -> None:
        """Push the reset button: the same QEMU boots anew."""
        self.domain.reset()

    def destroy(self) -> None:
        """Pull the plug; the definition stays."""
        self.domain.destroy()

    def undefine(self) -> None:
        """Take away the definition; a running domain lives on without one."""
        self.domain.undefine()

    def set_resource_id(self, resource_id: str | None) -> None:
        """Write the metadata element, on the live domain (if it runs) and in the definition; None takes it away."""
        element = None if resource_id is None else resource_element(resource_id)
        domain = self.domain
        flags = (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0) | libvirt.VIR_DOMAIN_AFFECT_CONFIG
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, element, RESOURCE_PREFIX if element else None, RESOURCE_NAMESPACE, flags)
        self.resource_id = resource_id

    def run(self, command: str, timeout: float = PATIENCE_S) -> str:
        """Type a shell command on the serial line, taking the console for that time; give what it printed.

        Raises libvirt.libvirtError when another holds the console, NotSeen when the shell does not come to the end of it.
        """
        mark = uuids.uuid4().hex[:8]
        # The tty echoes the line as it is typed; in what printf makes of it the words are whole.
        line = f"printf 'be%s-%s\\n' gin {mark}; {command}; printf 'e%s-%s\\n' nd {mark}\n".encode()
        start = self.serial.size()
        stream = self.host.connection.newStream(0)
        self.domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        try:
            while line:
                line = line[stream.send(line) :]
            begin = self.serial.wait_for(f"begin-{mark}\r\n", after=start, timeout=timeout)
            self.serial.wait_for(f"end-{mark}\r\n", after=begin, timeout=timeout)
        finally:
            stream.abort()
        return self.serial.text(begin).partition(f"end-{mark}")[0].replace("\r\n", "\n")

    def discard(self) -> None:
        """Destroy and undefine, in whatever state a test left the guest or its libvirtd."""
        self.host.revive()
        for step in (self.destroy, self.undefine):
            with contextlib.suppress(libvirt.libvirtError):
                step()


class LibvirtHost:
    """A private libvirtd. It ends with the process that started it; stop() leaves no process and no file."""

    def __init__(self) -> None:
        self._warden: subprocess.Popen[str] | None = None
        self._pid = 0
        self._connection: Any = None  # libvirt-python has no types
        self._count = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start libvirtd and wait until it answers. Raises HostDidNotStart, NoGuestImage."""
        image = guest_image()
        # In /tmp: the path of a UNIX socket has room for 107 bytes, and nobody must be able to walk there.
        self.directory = Path(tempfile.mkdtemp(prefix="eva-host-", dir="/tmp"))
        try:
            self.image = self._lay_out(image)
            self._start_warden()
            self._await_answer()
        except BaseException:  # also KeyboardInterrupt: libvirtd and its directory would stay
            self.stop()
            raise

    def stop(self) -> None:
        """End libvirtd and every guest, frozen or not, and remove the directory. A second call does nothing."""
        if self._warden is not None:
            # The warden ends at the end of its input, and by then has reaped all.
            self._warden.communicate()
            self._warden = None
            # Only now: close() on the connection to a frozen libvirtd would not return.
            self._drop_connection()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """Give the path of libvirtd's socket."""
        return self.directory / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        """Give the URI by which everyone who may open the socket connects."""
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def pid(self) -> int:
        """Give libvirtd's pid: it may have ended, it is never another's while the host is up."""
        return self._pid

    @property
    def connection(self) -> Any:  # libvirt-python has no types
        """Give this process's own virConnect, opened when there is none that lives. Blocks while libvirtd is frozen."""
        if self._connection is None or not self._connection.isAlive():
            self._drop_connection()
            self._connection = libvirt.open(self.uri)
        return self._connection

    def freeze(self) -> None:
        """Hang libvirtd (SIGSTOP): its socket accepts, nothing answers. Guests run on."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """End the freeze; harmless without one."""
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        """End libvirtd by SIGKILL and wait for its end. Guests run on."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self._pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [])
            finally:
                os.close(pidfd)
        self._drop_connection()

    def restart(self) -> None:
        """Start libvirtd again after kill(), on the same socket; it finds the guests that ran on."""
        assert self._warden is not None  # noqa: S101 - start() came first
        assert self._warden.stdin is not None  # noqa: S101 - a pipe
        self._warden.stdin.write("again\n")
        self._warden.stdin.flush()
        self._read_pid()
        self._await_answer()

    def revive(self) -> None:
        """Bring libvirtd back to answering, from a freeze or from the dead."""
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        try:
            answering = libvirt.open(self.uri)
        except libvirt.libvirtError:
            self.kill()
            self.restart()
        else:
            self._drop_connection()
            self._connection = answering

    def define(self, xml: str, *, resource_id: str | None = None, serial_log: Path | None = None) -> Guest:
        """Define a domain from XML (domain_xml with self.image gives one); it is not started."""
        domain = self.connection.defineXML(xml)
        log = serial_log if serial_log is not None else self.new_serial_log()
        return Guest(self, domain.name(), domain.UUIDString(), resource_id, Transcript(log))

    def define_guest(
        self,
        name: str | None = None,
        uuid: str | None = None,
        resource_id: str | None = None,
        extra_devices: str = "",
        arguments: str = "",
    ) -> Guest:
        """Define the lab's guest, with a random UUID and a name of its own where none is given."""
        uuid = uuid or str(uuids.uuid4())
        log = self.new_serial_log()
        xml = domain_xml(
            name or f"vm-{uuid[:8]}",
            uuid,
            self.image,
            resource_id=resource_id,
            serial_log=log,
            extra_devices=extra_devices,
            arguments=arguments,
        )
        return self.define(xml, resource_id=resource_id, serial_log=log)

    def start_guest(
        self,
        name: str | None = None,
        uuid: str | None = None,
        resource_id: str | None = None,
        *,
        wait: bool = True,
        extra_devices: str = "",
        arguments: str = "",
    ) -> Guest:
        """Define a guest and start it; with `wait`, return when its serial shell is there (2 to 3 s)."""
        guest = self.define_guest(name, uuid, resource_id, extra_devices, arguments)
        guest.start()
        if wait:
            guest.wait_ready()
        return guest

    def new_serial_log(self) -> Path:
        """Give a path that QEMU can write to and no guest has yet."""
        self._count += 1
        return self.directory / "serial" / f"{self._count}.log"

    def _lay_out(self, image: GuestImage) -> GuestImage:
        """Make the directories and bring the image to where libvirtd's user can read it."""
        for name in ("run", "config/libvirt", "cache", "data", "serial", "image"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "config/libvirt/qemu.conf").write_text(QEMU_CONF)
        kernel, initramfs = self.directory / "image/kernel", self.directory / "image/initramfs"
        shutil.copyfile(image.kernel, kernel)
        shutil.copyfile(image.initramfs, initramfs)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        return GuestImage(kernel, initramfs)

    def _start_warden(self) -> None:
        drop = ["--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"]
        program = ["setpriv", *(drop if os.geteuid() == 0 else []), "--pdeathsig=KILL", "--", "libvirtd"]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "XDG_DATA_HOME": str(self.directory / "data"),
            "PYTHONPATH": str(ROOT),
        }
        with (self.directory / "libvirtd.log").open("wb") as log:
            self._warden = subprocess.Popen(
                [sys.executable, "-m", "lab.warden", str(os.getpid()), *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd="/",
                text=True,
                start_new_session=True,
            )
        self._read_pid()

    def _read_pid(self) -> None:
        assert self._warden is not None  # noqa: S101 - the callers have started it
        assert self._warden.stdout is not None  # noqa: S101 - a pipe
        line = self._warden.stdout.readline()
        if not line:
            raise HostDidNotStart(self._output())
        self._pid = int(line)

    def _await_answer(self, timeout: float = PATIENCE_S) -> None:
        """Wait until libvirtd answers: a connection is refused until its drivers are up."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                answering = libvirt.open(self.uri)
            except libvirt.libvirtError:
                if time.monotonic() > deadline or not Path(f"/proc/{self._pid}").exists():
                    raise HostDidNotStart(self._output()) from None
                time.sleep(0.02)  # a socket that is not there yet cannot be awaited
            else:
                self._drop_connection()
                self._connection = answering
                return

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _output(self) -> str:
        return (self.directory / "libvirtd.log").read_text(errors="replace")
