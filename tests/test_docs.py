"""The documents name what the code has, all of it and nothing else; their links and paths are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from fastapi.routing import APIRoute

from broker import command as broker_command
from broker.metrics import Metrics
from eva import audit, control, watch, whereabouts, wire
from eva.ending import Ending
from eva.ledger import Reject
from eva.resource_id import ResourceId
from eva.token import Typ
from provider import command as provider_command
from provider import settings
from provider.consent.authority import Refusal, Refused
from provider.meters import Meters
from provider.rest.admin_api import FEATURE_PATH, FEATURES_PATH, admin_app
from provider.rest.admission import Keychain
from provider.rest.bearer import Fault
from provider.rest.front import refused
from provider.rest.tenant_api import MACHINE_PATH, tenant_app

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
REST = (ROOT / "docs/rest.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = [path for package in ("eva", "hypervisor", "broker", "provider", "cmdlets") for path in (ROOT / package).rglob("*.py")]


def section(text: str, heading: str) -> str:
    """What stands below the heading, to the next of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.split(rf"^{re.escape(heading)}.*$", text, flags=re.MULTILINE)
    assert len(found) == 2, heading
    return re.split(rf"^#{{1,{level}}} ", found[1], flags=re.MULTILINE)[0]


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose head's first cell is `first`."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    else:
        raise AssertionError(first)
    next(lines)
    table: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def names(cell: str) -> list[str]:
    """The words in backticks."""
    return [word for quoted in re.findall(r"`([^`]*)`", cell) for word in quoted.split()]


def first_column(text: str, first: str) -> list[str]:
    return [name for row in rows(text, first) for name in names(row[0])]


def list_after(words: str) -> list[str]:
    """The names in the backticks that follow these words."""
    found = re.search(re.escape(words) + r"\s*`([^`]*)`", PROTOCOL)
    assert found is not None, words
    return found[1].split()


def values(of: Iterable[Enum]) -> list[str]:
    return [str(one.value) for one in of]


# -- the protocol ----------------------------------------------------------------------------------------------------


def test_close_codes() -> None:
    table = [(int(row[0]), names(row[1])[0]) for row in rows(PROTOCOL, "code")]
    assert table == [(ending.code, ending.word) for ending in Ending]


def test_token_types() -> None:
    assert sorted(first_column(PROTOCOL, "`typ`")) == sorted(values(Typ))


def test_topics() -> None:
    topics = (
        *(wire.consent_topic, wire.revocation_topic, wire.lease_topic),
        *(wire.lease_request_topic, wire.receipt_topic, wire.status_topic),
    )
    assert sorted(first_column(PROTOCOL, "topic")) == sorted(topic("<ercs>") for topic in topics)


def test_control_methods() -> None:
    assert first_column(PROTOCOL, "method") == values(control.Method)


def test_control_events() -> None:
    assert sorted(first_column(PROTOCOL, "notification")) == sorted(values(control.Event))


def test_watch_methods_and_notifications() -> None:
    assert first_column(PROTOCOL, "watch method") == values(watch.WatchMethod)
    assert first_column(PROTOCOL, "watch notification") == values(watch.WatchEvent)


def test_refusals() -> None:
    assert list_after("Errors carry `data.reason`:") == values(control.Refusal)


def test_notices_of_a_serial_console() -> None:
    assert sorted(first_column(PROTOCOL, "`notice`")) == sorted(values(control.Mark))


def test_queries() -> None:
    (row,) = (row for row in rows(PROTOCOL, "`notice`") if names(row[0]) == ["query"])
    assert names(row[2]) == list(control.QUERIES)


def test_audit_events() -> None:
    assert list_after("Events:") == values(audit.Event)


def test_audit_members() -> None:
    said = section(PROTOCOL, "## Audit").partition("digest      =")[0]
    assert {name.strip(",") for name in names(said)} - {"audit.jsonl"} == set(audit.Record.__slots__)


def test_receipts() -> None:
    (line,) = re.findall(r"^- `event` of a receipt:.*?(?=^- |^#)", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert set(values(wire.Event)) | set(values(Reject)) <= set(names(line))


VM = ResourceId("0b1c9f6e-3a5d-4c8e-9f10-2a3b4c5d6e7f", "rg", "vm")
CLAIMS = {
    wire.LeaseRequest.TYP: wire.LeaseRequest("n", "", 0, "", 0, 0, 0, "").to_claims(),
    wire.Lease.TYP: wire.Lease("n", "", 0, 0, 0).to_claims(),
    wire.Receipt.TYP: wire.Receipt("n", "", 1, wire.Event.RECORDED, "", 0).to_claims(),
    wire.KeySet.TYP: wire.KeySet(1, {}).to_claims(),
    whereabouts.Query.TYP: whereabouts.Query("n", "", 0, VM).to_claims(),
    watch.Watch.TYP: watch.Watch("", "", "n", VM, "", 0, 1).to_claims(),
}


@pytest.mark.parametrize("typ", CLAIMS)
def test_claims(typ: Typ) -> None:
    (row,) = (row for row in rows(PROTOCOL, "`typ`") if names(row[0]) == [str(typ)])
    assert set(names(row[2])) == CLAIMS[typ].keys() - {"iss", "aud"}


def test_results_of_session_open() -> None:
    (row,) = (row for row in rows(PROTOCOL, "method") if names(row[0]) == ["session.open"])
    assert names(row[2]) == list(control.Opened.__slots__)


def test_paths_and_subprotocols() -> None:
    for name in (
        *(control.CONTROL_PATH, control.CONSOLE_PATH, control.SUBPROTOCOL, control.SERIAL_SUBPROTOCOL),
        *(control.GRAPHICS_SUBPROTOCOL, control.TICKET_PREFIX, wire.LEASE_PATH, wire.CONTENT_TYPE),
        *(watch.WATCH_PATH, watch.WATCH_SUBPROTOCOL, watch.TOKEN_PREFIX),
    ):
        assert name in PROTOCOL


# -- REST --------------------------------------------------------------------------------------------------------------


@cache
def routes() -> dict[str, set[tuple[str, str]]]:
    """Method and path of each operation at the two endpoints, with `{}` for what is any name."""
    rest = settings.read(ROOT / "config/provider.yaml").rest
    assert rest is not None
    parts: tuple[Any, ...] = (rest, None, None, Keychain(rest.identity))
    apps = {"tenant": tenant_app(*parts), "admin": admin_app(*parts)}
    return {
        name: {(method, any_name(one.path)) for one in app.routes if isinstance(one, APIRoute) for method in one.methods}
        for name, app in apps.items()
    }


def any_name(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def test_rest_paths() -> None:
    short = {
        "{vm}": MACHINE_PATH,
        "{feature}": FEATURE_PATH,
        "{features}": FEATURES_PATH,
        "<guid>": "{}",
        "<namespace>": "{}",
    }
    told = set()
    for method, paths in (row[:2] for row in rows(REST, "method")):
        for name, meant in short.items():
            paths = paths.replace(name, meant)  # noqa: PLW2901 - of a cell, step by step
        told |= {(method, any_name(path)) for path in names(paths)}
    there = set().union(*routes().values()) - {("GET", "/openapi.json")}
    assert told == there


def test_what_the_rest_answers_with() -> None:
    """Each status with its codes, read from where an ArmError is made."""
    there = {(401, str(fault)) for fault in Fault}
    for refusal in Refusal:
        answer = refused(Refused(refusal), "", "")
        there.add((answer.status, answer.code))
    for source in (ROOT / "provider").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Call(func=ast.Name("ArmError"), args=[ast.Constant(int(status)), ast.Constant(str(code)), *_]):
                    there.add((status, code))
    told = rows(REST, "status")
    assert {code for row in told for code in names(row[1])} == {code for _, code in there}
    for row in told:
        statuses = {int(status) for status in row[0].split(", ")}
        assert {status for status, code in there if code in names(row[1])} == statuses


def test_azure_cli_asks_for_what_is_there() -> None:
    there = "|".join(path.replace("{}", "[^/]+") for _, path in set().union(*routes().values()))
    asked = re.findall(r"(/subscriptions/[^\s'?]+)\?api-version=", (ROOT / "docs/azure-cli.md").read_text())
    assert asked
    for path in asked:
        assert re.fullmatch(there, path), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_action_is_told_of_that_is_not_there(page: Path) -> None:
    there = {path.rpartition("/")[2] for _, path in set().union(*routes().values())}
    assert set(re.findall(r"\b(?:enable|disable|update)(?:Vm|Tenant|Global)\w+", page.read_text())) <= there


# -- operations ------------------------------------------------------------------------------------------------------


def test_metrics() -> None:
    told = [*first_column(OPERATIONS, "of a node"), *first_column(OPERATIONS, "of the provider")]
    families = [*Metrics().registry.collect(), *Meters().registry.collect()]
    assert sorted(told) == sorted(family.name for family in families)


def test_each_alert_has_its_remedy() -> None:
    groups = yaml.safe_load((ROOT / "config/alerts.yml").read_text())["groups"]
    there = [rule["alert"] for group in groups for rule in group["rules"]]
    told = re.findall(r"^### (Eva\w+)$", OPERATIONS, re.MULTILINE)
    assert told == there
    for name in told:
        assert len(section(OPERATIONS, f"### {name}").split()) > 3


def leaves(group: click.Command) -> Iterator[str]:
    """Every command below a group, as it is typed."""
    for name, inner in getattr(group, "commands", {}).items():
        below = [f"{name} {leaf}" for leaf in leaves(inner)]
        yield from below or [name]


COMMANDS = {"eva-broker": broker_command.main, "eva-provider": provider_command.cli}


@pytest.mark.parametrize("program", COMMANDS)
def test_every_command_is_told_of(program: str) -> None:
    text = "".join(page.read_text() for page in PAGES)
    for leaf in leaves(COMMANDS[program]):
        assert re.search(rf"{program}(?: --config \S+)? {leaf}\b", text) or f"`{leaf}`" in text, leaf


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_is_told_of_that_is_not_there(page: Path) -> None:
    text = page.read_text()
    for program, group in COMMANDS.items():
        there = {word for leaf in leaves(group) for word in (leaf.split()[0], leaf)}
        # what is typed: at the start of a line's code, in backticks, or behind a path
        typed = rf"(?:^    |`|/|&& |-- ){program}(?: --config \S+)? ([a-z][a-z-]*)(?: ([a-z][a-z-]*)\b(?!\.))?"
        for first, second in re.findall(typed, text, re.MULTILINE):
            assert first in there, (page.name, program, first)
            if any(leaf.startswith(f"{first} ") for leaf in there):
                assert f"{first} {second}" in there, (page.name, program, first, second)


# -- the shipped settings --------------------------------------------------------------------------------------------


def keys_read(path: Path) -> set[str]:
    """Every key that a settings module asks its sections for."""
    asking = {"text", "integer", "convert", "section", "sections", "each", "truth", "flag", "has"}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        place = 0 if isinstance(node.func, ast.Attribute) and node.func.attr in asking else 1
        if place == 1 and not (isinstance(node.func, ast.Name) and node.func.id in ("_path", "_file", "path")):
            continue
        key = node.args[place] if len(node.args) > place else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.add(key.value)
    return found


EXAMPLES = {
    "broker.yaml": ("broker/settings.py", "eva/endpoint.py"),
    "provider.yaml": ("provider/settings.py", "provider/rest/settings.py", "eva/endpoint.py"),
    "client.yaml": ("cmdlets/settings.py",),
    "users.yaml": ("broker/accounts.py",),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_key_stands_in_the_shipped_example(example: str) -> None:
    text = (ROOT / "config" / example).read_text()
    for key in sorted({key for module in EXAMPLES[example] for key in keys_read(ROOT / module)}):
        assert re.search(rf"(?:^|[#{{,-])\s*{key}:", text, re.MULTILINE), key


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_key_of_an_example_is_explained(example: str) -> None:
    """By a comment on its line or above it, its own or its group's."""
    explained = False
    for number, line in enumerate((ROOT / "config" / example).read_text().splitlines(), start=1):
        if not line.strip():
            explained = False
        elif "#" in line:
            explained = True
        elif line.strip().endswith(":"):
            continue  # a group: what is in it is explained
        else:
            assert explained, f"{example}:{number}: {line}"


# -- links and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


_TOP = "eva|hypervisor|broker|provider|cmdlets|lab|tests|config|systemd|docs|benchmarks"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_are_there(page: Path) -> None:
    for path in re.findall(rf"`((?:{_TOP})/[\w*./-]*\w)`", page.read_text()):
        assert list(ROOT.glob(path)), path


def test_each_promise_names_tests_that_are_there() -> None:
    security = (ROOT / "docs/security.md").read_text()
    table = rows(section(security, "## What is promised"), "promise")
    assert [number for number, _ in table] == [str(n) for n in range(1, 12)]
    for _, cell in table:
        for group in cell.split(";"):
            file, *tests = re.findall(r"`(\w+)`", group)
            source = (ROOT / f"tests/{file}.py").read_text()
            assert [name for name in tests if f"def {name}(" not in source] == []


def test_decisions_that_the_code_cites_are_there() -> None:
    for source in PYTHON:
        for path in re.findall(r"docs/[\w/-]+\.md", source.read_text()):
            assert (ROOT / path).exists(), (source.name, path)


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:3] for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    assert numbers == [f"{number:03}" for number in range(1, len(numbers) + 1)]
