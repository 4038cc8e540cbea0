"""One run that belongs in several tables: what it took of the clock, of memory, of RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.method import Run
from benchmarks.method.rounds import Contender, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is told of a run in one table.

    Attributes:
        table: the measurement's name.
        who: the contender's name there.
        run: what came of it.
    """

    table: str
    who: str
    run: Run


Runner = Callable[[], Iterable[Line]]


class Sheets:
    """Runs contenders, and gives what came of them table by table."""

    def __init__(self, runners: Mapping[str, Runner], *, rounds: int) -> None:
        """Run all of them, interleaved; the first round goes in the order that is given.

        Args:
            runners: by name.
            rounds: how many.
        """
        self._found: dict[str, dict[str, list[Run]]] = {}
        contenders = {name: partial(self._run, each) for name, each in runners.items()}
        measure(contenders, rounds=rounds, warm_up=False)

    def of(self, table: str) -> dict[str, Contender]:
        """Return the contenders of a table, each of which tells its runs one after the other."""
        found = self._found.get(table, {})
        return {name: partial(next, iter(runs)) for name, runs in found.items()}

    def _run(self, runner: Runner) -> float:
        for line in runner():
            self._found.setdefault(line.table, {}).setdefault(line.who, []).append(line.run)
        return 0.0
