"""The borders between the packages: who may import whom, read from the source."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("eva", "hypervisor", "broker", "provider", "cmdlets", "oidc", "web")
NOT_PRODUCT = ("lab", "tests", "benchmarks")

# The broker sees the hypervisor through its front only.
FRONT = ("hypervisor.dialer", "hypervisor.inventory")

# Modules and packages of each package's own project that it may import besides itself.
NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "eva": (),
    "hypervisor": ("eva",),
    "broker": ("eva", "oidc", "web", *FRONT),
    "provider": ("eva", "oidc", "web"),
    "cmdlets": ("eva",),
    "oidc": ("eva",),
    "web": (),
}

# The pure language does no I/O and has no clock: of the standard library these, and the libraries for signatures.
PURE_STANDARD = """
    __future__ abc base64 binascii bisect codecs collections contextlib copy dataclasses datetime enum fractions functools
    hashlib heapq hmac ipaddress itertools json math operator re string struct textwrap types typing unicodedata urllib.parse
    uuid
"""
# yaml too: eva.strict_yaml walks its syntax tree, so that both daemons read their settings alike; it opens no file. pathlib, to
# name files in settings: what would touch one is among the impure calls.
PURE = frozenset({*PURE_STANDARD.split(), "jwt", "cryptography", "yaml", "pathlib"})

# Reading the clock, drawing randomness or touching a file through a module that is allowed for its types.
CLOCKS_AND_DICE = "now utcnow today uuid1 uuid4 urandom token_bytes token_hex"
DISKS = "read_text read_bytes write_text write_bytes exists is_file stat mkdir touch unlink resolve"
IMPURE_CALLS = frozenset(f"{CLOCKS_AND_DICE} {DISKS}".split())


@dataclass(frozen=True)
class Breach:
    """One line that crosses a border."""

    where: str
    what: str


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield the line and full name of all a module imports; `from a import b` is `a.b`, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"__import__", "importlib.import_module", "import_module"}:
            yield node.lineno, ast.unparse(node.args[0]).strip("'\"") if node.args else "?"


def within(name: str, allowed: str) -> bool:
    """Say whether a name is a module or lies in it."""
    return name == allowed or name.startswith(f"{allowed}.")


def crosses(owner: str, name: str) -> bool:
    """Say whether a module of the package `owner` may not import `name`."""
    top = name.partition(".")[0]
    if top == owner:
        return False
    if top in PRODUCT:
        return not any(within(name, neighbour) for neighbour in NEIGHBOURS[owner])
    if top in NOT_PRODUCT or (top.startswith("libvirt") and owner != "hypervisor"):
        return True
    return owner == "eva" and not any(within(name, module) for module in PURE)


def breaches(root: Path) -> list[Breach]:
    """Read all product packages below `root`; give the lines that cross a border."""
    found = []
    for owner in PRODUCT:
        for path in sorted((root / owner).rglob("*.py")):
            where = path.relative_to(root)
            tree = ast.parse(path.read_bytes(), str(path))
            package = ".".join(where.parent.parts)
            found += [Breach(f"{where}:{line}", name) for line, name in imports(tree, package) if crosses(owner, name)]
            if owner == "eva":
                found += [Breach(f"{where}:{line}", call) for line, call in impure_calls(tree)]
    return found


def impure_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield calls that read a clock, draw randomness or open a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"open", "print", "input"} or called.rpartition(".")[2] in IMPURE_CALLS:
                yield node.lineno, called


def test_no_import_crosses_a_border() -> None:
    assert breaches(ROOT) == []


def test_every_package_is_read() -> None:
    assert [package for package in PRODUCT if not (ROOT / package / "__init__.py").exists()] == []


PLANTED = [
    ("eva/token.py", "import asyncio", "asyncio"),
    ("eva/token.py", "import time", "time"),
    ("eva/token.py", "def late():\n    import sqlite3", "sqlite3"),
    ("eva/token.py", "from pathlib import Path\nPath('/etc/eva').read_text()", "Path('/etc/eva').read_text"),
    ("eva/token.py", "import urllib.request", "urllib.request"),
    ("eva/token.py", "from broker import gate", "broker.gate"),
    ("eva/token.py", "from datetime import datetime\nnow = datetime.now()", "datetime.now"),
    ("eva/token.py", "open('/etc/hosts')", "open"),
    ("hypervisor/worker.py", "from broker.gate import Gate", "broker.gate.Gate"),
    ("hypervisor/worker.py", "import lab.ports", "lab.ports"),
    ("broker/gate.py", "import libvirt", "libvirt"),
    ("broker/gate.py", "import libvirtaio", "libvirtaio"),
    ("broker/gate.py", "import hypervisor.worker", "hypervisor.worker"),
    ("broker/gate.py", "from hypervisor import forkserver", "hypervisor.forkserver"),
    ("broker/gate.py", "from hypervisor.watcher import main", "hypervisor.watcher.main"),
    ("broker/gate.py", "import hypervisor", "hypervisor"),
    ("broker/gate.py", "from provider import store", "provider.store"),
    ("broker/deep/gate.py", "from ...provider import store", "provider.store"),
    ("broker/gate.py", "import importlib\nimportlib.import_module('libvirt')", "libvirt"),
    ("provider/store/store.py", "from hypervisor.dialer import Dialer", "hypervisor.dialer.Dialer"),
    ("provider/store/store.py", "from broker import journal", "broker.journal"),
    ("cmdlets/connect.py", "from broker import journal", "broker.journal"),
    ("cmdlets/connect.py", "from tests import conftest", "tests.conftest"),
]


@pytest.mark.parametrize(("path", "source", "name"), PLANTED)
def test_planted_breach_is_found(tmp_path: Path, path: str, source: str, name: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert [breach.what for breach in breaches(tmp_path)] == [name]


ALLOWED = [
    ("eva/token.py", "import jwt, json\nfrom cryptography.exceptions import InvalidSignature\nfrom eva.wire import Topic"),
    ("eva/token.py", "from urllib.parse import unquote\nfrom collections.abc import Mapping\nfrom . import wire"),
    ("hypervisor/worker.py", "import libvirt, os\nfrom eva.consent import Kind"),
    ("broker/gate.py", "import asyncio\nfrom hypervisor.dialer import Line\nfrom hypervisor import inventory"),
    ("provider/store/store.py", "import sqlite3\nfrom eva import token"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_allowed_import_is_no_breach(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert breaches(tmp_path) == []


def test_pure_modules_are_modules() -> None:
    assert {name.partition(".")[0] for name in PURE_STANDARD.split()} <= sys.stdlib_module_names
