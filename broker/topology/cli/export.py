"""`rabbitry topology export`: what RabbitMQ has, as a topology file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli import Session, common_options, note, print_json
from broker.errors import EXIT_DONE, EXIT_FAILED, MissingOnBroker
from broker.topology.cli.group import topology

if TYPE_CHECKING:
    from broker.topology.export import Export

_SHOWN = 20


@topology.command(
    epilog="""\b
Examples:
  rabbitry topology export > topology.yaml
  rabbitry topology export --url amqp://me:pw@host/orders --output orders.yaml
  rabbitry topology export --from definitions.json --vhost orders"""
)
@common_options("topology", "url", "json")
@click.option("--name", metavar="NAME", help="The topology's name.  [default: the owner there]")
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write it there.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@click.option(
    "--from",
    "definitions",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Convert a definitions file of RabbitMQ instead, without a broker.",
)
@click.option("--vhost", metavar="NAME", help="The virtual host of the definitions file.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also what belongs to Celery and other topologies, all users and global parameters.",
)
@click.option("--password-hashes", is_flag=True, help="Write the hashes of users' passwords.")
def export(
    session: Session,
    name: str | None,
    output: str | None,
    force: bool,
    definitions: str | None,
    vhost: str | None,
    everything: bool,
    password_hashes: bool,
) -> int:
    """Write what RabbitMQ has as a topology file; its plan is empty.

    No password is in it: users keep theirs, one in an address becomes a ${VAR}, which is named
    on stderr. Exits 1 where lint would refuse the file, and says why.
    """
    if vhost is not None and definitions is None:
        raise click.UsageError("--vhost goes with --from; name it in --url otherwise")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise click.UsageError("--name has at most 64 letters, digits, dots, hyphens, underscores")
    if output is not None and Path(output).exists() and not force:
        raise click.UsageError(f"{output} exists; --force writes over it")
    if definitions is not None:
        made = _converted(definitions, vhost, name, everything, password_hashes)
    else:
        made = _read(session, name, everything, password_hashes)
    if session.json:
        from broker.topology.objects import canonical

        text = canonical(made.document)
        if output is None:
            print_json(made.document)
    else:
        from broker.topology.export.emit import to_yaml

        text = to_yaml(made.document, head="Written by `rabbitry topology export`.")
        if output is None:
            click.echo(text, nl=False)
    if output is not None:
        Path(output).write_text(text, encoding="utf-8")
    _account(made)
    return EXIT_FAILED if made.complaints else EXIT_DONE


def _read(session: Session, name: str | None, everything: bool, password_hashes: bool) -> Export:
    from broker.management import Management
    from broker.topology.export import Scope, export
    from broker.topology.export.live import major_minor, read_live

    with Management(session.address()) as management:
        vhost = management.address.vhost_name
        live = read_live(management, vhost)
    if not live.exists:
        raise MissingOnBroker(f"RabbitMQ has no virtual host {vhost!r}; name another in --url")
    if live.unread:
        kinds = ", ".join(kind.replace("-", " ") for kind in live.unread)
        note(f"Not read, since user {live.user!r} may not: {kinds}.")
    owner = name or live.name(vhost)
    records = live.records_of(owner, vhost)
    return export(
        live.objects,
        scope=Scope(owner, records, user=live.user, everything=everything),
        vhost=vhost,
        requires=major_minor(live.version),
        password_hashes=password_hashes,
    )


def _converted(
    path: str, vhost: str | None, name: str | None, everything: bool, password_hashes: bool
) -> Export:
    from broker.management import version_key
    from broker.topology.export import Scope, default_name, export
    from broker.topology.export.definitions import (
        choose_vhost,
        objects_of,
        read_definitions,
        version_of,
    )
    from broker.topology.export.from_3 import brought_over
    from broker.topology.export.live import major_minor
    from broker.topology.objects import POLICY
    from broker.topology.ownership import Record, Records
    from broker.topology.policies import owner_of

    found = read_definitions(path)
    chosen = choose_vhost(found, vhost, file=path)
    objects = objects_of(found, chosen, file=path)
    owners = [owner_of(each.name[0]) for each in objects if each.kind == POLICY]
    owner = name or default_name([], [each for each in owners if each], chosen)
    version = version_of(found)
    # A file of RabbitMQ 3 is converted for the RabbitMQ that it is brought to.
    recent = version is not None and version_key(version) >= (4,)
    objects, gone = brought_over(objects)
    made = export(
        objects,
        scope=Scope(owner, Records(Record(owner, chosen), known=False), everything=everything),
        vhost=chosen,
        requires=major_minor(version) if version and recent else None,
        password_hashes=password_hashes,
    )
    return replace(made, left_out=(*gone, *made.left_out))


def _account(made: Export) -> None:
    """Say on stderr what the file has not, and what it needs."""
    for each in made.left_out[:_SHOWN]:
        note(f"Left out: {each}")
    if len(made.left_out) > _SHOWN:
        note(f"Left out: {len(made.left_out) - _SHOWN} more")
    for variable in sorted(made.variables):
        note(f"Set {variable} to the password that stood there: ${{{variable}}} refers to it.")
    for text in made.complaints:
        note(f"Lint refuses: {text}")
