"""Makes sure that queues hold nothing before they are deleted.

RabbitMQ refuses `if-empty` for quorum queues, and what is set aside for a retry is invisible
to a passive declare. So: bindings away, no consumers, and nothing counted in samples over ten
seconds, by which time its statistics have caught up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from broker.management import Management
from broker.topology.changes import Change
from broker.topology.counts import Counts, count_queues
from broker.topology.objects import BINDING, QUEUE, Identity, Object
from broker.topology.observe import read_kind
from broker.topology.write import write

SETTLE_S = 10.0
_SAMPLE_S = 2.0


def settle(
    queues: Iterable[Identity],
    vhost: str,
    management: Management,
    *,
    check: Callable[[], None],
    settle_s: float = SETTLE_S,
    with_them: Callable[[dict[Identity, str]], dict[Identity, str]] = lambda refused: refused,
) -> dict[Identity, str]:
    """Unbind queues and watch them; return what must not be deleted, and why.

    The bindings of what stays are then as they were.

    Args:
        queues: queues that are to be deleted.
        vhost: the virtual host.
        management: the management API.
        check: raises where writing must stop.
        settle_s: how long nothing may show in them.
        with_them: adds what must stay since they do.
    """
    refused: dict[Identity, str] = {}
    names = {each.name[0]: each for each in queues}

    def judge() -> None:
        watched = [name for name, each in names.items() if each not in refused]
        for name, held in count_queues(management, watched).items():
            if not held.idle:
                refused[names[name]] = _why(name, held)

    judge()
    bindings = [
        each
        for identity, each in read_kind(management, vhost, BINDING).items()
        if Identity(QUEUE, identity.name[2:3]) in names.values()
        and identity.name[1] == "queue"
        and Identity(QUEUE, identity.name[2:3]) not in refused
    ]
    try:
        for each in bindings:
            check()
            write(Change("delete", each.identity, before=each), vhost, management)
        ends = time.monotonic() + settle_s
        while len(refused) < len(names):
            judge()
            left_s = ends - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(_SAMPLE_S, left_s))
            check()
        refused = with_them(refused) if refused else refused
    except BaseException:
        _bind_again(bindings, vhost, management)
        raise
    _bind_again(
        [each for each in bindings if Identity(QUEUE, each.identity.name[2:3]) in refused],
        vhost,
        management,
    )
    return refused


def _bind_again(bindings: Iterable[Object], vhost: str, management: Management) -> None:
    for each in bindings:
        write(Change("create", each.identity, after=each), vhost, management)


def _why(name: str, held: Counts) -> str:
    return f"it holds {held}; --delete-nonempty {name} deletes it all the same"
