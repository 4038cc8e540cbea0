"""``${VAR}``, ``${VAR:-default}`` and ``${file:PATH}`` in the values of a topology file.

What the structure is made of (names, types, settings) is resolved when the file is read, since
everybody needs it. What may be secret (users, shovels, federation, parameters, the URLs of RabbitMQ
and of the results) is resolved only when somebody needs that value: a worker needs nobody's
password but its own.
``$${`` is ``${`` as it stands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.errors import TopologyError
from broker.topology.source import DataPath, Position, Source
from broker.topology.strict import Resolved

LAZY = frozenset({"users", "shovels", "federation", "parameters", "global_parameters"})
# So are these two in sections that are not secret otherwise.
_URLS = {("broker", "url"), ("results", "backend")}

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_FILE = re.compile(r"\$\{file:(?P<path>[^}]+)\}")
_REFERENCE = re.compile(r"\$\$\{|\$\{[^}]*\}?")
_ESCAPED = "$${"


def refers(value: Any) -> bool:
    """Return whether a value, or anything in it, holds a reference."""
    if isinstance(value, str):
        return any(match.group() != _ESCAPED for match in _REFERENCE.finditer(value))
    if isinstance(value, Mapping):
        return any(refers(inner) for inner in value.values())
    return isinstance(value, list | tuple) and any(refers(inner) for inner in value)


def references_in(value: Any) -> Iterator[str]:
    """Yield the references in a value and in all that is in it, as they stand."""
    if isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            if match.group() != _ESCAPED:
                # What it falls back to may be a secret itself.
                yield re.sub(r":-.*", ":-…}", match.group(), flags=re.DOTALL)
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from references_in(inner)


def resolve(text: str, *, environ: Mapping[str, str] = os.environ, position: Position) -> str:
    """Put variables and files in the place of references.

    Args:
        text: a value of the file.
        environ: the process's environment.
        position: where the value stands; paths are relative to that file's folder.

    Raises:
        TopologyError: a variable is not set, or a file cannot be read.
    """

    def replaced(match: re.Match[str]) -> str:
        whole = match.group()
        if whole == _ESCAPED:
            return "${"
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
            except (OSError, UnicodeDecodeError, ValueError) as exc:
                why = getattr(exc, "strerror", None) or "it is not UTF-8"
                raise position.error(f"the file {file['path']} cannot be read: {why}") from None
        raise position.error(
            f"{whole} is not ${{VAR}}, ${{VAR:-default}} or ${{file:PATH}}; write $${{ for ${{"
        )

    return _REFERENCE.sub(replaced, text)


def resolve_structure(
    data: Any, source: Source, *, environ: Mapping[str, str] = os.environ
) -> tuple[Any, list[TopologyError]]:
    """Resolve what a file says outside the sections that are resolved when needed.

    Returns:
        The data, and what could not be resolved (it stands as it stood).
    """
    errors: list[TopologyError] = []

    def walk(value: Any, path: DataPath) -> Any:
        if path[:1] and path[0] in LAZY:
            return value
        # A job's arguments are schemas: data of other people.
        if path in _URLS or (path[:1] == ("jobs",) and path[2:] == ("arguments",)):
            return value
        if isinstance(value, dict):
            return {key: walk(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, (*path, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            text = resolve(value, environ=environ, position=source.value(path))
        except TopologyError as exc:
            errors.append(exc)
            return value
        whole = _REFERENCE.fullmatch(value) and value != _ESCAPED
        return Resolved(text) if whole else text

    return walk(data, ()), errors


@dataclass(frozen=True, slots=True)
class References:
    """Resolves what is needed of one topology.

    Attributes:
        source: where its values stand, or None where there is no file.
        environ: the process's environment; None leaves references as they stand.
    """

    source: Source | None
    environ: Mapping[str, str] | None = field(repr=False)

    def attribute(self, name: str, value: Any, path: DataPath) -> tuple[Any, frozenset[str]]:
        """Resolve the value of an object's attribute.

        Args:
            name: of the attribute.
            value: as the file says it.
            path: where it stands; keys with hyphens stand there with underscores.

        Returns:
            The value, and which attributes (as in `broker.topology.objects.flat`) came from
            references.

        Raises:
            TopologyError: a variable is not set, or a file cannot be read.
        """
        if not refers(value):
            return self.resolved(value, path), frozenset()
        if isinstance(value, Mapping):
            secrets = frozenset(f"{name}.{key}" for key, inner in value.items() if refers(inner))
        else:
            secrets = frozenset({name})
        return self.resolved(value, path), secrets

    def resolved(self, value: Any, path: DataPath) -> Any:
        """Resolve a value; see `attribute`."""
        if self.environ is None:
            return value
        if isinstance(value, str):
            if "${" not in value:
                return value
            position = self.source.value(path) if self.source else Position("topology")
            return resolve(value, environ=self.environ, position=position)
        if isinstance(value, Mapping):
            return {
                key: self.resolved(inner, (*path, str(key).replace("-", "_")))
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.resolved(inner, (*path, index)) for index, inner in enumerate(value)]
        return value
