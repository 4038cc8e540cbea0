"""`rabbitry jobs`: the producer's command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from broker.cli import Session, common_options, note, print_json, print_table
from broker.errors import (
    EXIT_DONE,
    CallFailed,
    InvalidInput,
    PublishFailed,
    RabbitryError,
    RemoteError,
)

OUTCOMES = {"Unroutable": "unroutable", "Rejected": "rejected", "OutcomeUnknown": "unknown"}


class Duration(click.ParamType[float]):
    """A duration as people write it: 250ms, 30s, 5m, 2h; a value in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from broker.units import parse_duration

        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _job_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what names one job: its name, arguments, id and priority."""
    for option in (
        click.option("--priority", type=int, help="0-31.  [default: the job's]"),
        click.option("--id", "id_", metavar="ID", help="The message's id.  [default: made up]"),
        click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]..."),
        click.argument("name"),
    ):
        function = option(function)
    return function


@click.group()
def jobs() -> None:
    """List, publish and call jobs."""


@jobs.command("list", epilog="\b\nExamples:\n  rabbitry jobs list\n  rabbitry jobs list --json")
@common_options("topology", "json")
def list_(session: Session) -> None:
    """List the jobs of the topology: where they go and what they take."""
    from broker.contracts import contracts_of

    contracts = contracts_of(session.load_topology()).values()
    if session.json:
        for contract in contracts:
            print_json(
                {
                    "name": contract.name,
                    "exchange": contract.exchange,
                    "routing_key": contract.routing_key,
                    "arguments": contract.arguments and dict(contract.arguments),
                    "priority": contract.priority,
                    "deadline_s": contract.deadline_s,
                    "time_limit_s": contract.time_limit_s,
                    "store": contract.store,
                    "task": contract.task,
                }
            )
        return
    print_table(
        ("JOB", "ARGUMENTS", "EXCHANGE", "ROUTING KEY", "PRIORITY", "DEADLINE", "TIME LIMIT"),
        [
            (
                contract.name,
                "any" if contract.arguments is None else _signature(contract.arguments),
                contract.exchange,
                contract.routing_key,
                contract.priority,
                _seconds(contract.deadline_s),
                _seconds(contract.time_limit_s),
            )
            for contract in contracts
        ],
    )


@jobs.command(
    epilog="""\b
Examples:
  rabbitry jobs publish demo.add a=1 b=2
  rabbitry jobs publish signal.smooth series=@sunspots.csv:SUNACTIVITY window=13
  rabbitry jobs publish demo.echo value='{"deep": [1, 2]}' --priority 9 --json

\b
KEY=VALUE is JSON where it parses, else text; KEY=@FILE.csv:COLUMN and KEY=@FILE.npy read an
array. Exit code 5: unroutable or rejected; 6: nobody knows.""",
)
@_job_options
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


@jobs.command(
    epilog="""\b
Examples:
  rabbitry jobs call demo.add a=1 b=2
  rabbitry jobs call signal.spectrum series=@sunspots.csv:SUNACTIVITY
  rabbitry jobs call signal.summary series=@series.npy --timeout 5s --json

\b
KEY=VALUE is JSON where it parses, else text; KEY=@FILE.csv:COLUMN and KEY=@FILE.npy read an
array. Exit code 1: the task raised; 6: no reply in time.""",
)
@_job_options
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long to wait for the reply.",
)
@common_options("topology", "url", "json")
def call(
    session: Session,
    name: str,
    arguments: tuple[str, ...],
    id_: str | None,
    priority: int | None,
    timeout: float,
) -> int:
    """Call a job, wait for its reply and print it."""
    from broker.contracts import Job, contract_of
    from producers.caller import Caller
    from producers.data import parse_arguments

    topology = session.load_topology()
    kwargs = parse_arguments(arguments)
    contract_of(topology, name).check((), kwargs)
    if not timeout > 0:
        raise InvalidInput("--timeout must be more than 0 seconds")
    with Caller(topology, session.url) as caller:
        caller.connect(timeout_s=timeout)
        started = time.perf_counter()
        pending = caller.submit(Job(name, (), kwargs, id=id_, priority=priority), timeout_s=timeout)
        result, failure = None, None
        try:
            result = pending.result()
        except (CallFailed, PublishFailed) as exc:
            failure = exc
        seconds = time.perf_counter() - started
    if session.json:
        document = {
            "id": pending.id,
            "outcome": _call_outcome(failure),
            "result": plain(result),
            "seconds": round(seconds, 6),
        }
        print_json(document if failure is None else {**document, "reason": str(failure)})
    if failure is not None:
        if session.debug and isinstance(failure, RemoteError):
            note(failure.remote_traceback)
        raise failure
    if not session.json:
        _print_result(result)
    return EXIT_DONE


def plain(value: Any) -> Any:
    """Return a value as JSON can express it: arrays as lists, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def _print_result(result: Any) -> None:
    """Print a result for people: a mapping line by line, arrays shortened by numpy."""
    if isinstance(result, dict):
        for key, value in result.items():
            click.echo(f"{key}: {_text(value)}")
    else:
        click.echo(_text(result))


def _text(value: Any) -> str:
    if hasattr(value, "tolist"):
        import numpy as np

        return f"{np.array2string(value, threshold=20)}  ({value.dtype}, {value.shape})"
    return value if isinstance(value, str) else str(value)


def _call_outcome(failure: RabbitryError | None) -> str:
    if failure is None:
        return "result"
    return OUTCOMES.get(type(failure).__name__, "error" if failure.exit_code == 1 else "unknown")


def _signature(arguments: Any) -> str:
    return ", ".join(
        f"{name}={schema['default']}" if "default" in (schema or {}) else name
        for name, schema in arguments.items()
    )


def _seconds(value: float | None) -> str:
    from datetime import timedelta

    from broker.units import format_duration

    return "-" if value is None else format_duration(timedelta(seconds=value))
