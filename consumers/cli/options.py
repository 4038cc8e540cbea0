"""Options that commands of the consumers share."""

from __future__ import annotations

from typing import Any

import click


class Duration(click.ParamType[float]):
    """A duration as people write it: 250ms, 30s, 5m, 2h, 3d; a value in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from broker.units import parse_duration

        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
