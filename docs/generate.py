"""Writes the generated part of the reference: the commands' help, the topology's JSON Schema.

``python docs/generate.py`` writes it, ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from broker.topology.schema import json_schema
from rabbitry.cli import cli

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 100
HEAD = """\
# Commands

Generated from the help texts by `make docs`.
"""


def commands(
    command: click.Command, path: tuple[str, ...], parent: click.Context | None = None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Yield a command and all commands below it, in the order of the help."""
    # Of a fixed width: the page must not depend on the terminal it is written in.
    settings = {**(command.context_settings or {}), "terminal_width": WIDTH}
    context = click.Context(command, info_name=path[-1], parent=parent, **settings)
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, (*path, name), context)


def reference() -> str:
    """Return the reference of commands."""
    parts = [HEAD]
    for path, command, context in commands(cli, ("rabbitry",)):
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {' '.join(path)}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check the reference."""
    pages = {
        "commands.md": reference(),
        "topology.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
    }
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"{name} is out of date: run `make docs`\n")
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(pages[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
