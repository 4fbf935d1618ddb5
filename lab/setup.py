"""Install what the project needs and is not there yet: Debian packages, a guest kernel, the Python packages in .venv.

    python3 lab/setup.py [EXTRA ...]        extras of setup.cfg, without any: test; azure: what `make test-azure` needs besides
    python3 lab/setup.py web                what the pages are built on, and nothing else: before a wheel is built

Standard library only: it runs before .venv is there. Quick when all is there: no network, no apt, a few dpkg queries.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".lab"
VENV = ROOT / ".venv"
LOG = CACHE / "setup.log"
KERNEL = CACHE / "kernel" / "boot"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
KEYMAPS = CACHE / "keymaps"  # keyboard layouts of the guest, as busybox's loadkmap takes them
LAYOUTS = {"de": "i386/qwertz/de-latin1.kmap.gz"}
POLKIT_ACTIONS = CACHE / "polkit-actions"  # what libvirt asks polkit for
POLKIT_PACKAGE = "libvirt-daemon-system"
POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTERS = Path("/etc/postgresql-common/createcluster.conf")
OIDC = ROOT / "tests" / "oidc"
OIDC_MODULES = CACHE / "oidc"  # where its packages are, and the Node.js that runs it: node_modules/node-linux-*
WEB = ROOT / "web"
WEB_MODULES = CACHE / "web"  # what the pages are built on, as npm brings it
VENDOR = WEB / "vendor"  # and what of it is served
STOCK = ROOT / "tests" / "stock"
STOCK_MODULES = CACHE / "stock"  # other people's clients: node_modules/.bin/wscat
AZURE = CACHE / "azure"  # Azure's command line in an environment of its own
AZURE_PACKAGES = ROOT / "tests" / "azure" / "requirements.txt"

# Wait for another apt instead of failing; download as root, since Debian's _apt cannot write into our directory.
APT = ("-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root")

PACKAGES = {
    "a private hypervisor host": ("libvirt-daemon", "libvirt-daemon-driver-qemu", "qemu-system-x86"),
    "the guest": ("busybox-static",),
    "the MQTT broker": ("mosquitto",),
    "the demo's requests": ("curl",),
    "the tests of the provider on PostgreSQL": ("postgresql",),
    "the browser of the tests": ("chromium", "fonts-dejavu-core", "libnss3-tools"),
    "the tests of units, alerts and polkit rules": ("systemd", "prometheus", "polkitd"),
    "the virtual environment": ("python3-venv", "ca-certificates"),
    "building the benchmark's load generator": ("libssl-dev",),
    "building libvirt-python": ("libvirt-dev", "pkg-config", "gcc", "libc6-dev", "python3-dev"),
}
EVERYWHERE = tuple(package for packages in PACKAGES.values() for package in packages)


class SetupFailed(Exception):
    """A step could not be done; the text is for the one who typed make."""


def main(arguments: Sequence[str]) -> int:
    """Do the steps that are not done; give the exit status."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        # Two make targets at once: the second finds all done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if sys.version_info < (3, 11):  # noqa: UP036 - an older python3 may be the one on PATH
                raise SetupFailed(f"Python 3.11 or later is needed; {sys.executable} is {sys.version.split()[0]}")
            if list(arguments) == ["web"]:
                install_web_modules()
                return 0
            install_debian_packages()
            unpack_kernel()
            make_keymaps()
            unpack_polkit_actions()
            extras = tuple(sorted(set(arguments) - {"azure"}))
            install_web_modules()  # first: the package is not built without them
            install_python_packages(extras or ("test",))
            if set(arguments) & {"test", "azure"}:
                install_oidc_server()
                install_stock_clients()
            if "azure" in arguments:
                install_azure_cli()
        except SetupFailed as failure:
            print(f"setup: {failure}", file=sys.stderr)
            return 1
    return 0


def install_debian_packages(wanted: Sequence[str] = EVERYWHERE) -> None:
    """Install missing Debian packages and leave no service of theirs running or enabled."""
    missing = [package for package in wanted if not _installed(package)]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SetupFailed(f"this is no Debian; install by hand what Debian calls {' '.join(missing)}")
    if os.geteuid() != 0:
        raise SetupFailed(f"as root: apt-get install --no-install-recommends {' '.join(missing)}")
    with _step(f"installing {len(missing)} Debian packages ({' '.join(missing)}), one to three minutes"):
        _apt_update()
        if "postgresql" in missing and not CLUSTERS.exists():
            # its package makes a server's data at once otherwise; the lab makes its own
            CLUSTERS.parent.mkdir(exist_ok=True)
            CLUSTERS.write_text("create_main_cluster = false\n")
        with _no_services_started():
            _run(["apt-get", *APT, "install", "-y", "--no-install-recommends", *missing])
        # Only what we installed: the lab starts its own and nobody asked for one at boot.
        services = [f"{package}.service" for package in ("mosquitto", "prometheus", "postgresql") if package in missing]
        if services and shutil.which("systemctl"):
            _run(["systemctl", "disable", *services])


def unpack_kernel() -> None:
    """Unpack Debian's cloud kernel for the guest; it is not installed, so that this machine's boot stays as it is."""
    if any(KERNEL.glob("vmlinuz-*")) or any(Path("/boot").glob("vmlinuz-*-cloud-amd64")):
        return
    with _step("fetching the guest's kernel"):
        package = _kernel_package()
        if package is None:
            _apt_update()
            package = _kernel_package()
        if package is None:
            raise SetupFailed(f"apt knows no {KERNEL_PACKAGE}")
        _unpack(package, "boot/vmlinuz-*", KERNEL)


def make_keymaps() -> None:
    """Make the guest's keyboard layouts of Debian's; their packages are not installed, as they ask and set this machine's."""
    if all((KEYMAPS / f"{layout}.bmap").exists() for layout in LAYOUTS):
        return
    with _step("fetching the guest's keyboard layouts"):
        shutil.rmtree(KEYMAPS, ignore_errors=True)  # what was begun and not done
        if not _known("kbd") or not _known("console-data"):
            _apt_update()
        _unpack("kbd", "bin/loadkeys", KEYMAPS)
        _unpack("console-data", "usr/share/keymaps/i386", KEYMAPS)
        for layout, source in LAYOUTS.items():
            # a binary table, in Unicode; it looks for what a map includes beside it, and no console is touched
            made = subprocess.run(
                [str(KEYMAPS / "loadkeys"), "--bkeymap", "--unicode", str(KEYMAPS / source)], capture_output=True, check=False
            )
            if made.returncode:
                raise SetupFailed(f"loadkeys: {made.stderr.decode(errors='replace').strip()}")
            (KEYMAPS / f"{layout}.bmap").write_bytes(made.stdout)


def unpack_polkit_actions() -> None:
    """Unpack libvirt's list of polkit actions; its package is not installed, as it would start a libvirtd at each boot."""
    if any(POLKIT_ACTIONS.glob("*.policy")):
        return
    with _step("fetching libvirt's polkit actions"):
        if not _known(POLKIT_PACKAGE):
            _apt_update()
        _unpack(POLKIT_PACKAGE, "usr/share/polkit-1/actions/*.policy", POLKIT_ACTIONS)


def _unpack(package: str, wanted: str, into: Path) -> None:
    """Download a Debian package and keep these of its files."""
    deb, fetched = CACHE / "package.deb", CACHE / "fetch"
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir()
    _run(["apt-get", *APT, "download", package], fetched)
    next(fetched.glob(f"{package}_*.deb")).rename(deb)
    _run(["dpkg-deb", "--extract", str(deb), str(fetched)])
    into.mkdir(parents=True, exist_ok=True)
    for file in fetched.glob(wanted):
        file.rename(into / file.name)
    shutil.rmtree(fetched)
    deb.unlink()


def install_python_packages(extras: Sequence[str]) -> None:
    """Make .venv and install the project into it, editable, with these extras."""
    stamp = VENV / f"setup-{'-'.join(extras)}.stamp"
    declared = (ROOT / "setup.cfg").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    digest = hashlib.sha256(declared).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    python = VENV / "bin" / "python"
    if not python.exists():
        with _step("making .venv"):
            _run([sys.executable, "-m", "venv", str(VENV)])
    with _step(f"installing Python packages into .venv ({', '.join(extras)}), about a minute the first time"):
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        _run([str(python), "-m", "pip", "install", *options, "-e", f"{ROOT}[{','.join(extras)}]"])
    stamp.write_text(digest)


def install_oidc_server() -> None:
    """Install the OpenID Connect server of the tests, by its lock file."""
    _install_by_lock(OIDC, OIDC_MODULES, "the OpenID Connect server of the tests (190 MB with its Node.js)")


def install_stock_clients() -> None:
    """Install the clients of others that the tests give a ticket to, by their lock file."""
    _install_by_lock(STOCK, STOCK_MODULES, "a public command-line websocket client for the tests (1 MB)")


def install_web_modules() -> None:
    """Install what the pages are built on, by its lock file, and put what they load, with its licences, where it is served."""
    _install_by_lock(WEB, WEB_MODULES, "what the web pages are built on (30 MB)")
    stamp = VENDOR / "setup.stamp"
    wanted = (WEB_MODULES / "setup.stamp").read_text() + hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(VENDOR, ignore_errors=True)
    modules = WEB_MODULES / "node_modules"
    novnc, xterm = modules / "@novnc" / "novnc", VENDOR / "xterm"
    for folder in ("core", "vendor"):
        shutil.copytree(novnc / folder, VENDOR / "novnc" / folder)
    shutil.copy(novnc / "LICENSE.txt", VENDOR / "novnc")
    shutil.copytree(novnc / "docs", VENDOR / "novnc" / "docs", ignore=shutil.ignore_patterns("*.md"))
    xterm.mkdir()
    for file in (
        "xterm/lib/xterm.mjs",
        "xterm/css/xterm.css",
        "addon-fit/lib/addon-fit.mjs",
        "addon-search/lib/addon-search.mjs",
    ):
        shutil.copy(modules / "@xterm" / file, xterm)
    shutil.copy(modules / "@xterm" / "xterm" / "LICENSE", xterm)
    stamp.write_text(wanted)


def _install_by_lock(declared: Path, modules: Path, what: str) -> None:
    lock = (declared / "package-lock.json").read_bytes()
    stamp = modules / "setup.stamp"
    if stamp.exists() and stamp.read_text() == hashlib.sha256(lock).hexdigest():
        return
    if shutil.which("npm") is None:
        # Debian's Node.js is too old for the OpenID Connect server, which brings its own; it is npm that is wanted
        install_debian_packages(("npm",))
    with _step(f"installing {what}"):
        modules.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(declared / name, modules)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], modules)
    stamp.write_text(hashlib.sha256(lock).hexdigest())


def install_azure_cli() -> None:
    """Install Azure's command line, which shares nothing with .venv."""
    stamp = AZURE / "setup.stamp"
    wanted = AZURE_PACKAGES.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with _step("installing Azure's command line into .lab/azure: 730 MB on the disk, two minutes the first time"):
        if not (AZURE / "bin" / "python").exists():
            _run([sys.executable, "-m", "venv", str(AZURE)])
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--quiet"]
        _run([str(AZURE / "bin" / "python"), "-m", "pip", "install", *options, "-r", str(AZURE_PACKAGES)])
    stamp.write_text(wanted)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return answer.stdout == "installed"


def _apt_update() -> None:
    _run(["apt-get", *APT, "update"])


def _known(package: str) -> bool:
    """Whether apt has lists that name it: a machine on which all was installed already may have none."""
    return "Filename:" in subprocess.run(["apt-cache", "show", package], capture_output=True, text=True, check=False).stdout


def _kernel_package() -> str | None:
    """Give the package that the meta package points to at present."""
    query = ["apt-cache", "depends", "--important", KERNEL_PACKAGE]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    names = (line.removeprefix("  Depends: ") for line in answer.splitlines())
    return next((name for name in names if name.startswith("linux-image-") and name != KERNEL_PACKAGE), None)


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Let Debian's maintainer scripts start nothing (Debian policy 9.3.3, policy-rc.d), unless there is a policy already."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what is being done and how long it took: with a terminal or without, nobody waits in silence."""
    print(f"setup: {what} ...", flush=True)
    begun = time.monotonic()
    yield
    print(f"setup: done in {time.monotonic() - begun:.0f} s", flush=True)


def _run(command: Sequence[str], directory: Path = ROOT) -> None:
    """Run a command with its output in the log; a line each 15 s says that it goes on. Raises SetupFailed."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    begun = time.monotonic()
    with LOG.open("wb") as log:
        child = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        while True:
            try:
                code = child.wait(15)
                break
            except subprocess.TimeoutExpired:
                print(f"setup:   {Path(command[0]).name} still at it, {time.monotonic() - begun:.0f} s", flush=True)
    if code:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-20:])
        raise SetupFailed(f"{' '.join(command)} ended with status {code}:\n{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
