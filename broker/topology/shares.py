"""How a worker's slots are divided among its queues; pure.

RabbitMQ counts a prefetch for each consumer by itself: a worker that consumes two queues with as
many messages each as it has slots holds twice as many as it runs, and those in excess wait in its
memory, where no priority reaches them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from broker.topology.model import WorkerSpec


def slots_of(worker: WorkerSpec) -> int:
    """Return how many jobs a worker runs at the same time."""
    return 1 if worker.pool == "solo" else worker.concurrency


def held(worker: WorkerSpec) -> int:
    """Return how many messages a worker holds at most: `prefetch`, else as many as it runs."""
    return slots_of(worker) if worker.prefetch is None else worker.prefetch


def rounds(worker: WorkerSpec) -> int:
    """Return how many jobs may run one after the other until the last one held has run."""
    return max(1, math.ceil(held(worker) / slots_of(worker)))


def shares_of(worker: WorkerSpec) -> dict[str, int]:
    """Return how many messages a worker holds of each of its queues.

    Raises:
        ValueError: it has fewer slots than queues.
    """
    starvation = None if worker.starvation is None else Fraction(worker.starvation)
    return shares(held(worker), worker.queues, weights=worker.weights, starvation=starvation)


def shares(
    slots: int,
    queues: Sequence[str],
    *,
    weights: Mapping[str, int],
    starvation: Fraction | None = None,
) -> dict[str, int]:
    """Divide slots among queues by weight, at least one each.

    Args:
        slots: how many there are.
        queues: the highest band first.
        weights: of queues; 1 where none is given.
        starvation: the least part of the slots, rounded up, that the queues after the first have
            together; the first one keeps a slot in any case.

    Returns:
        The slots of each queue, in the order of the queues; their sum is `slots`.

    Raises:
        ValueError: there are fewer slots than queues.
    """
    names = list(dict.fromkeys(queues))
    if slots < len(names):
        raise ValueError(f"{slots} slots cannot be divided among {len(names)} queues")
    weighed = {name: weights.get(name, 1) for name in names}
    found = _divided(slots, weighed)
    if starvation is not None and len(names) > 1:
        first, *lower = names
        least = min(math.ceil(slots * starvation), slots - 1)
        if slots - found[first] < least:
            kept = _divided(least, {name: weighed[name] for name in lower})
            return {first: slots - least, **kept}
    return found


def _divided(slots: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divide by the largest remainder, when those are served whose part is less than one."""
    parts = _parts(slots, weights)
    small = {name for name, part in parts.items() if part < 1}
    found = dict.fromkeys(weights, 1)
    if small:
        others = {name: weight for name, weight in weights.items() if name not in small}
        return found | (_divided(slots - len(small), others) if others else {})
    found = {name: math.floor(part) for name, part in parts.items()}
    # The sort is stable: of equal remainders those of earlier queues come first.
    ranked = sorted(weights, key=lambda name: found[name] - parts[name])
    for name in ranked[: slots - sum(found.values())]:
        found[name] += 1
    return found


def _parts(slots: int, weights: Mapping[str, int]) -> dict[str, Fraction]:
    total = sum(weights.values())
    return {name: Fraction(slots * weight, total) for name, weight in weights.items()}
