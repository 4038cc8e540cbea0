"""What the documentation tells people to type is typed by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import ROOT, commands

TESTS = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path != Path(__file__)]
PAGES = [
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if commands(page)
]


def test_pages_with_commands_are_found() -> None:
    assert {"README.md", "docs/how-to/dead-letters.md", "docs/how-to/once.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_each_page_are_run_by_a_test(page: str) -> None:
    """A test that runs them reads them from the page: so it names it."""
    name = Path(page).name
    named = (f'"{name}"', f'/{name}"')
    assert any(each in path.read_text() for path in TESTS for each in named), (
        f"no test reads the commands of {page}; see tests/end_to_end/test_docs.py"
    )
