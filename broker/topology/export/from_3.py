"""What RabbitMQ 3 knew and 4 refuses, brought over from a definitions file; pure.

Classic queues are mirrored no more (https://www.rabbitmq.com/docs/3.13/ha), and the place of a
leader has another name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.topology.export.select import LeftOut
from broker.topology.objects import OPERATOR_POLICY, POLICY, QUEUE, Objects
from broker.topology.settings import MASTER_LOCATOR, MIRRORING

LEADER_LOCATOR = "queue-leader-locator"
_PLACES = {"client-local": "client-local", "min-masters": "balanced", "random": "balanced"}
_REPLICATED = "RabbitMQ 4 mirrors no classic queues; a quorum queue is replicated"


def brought_over(objects: Objects) -> tuple[Objects, tuple[LeftOut, ...]]:
    """Return objects that RabbitMQ 4 takes, and what is not in them any more.

    A policy that only mirrored is left out; of one that says more as well, what it says more stays.
    """
    kept, left = dict(objects), []
    for identity, each in objects.items():
        found = each.attributes
        if identity.kind in (POLICY, OPERATOR_POLICY):
            definition = _renamed(found["definition"], "")
            gone = sorted(found["definition"].keys() & MIRRORING)
            if gone:
                left.append(LeftOut(identity, f"{_REPLICATED} (it has {', '.join(gone)})"))
            if not (definition := {k: v for k, v in definition.items() if k not in MIRRORING}):
                del kept[identity]
                continue
            kept[identity] = replace(each, attributes={**found, "definition": definition})
        elif identity.kind == QUEUE:
            arguments = _renamed(found["arguments"], "x-")
            if arguments.get("x-queue-version") == 1:
                del arguments["x-queue-version"]
                left.append(LeftOut(identity, "x-queue-version 1, which RabbitMQ 4.3 refuses"))
            kept[identity] = replace(each, attributes={**found, "arguments": arguments})
    return kept, tuple(left)


def _renamed(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    renamed = dict(settings)
    place = renamed.pop(prefix + MASTER_LOCATOR, None)
    if place is not None:
        renamed.setdefault(prefix + LEADER_LOCATOR, _PLACES.get(place, "client-local"))
    return renamed
