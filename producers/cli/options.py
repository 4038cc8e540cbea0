"""Options that commands of `rabbitry jobs` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OUTCOMES = {
    "Unroutable": "unroutable",
    "Rejected": "rejected",
    "OutcomeUnknown": "unknown",
    "KeptInOutbox": "accepted",
}


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


def job_options(function: Callable[..., Any], *, required: bool = True) -> Callable[..., Any]:
    """Give a command what names one job: its name, arguments, id and priority."""
    for option in (
        click.option("--priority", type=int, help="0-31.  [default: the job's]"),
        click.option("--id", "id_", metavar="ID", help="The message's id.  [default: made up]"),
        click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]..."),
        click.argument("name", required=required),
    ):
        function = option(function)
    return function
