"""What the commands of `rabbitry dead-letters` share: filters, looking, and how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from broker.cli import Bar, Duration, Session, note, print_json, print_table

if TYPE_CHECKING:
    from broker.connection import Address
    from consumers.dead_letters.letter import Filter, Group, Letter

_WIDEST = 60


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which dead letters are meant, as `meant`."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from consumers.dead_letters.letter import Filter

        now_ms = round(time.time() * 1000)
        older, newer = kwargs.pop("older"), kwargs.pop("newer")
        meant = Filter(
            ids=frozenset(kwargs.pop("ids")),
            jobs=frozenset(kwargs.pop("jobs")),
            errors=frozenset(kwargs.pop("errors")),
            reasons=frozenset(kwargs.pop("reasons")),
            before_ms=None if older is None else now_ms - round(older * 1000),
            since_ms=None if newer is None else now_ms - round(newer * 1000),
        )
        return function(*args, meant=meant, **kwargs)

    decorated: Callable[..., Any] = run
    for option in (
        click.option(
            "--newer", metavar="DURATION", type=Duration(), help="Given up less than so long ago."
        ),
        click.option(
            "--older", metavar="DURATION", type=Duration(), help="Given up longer ago than this."
        ),
        click.option(
            "--reason", "reasons", metavar="REASON", multiple=True, help="Such as limit, killed."
        ),
        click.option(
            "--error",
            "errors",
            metavar="CLASS",
            multiple=True,
            help="Class of the exception, with or without its module.",
        ),
        click.option("--job", "jobs", metavar="NAME", multiple=True, help="Of this job."),
        click.option("--id", "ids", metavar="ID", multiple=True, help="The message of this id."),
        in_queues,
    ):
        decorated = option(decorated)
    return decorated


def in_queues(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --queue."""
    return click.option(
        "--queue",
        "queues",
        metavar="QUEUE",
        multiple=True,
        help="Look here.  [default: the topology's dead-letter queues]",
    )(function)


def places(session: Session, queues: tuple[str, ...]) -> tuple[Address, list[str]]:
    """Return where RabbitMQ is, and the queues to look into.

    Raises:
        InvalidInput: no queue is named, and the topology has no dead-letter queue.
    """
    if queues:
        return session.address(), list(dict.fromkeys(queues))
    from consumers.dead_letters.where import dead_letter_queues

    topology = session.load_topology()
    return session.address(topology), dead_letter_queues(topology)


def look(
    address: Address,
    queues: list[str],
    meant: Filter,
    *,
    most: int | None = None,
    on_missed: Callable[[str, int, int], object] = lambda *_: None,
) -> Iterator[Letter]:
    """Yield the letters that are meant, and leave them where they are.

    Args:
        address: where RabbitMQ is.
        queues: to look into.
        meant: which letters.
        most: to look at in each queue; None for all.
        on_missed: told of a queue that holds more: its name, and how many were looked at of how
            many.
    """
    from consumers.dead_letters.letter import Letter
    from consumers.queues.browse import Browser

    with Steps("looking") as bar:
        for queue in queues:
            with Browser(address, queue) as browser:
                waiting = browser.ready()
                bar.more(waiting if most is None else min(most, waiting))
                for delivery in browser.deliveries(most):
                    bar.step()
                    letter = Letter.of(queue, delivery)
                    if meant.takes(letter):
                        yield letter
                if most is not None and waiting > most:
                    on_missed(queue, most, waiting)


def tell_missed(queue: str, looked: int, waiting: int) -> None:
    """Say on stderr that not all was looked at."""
    note(f"Looked at the first {looked:,} of {waiting:,} messages in queue {queue!r}; see --most.")


class Steps(Bar):
    """A bar that counts what is to come and what is done."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._total = self._done = 0

    def more(self, count: int) -> None:
        """Count more to come."""
        self._total += count

    def step(self, *_: object) -> None:
        """Count one that is done."""
        self._done += 1
        self.show(self._done, self._total)


def show_groups(groups: list[Group], *, json: bool) -> None:
    """Print groups on stdout: a table, or one JSON object a line."""
    if json:
        for group in groups:
            print_json(group.document())
        return
    print_table(
        ("COUNT", "JOB", "REASON", "ERROR", "OLDEST", "NEWEST", "QUEUE"),
        [
            (
                f"{group.count:,}",
                group.job or "?",
                group.reason,
                short(": ".join(filter(None, (group.error, group.message)))),
                moment(group.oldest_ms),
                moment(group.newest_ms),
                group.queue,
            )
            for group in groups
        ],
    )


def moment(at_ms: int | None) -> str:
    """Return a time for people, in UTC; "-" where nobody knows."""
    if at_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "-"


def short(text: str) -> str:
    """Return the first line of a text, shortened."""
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…"
