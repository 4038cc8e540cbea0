"""Plain data as the YAML of a topology file: always the same text for the same data; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

# What is short and holds nothing deeper stands on one line: {delay: 1s, limit: 5}
_SHORT_CHARACTERS = 72
_DEEP_ENOUGH = 3
_PLAIN = re.compile(r"[A-Za-z0-9_/]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?")


def to_yaml(document: Mapping[str, Any], *, head: str = "") -> str:
    """Return data as YAML 1.2 text that reads back to the same data.

    Args:
        document: mappings with text keys, lists, and what JSON knows.
        head: comments that stand above, without their ``#``.
    """
    yaml = YAML(typ="rt", pure=True)
    # A line that is folded would read back the same, but a name is found by searching for it.
    yaml.width = 1_000_000
    yaml.allow_unicode = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    for line in head.splitlines():
        out.write(f"# {line}\n")
    first = True
    for key, value in document.items():
        if isinstance(value, Mapping) and not first:
            out.write("\n")
        first = False
        yaml.dump({_styled(key, 0): _styled(value, 1)}, out)
    return out.getvalue()


def _styled(value: Any, depth: int, *, flow: bool = False) -> Any:
    if isinstance(value, Mapping):
        flow = flow or (depth >= _DEEP_ENOUGH and _short(value))
        mapping = CommentedMap(
            (_styled(key, depth, flow=flow), _styled(inner, depth + 1, flow=flow))
            for key, inner in value.items()
        )
        if flow:
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        flow = flow or _short(value)
        items = CommentedSeq(_styled(inner, depth + 1, flow=flow) for inner in value)
        if flow:
            items.fa.set_flow_style()
        return items
    if isinstance(value, str) and _needs_quotes(value, flow=flow):
        return DoubleQuotedScalarString(value)
    return value


def _needs_quotes(text: str, *, flow: bool) -> bool:
    """Say where the library's own judgement of what can stand without quotes is not enough."""
    # It writes some line ends of Unicode as they stand, and colons and such inside braces.
    return not text.isprintable() or (flow and _PLAIN.fullmatch(text) is None)


def _short(value: Any) -> bool:
    """Say whether a value stands on a line: without anything nested in it."""
    inner = value.values() if isinstance(value, Mapping) else value
    nested = any(isinstance(each, Mapping | list | tuple) for each in inner)
    return not nested and len(str(value)) <= _SHORT_CHARACTERS
