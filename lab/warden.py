"""A process that starts one program and, at its own end or its parent's, leaves nothing of all that the program started.

    python -m lab.warden PARENT-PID PROGRAM [ARGUMENT ...]

libvirtd makes QEMU a daemon of its own, out of reach of PDEATHSIG; here the orphans come back to the warden, which is their
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER). A line on standard input starts the program again if it has ended; the
first start and each line are answered by its pid. End of input, or the parent's end, is the end of all.
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
    """Serve until standard input or the parent ends."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl+C at the terminal, or its hanging up, is for the one who started us: our input ends when that one is done.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    try:
        _serve(os.pidfd_open(parent), command)
    finally:
        _end_all()


def _serve(parent: int, command: list[str]) -> None:
    bell, bell_end = os.pipe()
    os.set_blocking(bell_end, False)
    signal.set_wakeup_fd(bell_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    program = _start(command)
    print(program.pid, flush=True)
    while True:
        ready, _, _ = select.select([0, parent, bell], [], [])
        if bell in ready:
            os.read(bell, 4096)
        # An orphan must be reaped at once: libvirt waits until a pid it killed is gone, and a zombie is not.
        _reap(program)
        if parent in ready:
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
