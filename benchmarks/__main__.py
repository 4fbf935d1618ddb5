"""`make bench`: the broker's own consoles beside its peers, interleaved, in one run and one table.

Round after round each measure is taken of each contender in turn, each round beginning with another one, so that what else
the machine does falls on all alike. Figures are medians; a ratio is the median of the ratios within each round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.contenders import LIMIT, Contender
from benchmarks.mass_cut import killed_relay
from benchmarks.measures import (
    ALONE,
    CUT,
    FIRST_SCREEN,
    GRANTS,
    GUEST,
    IDLE,
    KILLED,
    LOADS,
    MASS_CUT,
    MEASURES,
    STORE,
    UPDATES,
    Measure,
)
from benchmarks.sample import Sample, memory, take
from benchmarks.stand import FOLDER, LoadError, Stand, free_port, load_command, stand
from benchmarks.table import Results, lines

SESSIONS_CUT = 1000
CUTS = 3
OPENINGS = 15  # of each kind of console, in each way
GRANTED = 100  # consents in each spell


def attempt(results: Results, measure: Measure, name: str, sample: Callable[[], Sample]) -> None:
    """Notes a sample, or that there is none."""
    try:
        results.add(measure, name, sample())
    except LoadError as error:
        print(f"{measure.name}, {name}: {error}", file=sys.stderr)
        results.add(measure, name, None)


def in_turn(measure: Measure, number: int) -> Iterator[Contender]:
    """Those that can take the measure, beginning with another one each round."""
    able = [each for each in measure.who if measure.connections <= each.most_connections]
    first = number % len(able)
    yield from able[first:] + able[:first]


def run_loads(here: Stand, measures: Sequence[Measure], rounds: int, seconds: float, results: Results) -> None:
    for measure in measures:  # the rows' order in the table, whoever comes first
        for name in ([ALONE] if measure.alone else []) + [each.name for each in measure.who]:
            results.rows.setdefault(measure.name, {}).setdefault(name, [])
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        for measure in measures:
            if measure.alone:
                attempt(results, measure, ALONE, lambda m=measure: take(here, m, None, seconds))  # type: ignore[misc]
            for contender in in_turn(measure, number):
                attempt(results, measure, contender.name, lambda m=measure, c=contender: take(here, m, c, seconds))  # type: ignore[misc]


def run_idle(here: Stand, measures: Sequence[Measure], results: Results) -> None:
    """First of all: a relay that has worked has room for sessions already."""
    for measure in measures:
        for contender in measure.who:
            attempt(results, measure, contender.name, lambda m=measure, c=contender: memory(here, m, c))  # type: ignore[misc]


def run_cuts(here: Stand, count: int, times: int, results: Results) -> None:
    path, _ = here.console("rfb")
    for _ in range(times):
        command = [sys.executable, "-m", "benchmarks.mass_cut", str(count), str(FOLDER)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
        moments: dict[str, float] = json.loads(done.stdout)
        port = free_port()
        idle = load_command(port, ("idle", "--connections", str(count)), raw=True, kind="rfb", tls=False)
        killed = killed_relay(LIMIT.command(FOLDER, port, path, None), idle)
        for measure in MASS_CUT:
            results.add(measure, CUT, Sample(moments[measure.name]))
            results.add(measure, KILLED, Sample(killed))


def run_guest(times: int, results: Results) -> None:
    command = [sys.executable, "-m", "benchmarks.guest_consoles", str(times)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    samples: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    for measure in GUEST:
        for name, values in samples[measure.name].items():
            for value in values:
                results.add(measure, name, Sample(value))


def run_program(measures: Sequence[Measure], results: Results, name: str, *words: str) -> None:
    """One that prints its samples, each a figure and perhaps a 99th percentile, by measure and contender."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *words, str(FOLDER)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=900)
    samples: dict[str, dict[str, list[tuple[float, float | None]]]] = json.loads(done.stdout)
    for measure in measures:
        for who, figures in samples[measure.name].items():
            for figure, p99 in figures:
                results.add(measure, who, Sample(figure, p99))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each sample")
    parser.add_argument("--measures", default=",".join(measure.name for measure in MEASURES), help="names, with commas")
    parser.add_argument("--sessions-cut", type=int, default=SESSIONS_CUT)
    parser.add_argument("--granted", type=int, default=GRANTED, help="consents in each spell of `grant` and its like")
    parser.add_argument("--results", type=Path, default=FOLDER / "results.json", help="where all samples go")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    names = options.measures.split(",")
    unknown = set(names) - {measure.name for measure in MEASURES}
    if unknown:
        print(f"no such measure: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    measures = [measure for measure in MEASURES if measure.name in names]
    results = Results()
    before = os.getloadavg()[0]
    with stand() as here:
        run_idle(here, [measure for measure in measures if measure in IDLE], results)
        run_loads(here, [measure for measure in measures if measure in LOADS], options.rounds, options.seconds, results)
        if any(measure in MASS_CUT for measure in measures):
            run_cuts(here, options.sessions_cut, min(options.rounds, CUTS), results)
        if any(measure in GUEST for measure in measures):
            run_guest(min(3 * options.rounds, OPENINGS), results)
        if first := [measure for measure in measures if measure in FIRST_SCREEN]:
            run_program(first, results, "first_screen", str(options.rounds))
        if updates := [measure for measure in measures if measure in UPDATES]:
            run_program(updates, results, "updates", str(options.rounds))
        if grants := [measure for measure in measures if measure in GRANTS]:
            run_program(grants, results, "provider_grants", str(options.rounds), str(options.granted))
        if sizes := [measure for measure in measures if measure in STORE]:
            run_program(sizes, results, "provider_store", str(options.rounds))
    print(f"\n{platform.machine()}, {os.cpu_count()} processors, {platform.release()}, Python {platform.python_version()}")
    print(f"{options.rounds} rounds of {options.seconds:g} s; load average {before:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    for line in lines(results, measures):
        print(line)
    options.results.write_text(json.dumps(results.plain()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
