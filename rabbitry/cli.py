"""The root command: loads a room's commands only when they are asked for."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from broker.cli import Session
from broker.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, RabbitryError
from consumers.errors import TaskNotImported

# name: (where the command is, what `rabbitry --help` says of it)
COMMANDS = {
    "ping": ("broker.cli:ping", "Connect to RabbitMQ and say PONG."),
    "broker": ("broker.local.cli:broker", "A private RabbitMQ for development."),
    "topology": ("broker.topology.cli:topology", "What exists on the broker: plan and apply."),
    "jobs": ("producers.cli:jobs", "List, publish and call jobs."),
    "worker": ("consumers.cli.worker:worker", "Daemons that run jobs."),
    "queues": ("consumers.cli.queues:queues", "What waits in the queues, and who takes it."),
    "dead-letters": (
        "consumers.cli.dead_letters:dead_letters",
        "Jobs that failed for good: what, why, and again.",
    ),
    "schedule": ("consumers.cli.schedule:schedule", "Jobs that recur."),
}


class Rooms(click.Group):
    """A group whose commands live in the rooms and are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Rooms,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  rabbitry broker up
  rabbitry topology apply --yes
  rabbitry worker run high
  rabbitry jobs call demo.add a=1 b=2

\b
Exit codes: 0 done, 1 failed, 2 usage, 3 differs or partly done, 4 broker unreachable,
5 unroutable or rejected, 6 outcome unknown, 130 interrupted.""",
)
@click.version_option(package_name="rabbitry", message="%(prog)s %(version)s")
def cli() -> None:
    """Jobs over RabbitMQ from one topology file."""


def main() -> NoReturn:
    """Run the command line and exit with one of the codes of `broker.errors`."""
    session = Session()
    sys.exit(run(session))


def run(session: Session, args: list[str] | None = None) -> int:
    """Run the command line; errors become one sentence on stderr and an exit code."""
    try:
        result: Any = cli.main(args, prog_name="rabbitry", standalone_mode=False, obj=session)
    except RabbitryError as exc:
        return _fail(session, exc, str(exc), exc.exit_code)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; do not complain again when Python flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as exc:  # noqa: BLE001  (the outermost edge: a bug, said in one sentence)
        text = f"rabbitry met an error of its own: {type(exc).__name__}: {exc}"
        hint = "" if session.debug else "; run again with --debug and report it"
        return _fail(session, exc, text + hint, EXIT_FAILED)
    return result if isinstance(result, int) else EXIT_DONE


def _fail(session: Session, exc: BaseException, text: str, code: int) -> int:
    if session.debug:
        traceback.print_exception(exc)
    elif isinstance(exc, TaskNotImported):
        # Of the user's own code, and no use without it.
        click.echo(exc.traceback, err=True)
    click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(text, err=True)
    return code
