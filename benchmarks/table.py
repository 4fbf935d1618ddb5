"""The table: medians, and ratios within each round. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.measures import Goal, Measure
from benchmarks.sample import Sample

Row = Sequence[Sample | None]  # one for each round; None where it failed


@dataclass
class Results:
    """All samples of one run: by measure and contender, in the order of the rounds."""

    rows: dict[str, dict[str, list[Sample | None]]] = field(default_factory=dict)

    def add(self, measure: Measure, name: str, sample: Sample | None) -> None:
        self.rows.setdefault(measure.name, {}).setdefault(name, []).append(sample)

    def plain(self) -> dict[str, dict[str, list[tuple[float, float | None, float | None] | None]]]:
        """For a JSON file: figure, p99, work for each second of processor time."""
        return {
            measure: {name: [None if s is None else (s.figure, s.p99, s.work_per_cpu) for s in row] for name, row in rows.items()}
            for measure, rows in self.rows.items()
        }

    def of(self, measure: Measure) -> Mapping[str, Row]:
        return self.rows.get(measure.name, {})


def median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def figures(row: Row) -> list[float | None]:
    return [None if sample is None else sample.figure for sample in row]


def ratios(mine: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Round by round: what disturbed one of a pair disturbed the other."""
    return [a / b for a, b in zip(mine, theirs, strict=False) if a is not None and b]


def verdict(goal: Goal, rows: Mapping[str, Row]) -> str:
    """`reached`, `NOT REACHED` or `not measured`, with the figure."""
    mine = figures(rows.get(goal.who, ()))
    value = median(mine) if goal.peer is None else median(ratios(mine, figures(rows.get(goal.peer, ()))))
    if value is None:
        return "not measured"
    return f"{value:.2f}, {'reached' if goal.reached(value) else 'NOT REACHED'}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}" if len(values) > 1 else ""


def _pair(mine: Iterable[float | None], theirs: Iterable[float | None]) -> str:
    return _number(median(ratios(list(mine), list(theirs))), 2)


HEADER = f"{'':19}{'':28}{'median':>10}{'':5}{'ratio':>8}{'over the rounds':>18}{'cpu':>7}{'p99':>10}{'ratio':>7}"


def lines(results: Results, measures: Sequence[Measure]) -> Iterator[str]:
    """The table's lines. `cpu`: work done for each second of the relay's own processor time, as a ratio too."""
    yield HEADER
    for measure in measures:
        rows = results.of(measure)
        base = rows.get(measure.base, ())
        label = measure.name
        for name, row in rows.items():
            mine = figures(row)
            if median(mine) is None:
                continue
            against = ratios(mine, figures(base))
            p99 = _p99(row)
            yield (
                f"{label:19}{name:28}{_number(median(mine), 1):>10} {measure.unit:4}"
                f"{_number(median(against), 2):>8}{_span(against):>18}"
                f"{_pair(_work(row), _work(base)):>7}{_number(median(p99), 1):>10}{_pair(p99, _p99(base)):>7}"
            ).rstrip()
            label = ""
        if rows:
            yield from (f"{'':19}goal: {goal}: {verdict(goal, rows)}" for goal in measure.goals)
            if measure.note:
                yield f"{'':19}({measure.note})"
            yield ""


def _work(row: Row) -> list[float | None]:
    return [None if sample is None else sample.work_per_cpu for sample in row]


def _p99(row: Row) -> list[float | None]:
    return [None if sample is None else sample.p99 for sample in row]
