"""A real systemd, booted as process 1 of namespaces of its own, in which the shipped units run as on an ERCS node.

Nothing of ours can be changed from in there: /etc, /usr/lib/sysusers.d and /usr/lib/tmpfiles.d are copies, /run, /tmp, /var and
/opt are fresh, and units that would reach through to the kernel (sysctl, udev, remounts) are masked. It is either ready to run,
with our network and in /opt/eva a virtual environment with this checkout's packages, on a Python that every user can read; or
bare, with a network of its own that is a loopback alone, so that the shipped ports are free, and nothing of ours installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.process import NotReady, Program, ProgramEnded
from lab.transcript import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
SYSTEMD = Path("/lib/systemd/systemd")
NAMESPACES = ("--mount", "--pid", "--fork", "--uts", "--cgroup", "--mount-proc", "--kill-child=SIGKILL")
_MASKED = (
    *("systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket", "systemd-udev-trigger.service"),
    *("systemd-sysctl.service", "systemd-modules-load.service", "systemd-remount-fs.service", "systemd-binfmt.service"),
    *("systemd-tmpfiles-setup-dev.service", "systemd-random-seed.service", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount"),
    *("modprobe@.service", "kmod-static-nodes.service", "systemd-pstore.service", "systemd-sysusers.service"),
)
# $1: the stage, a directory of ours that both sides see; $2: this checkout; $3: its site-packages; then pairs: what, where.
# A stage without a venv makes a bare one.
_BOOT = f"""
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 eva-run /run
mkdir /run/stage /run/etc
mount --bind "$1" /run/stage
cp -a /etc/. /run/etc
sed -i '/^news:/d' /run/etc/passwd /run/etc/shadow /run/etc/group /run/etc/gshadow
rm -rf /run/etc/systemd/system
mkdir /run/etc/systemd/system
mount --bind /run/etc /etc
for directory in lib log cache; do mount -t tmpfs -o mode=755 eva-var /var/$directory; done
mount -t tmpfs -o mode=1777 eva-var /var/tmp
mount -t tmpfs -o mode=755 eva-opt /opt
for directory in sysusers.d tmpfiles.d; do
    cp -a /usr/lib/$directory /run/etc-$directory
    mount --bind /run/etc-$directory /usr/lib/$directory
done
mkdir /opt/site
mount --bind "$3" /opt/site
if [ -d /run/stage/venv ]; then
    cp -a /run/stage/venv /opt/eva
    mkdir /opt/checkout
    mount --bind "$2" /opt/checkout
else
    ip link set lo up
    mount -t tmpfs -o mode=700 eva-root /root
fi
shift 3
while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
mount -t tmpfs -o mode=1777 eva-tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for unit in {" ".join(_MASKED)}; do ln -s /dev/null /etc/systemd/system/$unit; done
cp -a /run/stage/etc/. /etc
if [ -d /opt/eva ]; then
    systemd-sysusers eva.conf
    systemd-tmpfiles --create eva.conf
fi
hostname AzS-ERCS01
exec {SYSTEMD} --system --unit=basic.target --show-status=no
"""


def why_not() -> str | None:
    """Why this machine cannot boot one, or None."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        return "needs Debian's systemd and util-linux"
    if _python() is None:
        return f"needs a Python {sys.version_info.major}.{sys.version_info.minor} that other users can read, as Debian's"
    tried = subprocess.run(["unshare", *NAMESPACES, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, check=False)
    return f"no namespaces here: {tried.stderr.decode().strip()}" if tried.returncode != 0 else None


def _python() -> Path | None:
    """Ours if it is the system's, else the system's of the same version: extension modules fit both."""
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if sys.base_prefix in ("/usr", "/usr/local"):
        return Path(sys.base_prefix, "bin", system.name)
    return system if system.exists() else None


class BootedSystemd:
    """`files`: contents by path below /etc, put there before the boot and owned by root. `shown`: directories of ours that
    are seen in there, by where. stop() leaves nothing.
    """

    def __init__(self, files: Mapping[str, str | bytes], shown: Mapping[str, Path], *, bare: bool = False) -> None:
        self.stage = Path(tempfile.mkdtemp(prefix="eva-systemd-"))
        self.stage.chmod(0o755)  # the services log here
        for name, content in files.items():
            path = self.stage / "etc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        if not bare:
            self._make_venv()
        self._namespaces = (*NAMESPACES, "--net") if bare else NAMESPACES
        site = next(path for path in sys.path if path.endswith("site-packages"))
        pairs = [str(word) for where, what in shown.items() for word in (what, where)]
        self._program = Program(
            ["unshare", *self._namespaces, "bash", "-c", _BOOT, "boot", str(self.stage), str(ROOT), site, *pairs],
            self.stage / "systemd.log",
            environment={"container": "eva-test"},  # it leaves alone what is the host's
        )

    def _make_venv(self) -> None:
        venv = self.stage / "venv"
        subprocess.run([str(_python()), "-m", "venv", "--without-pip", str(venv)], check=True)
        site = next(venv.glob("lib/python*/site-packages"))
        (site / "eva.pth").write_text("/opt/checkout\n/opt/site\n")
        for name, module in (("eva-broker", "broker.command:main"), ("eva-provider", "provider.command:main")):
            package, _, function = module.partition(":")
            script = venv / "bin" / name
            script.write_text(f"#!/opt/eva/bin/python\nimport sys\nfrom {package} import {function}\nsys.exit({function}())\n")
            script.chmod(0o755)

    def start(self, timeout: float = 2 * PATIENCE_S) -> None:
        """Return when it has booted. Raises ProgramEnded, NotReady."""
        self._program.start()
        try:
            self._await_boot(timeout)
        except BaseException:
            self.stop()
            raise

    def _await_boot(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            said = self.run("systemctl", "is-system-running", "--wait").stdout.strip()
            if said in ("running", "degraded"):
                return
            if not self._program.running:
                raise ProgramEnded(self._program.argv, self._program.returncode, self._program.transcript.tail())
            if time.monotonic() > deadline:
                raise NotReady("boot", [said], self._program.transcript.tail())
            time.sleep(0.1)  # process 1 that does not serve yet leaves nothing to wait for

    @property
    def init(self) -> int:
        """Its process 1, as we count."""
        children = Path(f"/proc/{self._program.pid}/task/{self._program.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, *argv: str, timeout: float = 2 * PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run a command in there as root, to its end."""
        return subprocess.run([*self.enter, *argv], capture_output=True, text=True, timeout=timeout, check=False)

    @property
    def enter(self) -> list[str]:
        """What stands before a command that is to run in there as root."""
        which = [name for name in ("--mount", "--pid", "--uts", "--cgroup", "--net") if name in self._namespaces]
        return ["nsenter", "--target", str(self.init or self._program.pid), *which, "--"]

    def do(self, *argv: str) -> str:
        """Run it and give its standard output. Raises AssertionError with all it said where it fails."""
        done = self.run(*argv)
        assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def properties(self, unit: str, names: Sequence[str]) -> dict[str, str]:
        """What `systemctl show` says of these."""
        lines = self.do("systemctl", "show", unit, *(f"--property={name}" for name in names)).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def pids_of(self, user: str) -> list[int]:
        """Every process of a user in there, as it counts them."""
        return [int(pid) for pid in self.run("pgrep", "-u", user).stdout.split()]

    def stop(self) -> None:
        """Kill process 1, and with it all there is."""
        self._program.kill()
        shutil.rmtree(self.stage, ignore_errors=True)
