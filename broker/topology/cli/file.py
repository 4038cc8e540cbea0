"""`rabbitry topology lint|schema`: the file alone, without a broker."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DONE, EXIT_FAILED, TopologyError
from broker.topology.cli.group import topology


@topology.command(
    epilog="\b\nExamples:\n  rabbitry topology lint\n  rabbitry topology lint --strict\n"
    "  rabbitry topology lint --json | jq .rule"
)
@common_options("topology", "json")
@click.option("--strict", is_flag=True, help="Exit 1 on warnings, too.")
def lint(session: Session, strict: bool) -> int:
    """Check the file without a broker: file:line:column: level rule: text.

    Exits 1 where the file has an error. docs/reference/lint.md explains each rule, and how a
    file switches one off.
    """
    from broker.topology.load import read

    try:
        problems = [
            {
                "file": each.position.file,
                "line": each.position.line,
                "column": each.position.column,
                "level": each.level,
                "rule": each.rule,
                "text": each.text,
            }
            for each in read(session.topology_path, overlay=session.overlay)[1]
        ]
    except TopologyError as exc:
        problems = [
            {
                "file": exc.file,
                "line": exc.line,
                "column": exc.column,
                "level": "error",
                "rule": "file",
                "text": exc.text,
            }
        ]
    for problem in problems:
        if session.json:
            print_json(problem)
        else:
            place = ":".join(
                str(problem[key]) for key in ("file", "line", "column") if problem[key] is not None
            )
            click.echo(f"{place}: {problem['level']} {problem['rule']}: {problem['text']}")
    if not problems:
        note(f"{session.topology_path} is in order.")
    failing = {"error", "warning"} if strict else {"error"}
    wrong = any(problem["level"] in failing for problem in problems)
    return EXIT_FAILED if wrong else EXIT_DONE


@topology.command(epilog="\b\nExamples:\n  rabbitry topology schema > topology.schema.json")
@common_options()
def schema(session: Session) -> None:
    """Print the JSON Schema of the file, for editors."""
    import json

    from broker.topology.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
