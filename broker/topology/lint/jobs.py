"""Rules about jobs: that they arrive, once, in time, and not behind others for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from broker.topology.effective import DEFAULTS, value_of
from broker.topology.lint.exchanges import exists
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.view import View, older_than
from broker.topology.lint.workers import priorities
from broker.topology.model import Topology
from broker.topology.objects import Object
from broker.topology.settings import QUORUM
from broker.topology.source import DataPath
from broker.topology.timeouts import Needs
from broker.units import format_duration

_STRICT_PRIORITIES_SINCE = "4.3"


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield what is wrong with single jobs."""
    for name, job in topology.jobs.items():
        yield from exists(topology, job.exchange, ("jobs", name, "exchange"))
        if job.arguments:
            yield from _check_schemas(name, job.arguments)
        if job.priority is not None:
            asked = older_than(topology, _STRICT_PRIORITIES_SINCE)
            if asked is not None:
                yield finding(
                    ("jobs", name, "priority"),
                    "priority-levels",
                    f"the file is for RabbitMQ {asked}; before"
                    f" {_STRICT_PRIORITIES_SINCE} quorum queues have two levels, 0-4 and 5-31,"
                    f' served 2 to 1; write broker: {{requires: "{_STRICT_PRIORITIES_SINCE}"}}',
                    at_key=True,
                )


def _check_schemas(name: str, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    # Here, since its libraries take a tenth of a command's time that needs no schema.
    from broker.schema import schema_problem

    for argument, schema in arguments.items():
        problem = schema_problem(schema)
        if problem:
            yield finding(("jobs", name, "arguments", argument), "json-schema", problem)


def check(view: View) -> Iterator[Finding]:
    """Yield what is wrong with jobs on their way to queues and workers."""
    for name, job in view.topology.jobs.items():
        path: DataPath = ("jobs", name)
        exchange = view.router.exchange(job.exchange)
        if exchange is not None and exchange.attributes["internal"]:
            text = f"exchange {job.exchange!r} is internal: RabbitMQ refuses what is published"
            yield finding((*path, "exchange"), "job-internal", text)
            continue
        routing = view.job_routes[name]
        route = f"key {job.routing_key!r} on exchange {job.exchange!r}"
        if routing.unroutable:
            text = f"{route} reaches no queue: publishing it is refused as unroutable"
            yield finding((*path, "routing_key"), "job-unroutable", text)
        elif len(routing.queues) > 1:
            text = f"{route} reaches {' and '.join(routing.queues)}: each job runs more than once"
            yield finding((*path, "routing_key"), "job-twice", text)
        if job.time_limit is not None:
            yield from _pools(view, name, path)
    yield from _time_limits(view)
    yield from _priorities(view)


def _pools(view: View, name: str, path: DataPath) -> Iterator[Finding]:
    for queue in view.job_routes[name].queues:
        for worker in view.workers_of.get(queue, ()):
            spec = view.topology.workers[worker]
            if spec.pool != "prefork":
                yield finding(
                    (*path, "time_limit"),
                    "time-limit-pool",
                    f"worker {worker!r} runs it in pool {spec.pool}, which cannot end a job that"
                    " runs too long; prefork can",
                    at_key=True,
                )


def _time_limits(view: View) -> Iterator[Finding]:
    needs = Needs(view.topology, view.router)
    for queue in view.topology.queues:
        timeout_ms = _consumer_timeout_ms(view, view.queue(queue))
        for need in needs.of(queue) if timeout_ms is not None else ():
            if timeout_ms is not None and need.timeout_ms > timeout_ms:
                timeout = format_duration(timedelta(milliseconds=timeout_ms))
                needed = format_duration(timedelta(milliseconds=need.timeout_ms))
                yield finding(
                    need.path,
                    "time-limit",
                    f"RabbitMQ takes a job back from its worker after {timeout} (consumer_timeout"
                    f" of queue {queue!r}) and gives it to another, again and again; {needed} are"
                    f" needed for {need}: raise consumer_timeout to that, or leave it out, and it"
                    " follows",
                )


def _consumer_timeout_ms(view: View, there: Object) -> int | None:
    if there.attributes["type"] != QUORUM:
        return None
    default = DEFAULTS[QUORUM]["consumer-timeout"]
    value: Any = value_of(view.settings(there), "consumer-timeout", default)
    return value if isinstance(value, int) else None


def _priorities(view: View) -> Iterator[Finding]:
    for queue in view.jobs_in:
        ranks = priorities(view, queue)
        if len(set(ranks.values())) < 2:
            continue
        last, first = min(ranks, key=ranks.__getitem__), max(ranks, key=ranks.__getitem__)
        yield finding(
            ("queues", queue),
            "starvation",
            f"job {last!r} (priority {ranks[last]}) waits as long as any {first!r} (priority"
            f" {ranks[first]}) is waiting, for ever under load; give it a queue of its own",
            at_key=True,
        )
