"""From a file to a topology; every error with its file, line and column."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from broker.errors import TopologyError, did_you_mean
from broker.topology.lint import Finding, check
from broker.topology.model import Topology
from broker.topology.source import DataPath, Position, Source, read_yaml

_SHOWN_AT_MOST = 20
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_FILE = re.compile(r"\$\{file:(?P<path>[^}]+)\}")
_REFERENCE = re.compile(r"\$\{[^}]*\}?")


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding at its place; as text ``file:line:column: level rule: text``."""

    position: Position
    level: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.position}: {self.level} {self.rule}: {self.text}"


def load(path: str | Path) -> Topology:
    """Read a topology file.

    Raises:
        TopologyError: with the place of the first error, and the other errors in its text.
    """
    topology, problems = read(path)
    errors = [problem for problem in problems if problem.level == "error"]
    if topology is None or errors:
        raise _joined(errors)
    return topology


def read(path: str | Path) -> tuple[Topology | None, list[Problem]]:
    """Read a topology file and return what it says and all that is wrong with it.

    Returns:
        The topology, or None where the file cannot be made one; the problems by their place.

    Raises:
        TopologyError: the file cannot be read, or is not YAML.
    """
    data, source = read_yaml(path)
    if not isinstance(data, dict):
        what = "empty" if data is None else f"a {_kind(data)}"
        raise Position(source.file).error(
            f"the file is {what}, not a mapping; it begins with `version: 1` and `name: …`"
        )
    try:
        topology = Topology.model_validate(data).placed(source)
    except ValidationError as exc:
        found = [_problem(error, source) for error in exc.errors(include_url=False)]
        return None, _sorted(found)
    found = [_place(finding, source) for finding in check(topology)]
    return topology, _sorted([*found, *_unresolved(data, (), source)])


def resolve(text: str, *, environ: Mapping[str, str] = os.environ, position: Position) -> str:
    """Put variables and files in the place of ``${VAR}``, ``${VAR:-default}``, ``${file:PATH}``.

    Called only where a value is needed, so that a command needs no secret but its own.

    Args:
        text: a value of the file.
        environ: the process's environment.
        position: where the value stands; paths are relative to that file's folder.

    Raises:
        TopologyError: a variable is not set, or a file cannot be read.
    """

    def replaced(match: re.Match[str]) -> str:
        whole = match.group()
        if variable := _VARIABLE.fullmatch(whole):
            value = environ.get(variable["name"]) or variable["default"]
            if value is None:
                raise position.error(
                    f"the environment variable {variable['name']} is not set; set it, or write"
                    f" a default: ${{{variable['name']}:-…}}"
                )
            return value
        if file := _FILE.fullmatch(whole):
            path = Path(position.file).parent / file["path"]
            try:
                return path.read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as exc:
                why = getattr(exc, "strerror", None) or "it is not UTF-8"
                raise position.error(f"the file {file['path']} cannot be read: {why}") from None
        raise position.error(f"{whole} is not ${{VAR}}, ${{VAR:-default}} or ${{file:PATH}}")

    return _REFERENCE.sub(replaced, text)


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
    if head in ("exchanges", "queues", "jobs", "workers") and rest:
        name, *rest = rest
        singular = str(head).removesuffix("s")
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
                following += _plain(field.annotation) if field else []
            elif get_origin(candidate) is dict:
                following += _plain(get_args(candidate)[1])
            elif get_origin(candidate) is list:
                following += _plain(get_args(candidate)[0])
        models = following
    return [
        name
        for candidate in models
        if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        for name in candidate.model_fields
    ]


def _plain(annotation: Any) -> list[Any]:
    """Return the types behind Annotated and unions."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in _plain(part)]
    return [annotation]


# -- putting together -----------------------------------------------------------------


def _unresolved(value: Any, path: DataPath, source: Source) -> Iterator[Problem]:
    """Yield references that stand where none is resolved: they must not pass for plain text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _unresolved(inner, (*path, key), source)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unresolved(inner, (*path, index), source)
    # What stands under `jobs` are schemas: data of other people.
    elif path[:1] != ("jobs",) and path != ("broker", "url") and _refers(value):
        text = f"{value!r}: ${{...}} is resolved in broker.url only, by this version"
        yield Problem(source.value(path), "error", "reference", text)


def _refers(value: Any) -> bool:
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def _place(finding: Finding, source: Source) -> Problem:
    position = source.key(finding.path) if finding.at_key else source.value(finding.path)
    return Problem(position, finding.level, finding.rule, finding.text)


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda p: (p.position.line or 0, p.position.column or 0, p.text))


def _joined(errors: list[Problem]) -> TopologyError:
    first, *others = errors
    lines = [first.text]
    lines += [f"{other.position}: {other.text}" for other in others[: _SHOWN_AT_MOST - 1]]
    if len(errors) > _SHOWN_AT_MOST:
        lines.append(f"and {len(errors) - _SHOWN_AT_MOST} more")
    return first.position.error("\n".join(lines))
