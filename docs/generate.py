"""Writes what is generated of the docs: the commands' help, the topology's JSON Schema, a picture,
and the page of the benchmarks, whose charts `make bench-report` draws.

``python docs/generate.py`` writes it, ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks import report
from broker.topology import Topology
from broker.topology.compile import compile_topology
from broker.topology.diagram import drawing, mermaid
from broker.topology.schema import json_schema
from rabbitry.cli import cli

DOCS = Path(__file__).parent
WIDTH = 100
HEAD = """\
# Commands

Generated from the help texts by `make docs`.
"""

PICTURE = """\
# The reference topology

What [`topology.yaml`](../topology.yaml) puts on RabbitMQ, from the jobs on the left to the workers
on the right. Hexagons are exchanges, cylinders queues; a dashed line is where messages go that
were refused, expired, or failed too often, or that were delayed and are due. `make docs` draws it
with `rabbitry topology diagram`, which draws any topology file, also as SVG, and with `--plan` in
the colours of what would change.

```mermaid
{diagram}```

`rabbitry topology route jobs low.signal.smooth` says in words where one message goes, and
`rabbitry topology explain jobs.high` where each setting of a queue comes from.
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


def picture() -> str:
    """Return the page that draws the reference topology."""
    topology = Topology.load(DOCS.parent / "topology.yaml")
    objects = compile_topology(topology, secrets=False).objects
    return PICTURE.format(diagram=mermaid(drawing(topology, objects)))


def main() -> int:
    """Write or check the generated pages."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    pages = {
        "reference/commands.md": reference(),
        "reference/topology.schema.json": f"{schema}\n",
        "topology.md": picture(),
        "benchmarks.md": report.kept(),
    }
    stale = [
        name
        for name, text in pages.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"{name} is out of date: run `make docs`\n")
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(pages[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
