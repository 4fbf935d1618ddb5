"""One sample: a contender under a load, or with idle sessions."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from benchmarks.contenders import Contender
from benchmarks.measures import Measure
from benchmarks.stand import LoadError, Stand, cpu_seconds, load, load_command, memory_kib

WARM_UP = 0.15  # seconds, as in load.c: the relay works in them too
IDLE_SESSIONS = 200


@dataclass(frozen=True)
class Sample:
    figure: float
    p99: float | None = None  # of an echo's time
    work_per_cpu: float | None = None  # echoes, connections or bytes for each second of the relay's processor time


def take(here: Stand, measure: Measure, contender: Contender | None, seconds: float) -> Sample:
    """One sample; contender None is the generator alone. Raises LoadError."""
    pid = None
    if contender is None:
        _, port = here.console(measure.console)
        raw, tls = True, False
    else:
        port, pid = here.contender(contender, measure.console, measure.tls)
        raw, tls = contender.raw, measure.tls

    def command(arguments: tuple[str, ...], duration: float) -> list[str]:
        timed = (*arguments, "--seconds", str(duration))
        return load_command(port, timed, raw=raw, kind=measure.console, tls=tls)

    neighbour = None
    if measure.beside:
        bulk = command(measure.beside, seconds + 1.5)
        neighbour = subprocess.Popen(bulk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
    try:
        before = cpu_seconds(pid) if pid else 0.0
        figures = load(command(measure.load, seconds))
        used = cpu_seconds(pid) - before if pid else 0.0
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()
    rate = figures.get("bytes_per_second", figures.get("per_second", 0.0))
    only_that = used > 0 and not measure.beside and measure.connections == 1  # else it has done more than what is counted
    work = rate * (seconds + WARM_UP) / used if only_that else None
    return Sample(figures[measure.figure] * measure.scale, figures.get("p99_us"), work)


def memory(here: Stand, measure: Measure, contender: Contender) -> Sample:
    """KiB for each idle session, all processes of the contender counted. Raises LoadError."""
    port, pid = here.contender(contender, measure.console, measure.tls)
    before = memory_kib(pid)
    arguments = ("idle", "--connections", str(IDLE_SESSIONS))
    command = load_command(port, arguments, raw=contender.raw, kind=measure.console, tls=measure.tls)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sessions:
        assert sessions.stdin is not None
        assert sessions.stdout is not None
        if not sessions.stdout.readline():
            raise LoadError("idle sessions did not open")
        after = memory_kib(pid)
        sessions.stdin.close()
    return Sample((after - before) / IDLE_SESSIONS)
