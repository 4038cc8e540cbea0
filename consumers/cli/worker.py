"""`rabbitry worker`: the daemons that run jobs."""

from __future__ import annotations

import click

from broker.cli import Session, common_options
from broker.errors import WorkerError

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
@common_options("topology", "url")
def run(session: Session, names: tuple[str, ...], all_: bool, loglevel: str) -> int:
    """Run workers of the topology until SIGTERM or Ctrl-C.

    One worker runs in this process, several in a process each. Running jobs are finished first;
    a second signal ends at once.
    """
    from consumers.supervisor import run_all
    from consumers.worker import run_worker, worker_of

    topology = session.load_topology()
    address = session.address(topology)
    if all_ == bool(names):
        raise click.UsageError("give the names of workers, or --all")
    chosen = list(topology.workers) if all_ else list(dict.fromkeys(names))
    for name in chosen:
        worker_of(topology, name)
    if not chosen:
        raise WorkerError("the topology has no workers; add one under `workers:`")
    if len(chosen) == 1:
        return run_worker(topology, address, chosen[0], loglevel=loglevel.upper())
    common = ["--topology", str(session.topology_path), "--loglevel", loglevel]
    for overlay in session.overlay:
        common += ["--overlay", overlay]
    if session.debug:
        common += ["--debug"]
    # The address holds a password: it travels in the environment, not in the process list.
    environment = {"RABBITRY_URL": session.url} if session.url else {}
    return run_all([["worker", "run", name, *common] for name in chosen], environment)
