"""Processes that start one program and, at their own end or their parent's, leave nothing of all that the program started.

    python -m lab.warden PARENT-PID PROGRAM [ARGUMENT ...]

libvirtd makes QEMU a daemon of its own, out of reach of PDEATHSIG; here the orphans come back to the warden, which is their
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER). A line on standard input starts the program again if it has ended; the
first start and each line are answered by its pid. End of input, or the parent's end, is the end of all.

Nobody catches SIGKILL, so there are two: the warden, and a guard that is the warden's parent and subreaper. The orphans of a
killed warden come to the guard; a killed guard is a parent that has ended. Each has a session of its own, so that what is sent
to the starter's process group (Ctrl+C, a runner that kills a test run) reaches neither.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Serve until standard input or the parent ends. To be started in a session of its own."""
    parent, guard = os.pidfd_open(int(sys.argv[1])), os.pidfd_open(os.getpid())
    _take_orphans()
    warden = os.fork()
    try:
        if warden != 0:
            select.select([parent, os.pidfd_open(warden)], [], [])
        else:
            os.setsid()
            _take_orphans()  # a child does not inherit it
            _serve(guard, sys.argv[2:])
    finally:
        _end_all()


def _take_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _serve(guard: int, command: list[str]) -> None:
    bell, bell_end = os.pipe()
    os.set_blocking(bell_end, False)
    signal.set_wakeup_fd(bell_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    program = _start(command)
    print(program.pid, flush=True)
    while True:
        ready, _, _ = select.select([0, guard, bell], [], [])
        if bell in ready:
            os.read(bell, 4096)
        # An orphan must be reaped at once: libvirt waits until a pid it killed is gone, and a zombie is not.
        _reap(program)
        if guard in ready:
            return
        if 0 in ready:
            if not os.read(0, 4096):
                return
            if program.poll() is not None:
                program = _start(command)
            print(program.pid, flush=True)


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _reap(program: "subprocess.Popen[bytes]") -> None:
    program.poll()
    for pid in _children(os.getpid()):
        if pid != program.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _end_all() -> None:
    """Kill and reap until the kernel says that no child is left; orphans of the killed become ours and are next."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


if __name__ == "__main__":
    main()
