"""`rabbitry dead-letters`: what failed, why, and again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DIFFERS, EXIT_DONE, InvalidInput
from consumers.cli.interrupt import interruptible
from consumers.cli.letters import (
    Steps,
    filters,
    in_queues,
    look,
    moment,
    places,
    show_groups,
    tell_missed,
)

if TYPE_CHECKING:
    from consumers.dead_letters.letter import Filter, Group, Letter
    from consumers.dead_letters.replay import Tally

LOOKED_AT = 10_000
_NAMED = 20


@click.group("dead-letters")
def dead_letters() -> None:
    """Jobs that failed for good: what, why, and again."""


@dead_letters.command(
    "list",
    epilog="""\b
Examples:
  rabbitry dead-letters list
  rabbitry dead-letters list --job signal.smooth --newer 1h
  rabbitry dead-letters list --error ValueError --each --json | jq -r .id""",
)
@filters
@click.option("--each", is_flag=True, help="A line a message, not a group.")
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=LOOKED_AT,
    show_default=True,
    help="Look at so many messages of each queue.",
)
@common_options("topology", "url", "json")
def list_(session: Session, queues: tuple[str, ...], meant: Filter, each: bool, most: int) -> None:
    """List dead letters, grouped by job, error and reason.

    Nothing is taken out: the messages are given back as they were, in order. While it looks,
    other readers of the queue see fewer.
    """
    from consumers.dead_letters.letter import grouped

    address, names = places(session, queues)
    looked = look(address, names, meant, most=most, on_missed=tell_missed)
    found = [letter.without_body() for letter in looked]
    if each:
        _show_each(session, found)
    else:
        show_groups(grouped(found), json=session.json)
    if not found:
        note(f"No dead letter {_which(meant)}in {_named(names)}.")


@dead_letters.command(
    epilog="""\b
Examples:
  rabbitry dead-letters show 3b6c1f0e-8a4d-4d6e-9a52-0b7f5d1c2e11
  rabbitry dead-letters show order-1017 --json | jq .case.traceback"""
)
@click.argument("id_", metavar="ID")
@in_queues
@common_options("topology", "url", "json")
def show(session: Session, id_: str, queues: tuple[str, ...]) -> None:
    """Show one dead letter: its case file, properties, headers and body.

    A body that cannot be decoded is shown as hexadecimal digits.
    """
    from consumers.dead_letters.letter import Filter
    from consumers.dead_letters.show import document, lines

    address, names = places(session, queues)
    found = list(look(address, names, Filter(ids=frozenset((id_,)))))
    if not found:
        raise InvalidInput(
            f"no message in {_named(names)} has the id {id_!r};"
            " `rabbitry dead-letters list --each` shows the ids"
        )
    for letter in found:
        if session.json:
            print_json(document(letter))
        else:
            for line in lines(letter):
                click.echo(line)
    if len(found) > 1:
        note(f"{len(found)} messages have this id.")


@dead_letters.command(
    epilog="""\b
Examples:
  rabbitry dead-letters replay --dry-run
  rabbitry dead-letters replay --job signal.smooth --error TimeoutError
  rabbitry dead-letters replay --newer 2h --limit 1000 --rate 50
  rabbitry dead-letters replay --id order-1017 --max-replays 5

\b
Exit code 3: some that were meant are still there; stderr says which and why."""
)
@filters
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--limit", type=click.IntRange(min=1), help="Send at most so many.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Send at most N a second.",
)
@click.option(
    "--max-replays",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Leave what was replayed so often.",
)
@common_options("topology", "url", "json")
def replay(
    session: Session,
    queues: tuple[str, ...],
    meant: Filter,
    dry_run: bool,
    limit: int | None,
    rate: float | None,
    max_replays: int,
) -> int:
    """Send dead letters again, to the exchange and key they were published to.

    Each keeps its message id, and leaves the dead-letter queue when RabbitMQ has confirmed it: a
    kill at any point loses none, at worst one is there twice under the same id. What does not
    match, or cannot be sent, stays in its place.
    """
    from broker.confirmed import ConfirmedChannel
    from consumers.dead_letters.letter import grouped
    from consumers.dead_letters.replay import Tally
    from consumers.dead_letters.replay import replay as send_again
    from consumers.queues.browse import Browser

    address, names = places(session, queues)
    tally = Tally()
    sent: list[Letter] = []

    def keep(letter: Letter) -> None:
        if dry_run:
            sent.append(letter.without_body())

    def give_up() -> None:
        if confirmed is not None:
            confirmed.close(timeout_s=0)

    confirmed = None if dry_run else ConfirmedChannel(address, name="rabbitry-replay")
    try:
        if confirmed is not None:
            confirmed.loop.wait_connected(timeout_s=10)
        with (
            interruptible(lambda: _account(tally, dry_run), give_up=give_up) as stop,
            Steps("replaying") as bar,
        ):
            for queue in names:
                if stop() or (limit is not None and tally.replayed >= limit):
                    break
                with Browser(address, queue) as browser:
                    bar.more(browser.ready())
                    send_again(
                        browser,
                        confirmed,
                        queue,
                        meant=meant,
                        limit=limit,
                        rate=rate,
                        max_replays=max_replays,
                        tally=tally,
                        stopped=stop,
                        on_letter=bar.step,
                        on_sent=keep,
                    )
    finally:
        give_up()
    for stayed in tally.stayed[:_NAMED]:
        note(f"Stays: {stayed.error}")
    if len(tally.stayed) > _NAMED:
        note(f"Stays: {len(tally.stayed) - _NAMED:,} more.")
    if dry_run and not session.json:
        show_groups(grouped(sent), json=False)
    if session.json:
        print_json(
            {
                "dry_run": dry_run,
                "looked": tally.looked,
                "replayed": tally.replayed,
                "stayed": [
                    {"id": each.letter.id, "queue": each.letter.queue, "reason": str(each.error)}
                    for each in tally.stayed
                ],
            }
        )
    else:
        note(_account(tally, dry_run))
    return EXIT_DIFFERS if tally.stayed else EXIT_DONE


@dead_letters.command(
    epilog="""\b
Examples:
  rabbitry dead-letters drop --job demo.fail
  rabbitry dead-letters drop --older 14d --yes"""
)
@filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options("topology", "url", "json")
def drop(session: Session, queues: tuple[str, ...], meant: Filter, yes: bool) -> int:
    """Delete dead letters, for good.

    Says first which; asks on a terminal, and elsewhere takes --yes. What died while it asked is
    not deleted.
    """
    from collections import Counter

    from consumers.dead_letters.drop import Dropping
    from consumers.dead_letters.drop import drop as delete
    from consumers.dead_letters.letter import grouped
    from consumers.queues.browse import Browser

    address, names = places(session, queues)
    found = [letter.without_body() for letter in look(address, names, meant)]
    groups = grouped(found)
    if not found:
        note(f"No dead letter {_which(meant)}in {_named(names)}.")
        return EXIT_DONE
    _tell_groups(groups)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this is not a terminal, so nobody can be asked; add --yes")
        click.confirm(f"Delete these {len(found):,} messages for good?", abort=True, err=True)
    dropping = Dropping(Counter((letter.queue, letter.id) for letter in found))
    with (
        interruptible(
            lambda: f"{dropping.dropped:,} messages were deleted, the others are still there"
        ) as stop,
        Steps("deleting") as bar,
    ):
        for queue in names:
            if stop():
                break
            with Browser(address, queue) as browser:
                bar.more(browser.ready())
                delete(
                    browser,
                    queue,
                    meant=meant,
                    dropping=dropping,
                    stopped=stop,
                    on_letter=bar.step,
                )
    if session.json:
        print_json({"dropped": dropping.dropped, "groups": [group.document() for group in groups]})
    else:
        note(f"Deleted {dropping.dropped:,} messages.")
    return EXIT_DONE if dropping.dropped == len(found) else EXIT_DIFFERS


def _account(tally: Tally, dry_run: bool) -> str:
    verb = "would be replayed" if dry_run else "replayed"
    text = f"{tally.replayed:,} {verb}, {tally.looked:,} looked at"
    return f"{text}, {len(tally.stayed):,} stay in spite of being meant" if tally.stayed else text


def _tell_groups(groups: list[Group]) -> None:
    for group in groups:
        error = f" {group.error}" if group.error else ""
        note(
            f"{group.count:,} of {group.job or 'no known job'} in queue {group.queue!r}:"
            f" {group.reason}{error}, {moment(group.oldest_ms)} to {moment(group.newest_ms)}"
        )


def _show_each(session: Session, found: list[Letter]) -> None:
    from broker.cli import print_table
    from consumers.cli.letters import short
    from consumers.dead_letters.show import summary

    if session.json:
        for letter in found:
            print_json(summary(letter))
        return
    print_table(
        ("ID", "JOB", "REASON", "ERROR", "ATTEMPT", "REPLAYS", "GIVEN UP", "QUEUE"),
        [
            (
                letter.id or "?",
                letter.job or "?",
                letter.case.reason,
                short(letter.case.error),
                letter.case.attempt or "?",
                letter.case.replays,
                moment(letter.case.last_ms),
                letter.queue,
            )
            for letter in found
        ],
    )


def _which(meant: Filter) -> str:
    from consumers.dead_letters.letter import Filter

    return "" if meant == Filter() else "of these "


def _named(queues: list[str]) -> str:
    return ", ".join(f"queue {queue!r}" for queue in queues)
