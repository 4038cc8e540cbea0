"""What each role may do: the narrowest rights for what the topology says it uses; pure.

https://www.rabbitmq.com/docs/access-control: configure declares and deletes, write publishes
and binds what receives, read consumes and binds to a source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broker.reply_queue import PATTERN as REPLY_QUEUES
from broker.topology.access import User
from broker.topology.cancellations import cancellations_of
from broker.topology.ladder import ladders_of, retry_ladder, rung_pattern
from broker.topology.model import Topology, WorkerSpec
from broker.topology.policies import escape
from broker.topology.settings import RETRY_SINCE, known
from broker.topology.token import token_of

NOTHING = "^$"
# The default exchange's name where rights are checked. Who may write to it reaches every queue.
DEFAULT_EXCHANGE = "amq.default"
# What rabbitry declares for itself: the lock of apply, helpers of a replacement.
OWN_PREFIX = r"rabbitry\..*"
# Celery's remote control: https://docs.celeryq.dev/en/stable/userguide/workers.html
_REMOTE_CONTROL = (
    r"celery\.pidbox",
    r"reply\.celery\.pidbox",
    r"celeryev(\..*)?",
    r".*\.celery\.pidbox",
)


@dataclass(frozen=True, slots=True)
class Rights:
    """Regular expressions (Erlang's) of names, and RabbitMQ's tags."""

    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    tags: tuple[str, ...] = ()


def rights_of(topology: Topology, user: User, *, requires: str | None = None) -> Rights | None:
    """Return what the role of a user comes to, or None where it has none.

    Args:
        topology: the topology.
        user: one of its users.
        requires: the least version of RabbitMQ; None is the newest.
    """
    requires = topology.broker.requires or requires
    match user.role:
        case None:
            return None
        case "producer" | "caller":
            # A direct reply needs no right: https://www.rabbitmq.com/docs/direct-reply-to. Who
            # calls for long declares and consumes a queue for its replies.
            own = _names((), (REPLY_QUEUES,)) if user.role == "caller" else NOTHING
            write = set(_exchanges_of_jobs(topology, user))
            if write:
                write |= _cancellations(topology)
            return Rights(configure=own, write=_names(write, _rungs(topology)), read=own)
        case "scheduler":
            return _scheduler(topology, user)
        case "worker":
            return _worker(topology, user, requires)
        case "monitor":
            return Rights(tags=("monitoring",))
        case "provisioner":
            return _provisioner(topology, requires)


def _exchanges_of_jobs(topology: Topology, user: User) -> Iterator[str]:
    for name, job in topology.jobs.items():
        if user.jobs is None or name in user.jobs:
            yield job.exchange


def _cancellations(topology: Topology) -> set[str]:
    """Return the name of the exchange that takes cancellations, and of the stream behind it."""
    names = cancellations_of(topology)
    return set() if names is None else {names.exchange}


def _rungs(topology: Topology) -> tuple[str, ...]:
    """Return an expression of where delayed messages are published."""
    return () if topology.delays is None else (rung_pattern(topology.name),)


def _scheduler(topology: Topology, user: User) -> Rights:
    write, rungs = set(_exchanges_of_jobs(topology, user)), _rungs(topology)
    token = token_of(topology)
    if token is None:
        return Rights(write=_names(write, rungs))
    write.add(token.exchange)
    return Rights(write=_names(write, rungs), read=_names({token.queue, token.state}))


def _worker(topology: Topology, user: User, requires: str | None) -> Rights:
    workers = [
        worker
        for name, worker in topology.workers.items()
        if user.workers is None or name in user.workers
    ]
    queues = {queue for worker in workers for queue in worker.queues}
    # Replies are published to the default exchange, what went wrong to where the queue
    # dead-letters.
    write = {DEFAULT_EXCHANGE} | {
        letter.exchange
        for name in queues
        if (queue := topology.queues.get(name)) and (letter := queue.dead_letter)
    }
    control = _remote_control(workers)
    retries = None if known(RETRY_SINCE, requires) else retry_ladder(topology)
    rungs = _rungs(topology)
    if retries is not None and retries.queues & queues:
        # RabbitMQ delays nothing itself: what failed is published where it waits.
        rungs = (rung_pattern(topology.name),)
    return Rights(
        configure=_names((), control),
        write=_names(write, control + rungs),
        read=_names(queues | _cancellations(topology), control),
    )


def _remote_control(workers: Iterable[WorkerSpec]) -> tuple[str, ...]:
    return _REMOTE_CONTROL if any(worker.remote_control for worker in workers) else ()


def _provisioner(topology: Topology, requires: str | None) -> Rights:
    own = {*topology.exchanges, *topology.queues}
    # Bindings read their source, also where RabbitMQ declared it.
    bindings = [binding for each in topology.exchanges.values() for binding in each.bindings]
    bindings += [binding for each in topology.queues.values() for binding in each.bindings]
    sources = {binding.exchange for binding in bindings}
    # To set a dead-letter or alternate exchange takes the right to write to it.
    targets = {
        target
        for target in (
            *(each.alternate_exchange for each in topology.exchanges.values()),
            *(each.dead_letter.exchange for each in topology.queues.values() if each.dead_letter),
        )
        if target
    }
    helpers: tuple[str, ...] = (OWN_PREFIX,)
    if ladders_of(topology, requires):
        helpers += (rf"{escape(topology.name)}\.delays\..*",)
    token = token_of(topology)
    if token is not None:
        own |= {token.exchange, token.queue, token.state}
    own |= _cancellations(topology)
    return Rights(
        configure=_names(own, helpers),
        write=_names(own | targets, helpers),
        read=_names(own | sources, helpers),
        tags=("policymaker",),
    )


def _names(names: Iterable[str], expressions: Iterable[str] = ()) -> str:
    """Return an anchored expression of names and further expressions; of none it is `NOTHING`."""
    parts = [*(escape(name) for name in sorted(set(names))), *expressions]
    return f"^({'|'.join(parts)})$" if parts else NOTHING
