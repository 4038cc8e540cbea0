"""From a file to a topology; every error with its file, line and column."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from broker.errors import TopologyError, did_you_mean
from broker.topology.files import read_files
from broker.topology.lint import Finding, check
from broker.topology.model import Topology
from broker.topology.references import resolve_structure
from broker.topology.source import DataPath, Position, Source
from broker.topology.strict import plain_types

_SHOWN_AT_MOST = 20
_SINGULAR = {
    "exchanges": "exchange",
    "queues": "queue",
    "policies": "policy",
    "operator_policies": "operator policy",
    "users": "user",
    "shovels": "shovel",
    "jobs": "job",
    "workers": "worker",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding at its place; as text ``file:line:column: level rule: text``."""

    position: Position
    level: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.position}: {self.level} {self.rule}: {self.text}"


def load(path: str | Path, *, overlay: Iterable[str | Path] = ()) -> Topology:
    """Read a topology file, what it includes, and overlays over it; see `read_files`.

    Raises:
        TopologyError: with the place of the first error, and the other errors in its text.
    """
    topology, problems = read(path, overlay=overlay)
    errors = [problem for problem in problems if problem.level == "error"]
    if topology is None or errors:
        raise _joined(errors)
    return topology


def read(
    path: str | Path, *, overlay: Iterable[str | Path] = ()
) -> tuple[Topology | None, list[Problem]]:
    """Read a topology file and return what it says and all that is wrong with it.

    Returns:
        The topology, or None where the file cannot be made one; the problems by their place.

    Raises:
        TopologyError: a file cannot be read, or is not YAML.
    """
    data, source = read_files(path, overlays=overlay)
    data, unresolved = resolve_structure(data, source)
    if unresolved:
        return None, _sorted((_unresolved(error) for error in unresolved), source)
    try:
        topology = Topology.model_validate(data).placed(source)
    except ValidationError as exc:
        found = [_problem(error, source) for error in exc.errors(include_url=False)]
        return None, _sorted(found, source)
    return topology, _sorted((_place(finding, source) for finding in check(topology)), source)


# -- pydantic's errors in our words ---------------------------------------------------


def _problem(error: ErrorDetails, source: Source) -> Problem:
    path = tuple(error["loc"])
    kind = error["type"]
    at_key = path[-1:] == ("[key]",)
    if at_key:
        path = path[:-1]
    path, at_key = _in_file(path, source), at_key or kind == "extra_forbidden"
    position = source.key(path) if at_key or kind == "missing" else source.value(path)
    rule, text = _words(error, path)
    return Problem(position, "error", "name" if rule == "value" and at_key else rule, text)


def _in_file(path: DataPath, source: Source) -> DataPath:
    """Leave out what pydantic adds to a path: names of the branches of a union."""
    kept: list[str | int] = []
    for part in path:
        kept.append(part)
        is_branch = (*kept,) not in source.keys and part is not path[-1]
        if is_branch:
            kept.pop()
    return tuple(kept)


def _words(error: ErrorDetails, path: DataPath) -> tuple[str, str]:
    kind, key, given = error["type"], path[-1] if path else "", error["input"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(path[:-1])
        hint = did_you_mean(str(key), known) or f"; known are {', '.join(sorted(known))}"
        return "unknown-key", f"unknown key {str(key)!r}{hint}"
    if kind == "missing":
        return "missing-key", f"{_dotted(path[:-1])} needs the key {str(key)!r}"
    if kind == "value_error":
        return "value", f"{_named(path)}{context['error']}"
    if kind == "literal_error":
        nearest = did_you_mean(str(given), re.findall(r"'([^']*)'", str(context["expected"])))
        return "value", f"{_named(path)}it is {given!r}, not {context['expected']}{nearest}"
    if kind in ("dict_type", "model_type"):
        return "type", f"{_named(path)}a mapping is expected, this is a {_kind(given)}"
    if kind == "list_type":
        return "type", f"{_named(path)}a list is expected, this is a {_kind(given)}"
    if kind in ("string_type", "int_type", "bool_type", "time_delta_type", "int_from_float"):
        wanted = {
            "string_type": "text",
            "bool_type": "true or false",
            "time_delta_type": "a duration such as 30s",
        }.get(kind, "a whole number")
        return "type", f"{_named(path)}{wanted} is expected, this is a {_kind(given)}"
    words = error["msg"]
    return "value", f"{_named(path)}{words[:1].lower()}{words[1:]}"


def _named(path: DataPath) -> str:
    return f"{_dotted(path)}: " if path else ""


def _dotted(path: DataPath) -> str:
    if not path:
        return "the file"
    # A name may have dots of its own: `queues 'jobs.high' retry.delay` stays readable.
    head, *rest = path
    if (singular := _SINGULAR.get(str(head))) and rest:
        name, *rest = rest
        tail = ".".join(str(part) for part in rest)
        return f"{singular} {str(name)!r}" + (f" {tail}" if tail else "")
    return ".".join(str(part) for part in path)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "mapping", list: "list", str: "text", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _keys_at(path: DataPath) -> list[str]:
    """Return the keys that the model knows at a path of the file."""
    models: list[Any] = [Topology]
    for part in path:
        following: list[Any] = []
        for candidate in models:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(part))
                following += plain_types(field.annotation) if field else []
            elif get_origin(candidate) is dict:
                following += plain_types(get_args(candidate)[1])
            elif get_origin(candidate) is list:
                following += plain_types(get_args(candidate)[0])
        models = following
    return [
        name
        for candidate in models
        if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        for name in candidate.model_fields
    ]


# -- putting together -----------------------------------------------------------------


def _unresolved(error: TopologyError) -> Problem:
    position = Position(error.file or "", error.line, error.column)
    return Problem(position, "error", "reference", error.text)


def _place(finding: Finding, source: Source) -> Problem:
    position = source.key(finding.path) if finding.at_key else source.value(finding.path)
    return Problem(position, finding.level, finding.rule, finding.text)


def _sorted(problems: Iterable[Problem], source: Source) -> list[Problem]:
    def order(problem: Problem) -> tuple[bool, str, int, int, str]:
        place = problem.position
        # What stands in the file itself comes before what it includes.
        other = place.file != source.file
        return other, place.file, place.line or 0, place.column or 0, problem.text

    # `<<: *band` puts one place into several queues: it is said once.
    return sorted(dict.fromkeys(problems), key=order)


def _joined(errors: list[Problem]) -> TopologyError:
    first, *others = errors
    lines = [first.text]
    lines += [f"{other.position}: {other.text}" for other in others[: _SHOWN_AT_MOST - 1]]
    if len(errors) > _SHOWN_AT_MOST:
        lines.append(f"and {len(errors) - _SHOWN_AT_MOST} more")
    return first.position.error("\n".join(lines))
