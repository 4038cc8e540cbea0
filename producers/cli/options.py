"""Options that commands of `rabbitry jobs` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datetime import datetime

OUTCOMES = {
    "Unroutable": "unroutable",
    "Rejected": "rejected",
    "OutcomeUnknown": "unknown",
    "KeptInOutbox": "accepted",
    "CallCancelled": "cancelled",
    "NoResult": "unknown",
}


class Time(click.ParamType["datetime"]):
    """A time in ISO 8601 with its zone: 2030-01-31T09:00Z, 2030-01-31T10:00+01:00."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        from datetime import datetime

        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 2030-01-31T09:00Z", param, ctx)
        if time.utcoffset() is None:
            self.fail(f"{value!r} has no time zone; write {value}Z, or {value}+01:00", param, ctx)
        return time


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
