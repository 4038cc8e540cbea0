"""`rabbitry jobs`: the producer's command line."""

from __future__ import annotations

from typing import Any

import click

from broker.cli import Session, common_options, print_json, print_table
from producers.cli.call import call
from producers.cli.cancel import cancel
from producers.cli.flush import flush
from producers.cli.publish import publish
from producers.cli.result import result


@click.group()
def jobs() -> None:
    """List, publish, call and cancel jobs."""


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


def _signature(arguments: Any) -> str:
    return ", ".join(
        f"{name}={schema['default']}" if "default" in (schema or {}) else name
        for name, schema in arguments.items()
    )


def _seconds(value: float | None) -> str:
    from datetime import timedelta

    from broker.units import format_duration

    return "-" if value is None else format_duration(timedelta(seconds=value))


jobs.add_command(publish)
jobs.add_command(call)
jobs.add_command(cancel)
jobs.add_command(result)
jobs.add_command(flush)
