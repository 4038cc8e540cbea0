"""`rabbitry topology route|explain|diagram`: what the file, or RabbitMQ, comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DONE, EXIT_REFUSED
from broker.topology.cli.group import topology

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.management import Management
    from broker.topology.diagram import Drawing
    from broker.topology.explain import Stated
    from broker.topology.objects import Identity, Objects, Observed
    from broker.topology.route import Landing, Routing


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology route jobs low.signal.smooth
  rabbitry topology route orders "" --header country=nl --header weight=3
  rabbitry topology route jobs nowhere --live --json
  rabbitry topology route "" jobs.dead"""
)
@common_options("topology", "url", "json")
@click.argument("exchange")
@click.argument("key")
@click.option(
    "--header",
    "headers",
    metavar="NAME=VALUE",
    multiple=True,
    help='A header of the message; numbers, true, false, null and JSON in quotes ("1") are read.',
)
@click.option("--live", is_flag=True, help="Ask RabbitMQ what there is, not the file.")
def route(session: Session, exchange: str, key: str, headers: tuple[str, ...], live: bool) -> int:
    """Say where a message with this KEY goes that is published to EXCHANGE.

    Through bindings, exchanges bound to exchanges, alternate exchanges, and on from queue to
    queue by dead-lettering, with the delays. Nothing is published. "" is the default exchange.
    Exits 5 where the message reaches no queue.
    """
    from broker.topology.route import Router

    sent = dict(_header(each) for each in headers)
    found = Router(_objects(session, live=live)).route(exchange, key, sent)
    if session.json:
        print_json(found.document())
    else:
        for line in _routing(found, ""):
            click.echo(line)
    if found.unroutable and not session.json:
        note("No queue takes it: a mandatory message is returned, any other is dropped.")
    return EXIT_REFUSED if found.unroutable else EXIT_DONE


@topology.command(
    epilog="\b\nExamples:\n  rabbitry topology explain jobs.high\n"
    "  rabbitry topology explain jobs.high --live --json"
)
@common_options("topology", "url", "json")
@click.argument("name")
@click.option("--live", is_flag=True, help="Ask RabbitMQ what is in force, not the file.")
def explain(session: Session, name: str, live: bool) -> int:
    """Say where each setting in force on the queue or exchange NAME comes from.

    From which argument, policy, operator policy or default, which values gave way to it, on
    which line of the file it stands, and what all of them come to.
    """
    from broker.errors import InvalidInput, did_you_mean
    from broker.topology.compile import derived_timeouts
    from broker.topology.explain import explain as explained
    from broker.topology.objects import EXCHANGE, QUEUE

    observed, stated = _observed_of(session, name) if live else (None, {})
    objects = observed.objects if observed else _compiled(session)
    file = session.load_topology() if not live or _has_file(session) else None
    found = explained(
        objects,
        name,
        source=file.source if file else None,
        effective=observed.effective if observed else None,
        stated=stated,
        derived=derived_timeouts(file) if file else None,
    )
    if not found:
        known = {each.name[0] for each in objects if each.kind in (QUEUE, EXCHANGE)}
        where = f"virtual host {observed.vhost!r}" if observed else str(session.topology_path)
        raise InvalidInput(
            f"no queue or exchange of {where} is named {name!r}{did_you_mean(name, known)}"
        )
    for each in found:
        if session.json:
            print_json(each.document())
            continue
        click.echo(f"{each.subject} ({each.type})" + (f"  {each.place}" if each.place else ""))
        width = max((len(line.key) for line in each.lines), default=0)
        for line in each.lines:
            place = f"  {line.place}" if line.place else ""
            click.echo(f"  {line.key:{width}}  {line.shown}  by {line.origin}{place}")
            for origin, value in line.gave_way:
                click.echo(f"  {'':{width}}  ({value} by {origin} gives way)")
        for words in each.words:
            click.echo(f"  {words}")
        for words in each.differs:
            note(f"Warning: {words}")
    return EXIT_DONE


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology diagram > topology.mmd
  rabbitry topology diagram --format svg > topology.svg
  rabbitry topology diagram --format dot --plan | dot -Tpng -o plan.png"""
)
@common_options("topology", "url")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
    help="svg takes Graphviz's `dot`.",
)
@click.option("--plan", "planned", is_flag=True, help="In the colours of the plan: asks RabbitMQ.")
def diagram(session: Session, format_: str, planned: bool) -> None:
    """Draw jobs, exchanges, queues, bindings with their keys, and workers.

    Dashed lines are dead-lettering and alternate exchanges. With --plan, what apply would
    create is green, change yellow, replace magenta and delete red.
    """
    from broker.topology.diagram import dot, mermaid

    found = _planned(session) if planned else _drawn(session)
    if format_ == "mermaid":
        click.echo(mermaid(found), nl=False)
    elif format_ == "dot":
        click.echo(dot(found), nl=False)
    else:
        click.echo(_svg(dot(found)), nl=False)


# -- what there is --------------------------------------------------------------------


def _objects(session: Session, *, live: bool) -> Objects:
    return _observed(session).objects if live else _compiled(session)


def _compiled(session: Session) -> Objects:
    from broker.topology.compile import compile_topology

    return compile_topology(session.load_topology(), secrets=False).objects


def _has_file(session: Session) -> bool:
    return session.topology_path.exists()


def _observed(session: Session) -> Observed:
    from broker.management import Management

    with Management(session.address()) as management:
        return _seen(management)


def _observed_of(session: Session, name: str) -> tuple[Observed, dict[Identity, Stated]]:
    """Return what there is, and what RabbitMQ says is in force on what has this name."""
    from broker.management import Management
    from broker.topology.explain import Stated
    from broker.topology.objects import EXCHANGE, QUEUE, Identity

    with Management(session.address()) as management:
        observed = _seen(management)
        stated = {}
        for kind, folder in ((EXCHANGE, "exchanges"), (QUEUE, "queues")):
            answer = management.find(folder, observed.vhost, name, disable_stats=True)
            # Of a single queue RabbitMQ 4.0 says nothing.
            if answer is not None and (kind == EXCHANGE or "effective_policy_definition" in answer):
                stated[Identity(kind, (name,))] = Stated.of(answer)
    return observed, stated


def _seen(management: Management) -> Observed:
    from broker.errors import VirtualHostMissing
    from broker.topology.observe import observe

    found = observe(management, management.address.vhost_name)
    if not found.exists:
        raise VirtualHostMissing(
            f"RabbitMQ has no virtual host {found.vhost!r}; `rabbitry topology apply` makes it"
        )
    return found


def _drawn(session: Session) -> Drawing:
    from broker.topology.diagram import drawing

    return drawing(session.load_topology(), _compiled(session))


def _planned(session: Session) -> Drawing:
    from broker.management import Management
    from broker.topology.compile import compile_topology
    from broker.topology.diagram import drawing
    from broker.topology.look import look

    file = session.load_topology()
    with Management(session.address(file)) as management:
        plan = look(file, management).plan
    actions = {change.identity: change.action for change in plan.changes}
    gone = {
        change.identity: change.before
        for change in plan.changes
        if change.action == "delete" and change.before is not None
    }
    return drawing(file, compile_topology(file, secrets=False).objects, actions, gone)


def _svg(text: str) -> str:
    import shutil
    import subprocess

    from broker.errors import RabbitryError

    program = shutil.which("dot")
    if program is None:
        raise RabbitryError(
            "Graphviz's `dot` is not installed, which draws the SVG: install the package"
            " graphviz, or take --format dot or mermaid"
        )
    done = subprocess.run(
        [program, "-Tsvg"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RabbitryError(f"Graphviz could not draw it: {done.stderr.strip()}")
    return done.stdout


def _header(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--header {text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


# -- how it looks ---------------------------------------------------------------------


def _routing(found: Routing, indent: str) -> Iterator[str]:
    keys = ", ".join(repr(each) for each in found.routing_keys)
    yield f"{indent}exchange {found.exchange!r}, key {keys}"
    for step in found.steps:
        key = f" {step.key!r}" if step.by == "binding" else ""
        yield f"{indent}  {step.source!r} → {step.kind} {step.destination!r} by {step.by}{key}"
    for text in found.problems:
        yield f"{indent}  {text}"
    for text in found.unknown:
        yield f"{indent}  not known: {text}"
    for landing in found.landings:
        yield from _landing(landing, f"{indent}  ")


def _landing(landing: Landing, indent: str) -> Iterator[str]:
    from datetime import timedelta

    from broker.units import format_duration

    yield f"{indent}queue {landing.queue!r} ({landing.type})"
    if landing.schedule is not None:
        yield f"{indent}  a failed message {landing.schedule}"
    if landing.ttl_ms is not None:
        ttl = format_duration(timedelta(milliseconds=landing.ttl_ms))
        yield f"{indent}  a message waits for at most {ttl}"
    if landing.letter is None:
        if landing.type != "stream":
            yield f"{indent}  nothing is dead-lettered: what it lets go is dropped"
    elif landing.letter.goes is None:
        yield f"{indent}  dead-lettered to exchange {landing.letter.exchange!r}: a circle"
    else:
        yield f"{indent}  dead-lettered:"
        goes = landing.letter.goes
        yield from _routing(goes, f"{indent}    ")
        if goes.unroutable:
            yield f"{indent}      reaches no queue"
