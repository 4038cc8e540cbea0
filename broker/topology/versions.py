"""What an older RabbitMQ lacks of what a topology asks for; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker.topology.model import Topology
from broker.topology.settings import (
    PROTECTION_SINCE,
    RETRY_SINCE,
    SETTINGS,
    TILDE_SINCE,
    known,
)
from broker.topology.source import DataPath, Position


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that the file says and an older RabbitMQ cannot do.

    Attributes:
        path: where it stands.
        what: the key.
        since: the version that first has it.
        loss: what becomes of it: it is left out, or RabbitMQ would be worse off for it.
        harmful: whether it must not be sent at all.
    """

    path: DataPath
    what: str
    since: str
    loss: str = "it is left out"
    harmful: bool = False


def lacks(topology: Topology, version: str | None) -> Iterator[Lack]:
    """Yield what a version of RabbitMQ lacks; None is the newest and lacks nothing."""
    if topology.vhost.protected_from_deletion is not None and not known(PROTECTION_SINCE, version):
        path: DataPath = ("vhost", "protected_from_deletion")
        yield Lack(path, "protected_from_deletion", PROTECTION_SINCE)
    for name, queue in topology.queues.items():
        path = ("queues", name)
        for field, setting in SETTINGS.items():
            if getattr(queue, field) not in (None, False) and not known(setting.since, version):
                yield Lack((*path, field), field, setting.since)
        if queue.retry is not None and not known(RETRY_SINCE, version):
            loss = (
                "workers have what failed wait on the delay ladder instead, in whole seconds; what"
                " others return comes again at once"
            )
            yield Lack((*path, "retry"), "retry with a delay", RETRY_SINCE, loss)
    if not known(TILDE_SINCE, version):
        yield from _tildes(topology)


def _tildes(topology: Topology) -> Iterator[Lack]:
    # It makes the binding and then fails on every list with it, the definitions too.
    loss = "the management API then fails to list any binding; take one of the two away"
    bound = [
        *((("queues", name), queue.bindings) for name, queue in topology.queues.items()),
        *((("exchanges", name), there.bindings) for name, there in topology.exchanges.items()),
    ]
    for path, bindings in bound:
        for index, binding in enumerate(bindings):
            if "~" in binding.routing_key and binding.arguments:
                here: DataPath = (*path, "bindings", index)
                yield Lack(here, "a binding with ~ and arguments", TILDE_SINCE, loss, harmful=True)


def losses(topology: Topology, version: str) -> Iterator[str]:
    """Yield what is left out for a RabbitMQ that the file does not ask for, a sentence a key."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for lack in lacks(topology, version):
        if not lack.harmful:
            key = (lack.what, lack.since, lack.loss)
            places.setdefault(key, []).append(".".join(map(str, lack.path[:2])))
    for (what, since, loss), where in places.items():
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        yield (
            f"RabbitMQ {version} is older than {since} and does not know {what}"
            f" ({', '.join(where[:3])}{more}): {loss}"
        )


def refuse_harmful(topology: Topology, version: str) -> None:
    """Check that nothing is asked for by which a RabbitMQ would come to harm.

    Raises:
        TopologyError: something is; with its place.
    """
    for lack in lacks(topology, version):
        if lack.harmful:
            source = topology.source
            place = source.value(lack.path) if source else Position(".".join(map(str, lack.path)))
            raise place.error(
                f"RabbitMQ {version} is older than {lack.since} and cannot bear {lack.what}:"
                f" {lack.loss}"
            )
