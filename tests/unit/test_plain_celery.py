"""Every fault that the page about plain Celery tells of is held by a test, which exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/why/plain-celery.md"
FAULTS = 17
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """Return the rows of the page's tables, heads left out."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| plain Celery |", "| --- |"))]


def named() -> list[tuple[str, str]]:
    return sorted({(path, name) for row in rows() for path, name in NAMED.findall(row)})


def test_each_of_the_faults_has_a_row_and_each_row_a_test() -> None:
    assert len(rows()) == FAULTS
    for row in rows():
        assert NAMED.search(row.split("|")[3]), row[:60]


@pytest.mark.parametrize(("path", "name"), named(), ids=lambda value: value)
def test_a_test_that_is_named_is_there_and_runs_in_make_test(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    (found,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    marks = {ast.unparse(each) for each in found.decorator_list}
    assert not marks & {"pytest.mark.soak", "pytest.mark.skip"}
