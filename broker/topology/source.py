"""A YAML file as plain data, with the place of every key and value."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from broker.errors import TopologyError

# Where something stands in the data: keys and indices from the root.
DataPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
# Aliases multiply: ten lines of YAML can name a billion values.
_NODE_LIMIT = 500_000


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1 and are None for the file as a whole."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(
            str(part) for part in (self.file, self.line, self.column) if part is not None
        )

    def error(self, text: str) -> TopologyError:
        """Return an error at this place."""
        return TopologyError(text, file=self.file, line=self.line, column=self.column)


@dataclass(frozen=True, slots=True)
class Source:
    """Where keys and values stand.

    Attributes:
        file: the path as it was given; of several files the one that includes the others.
        keys: the place of each key of a mapping and each item of a list.
        values: the place of each value.
    """

    file: str
    keys: dict[DataPath, Position] = field(default_factory=dict)
    values: dict[DataPath, Position] = field(default_factory=dict)

    def key(self, path: DataPath) -> Position:
        """Return the place of a key, or of the nearest thing around it that is in the file."""
        return self._nearest(self.keys, path)

    def value(self, path: DataPath) -> Position:
        """Return the place of a value, or of the nearest thing around it that is in the file."""
        if path in self.values:
            return self.values[path]
        return self._nearest(self.keys, path)

    def _nearest(self, places: dict[DataPath, Position], path: DataPath) -> Position:
        for length in range(len(path), 0, -1):
            if path[:length] in places:
                return places[path[:length]]
        return Position(self.file)


def read_yaml(path: str | Path) -> tuple[Any, Source]:
    """Read a YAML 1.2 file.

    Args:
        path: the file.

    Returns:
        The data as dicts, lists and scalars, and where each stands.

    Raises:
        TopologyError: the file cannot be read, is not UTF-8, is not YAML, or has a key twice.
    """
    file = Position(str(path))
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise file.error(
            "there is no such file; name the topology file with --topology or RABBITRY_TOPOLOGY"
        ) from None
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        column = exc.start - exc.object.rfind(b"\n", 0, exc.start)
        raise Position(str(path), line, column).error(
            f"byte {exc.object[exc.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as exc:
        raise file.error(f"the file cannot be read: {exc.strerror}") from None
    return parse_yaml(text, file=str(path))


def parse_yaml(text: str, *, file: str) -> tuple[Any, Source]:
    """Read YAML 1.2 text; see `read_yaml`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = 100
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        words = " ".join(f"{exc.problem or exc.context or 'it cannot be read'}".split())
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        raise position.error(f"this is not YAML: {words}") from None
    except YAMLError as exc:
        # Characters that YAML does not allow come without a mark.
        offset = getattr(exc, "position", None)
        position = Position(file)
        if isinstance(offset, int):
            before = text[:offset]
            position = Position(file, before.count("\n") + 1, offset - before.rfind("\n"))
        raise position.error(
            "this is not YAML: it has a character that YAML does not allow"
        ) from None
    except RecursionError:
        raise Position(file).error("this is nested too deeply") from None
    reader = _Reader(Source(file), yaml.constructor)
    return (None if root is None else reader.read(root, ())), reader.source


class _Reader:
    """Walks the nodes of one file."""

    def __init__(self, source: Source, constructor: Any) -> None:
        self.source = source
        self.constructor = constructor
        self.count = 0
        self.open: set[int] = set()

    def read(self, node: Node, path: DataPath) -> Any:
        self.count += 1
        if self.count > _NODE_LIMIT:
            raise self.at(node).error("the file is too large, or its aliases multiply")
        self.source.values[path] = self.at(node)
        if isinstance(node, ScalarNode):
            return self.scalar(node)
        if id(node) in self.open:
            raise self.at(node).error("this alias contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self.mapping(node, path)
            if isinstance(node, SequenceNode):
                return self.sequence(node, path)
        finally:
            self.open.discard(id(node))
        raise self.at(node).error(f"the tag {node.tag} is not known here")

    def mapping(self, node: MappingNode, path: DataPath) -> dict[str, Any]:
        if str(node.tag) != f"{_TAG}map":
            raise self.at(node).error(f"the tag {node.tag} is not known here")
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        # Merges first: the places of what stands here itself then win, too.
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                self.merge(merged, value_node, path)
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                continue
            key = self.key(key_node)
            if key in found:
                first = self.source.key((*path, key))
                raise self.at(key_node).error(
                    f"{key!r} stands here a second time; the first is on line {first.line}"
                )
            self.source.keys[(*path, key)] = self.at(key_node)
            found[key] = self.read(value_node, (*path, key))
        return {**{key: value for key, value in merged.items() if key not in found}, **found}

    def merge(self, merged: dict[str, Any], node: Node, path: DataPath) -> None:
        """Take over the keys of a `<<`; what stands in the mapping itself wins."""
        if isinstance(node, SequenceNode):
            for item in node.value:
                self.merge(merged, item, path)
            return
        if not isinstance(node, MappingNode):
            raise self.at(node).error("only a mapping can be merged with <<")
        own = self.source.values[path]
        for key, value in self.read(node, path).items():
            merged.setdefault(key, value)
        self.source.values[path] = own

    def key(self, node: Node) -> str:
        if isinstance(node, ScalarNode):
            value = self.scalar(node)
            if isinstance(value, str):
                return value
            raise self.at(node).error(f"a key must be text; write it in quotes: '{node.value}'")
        raise self.at(node).error("a key must be text, not a list or a mapping")

    def sequence(self, node: SequenceNode, path: DataPath) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.source.keys[(*path, index)] = self.at(item)
            items.append(self.read(item, (*path, index)))
        return items

    def scalar(self, node: ScalarNode) -> Any:
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        # Dates are text here: nothing in the file is one.
        if kind in ("str", "timestamp"):
            return node.value
        if kind == "null":
            return None
        construct = {
            "bool": self.constructor.construct_yaml_bool,
            "int": self.constructor.construct_yaml_int,
            "float": self.constructor.construct_yaml_float,
        }.get(kind)
        if construct is None:
            raise self.at(node).error(f"the tag {tag} is not known here")
        try:
            value: Hashable = construct(node)
        except ValueError:
            raise self.at(node).error(f"{node.value!r} is not a number") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.at(node).error(f"{node.value!r} is not a number that RabbitMQ can take")
        return value

    def at(self, node: Node) -> Position:
        mark = node.start_mark
        return Position(self.source.file, mark.line + 1, mark.column + 1)
