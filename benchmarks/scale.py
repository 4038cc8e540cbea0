"""How does it grow: with the daemons, with the jobs that wait, with their size?

Each direction is an axis of its own, in `benchmarks.scaling`: one to eight daemons on a queue, a
thousand to a million jobs published and run, arguments of 100 bytes to 8 megabytes. Beside plain
Celery where it can do the same in the time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.method import Bench
from benchmarks.method.command import alone
from benchmarks.scaling import backlog, payload, workers
from benchmarks.scaling.place import BATCH, TOPOLOGY

ASKS = "How does it grow?"
MEANING = f"""\
**With the daemons.** Jobs that do nothing show where the machine ends: a daemon, its processes and
RabbitMQ share the cores, and once those are busy another daemon adds processes that take turns, not
jobs. What to look at then is the processor's time a job, which should stay where it is. Jobs that
wait for something else, as most do that speak with other services, show what daemons are for: their
number decides how much is done at a time, until the cores are busy. What a daemon costs is memory;
where it is short, more slots in one daemon are cheaper than more daemons.

All daemons are at work before the time begins: none of the jobs measured is run before each slot
has one.

**With the jobs that wait.** A publisher holds what RabbitMQ has not yet confirmed, up to its
window, and a worker what it has been sent ahead: neither may need more memory for a million jobs
than for ten thousand, and neither may get slower. RabbitMQ keeps the messages of a quorum queue on
its disk, and a note of each in memory. The publisher's memory is its process's highest as the
kernel tells it; the worker's is that of all its processes, pages that they share counted once, at
its highest of several looks a second; the account of which jobs were run, a byte for each in either
process, is in it. A million jobs are run in batches of {BATCH}, the same message for message with
one call for many of them, since one by one they would take several minutes; one by one a hundred
thousand are run, by ours and by Celery. Each run has processes of its own. What RabbitMQ needs
is seen once, on the way from few to many, since it keeps for a while what it has needed. Celery's
publisher is not in these tables: it waits for each confirm, so it holds nothing, and takes a
quarter of an hour for a million.

**With their size.** Small jobs cost what a message costs, large ones what their bytes cost:
encoding, the way through RabbitMQ and its disk, decoding, and the way from the worker to the
process that runs the job. Where bytes are most of it the ratio to Celery is nearer to one, and
where it is below one Celery is better at it. Arrays have a way of their own, which is shorter; here
all arguments are texts. Few messages are held ahead, as it should be where they are large: at 100
bytes it is a round trip for every few jobs that is measured.

**What is the same:** quorum queues, persistent messages with an argument of the same size,
confirmed one by one by Celery and in a window by ours, acknowledged when done, two slots in each
daemon, and how many messages each holds ahead.
"""


def ask(bench: Bench) -> None:
    """Measure each axis; the small version has only the one that has bars."""
    with bench.virtual_host(TOPOLOGY) as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not bench.small:
            workers.measure(bench, address, folder)
            payload.measure(bench, address, folder)
        backlog.measure(bench, address, folder)


if __name__ == "__main__":
    sys.exit(alone(__file__))
