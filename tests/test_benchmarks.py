"""The benchmark's harness: that every contender is heard, and that the table says what was measured."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as harness
from benchmarks import provider_store
from benchmarks.contenders import GRAPHICS, HOT_PATH, LIMIT, SERIAL, WEBSOCKIFY
from benchmarks.machines import SUBSCRIPTIONS, host_xml, machines
from benchmarks.measures import (
    ALONE,
    BARE,
    BARE_8,
    CUT,
    EIGHT,
    GRANTS,
    KILLED,
    LOADS,
    MEASURES,
    NODE_WORK,
    ONE,
    PROVIDER_WORK,
    SIZES,
    STORE,
    Goal,
    Measure,
    size_name,
)
from benchmarks.sample import Sample
from benchmarks.table import Results, lines, median, ratios, verdict
from hypervisor import description

FAST = Measure("down", "MB/s", goals=(Goal("mine", 0.9, "base"), Goal("mine", 30, at_most=True)), base="base")


def results(**rows: list[float | None]) -> Results:
    found = Results()
    for name, figures in rows.items():
        for figure in figures:
            found.add(FAST, name, None if figure is None else Sample(figure, p99=2 * figure))
    return found


def row(found: Results, name: str) -> list[str]:
    """The words of a contender's line."""
    return next(line for line in lines(found, [FAST]) if f" {name} " in line).split()


def test_a_ratio_is_taken_within_each_round():
    assert ratios([10, 100], [20, 100]) == [0.5, 1.0]


def test_a_round_that_failed_for_one_of_a_pair_has_no_ratio():
    assert ratios([10, None, 30], [20, 20, None]) == [0.5]


def test_a_median_is_of_those_that_did_not_fail():
    assert median([1, None, 5, 3]) == 3


def test_no_sample_is_no_median():
    assert median([None]) is None


def test_the_line_gives_median_ratio_and_the_span_over_the_rounds():
    found = results(base=[10, 20, 40], mine=[9, 20, 44])
    assert row(found, "mine") == ["mine", "20.0", "MB/s", "1.00", "0.90-1.10", "40.0", "1.00"]


def test_one_who_was_never_measured_has_no_line():
    found = results(base=[10], mine=[None])
    assert not any(" mine " in line and "goal" not in line for line in lines(found, [FAST]))


@pytest.mark.parametrize(("mine", "expected"), [(9.5, "0.95, reached"), (8.0, "0.80, NOT REACHED"), (None, "not measured")])
def test_a_goal_against_a_peer(mine: float | None, expected: str):
    assert verdict(Goal("mine", 0.9, "base"), results(base=[10], mine=[mine]).of(FAST)) == expected


@pytest.mark.parametrize(("mine", "expected"), [(30.0, "30.00, reached"), (31.0, "31.00, NOT REACHED")])
def test_a_goal_that_is_a_figure_of_its_own(mine: float, expected: str):
    assert verdict(Goal("mine", 30, at_most=True), results(mine=[mine]).of(FAST)) == expected


@pytest.mark.parametrize("measure", LOADS, ids=lambda measure: measure.name)
def test_goals_and_ratios_are_of_those_who_are_measured(measure: Measure):
    names = {contender.name for contender in measure.who}
    assert {measure.base} | {goal.who for goal in measure.goals} | {goal.peer for goal in measure.goals if goal.peer} <= names


def test_every_measure_has_a_name_of_its_own():
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_an_unknown_measure_is_refused(capsys: pytest.CaptureFixture[str]):
    assert harness.main(["--measures", "down,sideways"]) == 2
    assert "sideways" in capsys.readouterr().err


def heard(rows: dict[str, list[list[float] | None]], name: str) -> bool:
    """Whether there is one sample, and something in it."""
    return [sample is not None and sample[0] > 0 for sample in rows.get(name, [])] == [True]


def test_a_small_run_hears_every_contender(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One short round on the real stand, through the broker's own consoles."""
    pytest.importorskip("websockify")
    headers = ["gcc", "-E", "-include", "openssl/ssl.h", "-x", "c", "/dev/null"]
    if shutil.which("gcc") is None or subprocess.run(headers, check=False, capture_output=True).returncode:
        pytest.skip("needs gcc and OpenSSL's headers: make bench installs them")
    samples = tmp_path / "results.json"
    options = ["--rounds", "1", "--sessions-cut", "20", "--results", str(samples)]
    expected = {
        "down": {ALONE, LIMIT.name, GRAPHICS.name, HOT_PATH.name, WEBSOCKIFY.name},
        "pointer": {LIMIT.name, GRAPHICS.name},
        "serial-escapes": {LIMIT.name, SERIAL.name},
        "serial-echo": {LIMIT.name, SERIAL.name},
        "cut-gates": {CUT, KILLED},
    }
    rows: dict[str, dict[str, list[list[float] | None]]] = {}
    for seconds in ("0.1", "3"):  # longer for those of whom a busy machine has heard nothing in so short a time
        wanted = [measure for measure, names in expected.items() if not all(heard(rows.get(measure, {}), name) for name in names)]
        if wanted:
            assert harness.main([*options, "--seconds", seconds, "--measures", ",".join(wanted)]) == 0
            rows |= json.loads(samples.read_text())
    for measure, names in expected.items():
        for name in names:
            assert heard(rows[measure], name), (measure, name)
    table = capsys.readouterr().out
    assert "load average" in table
    assert "goal: eva, graphics >= 0.9 x raw relay (C)" in table


def test_a_host_has_every_machine_under_its_resource_id():
    ids = machines(3 * SUBSCRIPTIONS)
    assert len(set(ids)) == len(ids)
    domains = ElementTree.fromstring(host_xml(ids)).findall("domain")  # noqa: S314 - our own
    found = [description.parse(ElementTree.tostring(domain, encoding="unicode")).resource for domain in domains]
    assert found == list(map(str, ids))


def provider_rows(measures: Sequence[Measure], program: str, *words: str) -> dict[str, set[str]]:
    """Who was measured in a small run, by measure; everybody has a figure."""
    found = Results()
    harness.run_program(measures, found, program, *words)
    for rows in found.rows.values():
        assert all(sample is not None and sample.figure >= 0 for samples in rows.values() for sample in samples)
    return {name: set(rows) for name, rows in found.rows.items()}


def test_a_small_run_grants_and_withdraws_on_both_databases():
    who = {
        "grant": {BARE, ONE, EIGHT},
        "withdraw": {ONE, EIGHT},
        "grants": {BARE, BARE_8, ONE, EIGHT},
        "withdrawals": {ONE, EIGHT},
        "grant-cpu": {PROVIDER_WORK, NODE_WORK},
    }
    rows = provider_rows(GRANTS, "provider_grants", "1", "8")
    assert rows == {measure.name: who[measure.name.rpartition("-")[0]] for measure in GRANTS}


def test_a_small_run_times_stores_of_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provider_store, "SIZES", SIZES[:2])
    samples = provider_store.measure(1, tmp_path)
    assert samples.keys() == {measure.name for measure in STORE}
    for rows in samples.values():
        assert rows.keys() == {size_name(size) for size in SIZES[:2]}
        assert all(figure > 0 for figures in rows.values() for figure, _ in figures)
