"""Rules about exchanges and bindings: names that exist, and ways that lead somewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.errors import did_you_mean
from broker.topology.effective import value_of
from broker.topology.lint.finding import Finding, finding
from broker.topology.lint.view import View
from broker.topology.matching import KNOWN_TYPES
from broker.topology.model import Binding, Topology
from broker.topology.objects import Object
from broker.topology.settings import BUILT_IN_EXCHANGES
from broker.topology.source import DataPath

_X_MATCH = ("all", "any", "all-with-x", "any-with-x")
_HASHES = 2


def check_values(topology: Topology) -> Iterator[Finding]:
    """Yield what is wrong with single exchanges and bindings."""
    for name, exchange in topology.exchanges.items():
        path: DataPath = ("exchanges", name)
        if exchange.alternate_exchange is not None:
            here = (*path, "alternate_exchange")
            yield from exists(topology, exchange.alternate_exchange, here)
        if "alternate-exchange" in exchange.arguments:
            yield finding(
                (*path, "arguments", "alternate-exchange"),
                "argument-with-key",
                "write alternate_exchange beside `type`; as an argument it could never change",
                at_key=True,
            )
        yield from _bindings(topology, exchange.bindings, path)
    for name, queue in topology.queues.items():
        path = ("queues", name)
        yield from _bindings(topology, queue.bindings, path)
        if queue.dead_letter is not None:
            here = (*path, "dead_letter", "exchange")
            yield from exists(topology, queue.dead_letter.exchange, here)


def exists(topology: Topology, exchange: str, path: DataPath) -> Iterator[Finding]:
    """Yield a finding where the file has no such exchange."""
    if exchange not in topology.exchanges and exchange not in BUILT_IN_EXCHANGES:
        known = [*topology.exchanges, *BUILT_IN_EXCHANGES]
        text = f"no exchange is named {exchange!r}{did_you_mean(exchange, known)}"
        yield finding(path, "unknown-exchange", text)


def _bindings(topology: Topology, bindings: Iterable[Binding], path: DataPath) -> Iterator[Finding]:
    seen: list[Binding] = []
    for index, binding in enumerate(bindings):
        here = (*path, "bindings", index)
        yield from exists(topology, binding.exchange, (*here, "exchange"))
        if binding in seen:
            yield finding(here, "repeated", "this binding stands here twice")
        seen.append(binding)
        source = topology.exchanges.get(binding.exchange)
        type_ = source.type if source else binding.exchange.removeprefix("amq.")
        if type_ == "topic" and binding.routing_key.split(".").count("#") > _HASHES:
            text = f"RabbitMQ 4.3 refuses a pattern with more than {_HASHES} # words"
            yield finding((*here, "routing_key"), "binding-pattern", text)
        if type_ in ("headers", "match"):
            yield from _headers(binding, here)


def _headers(binding: Binding, here: DataPath) -> Iterator[Finding]:
    how = binding.arguments.get("x-match", "all")
    if how not in _X_MATCH:
        text = f"x-match is {how!r}; RabbitMQ knows {', '.join(_X_MATCH)}"
        yield finding((*here, "arguments", "x-match"), "binding-headers", text)
        return
    counted = [
        name
        for name in binding.arguments
        if name != "x-match" and (how.endswith("-with-x") or not name.startswith("x-"))
    ]
    if not counted and how.startswith("any"):
        text = f"x-match: {how} with no header to compare never takes a message"
        yield finding(here, "binding-headers", text)


# -- what takes the whole file --------------------------------------------------------


def check(view: View) -> Iterator[Finding]:
    """Yield exchanges that swallow messages, and alternates that hide it."""
    for name in view.topology.exchanges:
        there, path = view.exchange(name), ("exchanges", name)
        settings = view.settings(there)
        alternate = value_of(settings, "alternate-exchange")
        if not view.router.bindings_of(name) and alternate is None:
            yield finding(
                path,
                "swallows",
                "nothing is bound to it and it has no alternate exchange: whatever is published"
                " to it is lost, or returned to publishers that ask",
                at_key=True,
            )
            continue
        reached = _reached(view, there)
        if reached is not None and not reached:
            text = "no binding and no alternate exchange of it leads to a queue"
            yield finding(path, "swallows", text, at_key=True)
        if alternate is not None:
            end = view.router.exchange(str(alternate))
            taken = None if end is None else _reached(view, end)
            if taken:
                yield finding(
                    (*path, "alternate_exchange"),
                    "alternate-hides-unroutable",
                    f"what no binding takes lands in queue {sorted(taken)[0]!r}: publishers are"
                    " told that it was routed, and never that it was unroutable",
                    at_key=True,
                )


def _reached(view: View, start: Object) -> set[str] | None:
    """Return the queues that an exchange can lead to; None where a plugin's type decides."""
    queues: set[str] = set()
    waiting, seen = [start], {start.identity}
    while waiting:
        there = waiting.pop()
        name = there.identity.name[0]
        if there.attributes["type"] not in KNOWN_TYPES:
            return None
        ends = [(kind, end) for kind, end, _, _ in view.router.bindings_of(name)]
        alternate = value_of(view.router.settings(there), "alternate-exchange")
        if alternate is not None:
            ends.append(("exchange", str(alternate)))
        for kind, end in ends:
            if kind == "queue":
                queues.add(end)
            elif (found := view.router.exchange(end)) is not None and found.identity not in seen:
                seen.add(found.identity)
                waiting.append(found)
    return queues
