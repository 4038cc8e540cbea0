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
  rabbitry worker run --all --loglevel WARNING""",
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
    health: str | None,
) -> int:
    """Run workers of the topology until SIGTERM or Ctrl-C.

    One worker runs in this process, several in a process each. Running jobs are finished first;
    a second signal ends at once.
    """
    from consumers.checks import worker_of
    from consumers.green import begin_again, is_patched
    from consumers.supervisor import run_all

    if all_ == bool(names):
        raise click.UsageError("give the names of workers, or --all")
    topology = session.load_topology()
    chosen = list(topology.workers) if all_ else list(dict.fromkeys(names))
    for name in chosen:
        worker_of(topology, name)
    if not chosen:
        raise WorkerError("the topology has no workers; add one under `workers:`")
    if len(chosen) == 1:
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
    if health is not None:
        raise InvalidInput(
            "--health (RABBITRY_HEALTH) is for one worker; give each a `health:` in the file"
        )
    common = ["--topology", str(session.topology_path), "--loglevel", loglevel]
    common += ["--log-format", log_format]
    if one_shot:
        common += ["--one-shot"]
    for overlay in session.overlay:
        common += ["--overlay", overlay]
    if session.debug:
        common += ["--debug"]
    # The address holds a password: it travels in the environment, not in the process list.
    environment = {"RABBITRY_URL": session.url} if session.url else {}
    return run_all([["worker", "run", name, *common] for name in chosen], environment)


worker.add_command(check)
worker.add_command(list_)
