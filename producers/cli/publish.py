"""`rabbitry jobs publish`."""

from __future__ import annotations

import click

from broker.cli import Session, common_options, print_json
from broker.errors import EXIT_DONE, PublishFailed
from producers.cli.options import OUTCOMES, Duration, job_options


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs publish demo.add a=1 b=2
  rabbitry jobs publish signal.smooth series=@sunspots.csv:SUNACTIVITY window=13
  rabbitry jobs publish demo.echo value='{"deep": [1, 2]}' --priority 9 --json

\b
KEY=VALUE is JSON where it parses, else text; KEY=@FILE.csv:COLUMN and KEY=@FILE.npy read an
array. Exit code 5: unroutable or rejected; 6: nobody knows.""",
)
@job_options
@click.option(
    "--deadline", type=Duration(), help="After it nobody wants the job: 5m.  [default: the job's]"
)
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long to wait for RabbitMQ's confirm.",
)
@common_options("topology", "url", "json")
def publish(
    session: Session,
    name: str,
    arguments: tuple[str, ...],
    id_: str | None,
    priority: int | None,
    deadline: float | None,
    timeout: float,
) -> int:
    """Publish one job and say what became of it."""
    from broker.contracts import Job
    from producers.data import parse_arguments
    from producers.publisher import Publisher

    topology = session.load_topology()
    kwargs = parse_arguments(arguments)
    with Publisher(topology, session.url) as publisher:
        publisher.contract(name).check((), kwargs)
        publisher.connect(timeout_s=timeout)
        job = Job(name, (), kwargs, id=id_, priority=priority, deadline_s=deadline)
        receipt = publisher.publish(job, timeout_s=timeout)
        failure: PublishFailed | None = None
        try:
            receipt.wait()
        except PublishFailed as exc:
            failure = exc
    outcome = OUTCOMES[type(failure).__name__] if failure else "routed"
    if session.json:
        print_json(
            {
                "id": receipt.message_id,
                "name": name,
                "outcome": outcome,
                "reason": str(failure) if failure else None,
            }
        )
    if failure:
        raise failure
    if not session.json:
        click.echo(f"{outcome} {receipt.message_id}")
    return EXIT_DONE
