"""Where growth is measured: the queues of `benchmarks.consumers`, with other jobs and daemons."""

from __future__ import annotations

from typing import Any

from benchmarks.consumers import place
from benchmarks.consumers.place import EXCHANGE, QUEUE, SLOTS, WIDE, routing_key

NOOP, PAUSE, BATCHED = "scale.noop", "scale.pause", "scale.batched"
# As long as a request to another service.
PAUSE_S = 0.02
BATCH = 500
# Messages ahead, of all slots of a daemon: many; few, where they are large; and as many as all
# slots run in batches with one that is gathered meanwhile.
FEW = 2 * SLOTS
BATCHES = BATCH * (SLOTS + 1)


def _job(function: str) -> dict[str, Any]:
    return {
        "exchange": EXCHANGE,
        "routing_key": routing_key(QUEUE),
        "task": f"benchmarks.scaling.jobs:{function}",
    }


def daemon(prefetch: int) -> str:
    """Return the name of our daemon with so many messages ahead."""
    return f"ahead-{prefetch}"


TOPOLOGY: dict[str, Any] = {
    **place.TOPOLOGY,
    "jobs": {NOOP: _job("noop"), PAUSE: _job("pause"), BATCHED: _job("batched")},
    "workers": {
        daemon(prefetch): {"queues": [QUEUE], "concurrency": SLOTS, "prefetch": prefetch}
        for prefetch in (WIDE, FEW, BATCHES)
    },
}
