"""`rabbitry jobs publish`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from broker.cli import Duration, Session, common_options, print_json
from broker.errors import (
    EXIT_DONE,
    BrokerUnavailable,
    InvalidInput,
    KeptInOutbox,
    PublishFailed,
)
from producers.cli.options import OUTCOMES, Time, job_options

if TYPE_CHECKING:
    from datetime import datetime

    from broker.contracts import Job
    from producers.publisher import Publisher


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs publish demo.add a=1 b=2
  rabbitry jobs publish signal.smooth series=@sunspots.csv:SUNACTIVITY window=13
  rabbitry jobs publish demo.echo value='{"deep": [1, 2]}' --priority 9 --json
  rabbitry jobs publish demo.add a=1 b=2 --delay 30s
  rabbitry jobs publish --from jobs.jsonl
  rabbitry jobs publish --from jobs.jsonl --resume --json
  generate | rabbitry jobs publish --from - --strict
  rabbitry jobs publish demo.add a=1 b=2 --outbox jobs.outbox

\b
KEY=VALUE is JSON where it parses, else text; KEY=@FILE.csv:COLUMN and KEY=@FILE.npy read an
array. A line of FILE is {"name": …, "args": […], "kwargs": {…}}, and may have id, priority,
delay, deadline ("30s", or seconds) and headers. What --resume goes by is in FILE.progress.

\b
Exit code 2: wrong lines, and nothing sent; 3: wrong lines left out, or jobs that are only in
the outbox as yet; 5: unroutable or rejected; 6: nobody knows.""",
)
@partial(job_options, required=False)
@click.option(
    "--deadline", type=Duration(), help="After it nobody wants the job: 5m.  [default: the job's]"
)
@click.option("--delay", type=Duration(), help="RabbitMQ holds the job for so long: 30s.")
@click.option("--eta", type=Time(), help="RabbitMQ holds the job until then: 2030-01-31T09:00Z.")
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long to wait for RabbitMQ's confirm.",
)
@click.option("--from", "source", metavar="FILE", help="Publish a job a line; - reads stdin.")
@click.option("--resume", is_flag=True, help="Skip what an earlier run of FILE got confirmed.")
@click.option("--restart", is_flag=True, help="Publish all of FILE, whatever an earlier run did.")
@click.option("--strict", is_flag=True, help="Stop at the first line of FILE that is wrong.")
@click.option(
    "--outbox", metavar="FILE", help="Keep jobs in this file until RabbitMQ has confirmed them."
)
@common_options("topology", "url", "json")
def publish(
    session: Session,
    name: str | None,
    arguments: tuple[str, ...],
    id_: str | None,
    priority: int | None,
    deadline: float | None,
    delay: float | None,
    eta: datetime | None,
    timeout: float,
    source: str | None,
    resume: bool,
    restart: bool,
    strict: bool,
    outbox: str | None,
) -> int:
    """Publish one job, or those of a file, and say what became of each."""
    from broker.contracts import Job
    from producers.data import parse_arguments
    from producers.publisher import Publisher

    if source is not None:
        if name is not None or (id_, priority, deadline, delay, eta) != (None,) * 5:
            raise InvalidInput("with --from each line says what its job is; give no NAME or option")
        if resume and restart:
            raise InvalidInput("--resume and --restart exclude each other; give one of them")
        from producers.cli.batch import publish_from

        return publish_from(
            session,
            source,
            resume=resume,
            restart=restart,
            strict=strict,
            outbox=outbox,
            timeout_s=timeout,
        )
    if name is None:
        raise InvalidInput("which job? give its NAME, or --from FILE; `rabbitry jobs list`")
    if resume or restart or strict:
        raise InvalidInput("--resume, --restart and --strict go with --from FILE")
    topology = session.load_topology()
    kwargs = parse_arguments(arguments)
    job = Job(
        name,
        (),
        kwargs,
        id=id_,
        priority=priority,
        deadline_s=deadline,
        delay_s=delay,
        eta=eta,
    )
    with Publisher(topology, session.url, outbox=outbox) as publisher:
        publisher.contract(name).check((), kwargs)
        if outbox is None:
            publisher.connect(timeout_s=timeout)
        message_id, failure = _outcome(publisher, job, timeout_s=timeout)
    outcome = OUTCOMES[type(failure).__name__] if failure else "routed"
    if session.json:
        print_json(
            {
                "id": message_id,
                "name": name,
                "outcome": outcome,
                "reason": str(failure) if failure else None,
            }
        )
    if failure:
        raise failure
    if not session.json:
        click.echo(f"{outcome} {message_id}")
    return EXIT_DONE


def _outcome(
    publisher: Publisher, job: Job, *, timeout_s: float
) -> tuple[str, PublishFailed | None]:
    """Publish a job and wait; one that an outbox has taken does not wait for a RabbitMQ away."""
    receipt = publisher.publish(job, timeout_s=timeout_s)
    away: BrokerUnavailable | None = None
    try:
        publisher.connect(timeout_s=timeout_s)
    except BrokerUnavailable as exc:
        away = exc
        publisher.close(timeout_s=0.0)
    try:
        receipt.wait()
    except KeptInOutbox as exc:
        exc.__cause__ = away
        return receipt.message_id, exc
    except PublishFailed as exc:
        return receipt.message_id, exc
    return receipt.message_id, None
