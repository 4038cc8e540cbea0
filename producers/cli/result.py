"""`rabbitry jobs result`."""

from __future__ import annotations

import click

from broker.cli import Duration, Session, common_options, note, print_json
from broker.errors import EXIT_DONE, CallFailed, InvalidInput, RabbitryError, RemoteError
from producers.cli.call import plain, print_result
from producers.cli.options import OUTCOMES


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs result 5e0c9f7e-0f4f-4f0e-8f8e-0d1f6f1d2c3b
  rabbitry jobs result nightly-report --wait 10m --json

\b
Exit code 1: the task raised, or somebody cancelled the job; 4: the Redis of `results:` does not
answer; 6: no result (the job has not ended, its result is not kept, or its time is over).""",
)
@click.argument("id_", metavar="ID")
@click.option(
    "--wait",
    type=Duration(),
    default="0s",
    show_default=True,
    help="How long to wait for the job's end.",
)
@common_options("topology", "json")
def result(session: Session, id_: str, wait: float) -> int:
    """Print the result of a job whose result is kept (`store: true` in the topology)."""
    from broker.stored import NoResult
    from producers.results import Results

    failure: RabbitryError | None = None
    value = None
    if not id_:
        raise InvalidInput("a job's ID is no empty text")
    with Results(session.load_topology()) as results:
        try:
            value = results.get(id_, timeout_s=wait)
        except (CallFailed, NoResult) as exc:
            failure = exc
    if session.json:
        outcome = "result"
        if failure is not None:
            outcome = OUTCOMES.get(type(failure).__name__, "error")
        document = {"id": id_, "outcome": outcome, "result": plain(value)}
        print_json(document if failure is None else {**document, "reason": str(failure)})
    if failure is not None:
        if session.debug and isinstance(failure, RemoteError):
            note(failure.remote_traceback)
        raise failure
    if not session.json:
        print_result(value)
    return EXIT_DONE
