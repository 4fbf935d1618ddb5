"""hypervisor.confinement: tried on a process of its own."""

import os
import subprocess
import sys

CONFINED = """
import os, signal, sys
from hypervisor.confinement import confine, keep_only
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(9)][3:8:2]
os.dup2(kept[0], 200)
keep_only([kept[2], kept[0], 1])
confine("eva-confined-and-more", int(sys.argv[1]))
print([fd for fd in (*kept, 200) if os.path.exists(f"/proc/self/fd/{fd}")] == [kept[0], kept[2]])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["Name"].strip(), status["NoNewPrivs"].strip())
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def confined(parent: int) -> list[str]:
    command = [sys.executable, "-c", CONFINED, str(parent)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def test_it_keeps_what_it_was_told_and_gives_up_the_rest() -> None:
    # its descriptors, its name cut to 15 bytes, no new privileges, no polite end, no core dump or tracer (PR_GET_DUMPABLE)
    assert confined(os.getpid()) == ["True", "eva-confined-an 1", "True", "0"]


def test_without_its_parent_it_ends_before_it_does_anything() -> None:
    assert confined(1) == []
