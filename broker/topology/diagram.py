"""A topology as a drawing: in Mermaid's words or in Graphviz's; pure, and always the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from broker.delays import due_name
from broker.topology.cancellations import cancellations_of, is_cancellations
from broker.topology.effective import Policies, settings_of, value_of
from broker.topology.ladder import belongs_to, ladder_of, retry_ladder
from broker.topology.model import Topology
from broker.topology.objects import BINDING, EXCHANGE, QUEUE, Identity, Object, Objects
from broker.topology.token import is_token, token_of
from broker.units import format_duration

Shape = Literal["exchange", "queue", "job", "worker"]
Line = Literal["plain", "dashed"]

# The colours of the plan, as on a terminal; readable on white and on black.
COLOURS: Mapping[str, str] = {
    "create": "#2e9e4f",
    "update": "#c79100",
    "replace": "#b04fc4",
    "delete": "#d64545",
}
_MERMAID_SHAPES = {
    "exchange": '{{"%s"}}',
    "queue": '[("%s")]',
    "job": '>"%s"]',
    "worker": '["%s"]',
}
_DOT_SHAPES = {"exchange": "hexagon", "queue": "cylinder", "job": "cds", "worker": "component"}


@dataclass(frozen=True, slots=True)
class Node:
    """Something that is drawn."""

    shape: Shape
    name: str
    detail: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A way that messages go."""

    source: tuple[Shape, str]
    target: tuple[Shape, str]
    label: str = ""
    line: Line = "plain"
    action: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn, in a steady order."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def drawing(
    topology: Topology | None,
    objects: Objects,
    actions: Mapping[Identity, str] | None = None,
    gone: Objects | None = None,
) -> Drawing:
    """Return what a topology looks like.

    Args:
        topology: whose jobs and workers are drawn; None draws neither.
        objects: its exchanges, queues, bindings and policies.
        actions: what the plan does with each object that changes.
        gone: objects that the plan deletes and that `objects` does not have.
    """
    actions = actions or {}
    ladder = ladder_of(topology) if topology else None
    if topology and ladder is None and Identity(EXCHANGE, (due_name(topology.name),)) in objects:
        ladder = retry_ladder(topology)
    token = token_of(topology) if topology else None
    cancelled = cancellations_of(topology) if topology else None
    shown = {
        identity: each
        for identity, each in {**objects, **(gone or {})}.items()
        # Drawn as one: the rungs would hide everything else.
        if not (ladder and belongs_to(ladder.owner, identity))
        # Between schedulers, and from callers to workers: no job passes.
        and not (token and is_token(token, identity))
        and not (cancelled and is_cancellations(cancelled, identity))
    }
    policies = Policies(objects)
    nodes: dict[tuple[Shape, str], Node] = {}
    edges: list[Edge] = []
    for identity, there in sorted(shown.items()):
        action = actions.get(identity, "")
        if identity.kind in (EXCHANGE, QUEUE):
            shape: Shape = "exchange" if identity.kind == EXCHANGE else "queue"
            name = identity.name[0]
            nodes[(shape, name)] = Node(shape, name, str(there.attributes["type"]), action)
            edges += _beyond(there, shape, policies)
        elif identity.kind == BINDING:
            edges.append(_binding(identity, action))
    for job, spec in sorted((topology.jobs if topology else {}).items()):
        nodes[("job", job)] = Node("job", job)
        edges.append(Edge(("job", job), ("exchange", spec.exchange), spec.routing_key))
    for worker, works in sorted((topology.workers if topology else {}).items()):
        nodes[("worker", worker)] = Node("worker", worker, f"{works.pool} {works.concurrency}")
        edges += [Edge(("queue", queue), ("worker", worker)) for queue in works.queues]
    if ladder is not None:
        name = due_name(ladder.owner)
        action = next((a for i, a in actions.items() if belongs_to(ladder.owner, i)), "")
        longest = format_duration(ladder.longest)
        nodes[("exchange", name)] = Node("exchange", name, f"delays up to {longest}", action)
        edges += [
            Edge(("exchange", name), ("queue", queue), "", "dashed", action)
            for queue in sorted(ladder.queues)
        ]
    # RabbitMQ's own exchanges, and ends that do not exist, are drawn where something leads there.
    for edge in edges:
        for end in (edge.source, edge.target):
            nodes.setdefault(end, Node(*end))
    order = ("job", "exchange", "queue", "worker")
    ranked = sorted(nodes.values(), key=lambda node: (order.index(node.shape), node.name))
    return Drawing(tuple(ranked), tuple(edges))


def _beyond(there: Object, shape: Shape, policies: Policies) -> Iterator[Edge]:
    """Yield where messages go that an exchange cannot route or a queue lets go."""
    settings, start = settings_of(there, policies), (shape, there.identity.name[0])
    if shape == "exchange":
        alternate = value_of(settings, "alternate-exchange")
        if alternate is not None:
            yield Edge(start, ("exchange", str(alternate)), "alternate", "dashed")
        return
    exchange = value_of(settings, "dead-letter-exchange")
    if exchange is None:
        return
    key = value_of(settings, "dead-letter-routing-key")
    if exchange == "":
        yield Edge(start, ("queue", str(key)), "dead letter", "dashed")
    else:
        label = "dead letter" if key is None else f"dead letter, key {key}"
        yield Edge(start, ("exchange", str(exchange)), label, "dashed")


def _binding(identity: Identity, action: str) -> Edge:
    source, kind, destination, key, text = identity.name
    arguments = json.loads(text)
    parts = [key, *(f"{name}={value}" for name, value in sorted(arguments.items()))]
    label = ", ".join(part for part in parts if part)
    end: tuple[Shape, str] = ("queue" if kind == "queue" else "exchange", destination)
    return Edge(("exchange", source), end, label, action=action)


# -- Mermaid --------------------------------------------------------------------------


def mermaid(found: Drawing) -> str:
    """Return a drawing as a Mermaid flowchart; https://mermaid.js.org/syntax/flowchart.html."""
    ids = {(node.shape, node.name): f"n{index}" for index, node in enumerate(found.nodes)}
    lines = ["flowchart LR"]
    for node in found.nodes:
        text = _mermaid_text(node.name) + (f"<br><i>{node.detail}</i>" if node.detail else "")
        style = f":::{node.action}" if node.action else ""
        lines.append(f"  {ids[(node.shape, node.name)]}{_MERMAID_SHAPES[node.shape] % text}{style}")
    coloured: dict[str, list[int]] = {}
    for index, edge in enumerate(found.edges):
        arrow = "-.->" if edge.line == "dashed" else "-->"
        label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
        lines.append(f"  {ids[edge.source]} {arrow}{label} {ids[edge.target]}")
        if edge.action:
            coloured.setdefault(edge.action, []).append(index)
    used = {node.action for node in found.nodes}
    for action, colour in COLOURS.items():
        if action in used:
            lines.append(f"  classDef {action} stroke:{colour},color:{colour},stroke-width:3px")
        if action in coloured:
            which = ",".join(map(str, coloured[action]))
            lines.append(f"  linkStyle {which} stroke:{colour},color:{colour}")
    return "\n".join(lines) + "\n"


# What Markdown would take for a list or for emphasis.
_MARKDOWN = re.compile(r"^\s*-|(?<=\d)\.(?=\s)|(?<![^\W_])_|_(?![^\W_])")


def _mermaid_text(text: str) -> str:
    # As entities: names may hold every sign that Mermaid, Markdown or HTML would read.
    read = {found.end() - 1 for found in _MARKDOWN.finditer(text)}
    return "".join(
        each if (each.isalnum() or each in " .,-_:/=") and index not in read else f"#{ord(each)};"
        for index, each in enumerate(text)
    )


# -- Graphviz -------------------------------------------------------------------------


def dot(found: Drawing) -> str:
    """Return a drawing in Graphviz's language; https://graphviz.org/doc/info/lang.html."""
    ids = {(node.shape, node.name): f"n{index}" for index, node in enumerate(found.nodes)}
    lines = [
        "digraph topology {",
        "  rankdir=LR; bgcolor=white; nodesep=0.25; ranksep=0.9;",
        '  node [fontname="Helvetica", fontsize=11, margin="0.14,0.06"];',
        '  edge [fontname="Helvetica", fontsize=9, color="#555555", fontcolor="#555555"];',
    ]
    for node in found.nodes:
        text = node.name + (f"\n{node.detail}" if node.detail else "")
        lines.append(
            f"  {ids[(node.shape, node.name)]} [label={_quoted(text)},"
            f" shape={_DOT_SHAPES[node.shape]}{_room(node.shape)}{_coloured(node.action)}];"
        )
    for edge in found.edges:
        style = ", style=dashed" if edge.line == "dashed" else ""
        lines.append(
            f"  {ids[edge.source]} -> {ids[edge.target]}"
            f" [label={_quoted(edge.label)}{style}{_coloured(edge.action)}];"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _room(shape: Shape) -> str:
    # The lid of a cylinder takes some.
    return ", height=0.75" if shape == "queue" else ""


def _coloured(action: str) -> str:
    if not action:
        return ""
    colour = COLOURS[action]
    return f', color="{colour}", fontcolor="{colour}", penwidth=2'


def _quoted(text: str) -> str:
    # Entities are read in plain labels too.
    escaped = text.replace("&", "&amp;")
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
