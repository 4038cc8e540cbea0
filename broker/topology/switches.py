"""Which rules of lint a topology file switches off, and why."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from broker.topology.strict import Strict


class Ignore(Strict):
    """A rule that is switched off."""

    rule: Annotated[str, Field(min_length=1)]
    """Its name."""
    on: Annotated[str, Field(min_length=1)] | None = None
    """Where, such as `queues.jobs.low`; everywhere, when not given."""
    reason: Annotated[str, Field(min_length=1, pattern=r"\S")]
    """Why, for the next person who reads the file."""


class Lint(Strict):
    """What `rabbitry topology lint` is not to say."""

    ignore: list[Ignore] = []
    """The rules that are switched off."""
