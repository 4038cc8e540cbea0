"""`rabbitry jobs call`."""

from __future__ import annotations

import time
from typing import Any

import click

from broker.cli import Duration, Session, common_options, note, print_json
from broker.errors import (
    EXIT_DONE,
    CallFailed,
    InvalidInput,
    PublishFailed,
    RabbitryError,
    RemoteError,
)
from producers.cli.options import OUTCOMES, job_options
from producers.cli.progress import CallBar


@click.command(
    epilog="""\b
Examples:
  rabbitry jobs call demo.add a=1 b=2
  rabbitry jobs call signal.spectrum series=@sunspots.csv:SUNACTIVITY
  rabbitry jobs call signal.summary series=@series.npy --timeout 5s --json

\b
KEY=VALUE is JSON where it parses, else text; KEY=@FILE.csv:COLUMN and KEY=@FILE.npy read an
array. Exit code 1: the task raised; 6: no reply in time.""",
)
@job_options
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
    """Call a job, wait for its reply and print it.

    On a terminal a bar shows how far the job is, where it says so.
    """
    from broker.contracts import Job, contract_of
    from producers.caller import Caller
    from producers.data import parse_arguments

    topology = session.load_topology()
    kwargs = parse_arguments(arguments)
    contract_of(topology, name).check((), kwargs)
    if not timeout > 0:
        raise InvalidInput("--timeout must be more than 0 seconds")
    with Caller(topology, session.url, one_shot=True) as caller, CallBar() as bar:
        caller.connect(timeout_s=timeout)
        started = time.perf_counter()
        pending = caller.submit(
            Job(name, (), kwargs, id=id_, priority=priority), timeout_s=timeout, news=bar.shown
        )
        bar.follow(pending)
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
        print_result(result)
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


def print_result(result: Any) -> None:
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
