"""A delay ladder back into the section of the file that it comes from; pure."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from broker.delays import due_name, rung_name, rungs_for, to_header
from broker.topology.delays import LONGEST
from broker.topology.ladder import belongs_to, ends, rungs
from broker.topology.objects import BINDING, QUEUE, Identity, Object, canonical
from broker.units import format_duration


def fold_ladder(
    objects: dict[Identity, Object], owner: str
) -> tuple[dict[Identity, Object], dict[str, Any]]:
    """Return the objects that are not of a topology's ladder, and its section; {} without one.

    A ladder that is not exactly as its section would make it stays exchanges and queues.

    Args:
        objects: what the file takes in.
        owner: the topology's name.
    """
    there = {identity: each for identity, each in objects.items() if belongs_to(owner, identity)}
    seconds: list[int] = []
    while Identity(QUEUE, (rung_name(owner, 1 << len(seconds)),)) in there:
        seconds.append(1 << len(seconds))
    if not seconds or seconds[-1] > LONGEST.total_seconds():
        return objects, {}
    rest = {identity: each for identity, each in objects.items() if identity not in there}
    queues = [identity.name[2] for identity in there if _leads_to_queue(owner, identity)]
    made = {each.identity: each for each in (*rungs(owner, seconds), *ends(owner, queues))}
    if made.keys() != there.keys() or any(
        canonical(dict(each.attributes)) != canonical(dict(there[identity].attributes))
        for identity, each in made.items()
    ):
        return objects, {}
    section: dict[str, Any] = {"max": _longest(len(seconds))}
    every = {
        identity.name[0]
        for identity, each in rest.items()
        if identity.kind == QUEUE and each.attributes["type"] != "stream"
    }
    if set(queues) != every:
        section["queues"] = sorted(queues)
    return rest, section


def _leads_to_queue(owner: str, identity: Identity) -> bool:
    if identity.kind != BINDING or identity.name[:2] != (due_name(owner), "queue"):
        return False
    return bool(json.loads(identity.name[4]).get(to_header(identity.name[2])))


def _longest(count: int) -> str:
    """Return the longest delay of so many rungs in the largest unit that gives as many."""
    capacity = min(timedelta(seconds=(1 << count) - 1), LONGEST)
    for unit in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
        whole = capacity // unit * unit
        if whole and len(rungs_for(whole)) == count:
            return format_duration(whole)
    return format_duration(capacity)
