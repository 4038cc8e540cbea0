"""`rabbitry worker`: the daemons that run jobs."""

from __future__ import annotations

import click

from broker.cli import Session, common_options
from broker.errors import InvalidInput, WorkerError
from consumers.cli.workers_check import check
from consumers.cli.workers_list import list_

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@click.group()
def worker() -> None:
    """Daemons that run jobs."""


@worker.command(
    epilog="""\b
Examples:
  rabbitry worker run high
  rabbitry worker run normal low
  rabbitry worker run --all --loglevel WARNING
  rabbitry worker run high --log-format json 2> high.jsonl
  rabbitry worker run low --one-shot && echo nothing is left to run
  rabbitry worker run normal --reload""",
)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "all_", is_flag=True, help="Every worker of the topology.")
@click.option(
    "--loglevel",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="INFO",
    show_default=True,
    envvar="RABBITRY_LOGLEVEL",
    show_envvar=True,
    help="What is logged to stderr.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="RABBITRY_LOG_FORMAT",
    show_envvar=True,
    help="json: one object a line, one line a job that ended.",
)
@click.option(
    "--one-shot",
    is_flag=True,
    help="Stop when nothing is ready and nothing runs; retries that wait are left.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="For development: begin anew when the tasks' code or the topology changes.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    envvar="RABBITRY_HEALTH",
    show_envvar=True,
    help="Answer /livez, /readyz and /metrics here, and not where the file says; of one worker.",
)
@common_options("topology", "url")
def run(
    session: Session,
    names: tuple[str, ...],
    all_: bool,
    loglevel: str,
    log_format: str,
    one_shot: bool,
    reload: bool,
    health: str | None,
) -> int:
    """Run workers of the topology until SIGTERM or Ctrl-C.

    One worker runs in this process, several in a process each, which begins again when it ends by
    itself. A RabbitMQ that does not answer is waited for. Asked to stop, a worker takes no more
    jobs, finishes what runs within its grace and returns the rest; a second signal ends at once.
    """
    from consumers.checks import worker_of
    from consumers.green import begin_again, is_patched
    from consumers.logs import set_up
    from consumers.reload import Reloader, watched_of
    from consumers.supervisor import Supervisor

    if all_ == bool(names):
        raise click.UsageError("give the names of workers, or --all")
    topology = session.load_topology()
    chosen = list(topology.workers) if all_ else list(dict.fromkeys(names))
    for name in chosen:
        worker_of(topology, name)
    if not chosen:
        raise WorkerError("the topology has no workers; add one under `workers:`")
    if len(chosen) > 1 and health is not None:
        raise InvalidInput(
            "--health (RABBITRY_HEALTH) is for one worker; give each a `health:` in the file"
        )
    if len(chosen) > 1 and reload:
        raise InvalidInput("--reload is for one worker; run each in a terminal of its own")
    if len(chosen) == 1 and not reload:
        if topology.workers[chosen[0]].pool == "gevent" and not is_patched():
            begin_again(chosen[0])
        from consumers.worker import run_worker

        return run_worker(
            topology,
            session.address(topology),
            chosen[0],
            loglevel=loglevel.upper(),
            log_format=log_format,
            one_shot=one_shot,
            health=health,
        )
    options = ["--loglevel", loglevel, "--log-format", log_format]
    options += ["--one-shot"] if one_shot else []
    options += ["--health", health] if health is not None else []
    commands = {name: _command(session, name, options) for name in chosen}
    # The address holds a password: it travels in the environment, not in the process list.
    environment = {"RABBITRY_URL": session.url} if session.url else {}
    grace_s = max(topology.workers[name].grace.total_seconds() for name in chosen)
    set_up(level=loglevel.upper(), format=log_format)
    if reload:
        watched = watched_of(topology, session.topology_path)
        (command,) = commands.values()
        return Reloader(command, environment, watched=watched, grace_s=grace_s).run()
    return Supervisor(commands, environment, grace_s=grace_s, drains=one_shot).run()


def _command(session: Session, name: str, options: list[str]) -> list[str]:
    """Return the command that runs one worker as this one was asked to."""
    overlays = [word for overlay in session.overlay for word in ("--overlay", overlay)]
    debug = ["--debug"] if session.debug else []
    topology = ["--topology", str(session.topology_path)]
    return ["worker", "run", name, *topology, *options, *overlays, *debug]


worker.add_command(check)
worker.add_command(list_)
