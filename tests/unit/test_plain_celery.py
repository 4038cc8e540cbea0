"""Every fault that the page about plain Celery tells of is held by a test, and shown by another."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/why/plain-celery.md"
PEERS = ROOT / "tests/peers"
FAULTS = 17
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# Where a row names the tests that hold what is promised here, and those that show the fault.
HOLDS, SHOWS = 3, 4


def rows() -> list[list[str]]:
    """Return the cells of the page's tables, row by row, heads left out."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [
        line.split("|") for line in lines if not line.startswith(("| plain Celery |", "| --- |"))
    ]


def named(column: int) -> list[tuple[str, str]]:
    return sorted({found for row in rows() for found in NAMED.findall(row[column])})


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_of_the_faults_has_a_row_and_each_row_its_tests() -> None:
    assert len(rows()) == FAULTS
    for row in rows():
        assert NAMED.search(row[HOLDS]), row[1]
        assert NAMED.search(row[SHOWS]), row[1]


@pytest.mark.parametrize(("path", "name"), named(HOLDS), ids=lambda value: value)
def test_a_test_that_is_named_is_there_and_runs_in_make_test(path: str, name: str) -> None:
    marks = {ast.unparse(each) for each in functions(ROOT / path)[name].decorator_list}
    assert not marks & {"pytest.mark.soak", "pytest.mark.skip"}


def test_what_shows_the_faults_is_named_without_exception() -> None:
    there = {
        (str(path.relative_to(ROOT)), name)
        for path in PEERS.glob("test_*.py")
        for name in functions(path)
        if name.startswith("test_")
    }
    assert set(named(SHOWS)) == there


@pytest.mark.parametrize("path", sorted(PEERS.glob("test_*.py")), ids=lambda path: path.name)
def test_what_shows_the_faults_runs_in_the_soak_and_is_never_skipped(path: Path) -> None:
    text = path.read_text()
    assert "\npytestmark = pytest.mark.soak\n" in text
    assert "skip" not in text


def test_the_plain_application_is_made_of_celery_alone() -> None:
    tree = ast.parse((PEERS / "app.py").read_text())
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    rooms = {"broker", "producers", "consumers", "rabbitry", "tests"}
    assert not {str(module).partition(".")[0] for module in modules} & rooms
