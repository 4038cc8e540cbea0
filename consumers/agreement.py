"""Compares a task's signature with the `arguments:` of its job in the topology."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OF_VALUES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def differences(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    bound: bool = False,
    typed: bool = True,
) -> Iterator[str]:
    """Yield how a function and the arguments of its job differ, a clause each.

    Names, and which must be given, are compared; types where both sides state them in words that
    the other has.

    Args:
        function: of the task.
        arguments: a JSON Schema by argument; one without ``default`` is required.
        bound: whether the function's first parameter is the task.
        typed: whether the function's annotations are those of the arguments.
    """
    parameters = dict(list(inspect.signature(function).parameters.items())[1 if bound else 0 :])
    kinds = {parameter.kind for parameter in parameters.values()}
    named = {name: each for name, each in parameters.items() if each.kind in _BY_NAME}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in arguments:
            if name not in named:
                yield f"the file has the argument {name!r}, which the task does not take"
    hints = get_type_hints(function, include_extras=True) if typed else {}
    for name, parameter in named.items():
        required = parameter.default is parameter.empty
        if name not in arguments:
            if required:
                yield f"the task needs the argument {name!r}, which the file does not have"
            continue
        schema = arguments[name] or {}
        if required and "default" in schema:
            yield f"the task needs the argument {name!r}, which the file gives a default"
        problem = _type_problem(name, schema, hints.get(name))
        if problem:
            yield problem


def _type_problem(name: str, schema: Mapping[str, Any], annotation: Any) -> str | None:
    allowed, taken = _types(schema), _types_of(annotation)
    if not allowed or not taken:
        return None
    refused = {
        each
        for each in allowed
        if each not in taken and not (each == "integer" and "number" in taken)
    }
    if not refused:
        return None
    return (
        f"the argument {name!r} is of type {', '.join(sorted(allowed))} in the file,"
        f" and the task takes {', '.join(sorted(taken))}"
    )


def _types_of(annotation: Any) -> set[str]:
    """Return the types of JSON that an annotation takes; none where nobody can tell."""
    if annotation is None or annotation is Any:
        return set()
    origin = getattr(annotation, "__origin__", annotation)
    if origin is np.ndarray or getattr(origin, "__origin__", None) is np.ndarray:
        return {"array"}
    try:
        return _types(TypeAdapter(annotation).json_schema())
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return set()


def _types(schema: Mapping[str, Any]) -> set[str]:
    if "type" in schema:
        stated = schema["type"]
        return {stated} if isinstance(stated, str) else set(stated)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            each = [_types(one) for one in schema[key]]
            return set().union(*each) if all(each) else set()
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    found = {_OF_VALUES.get(type(value), "") for value in values}
    return found if found and "" not in found else set()
