"""The fenced blocks of the documentation, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a reader types: these blocks, and those that do not say what they are.
SHELL = ("sh", "bash", "shell", "console", "")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str | Path, *languages: str) -> list[str]:
    """Return the blocks of a page in these languages, in order.

    Args:
        page: its path, from the repository's folder.
        languages: as they stand behind the fence.
    """
    return [text for language, text in _BLOCK.findall((ROOT / page).read_text())
            if language in languages]  # fmt: skip


def commands(page: str | Path) -> list[str]:
    """Return the lines that a page gives to a shell, without comments."""
    lines = [line for block in blocks(page, *SHELL) for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]
