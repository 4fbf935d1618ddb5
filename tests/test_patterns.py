"""The regular expressions of what is shipped hold on the Python of Debian 12.

Python 3.11 brought possessive quantifiers and atomic groups, and 3.11.2 goes wrong with them: what a failed try had matched
already stays matched (with one of them the terminal filter let every escape sequence pass).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("broker", "cmdlets", "eva", "hypervisor", "oidc", "provider", "web")
NEW = re.compile(r"(?<!\\)(?:[+*?}]\+|\(\?>)")
CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # a set of characters, in which + stands for itself


def patterns(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each literal that `re` is called with."""
    for call in ast.walk(ast.parse(text)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if not isinstance(call.func.value, ast.Name) or call.func.value.id != "re":
            continue
        for part in ast.walk(call):
            if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes):
                yield part.lineno, part.value if isinstance(part.value, str) else part.value.decode("latin-1")


def new_in(pattern: str) -> bool:
    return NEW.search(CLASS.sub("x", pattern)) is not None


def test_a_possessive_quantifier_and_an_atomic_group_are_found() -> None:
    assert new_in(r"(?:a|b)++")
    assert new_in(r"[0-9]{0,4}+x")
    assert new_in(r"(?>a)")
    assert not new_in(r"[()*+][0AB]+\++")


@pytest.mark.parametrize("package", SHIPPED)
def test_no_pattern_needs_what_python_3_11_2_gets_wrong(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, pattern in patterns(path.read_text())
        if new_in(pattern)
    ]
    assert found == []
