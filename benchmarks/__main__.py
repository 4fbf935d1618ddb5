"""`make bench`: the broker's way of the bytes beside its peers, interleaved, in one run and one table.

Round after round each measure is taken of each contender in turn, so that what else the machine does falls on all alike.
The figures are medians; the ratio is to the raw relay in C. `cpu` is the same ratio of work done for each second of
processor time that the relay itself used, which other load disturbs less. `generator alone` has no relay at all between
load generator and console: what stands there is the most that this stand can measure.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.contenders import CONTENDERS, LIMIT, Contender
from benchmarks.stand import FOLDER, LoadError, Stand, cpu_seconds, load, load_command, memory_kib, stand

ALONE = "generator alone"
WARM_UP = 0.15  # seconds, as in load.c: the relay works in them too
IDLE_SESSIONS = 200


@dataclass(frozen=True)
class Measure:
    """`load`: arguments of the generator. `figure`: which of its figures counts. `beside`: a load that runs meanwhile."""

    name: str
    load: tuple[str, ...]
    figure: str
    unit: str
    scale: float
    goal: str = ""
    console: str = "plain"
    tls: bool = False
    beside: tuple[str, ...] = ()
    connections: int = 1


MEASURES = (
    Measure("down", ("down",), "bytes_per_second", "MB/s", 1e-6, ">= 0.9, >= 1.5 x websockify"),
    Measure("down-rfb", ("down",), "bytes_per_second", "MB/s", 1e-6, ">= 0.9", console="rfb"),
    Measure("up", ("up",), "bytes_per_second", "MB/s", 1e-6, ">= 0.5, >= 3 x websockify"),
    Measure("echo", ("echo",), "p50_us", "us", 1.0, "< websockify"),
    Measure("echo-500", ("echo", "--connections", "500"), "p50_us", "us", 1.0, "<= 1.25", connections=500),
    Measure("echo-beside", ("echo",), "p50_us", "us", 1.0, "<= 1.5", beside=("down",)),
    Measure("connect", ("connect",), "per_second", "1/s", 1.0),
    Measure("down-tls", ("down",), "bytes_per_second", "MB/s", 1e-6, ">= 0.95", tls=True),
    Measure("up-tls", ("up",), "bytes_per_second", "MB/s", 1e-6, tls=True),
    Measure("echo-tls", ("echo",), "p50_us", "us", 1.0, tls=True),
    Measure("connect-tls", ("connect",), "per_second", "1/s", 1.0, ">= 8 x websockify", tls=True),
)


@dataclass(frozen=True)
class Sample:
    figure: float
    p99: float | None  # of an echo's time
    work_per_cpu: float | None  # echoes, connections or bytes for each second of the relay's processor time


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
    alone = used > 0 and not measure.beside and measure.connections == 1  # else it has done more than what is counted
    work = rate * (seconds + WARM_UP) / used if alone else None
    return Sample(figures[measure.figure], figures.get("p99_us"), work)


def memory(here: Stand, contender: Contender) -> float:
    """KiB for each idle session."""
    port, pid = here.contender(contender, "plain", tls=False)
    before = memory_kib(pid)
    command = load_command(port, ("idle", "--connections", str(IDLE_SESSIONS)), raw=contender.raw, kind="plain", tls=False)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sessions:
        assert sessions.stdin is not None
        assert sessions.stdout is not None
        if not sessions.stdout.readline():
            raise LoadError("idle sessions did not open")
        after = memory_kib(pid)
        sessions.stdin.close()
    return (after - before) / IDLE_SESSIONS


def median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(mine: float | None, theirs: float | None) -> str:
    return f"{mine / theirs:.2f}" if mine and theirs else ""


def print_table(samples: dict[tuple[str, str], list[Sample]], measures: list[Measure], names: list[str]) -> None:
    print(f"{'':38}{'median':>10}{'':6}{'ratio':>8}{'cpu':>8}{'p99':>10}{'ratio':>8}")
    for measure in measures:
        label = measure.name
        limit = samples[measure.name, LIMIT.name]
        for name in names:
            row = samples[measure.name, name]
            figure, limit_figure = (median(sample.figure for sample in each) for each in (row, limit))
            if figure is None:
                continue
            work, limit_work = (median(sample.work_per_cpu for sample in each) for each in (row, limit))
            p99, limit_p99 = (median(sample.p99 for sample in each) for each in (row, limit))
            print(
                f"{label:14}{name:24}{figure * measure.scale:10.1f} {measure.unit:5}"
                f"{ratio(figure, limit_figure):>8}{ratio(work, limit_work):>8}"
                f"{'' if p99 is None else f'{p99:.1f}':>10}{ratio(p99, limit_p99):>8}"
            )
            label = ""
        print(f"{'':14}goal: {measure.goal}\n" if measure.goal else "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each sample")
    parser.add_argument("--measures", default=",".join(measure.name for measure in MEASURES))
    parser.add_argument("--contenders", default="", help="parts of their names, with commas; the raw relay is always in")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    wanted = options.measures.split(",")
    measures = [measure for measure in MEASURES if measure.name in wanted]
    parts = options.contenders.split(",")
    contenders = [each for each in CONTENDERS if each is LIMIT or any(part in each.name for part in parts)]
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    idle: dict[str, float] = {}
    with stand() as here:
        if not options.no_memory:  # first: a relay that has worked has room for sessions already
            idle = {contender.name: memory(here, contender) for contender in contenders}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for measure in measures:
                for contender in [None, *contenders]:
                    name = contender.name if contender else ALONE
                    if contender is None and (measure.tls or measure.beside):
                        continue
                    if contender is not None and measure.connections > contender.most_connections:
                        continue
                    try:
                        samples[measure.name, name].append(take(here, measure, contender, options.seconds))
                    except LoadError as error:
                        print(f"{measure.name}, {name}: {error}", file=sys.stderr)
    names = [ALONE, *(contender.name for contender in contenders)]
    print(f"\n{platform.machine()}, {platform.release()}, Python {platform.python_version()}, {options.rounds} rounds\n")
    print_table(samples, measures, names)
    for name, kib in idle.items():
        print(f"{'idle session':14}{name:24}{kib:10.1f} KiB")
    results = {
        f"{measure}: {name}": [(sample.figure, sample.work_per_cpu) for sample in row] for (measure, name), row in samples.items()
    }
    (FOLDER / "results.json").write_text(json.dumps(results | {f"idle: {name}": kib for name, kib in idle.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
