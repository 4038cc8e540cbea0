"""How many jobs a second does one producer publish? Beside six Python libraries and one in C.

One producer, one connection, a quorum queue, persistent messages. Every contender is a process of
its own (`benchmarks.publishers`), in turn. The queue is emptied before each run and counted after
it. `publish` is of many jobs that are at hand, `publish.waited` of jobs each of which has to be
safe before the next is published.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from amqp.exceptions import NotFound

from benchmarks.method import Bench, Ledger, Run, purge, ready, wait_ready
from benchmarks.method.command import alone
from benchmarks.publishers import SIZE_BYTES, C, Order, needs, published
from broker.connection import Address
from broker.window import WINDOW

ASKS = "How many jobs a second does one producer publish?"
MEANING = """\
**Many jobs at hand.** Every contender publishes persistent messages over one connection, and all
but those called unconfirmed have RabbitMQ's word for each of them, given once its disk has it. The
ratios say how much longer another library holds up a nightly run, an import, or a producer that
fans out. They come from one thing mostly: whether a publish waits for its own confirm. Ours write
on, up to a window of messages, and take the confirms as they come. So
does pika's asynchronous connection, with callbacks that its user writes; it makes each message's
frames anew, where ours makes once what is the same in all jobs of a name. Celery, dramatiq, kombu
and pika's blocking channel wait for each confirm, which is a round trip to RabbitMQ and its disk;
the libraries of asyncio wait for many together, at the price of a future and some objects for each.
Without confirms nobody waits, and nobody learns what is lost: a RabbitMQ that is killed may have
none of what was called published. Celery as it comes is slower all the same, since it makes each
message anew, header by header.

The C program sends one ready message again and again and only changes its ids: it checks no
arguments, encodes no body, and takes next to no processor time. What it reaches is what RabbitMQ
takes from one connection on this machine. How far ours is below it is what Python still costs.

**Each confirmed before the next.** Where a web request publishes one job and answers when it is
safe, no pipelining helps: what is measured is a round trip to RabbitMQ and its disk, for everybody,
and the ratios are nearer to one. Bare pika and kombu can be as good as ours or better here: they
write and read in the thread that publishes, where ours also checks the arguments, writes a job's
headers, watches its deadline, and is told of the confirm by a thread of its own, which is the price
of a publisher that threads can share. Celery takes longer with the same round trip.

**What is the same:** exchange, kind of queue, persistence, and the size of the argument. Clients
that know no jobs (kombu, pika, aio-pika, C) send a job as ours writes it, with all headers of
Celery's protocol, made beforehand, which is in their favour. dramatiq, taskiq and FastStream write
messages of formats of their own, with fewer headers. dramatiq publishes to a queue that it declares
itself, also a quorum queue. The libraries of asyncio run on uvloop, which taskiq and FastStream
take where it is installed.
"""

EXCHANGE, QUEUE, ROUTING_KEY, JOB = "jobs", "jobs.normal", "normal.bench.job", "bench.job"
# dramatiq's own, which it declares.
DRAMATIQ_QUEUE = "jobs.dramatiq"
TOPOLOGY = {
    "version": 1,
    "name": "bench",
    "vhost": {"default_queue_type": "quorum"},
    "exchanges": {EXCHANGE: {"type": "topic"}},
    "queues": {
        QUEUE: {
            "bindings": [{"exchange": EXCHANGE, "routing_key": "normal.#"}],
            "max_length": 1_000_000,
            "overflow": "reject-publish",
        },
    },
}
WARM_UP = 500
GATHERED = 500
LIBRARIES = ("dramatiq", "pika", "aio-pika", "taskiq", "taskiq-aio-pika", "faststream", "uvloop")
OUTSIDE = "left out of the small version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A publisher, and how many jobs are about a second's work for it.

    Attributes:
        name: of the function in `benchmarks.publishers`.
        count: jobs a run.
        small: jobs a run of the small version, None where it is left out there.
        together: how many are confirmed together by libraries of asyncio.
    """

    name: str
    count: int
    small: int | None = None
    together: int = GATHERED


MANY, WAITED = "rabbitry, many", "rabbitry, waited for"
CONTENDERS = {
    MANY: Contender(name="rabbitry_many", count=20_000, small=5_000),
    "rabbitry, one by one": Contender(name="rabbitry_single", count=20_000),
    "Celery, confirmed": Contender(name="celery_confirmed", count=1_500, small=400),
    "Celery, unconfirmed": Contender(name="celery_unconfirmed", count=4_000, small=1_500),
    "dramatiq, confirmed": Contender(name="dramatiq_confirmed", count=2_000),
    "dramatiq, unconfirmed": Contender(name="dramatiq_unconfirmed", count=8_000),
    "taskiq, gathered": Contender(name="taskiq", count=4_000),
    "FastStream, gathered": Contender(name="faststream", count=4_000),
    "kombu, confirmed": Contender(name="kombu_confirmed", count=2_000),
    "pika, confirmed": Contender(name="pika_confirmed", count=2_000),
    "pika, pipelined": Contender(name="pika_pipelined", count=8_000),
    "aio-pika, gathered": Contender(name="aio_pika", count=8_000, small=2_000),
    "librabbitmq, C": Contender(name=C, count=20_000, small=5_000),
}
ONE_BY_ONE = {
    WAITED: Contender(name="rabbitry_waited", count=1_500),
    "Celery, confirmed": Contender(name="celery_confirmed", count=1_500),
    "dramatiq, confirmed": Contender(name="dramatiq_confirmed", count=1_500),
    "taskiq, awaited": Contender(name="taskiq", count=1_500, together=1),
    "FastStream, awaited": Contender(name="faststream", count=1_500, together=1),
    "kombu, confirmed": Contender(name="kombu_confirmed", count=1_500),
    "pika, confirmed": Contender(name="pika_confirmed", count=1_500),
    "aio-pika, awaited": Contender(name="aio_pika", count=1_500, together=1),
}


def ask(bench: Bench) -> None:
    """Measure, in jobs a second."""
    with bench.virtual_host(TOPOLOGY) as address:
        _measure(bench, address, "publish", "published jobs a second, many at hand", CONTENDERS)
        if not bench.small:
            title = "published jobs a second, each confirmed before the next"
            _measure(bench, address, "publish.waited", title, ONE_BY_ONE)


def _measure(
    bench: Bench, address: Address, name: str, title: str, contenders: Mapping[str, Contender]
) -> None:
    publishers, missing = {}, {}
    for who, contender in contenders.items():
        why = OUTSIDE if bench.small and contender.small is None else needs(contender.name)
        if why:
            missing[who] = why
        else:
            publishers[who] = _Publisher(bench, address, who, contender)
    bench.measure(
        name,
        publishers,
        title=title,
        unit="jobs/s",
        first=next(iter(contenders)),
        missing=missing,
        libraries=LIBRARIES,
        notes={"window": WINDOW, "gathered": GATHERED, "argument_bytes": SIZE_BYTES},
        # Each run is a new process, which has warmed up when its jobs begin to count.
        warm_up=not bench.small,
    )


@dataclass(frozen=True, slots=True)
class _Publisher:
    """Publishes into an empty queue, and reads the ledger."""

    bench: Bench
    address: Address
    who: str
    contender: Contender

    def __call__(self) -> Run:
        order = self._order()
        _empty(self.address, order.queue)
        taken = published(self.contender.name, order)
        wanted = order.count + order.warm_up
        # What is not confirmed may still be on its way.
        wait_ready(self.address, order.queue, wanted)
        ledger = Ledger(published=wanted, waiting=ready(self.address, order.queue))
        ledger.check(self.who, all_are="waiting")
        _empty(self.address, order.queue)
        return Run(
            value=order.count / taken.seconds,
            jobs=order.count,
            client_s=taken.client_s,
            broker_s=taken.broker_s,
        )

    def _order(self) -> Order:
        order = Order(
            url=self.address.url,
            job=JOB,
            queue=QUEUE,
            exchange=EXCHANGE,
            routing_key=ROUTING_KEY,
            count=self.bench.sized(self.contender.count, self.contender.small or 0),
            warm_up=self.bench.sized(WARM_UP, WARM_UP // 5),
            together=self.contender.together,
            rabbitmq=self.bench.rabbitmq.pid,
        )
        if self.contender.name.startswith("dramatiq"):
            return replace(order, queue=DRAMATIQ_QUEUE)
        return order


def _empty(address: Address, queue: str) -> None:
    try:
        purge(address, queue)
    except NotFound:
        return  # its publisher will declare it


if __name__ == "__main__":
    sys.exit(alone(__file__))
